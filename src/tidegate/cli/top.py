"""``tidegate top``: show the admin page's numbers in a terminal; elsewhere as one table, or as JSON.

    endpoint    the URL of /live at an admin address
    messages    the messages of /live, across reconnections
    Screen      the terminal's alternate screen

What must not live here: the contents of messages (admin/live.py), their layout (dashboard.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from functools import partial
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import click
import msgspec

from ..admin.live import Live
from ..asyncio.client import connect
from ..config.schema import settings
from ..config.types import ADMIN, Kind
from ..exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from ..ipc.exit_status import DONE, FAILED, INTERRUPTED, NOT_RUNNING, TIMED_OUT
from . import CONTEXT, Command, note
from .connect import reason

if TYPE_CHECKING:
    from rich.console import Console

    from .dashboard import Dashboard

__all__ = ["Screen", "command", "endpoint", "messages"]

USUAL = "http://127.0.0.1:9465"
PATIENCE = 10.0  # seconds for the connection and the first message
SILENCE = 5.0  # seconds without a message: one is sent each second
PAUSE = 1.0  # seconds between attempts to reconnect
CLOSING = 1.0  # seconds for the closing handshake

SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_ADVICE = "name the address that its --admin has, with --admin or TIDEGATE_ADMIN"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)


def endpoint(given: str) -> str:
    """Return the URL of /live at an admin address: HOST:PORT as in the daemon's `--admin`, or the URL of its page.

    Raises:
        ValueError: it is neither; the text says what is wrong.
    """
    if "://" not in given:
        return f"ws://{ADMIN.read(given)}/live"
    parts = urlsplit(given)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the schemes are {', '.join(SCHEMES)}")
    if not parts.hostname:
        raise ValueError("the host is missing")
    return f"{SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}/live"


ADDRESS = Kind("HOST:PORT|URL", "HOST:PORT, [IPV6]:PORT, or a URL such as http://127.0.0.1:9465", endpoint)


async def messages(client: connect, lost: Callable[[Exception], object]) -> AsyncGenerator[bytes]:
    """Yield the messages of /live; after the first one, reconnect whenever the connection is lost.

    Parameters:
        client: for the URL of `endpoint`.
        lost: called with the reason each time that the connection is lost or an attempt to reconnect fails.

    Raises:
        OSError, WebSocketException: there was no first message, or the daemon refuses the connection now.
    """
    patience = PATIENCE
    while True:
        try:
            async with client as websocket:
                while True:
                    async with asyncio.timeout(patience):
                        message = await websocket.recv(decode=False)
                    patience = SILENCE
                    yield message
        except (OSError, WebSocketException) as exc:
            refused = isinstance(exc, InvalidHandshake) and client.process_exception(exc) is not None
            if refused or patience == PATIENCE:
                raise
            lost(exc)
        await asyncio.sleep(PAUSE)


def refusal(exc: Exception, address: str) -> tuple[int, str]:
    """Return the exit status and the text for an error of `messages`."""
    why = reason(exc)
    if isinstance(exc, TimeoutError):
        return TIMED_OUT, f"{address} has not answered in time"
    if isinstance(exc, OSError):
        # asyncio words errors of the system in its own way, but not those of names, whose numbers are below 0
        why = (os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror or why).lower()
        return NOT_RUNNING, f"no daemon answers at {address} ({why})"
    if isinstance(exc, InvalidStatus) and exc.response.status_code in (401, 403):
        return FAILED, f"{address} requires the daemon's --admin-token: give it in TIDEGATE_ADMIN_TOKEN ({why})"
    if isinstance(exc, InvalidHandshake):
        return FAILED, f"{address} is not an admin address of this version of tidegate: {why}"
    return FAILED, f"the connection to {address} was lost ({why})"


class Screen:
    """The terminal from the first message to the end: the alternate screen, and keys without echo.

    Parameters:
        console: rich's, of a terminal.
        address: the admin address, for messages.
    """

    def __init__(self, console: Console, address: str) -> None:
        self._console, self._address = console, address
        self._dashboard: Dashboard | None = None
        self._ours = ExitStack()
        self._draw: Callable[[], None] = lambda: None
        self.over = asyncio.Event()
        self.status = INTERRUPTED  # until there is something to see, that ends as it should

    def __enter__(self) -> Screen:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGWINCH, lambda: self._draw())
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def show(self, message: bytes) -> None:
        """Show a message."""
        live = msgspec.json.decode(message, type=Live)
        if self._dashboard is None:
            from .dashboard import DaemonState, Dashboard

            self._dashboard = Dashboard(DaemonState(live), fill=True)
            self.status = DONE
            self._take()
        else:
            self._dashboard.state.add(live)
        self._draw()

    def lost(self, exc: Exception) -> None:
        """Show that the connection is lost."""
        if self._dashboard is not None:
            self._dashboard.state.problem = refusal(exc, self._address)[1]
            self._draw()

    def _end(self, number: int) -> None:
        if number != signal.SIGINT:
            self.status = 128 + number
        self.over.set()

    def _pressed(self, key: str) -> None:
        if key in ("q", "Q"):
            self.over.set()
        elif self._dashboard is not None:
            self._dashboard.press(key)
            self._draw()

    def _take(self) -> None:
        from rich.live import Live as Display

        from .keyboard import Keyboard

        display = Display(
            self._dashboard,
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        if sys.stdin.isatty():
            self._ours.enter_context(Keyboard(sys.stdin.fileno(), self._pressed))
        self._ours.enter_context(display)
        self._draw = display.refresh

    def _give_back(self) -> None:
        self._draw = lambda: None
        self._ours.close()

    def _suspend(self) -> None:
        """Give the terminal back to the shell on Ctrl-Z, and take it again on SIGCONT."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        if self._dashboard is not None:
            self._take()
            self._draw()


async def _watch(client: connect, console: Console, address: str) -> int:
    """Show the dashboard until q or a signal; return the exit status."""
    with Screen(console, address) as screen:

        async def show() -> None:
            async with aclosing(messages(client, screen.lost)) as found:
                async for message in found:
                    screen.show(message)

        showing, ending = asyncio.create_task(show()), asyncio.create_task(screen.over.wait())
        await asyncio.wait([showing, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        showing.cancel()
        _, failure = await asyncio.gather(ending, showing, return_exceptions=True)
        if isinstance(failure, Exception):
            raise failure
        return screen.status


async def _first(client: connect) -> bytes:
    """Return the first message of a connection that has rates, which need two readings of the daemon."""
    while True:
        async with aclosing(messages(client, lambda _: None)) as found:
            message = await anext(found)
        if msgspec.json.decode(message, type=Live).interval > 0:
            return message
        await asyncio.sleep(PAUSE)


def _print(message: bytes) -> None:
    click.echo(message)


def _table(message: bytes, console: Console) -> None:
    from .dashboard import DaemonState, Dashboard

    console.print(Dashboard(DaemonState(msgspec.json.decode(message, type=Live)), fill=False))
    sys.stdout.flush()


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)  # for grep


async def _stream(client: connect, lost: Callable[[Exception], object]) -> NoReturn:
    """Print every message, until interrupted."""
    async with aclosing(messages(client, lost)) as found:
        async for message in found:
            _print(message)
    raise AssertionError("messages() has no end")


def _run(client: connect, address: str, note: Callable[[str], object], *, once: bool, json: bool) -> int:
    if json and not once:
        asyncio.run(_stream(client, lambda exc: note(refusal(exc, address)[1])))
    console = _console()
    if console.is_terminal and not console.is_dumb_terminal and not once and not json:
        return asyncio.run(_watch(client, console, address))
    message = asyncio.run(_first(client))
    if json:
        _print(message)
    else:
        _table(message, console)
    return DONE


def _given(ctx: click.Context, name: str) -> tuple[str, str]:
    """Return a setting's text and its name, from the command line, else from the environment."""
    setting = settings()[name]
    if (text := ctx.params[name]) is not None:
        return text, setting.flag
    return os.environ.get(setting.environment, ""), setting.environment


def _address(ctx: click.Context) -> tuple[str, str]:
    """Return the admin address as it was given, and the URL."""
    given, name = _given(ctx, "admin")
    if given.lower() == "none":
        raise click.UsageError(f"{name} is none: give the daemon's admin address, with --admin", ctx)
    return given or USUAL, ADDRESS.parse(given or USUAL, name)


def _headers(ctx: click.Context) -> dict[str, str]:
    """Return the header with the token, if there is one."""
    given, name = _given(ctx, "admin_token")
    token = settings()["admin_token"].read(given or "none", given_as=name)
    return {"Authorization": f"Bearer {token}"} if token is not None else {}


@click.command("top", cls=Command, context_settings=CONTEXT)
@click.option(
    "--admin",
    metavar=ADDRESS.metavar,
    help=f"The daemon's admin address, as in its own --admin.  [default: $TIDEGATE_ADMIN or {USUAL}]",
)
@click.option(
    "--admin-token",
    metavar="TOKEN",
    help="The daemon's token, as in its own --admin-token. Set it in the environment: other users can read command"
    " lines.  [default: $TIDEGATE_ADMIN_TOKEN]",
)
@click.option("--once", is_flag=True, help="Print one table and exit.")
@click.option("--json", is_flag=True, help="Print the messages of /live as JSON, one per line.")
@click.pass_context
def command(ctx: click.Context, /, once: bool, json: bool, **_: str | None) -> int:
    """Watch a daemon: workers, connections, messages, latencies and events, updated each second.

    Without a terminal, one table is printed. The arrow keys scroll the workers, and q quits. When the daemon ends, the
    display waits for it to come back.

    Exit status: 0 done; 1 failed; 2 a mistake on the command line; 5 no daemon is there; 6 the daemon has not answered
    in time; 130 interrupted.
    """
    (address, uri), headers = _address(ctx), _headers(ctx)
    try:
        client = connect(
            uri,
            additional_headers=headers,
            compression=None,
            proxy=None,  # the admin address is local
            open_timeout=PATIENCE,
            close_timeout=CLOSING,
            max_size=None,
            logger=logging.Logger("top", logging.CRITICAL + 1),  # errors are printed once, below
        )
    except (ValueError, TypeError, WebSocketException) as error:
        raise click.UsageError(str(error), ctx) from None
    try:
        return _run(client, address, partial(note, ctx), once=once, json=json)
    except (OSError, WebSocketException) as error:
        if isinstance(error, BrokenPipeError):  # the reader of the output is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        status, text = refusal(error, address)
        note(ctx, f"{text}: {_ADVICE}" if status == NOT_RUNNING else text)
        return status
    except UNREADABLE:
        note(ctx, f"{address} has another version of tidegate than this command: try --json")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
