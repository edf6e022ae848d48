"""``tidegate connect URI``, and ``python -m tidegate URI``: send typed lines, print messages.

On a terminal lines are edited with prompt_toolkit, and messages are printed above the line being typed. When input or
output is a pipe or a file, lines are read and written as they are, for use in scripts: messages go to standard output
and notes to standard error.

What must not live here: the client (asyncio/client.py), the daemon.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import click

from ..asyncio.client import ClientConnection, connect
from ..config.types import SECONDS
from ..exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus, WebSocketException
from ..frames import Opcode
from ..ipc.exit_status import DONE, FAILED, INTERRUPTED
from ..text import escape_controls
from ..typing import Data
from . import CONTEXT, Command, Value

__all__ = ["command", "header", "reason", "unverified"]

WAIT = 1.0  # seconds: long for a server's answer, short for a person
WAITS = SECONDS.or_else("none", math.inf)
PIECE = 65536  # bytes read from a pipe at once
BODY = 200  # characters shown of a response that refuses the connection


class Output:
    """Where messages and notes are printed; while an editor runs, it takes the place of both streams."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def message(self, message: Data) -> None:
        """Print a message, binary ones in hexadecimal.

        Raises:
            BrokenPipeError: the reader of standard output is gone.
        """
        text = message if isinstance(message, str) else message.hex(" ")
        print(f"< {escape_controls(text)}" if self.terminal else text, flush=True)

    def note(self, text: str) -> None:
        """Print a note to standard error."""
        print(f"* {escape_controls(text)}", file=sys.stderr, flush=True)


class ShownConnection(ClientConnection):
    """A connection that prints the pings it receives."""

    def __init__(self, *args: Any, output: Output, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._output = output

    def _control_received(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            text = payload.decode("ascii") if payload.isascii() else payload.hex(" ")
            self._output.note(f"ping {text}".rstrip())
        super()._control_received(opcode, payload)


async def _edited() -> AsyncIterator[str]:
    """Yield the lines typed at a terminal, until Ctrl-D or Ctrl-C."""
    from prompt_toolkit import PromptSession  # slow to import, and needed for typing only
    from prompt_toolkit.patch_stdout import patch_stdout

    session: PromptSession[str] = PromptSession("> ")
    with patch_stdout():
        while True:
            try:
                yield await session.prompt_async()
            except (EOFError, KeyboardInterrupt):
                return


async def _read(descriptor: int) -> AsyncIterator[str]:
    """Yield the lines of a pipe, a file, or a terminal without editor.

    Raises:
        ValueError: a line is not UTF-8.
    """
    rest = b""
    while True:
        await _readable(descriptor)
        piece = os.read(descriptor, PIECE)
        *lines, rest = (rest + piece).split(b"\n")
        if not piece and rest:
            lines = [rest]  # the last one has no end
        for line in lines:
            yield line.decode()
        if not piece:
            return


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # a file, which is always readable
        await asyncio.sleep(0)
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def _send(websocket: ClientConnection, lines: AsyncIterator[str]) -> None:
    async for line in lines:
        await websocket.send(line)


async def _show(websocket: ClientConnection, output: Output) -> ConnectionClosed:
    """Print all messages; return how the connection ended."""
    while True:
        try:
            message = await websocket.recv()
        except ConnectionClosed as end:
            return end
        output.message(message)


async def _talk(websocket: ClientConnection, output: Output, wait: float) -> int:
    """Send lines and print messages until either side ends; return the exit status."""
    editing = output.terminal and sys.stdin.isatty()
    lines = _edited() if editing else _read(sys.stdin.fileno())
    status = DONE
    showing = asyncio.create_task(_show(websocket, output))
    sending = asyncio.create_task(_send(websocket, lines))
    try:
        await asyncio.wait([showing, sending], return_when=asyncio.FIRST_COMPLETED)
        if not editing and not showing.done() and sending.exception() is None:
            await _quiet(websocket, showing, wait)
    except asyncio.CancelledError:  # Ctrl-C, without an editor that would have taken it
        status = INTERRUPTED
    sending.cancel()
    # Before the last notes: the editor must have restored the terminal.
    (mistake,) = await asyncio.gather(sending, return_exceptions=True)
    if isinstance(mistake, ValueError):
        output.note(f"a line of the input is not UTF-8: {mistake}")
        status = FAILED
    await websocket.close()
    try:
        end = await showing
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        return status
    output.note(f"connection closed: {end}")
    return status if isinstance(end, ConnectionClosedOK) else FAILED


async def _quiet(websocket: ClientConnection, showing: asyncio.Task[Any], wait: float) -> None:
    """Wait until no message was sent or received for a while, or the connection is closed."""
    loop = asyncio.get_running_loop()
    while not showing.done():
        left = websocket.idle_since + wait - loop.time()
        if left <= 0:
            return
        await asyncio.wait([showing], timeout=None if left == math.inf else left)


async def _run(client: connect, output: Output, wait: float) -> int:
    try:
        websocket = await client
    except (OSError, ValueError, WebSocketException) as exc:
        output.note(f"cannot connect to {client.uri}: {reason(exc)}")
        return FAILED
    agreed = f" with the subprotocol {websocket.subprotocol}" if websocket.subprotocol else ""
    output.note(f"connected to {client.uri}{agreed}")
    return await _talk(websocket, output, wait)


def reason(exc: Exception) -> str:
    """Return what went wrong, and what the server says about it."""
    text = str(exc) or type(exc).__name__
    if isinstance(exc, InvalidStatus):
        body = bytes(exc.response.body).decode(errors="replace").strip()
        return f"{text}: {body[:BODY]}" if body else text
    return f"{text}: {exc.__cause__}" if isinstance(exc, WebSocketException) and exc.__cause__ else text


def header(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the values of --header as names and values."""
    headers = []
    for text in given:
        name, colon, value = text.partition(":")
        if not (colon and name.strip()):
            raise click.BadParameter(f"{text!r} is not a header: give 'Name: value'")
        headers.append((name.strip(), value.strip()))
    return headers


def unverified() -> ssl.SSLContext:
    """Make a TLS context that verifies no certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@click.command("connect", cls=Command, context_settings=CONTEXT)
@click.argument("uri")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", callback=header, help="Header to send. Repeatable."
)
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Subprotocol to offer. Repeatable.")
@click.option("--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option(
    "--wait",
    type=Value(WAITS),
    default=WAITS.write(WAIT),
    metavar=WAITS.metavar,
    help="Time without messages after which the connection is closed, once piped input has ended; none: never."
    f"  [default: {WAITS.write(WAIT)}]",
)
@click.pass_context
def command(
    ctx: click.Context,
    uri: str,
    headers: list[tuple[str, str]],
    subprotocols: tuple[str, ...],
    insecure: bool,
    wait: float,
) -> int:
    """Talk to the WebSocket server at URI: send each line of the input, print each message.

    Messages go to standard output, one per line, binary ones in hexadecimal. Ctrl-D closes the connection.

    Exit status: 0 the connection was closed with code 1000, 1001 or none; 1 there was no connection, or it ended
    otherwise; 2 a mistake on the command line; 130 interrupted.
    """
    output = Output()
    arguments: dict[str, Any] = {"ssl": unverified()} if insecure and uri.startswith("wss:") else {}
    try:
        client = connect(
            uri,
            additional_headers=headers,
            subprotocols=list(subprotocols) or None,
            create_connection=functools.partial(ShownConnection, output=output),
            **arguments,
        )
    except (ValueError, TypeError, WebSocketException) as error:
        raise click.UsageError(str(error), ctx) from None
    try:
        return asyncio.run(_run(client, output, wait))
    except KeyboardInterrupt:
        return INTERRUPTED
