"""The interactive client: with pipes, at a real pseudo-terminal, always with a real server.

What must not live here: what a client does (tests/asyncio).
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.asyncio.ends import serving
from tests.cli.terminal import Terminal
from tests.support.coroutines import until
from tests.support.patience import PATIENCE, complaints
from tidegate.asyncio.server import ServerConnection
from tidegate.http11 import Request, Response

COMMAND = (sys.executable, "-X", "dev", "-W", "error", "-m", "tidegate")


async def handler(websocket: ServerConnection) -> None:
    """Does what it is told, and echoes the rest."""
    assert websocket.request is not None
    async for message in websocket:
        if message == "ping":
            await (await websocket.ping(b"are you there"))
            await (await websocket.ping(b"\xff\x00"))
            await websocket.send("there")
        elif message == "binary":
            await websocket.send(b"\x00\x01\xff")
        elif message == "escape":
            await websocket.send("\x1b[2J\ttab\nline \x9b31m")
        elif message == "header":
            await websocket.send(f"{websocket.request.headers['X-Key']} {websocket.request.headers['X-Other']}")
        elif isinstance(message, str) and message.startswith("close "):
            await websocket.close(int(message[6:]), "as you wish")
        else:
            await websocket.send(message)


async def run(
    *arguments: str, given: bytes | None = b"", descriptor: int | None = None
) -> tuple[int | None, str, list[str]]:
    """Run the command with pipes: status, standard output, lines of standard error."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.PIPE if descriptor is None else descriptor,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE * 2):
        output, notes = await process.communicate(given if descriptor is None else None)
    return process.returncode, output.decode(), complaints(notes.decode()).splitlines()


# Pipes


@pytest.mark.parametrize("before", [(), ("connect",)])
async def test_lines_are_sent_and_answers_are_shown(before: tuple[str, ...]) -> None:
    async with serving(handler) as server:
        status, output, notes = await run(*before, server.uri, given="hello\n\ngrüße\nno end".encode())
        assert status == 0
        assert output == "hello\n\ngrüße\nno end\n"
        assert notes == [
            f"* connected to {server.uri}",
            "* connection closed: sent 1000 (OK); then received 1000 (OK)",
        ]


async def test_input_is_a_file(tmp_path: Path) -> None:
    """Many lines, more than fit into any buffer, all answered before the end."""
    lines = "".join(f"line {number} {'x' * 50}\n" for number in range(20000))
    (tmp_path / "lines").write_text(lines)
    async with serving(handler) as server:
        with (tmp_path / "lines").open() as file:
            status, output, _ = await run(server.uri, descriptor=file.fileno())
    assert status == 0
    assert output == lines


async def test_no_input_at_all() -> None:
    async def speaker(websocket: ServerConnection) -> None:
        for number in range(3):
            await websocket.send(f"{number}")
        await websocket.wait_closed()

    async with serving(speaker) as server:
        status, output, _ = await run(server.uri, descriptor=subprocess.DEVNULL)
    assert (status, output) == (0, "0\n1\n2\n")


async def test_pings_and_binary_messages() -> None:
    async with serving(handler) as server:
        status, output, notes = await run(server.uri, given=b"ping\nbinary\nescape\n")
    assert status == 0
    assert output == "there\n00 01 ff\n\x1b[2J\ttab\nline \x9b31m\n"  # a pipe gets what came
    assert notes[1:3] == ["* ping are you there", "* ping ff 00"]


@pytest.mark.parametrize(
    ("code", "status", "end"),
    [
        (1000, 0, "received 1000 (OK) as you wish; then sent 1000 (OK) as you wish"),
        (1001, 0, "received 1001 (going away) as you wish; then sent 1001 (going away) as you wish"),
        (4000, 1, "received 4000 (private use) as you wish; then sent 4000 (private use) as you wish"),
    ],
)
async def test_close_codes(code: int, status: int, end: str) -> None:
    async with serving(handler) as server:
        found, output, notes = await run(server.uri, "--wait", "none", given=f"close {code}\n".encode())
    assert (found, output) == (status, "")
    assert notes[-1] == f"* connection closed: {end}"


async def test_a_connection_that_breaks() -> None:
    async def breaker(websocket: ServerConnection) -> None:
        await websocket.send("last words")
        await asyncio.sleep(0)
        websocket.transport.abort()

    async with serving(breaker) as server:
        status, output, notes = await run(server.uri, "--wait", "none")
    assert (status, output) == (1, "last words\n")
    assert notes[-1] == "* connection closed: no close frame received or sent"


async def test_nobody_reads_the_output() -> None:
    async with serving(handler) as server:
        first = await asyncio.create_subprocess_exec(
            *COMMAND, server.uri, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(b"one\n")
        await first.stdin.drain()
        assert await first.stdout.readline() == b"one\n"
        first.stdout._transport.close()  # type: ignore[attr-defined]
        first.stdin.write(b"two\n")
        await first.stdin.drain()
        async with asyncio.timeout(PATIENCE):
            assert await first.wait() == 0
        assert first.stderr is not None
        assert b"Broken" not in await first.stderr.read()


async def test_interrupted() -> None:
    """SIGINT closes the connection and ends the command with status 130, without a traceback."""
    async with serving(handler) as server:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, server.uri, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        await process.stdout.readline()
        (connection,) = server.server.connections
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            _, notes = await process.communicate()
        assert process.returncode == 130
        assert b"Traceback" not in notes
        assert connection.close_code == 1000


async def test_input_that_is_no_text() -> None:
    async with serving(handler) as server:
        status, _, notes = await run(server.uri, given=b"\xff\n")
    assert status == 1
    assert any("a line of the input is not UTF-8" in note for note in notes)


async def test_headers_and_subprotocols() -> None:
    async with serving(handler, subprotocols=["two", "one"]) as server:
        arguments = ("--header", "X-Key: a:b", "--header=X-Other:c", "--subprotocol", "one", "--subprotocol", "two")
        status, output, notes = await run(*arguments, server.uri, given=b"header\n")
    assert (status, output) == (0, "a:b c\n")
    assert notes[0] == f"* connected to {server.uri} with the subprotocol two"


# Connections that fail


async def test_nobody_listens(unused_tcp_port: int) -> None:
    uri = f"ws://127.0.0.1:{unused_tcp_port}/"
    status, output, notes = await run(uri)
    assert (status, output) == (1, "")
    assert len(notes) == 1
    assert notes[0].startswith(f"* cannot connect to {uri}: ")


async def test_refused() -> None:
    """A rejected handshake is one note with the server's words, made safe for the terminal."""

    def process_request(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(403, "not you\x1b[2J\n")

    async with serving(handler, process_request=process_request) as server:
        status, _, notes = await run(server.uri)
        assert status == 1
        assert notes == [
            f"* cannot connect to {server.uri}: server rejected WebSocket connection: HTTP 403: not you\\x1b[2J"
        ]


async def test_no_websocket_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        status, _, notes = await run(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert status == 1
    assert "did not receive a valid HTTP response: a response begins with HTTP/1.1" in notes[0]


async def test_certificates() -> None:
    """A certificate of an unknown authority is an error, unless --insecure is given."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with serving(handler, ssl=context) as server:
        uri = f"wss://127.0.0.1:{server.port}/"
        status, _, notes = await run(uri)
        assert status == 1
        assert "certificate verify failed" in notes[0]
        status, output, _ = await run("--insecure", uri, given=b"hello\n")
        assert (status, output) == (0, "hello\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("connect",), "URI is missing"),
        (("connect", "http://localhost/"), "http://localhost/ isn't a valid URI: scheme isn't ws or wss"),
        (("ws://localhost/", "--header", "name"), "'name' is not a header: give 'Name: value'"),
        (("ws://localhost/", "--header", "name: a\nb"), "name header"),
        (("ws://localhost/", "--subprotocol", "a b"), "subprotocol"),
        (("ws://localhost/", "--wait", "-1"), "--wait '-1' is not allowed: give seconds, such as 10"),
        (("ws://localhost/", "--nothing"), "--nothing"),
    ],
)
async def test_mistakes(arguments: tuple[str, ...], words: str) -> None:
    """A mistake on the command line is one line and status 2."""
    status, output, notes = await run(*arguments)
    assert (status, output) == (2, "")
    assert len(notes) == 1
    assert notes[0].startswith("tidegate connect: ")
    assert words in notes[0]


# A terminal


async def test_typing_is_not_disturbed() -> None:
    """What comes while a line is typed is shown above it, and the line, with the cursor where it was, stays whole."""
    async with serving(handler) as server, Terminal(server.uri) as terminal:
        assert await terminal.until(lambda shown: shown[-1:] == [">"]) == [f"* connected to {server.uri}", ">"]
        terminal.type("hello\r")
        await terminal.until(lambda shown: shown[-2:] == ["< hello", ">"])
        terminal.type("half a lie\x1b[D")  # and one to the left
        await terminal.until(lambda shown: shown[-1:] == ["> half a lie"])
        (connection,) = server.server.connections
        await (await connection.ping(b"here"))
        await connection.send("interruption")
        long = "0123456789" * 20  # of three lines
        await connection.send(f"{long}\nanother line")
        expected = [
            f"* connected to {server.uri}",
            "> hello",
            "< hello",
            "* ping here",
            "< interruption",
            *(f"< {long}"[at : at + 80] for at in (0, 80, 160)),
            "another line",
            "> half a lie",
        ]
        shown = await terminal.until(lambda shown: shown == expected)
        await until(lambda: terminal.cursor == (len(shown) - 1, len("> half a li")))
        terminal.type("n\r")
        await terminal.until(lambda shown: shown[-2:] == ["< half a line", ">"])
        terminal.type("\x04")
        assert await terminal.ended() == 0
        await terminal.until(lambda shown: shown[-1] == "* connection closed: sent 1000 (OK); then received 1000 (OK)")
        assert terminal.is_as_before()
        assert connection.close_code == 1000


async def test_the_other_side_closes_while_a_line_is_typed() -> None:
    async with serving(handler) as server, Terminal("connect", server.uri) as terminal:
        await terminal.until(lambda shown: shown[-1:] == [">"])
        terminal.type("half a line")
        await terminal.until(lambda shown: shown[-1:] == ["> half a line"])
        (connection,) = server.server.connections
        await connection.close(1011, "out of order")
        assert await terminal.ended() == 1
        shown = await terminal.until(lambda shown: "connection closed" in " ".join(shown))
        assert shown[1] == "> half a line"
        assert " ".join(shown[2:]).startswith("* connection closed: received 1011 (internal error) out of order")
        assert terminal.is_as_before()


async def test_interrupted_at_a_terminal() -> None:
    async with serving(handler) as server, Terminal(server.uri) as terminal:
        await terminal.until(lambda shown: shown[-1:] == [">"])
        (connection,) = server.server.connections
        terminal.type("half\x03")
        assert await terminal.ended() == 0
        assert connection.close_code == 1000
        assert "Traceback" not in " ".join(terminal.shown)
        assert terminal.is_as_before()


async def test_messages_do_not_command_the_terminal() -> None:
    async with serving(handler) as server, Terminal(server.uri) as terminal:
        await terminal.until(lambda shown: shown[-1:] == [">"])
        terminal.type("escape\r")
        shown = await terminal.until(lambda shown: shown[-1:] == [">"] and "line" in shown[-2])
        assert shown[-3:] == ["< \\x1b[2J       tab", "line \\x9b31m", ">"]
        assert b"\x1b[2J" not in terminal.raw
