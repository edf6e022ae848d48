"""The access log: a line for each handshake, and one for each close; none at all unless it is on.

What must not live here: what a line looks like (tests/logs), the daemon's settings (tests/process/test_logs.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asyncio.ends import echo
from tidegate.asyncio import access_log
from tidegate.asyncio.client import connect
from tidegate.asyncio.server import Server, ServerConnection, serve
from tidegate.exceptions import ConnectionClosed, InvalidStatus
from tidegate.http11 import Request, Response


class Lines(logging.Handler):
    """Records of the access log, as the values that they were made of."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, message: str) -> list[dict[str, Any]]:
        return [vars(record) for record in self.records if record.getMessage() == message]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, level = Lines(), access_log.logger.level
    access_log.logger.addHandler(handler)
    access_log.logger.setLevel(logging.INFO)
    yield handler
    access_log.logger.setLevel(level)
    access_log.logger.removeHandler(handler)


async def ended(server: Server) -> None:
    server.close()
    await server.wait_closed()


def port(server: Server) -> int:
    return int(server.sockets[0].getsockname()[1])


async def raw(server: Server, data: bytes) -> bytes:
    """Send something and nothing more; what comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
    writer.write(data)
    if data:
        answer = await reader.read()
    else:
        answer = b""
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_connection_is_two_lines(lines: Lines) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{port(server)}/a?b=c"
        async with connect(uri, user_agent_header="somebody/1.0") as websocket:
            await websocket.send("hello")
            await websocket.recv()
            await websocket.close(4000, "that is\nall")
            address = websocket.local_address
        await ended(server)
    (handshake,) = lines.of("handshake")
    wanted = {"method": "GET", "path": "/a?b=c", "status": 101, "user_agent": "somebody/1.0", "error": None}
    assert {key: handshake[key] for key in wanted} == wanted
    assert 0 <= handshake["duration"] < 60
    (close,) = lines.of("close")
    wanted = {"code": 4000, "reason": "that is\nall", "initiator": "remote", "error": None}
    assert {key: close[key] for key in wanted} == wanted
    assert handshake["websocket"] is close["websocket"]
    assert close["websocket"].remote_address == address  # it is still known at the end


async def test_a_close_that_the_server_began_and_one_that_nobody_began(lines: Lines) -> None:
    gone = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        if websocket.request is not None and websocket.request.path == "/fail":
            raise ValueError
        await websocket.wait_closed()
        gone.set()

    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{port(server)}"
        async with connect(f"{uri}/fail") as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        websocket = await connect(uri)
        websocket.transport.abort()
        await gone.wait()
        await ended(server)
    first, second = lines.of("close")
    assert (first["code"], first["initiator"], first["error"]) == (1011, "local", None)
    assert (second["code"], second["initiator"]) == (1006, "abort")
    assert second["error"]


async def test_handshakes_that_fail(lines: Lines) -> None:
    def reject(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(403, "no\n") if request.path == "/no" else None

    async with serve(echo, "127.0.0.1", 0, process_request=reject, open_timeout=0.2) as server:
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{port(server)}/no")
        assert b" 400 " in await raw(server, b"\xff\xfe\r\n\r\n")
        assert b" 426 " in await raw(server, b"GET /%1b[2J HTTP/1.1\r\nHost: x\r\nUser-Agent: a\x9bb\r\n\r\n")
        await raw(server, b"")
        while len(lines.of("handshake")) < 4:
            await asyncio.sleep(0)  # until the server sees the end of it
        await ended(server)
    no, bad, plain, nothing = lines.of("handshake")
    assert (no["status"], no["path"], no["error"]) == (403, "/no", None)
    assert (bad["status"], bad["method"], bad["path"], bad["user_agent"]) == (400, None, None, None)
    assert (plain["status"], plain["path"], plain["user_agent"]) == (426, "/%1b[2J", "a\x9bb")
    assert (nothing["status"], nothing["error"]) == (None, "disconnected")
    assert lines.of("close") == []


async def test_a_client_that_says_nothing(lines: Lines) -> None:
    async with serve(echo, "127.0.0.1", 0, open_timeout=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
        assert await reader.read() == b""
        writer.close()
        await ended(server)
    (timeout,) = lines.of("handshake")
    assert (timeout["status"], timeout["error"]) == (None, "timeout")


async def test_what_is_long_is_cut(lines: Lines) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{port(server)}/{'x' * 4000}"
        async with connect(uri, user_agent_header="y" * 4000):
            pass
        await ended(server)
    (handshake,) = lines.of("handshake")
    assert handshake["path"] == "/" + "x" * 1999 + "..."
    assert handshake["user_agent"] == "y" * 500 + "..."


async def test_it_is_off_whatever_other_loggers_are() -> None:
    handler = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        async with serve(echo, "127.0.0.1", 0) as server:
            async with connect(f"ws://127.0.0.1:{port(server)}"):
                pass
            await ended(server)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert [record for record in handler.records if record.name == "tidegate.access"] == []
