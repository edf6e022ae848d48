"""The demo's application, and an example of one: a chat room and a counter that the clients of all workers share.

    chat:lobby                the room: who comes gets its last messages, who comes back those that were missed
    count:plus, count:minus   the counter: how many messages the one has had, less how many the other
    tab:...                   a channel of each page's own, in which it asks which worker it is connected to

`tidegate serve tidegate.cli.demo_application:app` is the same as `tidegate demo`, but for the control socket.
What must not live here: the command (demo.py), and anything that another application could not do as well.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tidegate import App, BusError, Channel, Headers, Identity, Response, channel_handler, javascript, members, publish

if TYPE_CHECKING:
    from tidegate import Request, ServerConnection

CHAT = "chat:lobby"
COUNTERS = ("count:plus", "count:minus")
TAB = "tab:"

NAME_LENGTH = 30
TEXT_LENGTH = 500

WEEK = 7 * 24 * 3600.0

# No variable of a worker has the counter's value: another worker would have another one, and the end of a worker would
# be its end. Nor is the value in a message: two workers that each add 1 to the last one would lose a click. A click is
# a message, and the engine numbers the messages of a channel, without holes: a channel's position *is* how often it was
# clicked. Two clicks at the same time are two messages; one that a page sends again, as its socket broke before the
# answer came, is stored once. Only the last message is kept, however many there are: who joins gets it, and with it the
# value. When the engine begins a new history, with a new daemon, the counter is 0 again for all pages, which are told.
# This works for what can be counted, on engines whose offsets have no holes: all but nats://. See "State" in
# deploy/guides/channels.md for what else there is.
CHANNELS = {
    "chat:": Channel(history=200, keep=WEEK, presence=True),
    "count:": Channel(history=1, keep=WEEK, recover="latest"),
    # A channel of a tab has no policy, hence no history: what is answered there is of this moment only.
}


def may_join(websocket: ServerConnection, channel: str, since: str | None) -> bool | Identity:
    """Let each client join the channels that there are, and channels of tabs: the chat by the name in its URL.

    An application that knows its users names them itself.
    """
    if channel == CHAT and websocket.request is not None:
        name = parse_qs(urlsplit(websocket.request.path).query).get("name", [""])[0].strip()[:NAME_LENGTH]
        if name and name.isprintable():
            return Identity(name)
    return channel in (CHAT, *COUNTERS) or channel.startswith(TAB)


async def may_publish(websocket: ServerConnection, channel: str, data: Any) -> dict[str, Any] | bool:
    """Return what is published instead of what a client sends, which may be anything; False denies."""
    if channel == CHAT:
        return said(data)
    if channel in COUNTERS:
        return {"worker": os.getpid()}
    if channel.startswith(TAB):
        with contextlib.suppress(BusError):  # else the page asks again
            return {"worker": os.getpid(), "here": await members(CHAT), "commands": commands()}
    return False


def commands() -> dict[str, str]:
    """Return what a visitor with a shell on this machine may try, by what it does."""
    supervisor = os.getppid()
    found = {
        "kill-worker": f"kill -9 {os.getpid()}",
        "kill-hub": f'pkill -9 -P {supervisor} -f "tidegate: hub"',
        "reload": f"kill -HUP {supervisor}",
    }
    control = os.environ.get("TIDEGATE_CONTROL")
    if control is not None:
        beside = str(Path(sys.executable).with_name("tidegate"))
        program = "tidegate" if shutil.which("tidegate") == beside else beside
        found["reload"] = shlex.join((program, "reload", "--control", control))
        found["publish"] = shlex.join((program, "publish", "--control", control, CHAT, "hello from a shell"))
    return found


def said(data: Any) -> dict[str, Any] | bool:
    """Return a message of the chat; False for what is none."""
    if not isinstance(data, dict):
        return False
    name, text = (data.get(key) for key in ("name", "text"))
    if not (isinstance(name, str) and isinstance(text, str) and name.strip() and text.strip()):
        return False
    return line(text.strip()[:TEXT_LENGTH], name.strip()[:NAME_LENGTH])


def line(text: str, name: str | None = None) -> dict[str, Any]:
    """Return a line of the chat: of a client with that name, or of this worker."""
    return {"name": name, "text": text, "worker": os.getpid(), "time": time.time()}


@contextlib.asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Say in the chat that this worker starts, and that it ends."""
    await announce("starts")
    yield
    await announce("has ended")


async def announce(what: str) -> None:
    """Say in the chat what this worker does. It does it all the same if that cannot be said."""
    with contextlib.suppress(BusError):
        await publish(CHAT, line(f"worker {os.getpid()} {what}"), wait=1.0)


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    """Answer an ordinary request with the page or its script; None lets a WebSocket handshake go on."""
    if "Upgrade" in request.headers:
        return None
    if request.path == "/tidegate.js":
        return javascript()
    if request.path != "/":
        return connection.respond(404, f"there is nothing at {request.path}\n")
    body = page()
    headers = Headers(
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": (
                "default-src 'none'; connect-src 'self'; img-src data:; "
                "style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
            ),
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    return Response(200, "OK", headers, body)


@cache
def page() -> bytes:
    """Return the page's HTML, from the file beside this one."""
    return files("tidegate.cli").joinpath("demo.html").read_bytes()


handler = channel_handler(may_join=may_join, may_publish=may_publish)

app = App(
    handler,
    select_subprotocol=handler.select_subprotocol,
    process_request=process_request,
    lifespan=lifespan,
    channels=CHANNELS,
)
