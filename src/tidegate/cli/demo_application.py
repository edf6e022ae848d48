"""The demo's application, and an example of one: a page that shows the server's time and echoes what is typed.

A handler, an ordinary HTTP page on the same address, and a clock that runs as long as the worker.
`tidegate serve tidegate.cli.demo_application:app` is the same as `tidegate demo`.
What must not live here: the command (demo.py), and anything that another application could not do as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from tidegate import App, ConnectionClosed, Headers, Response, broadcast

if TYPE_CHECKING:
    from tidegate import Request, ServerConnection

clients: set[ServerConnection] = set()


async def handler(websocket: ServerConnection) -> None:
    """Greet with the time, then send every text back; the clock reaches the connection meanwhile."""
    clients.add(websocket)
    try:
        await websocket.send(time_message())
        async for message in websocket:
            await websocket.send(json.dumps({"echo": message}) if isinstance(message, str) else message)
    except ConnectionClosed:
        pass  # the browser left while an answer was under way
    finally:
        clients.discard(websocket)


def time_message() -> str:
    """Return the page's message: the time, and the worker that sent it."""
    return json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "worker": os.getpid()})


async def push_time() -> None:
    """Send the time to every client of this worker, at each full second."""
    while True:
        await asyncio.sleep(1 - datetime.now(UTC).microsecond / 1_000_000)
        broadcast(clients, time_message())


@contextlib.asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Run the clock from the worker's start to its end."""
    clock = asyncio.create_task(push_time())
    try:
        yield
    finally:
        clock.cancel()


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    """Answer an ordinary request with the page; None lets a WebSocket handshake go on."""
    if "Upgrade" in request.headers:
        return None
    if request.path != "/":
        return connection.respond(404, f"there is nothing at {request.path}\n")
    body = page()
    headers = Headers(
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": (
                "default-src 'none'; connect-src 'self'; img-src data:; "
                "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
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


app = App(handler, process_request=process_request, lifespan=lifespan)
