"""broadcast(): one message to all who are open, framed and compressed once, decoded by everybody's own decoder."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from tests.asyncio.ends import echo
from tests.support.patience import PATIENCE
from tidegate._core import turns
from tidegate.asyncio.server import Server, ServerConnection, broadcast, serve
from tidegate.exceptions import ConcurrencyError


@contextlib.asynccontextmanager
async def running(handler: Any = echo, **options: Any) -> AsyncIterator[tuple[Server, str]]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield server, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def opened(server: Server, count: int) -> set[ServerConnection]:
    """The server's connections, once there are so many."""
    async with asyncio.timeout(PATIENCE):
        while len(server.connections) < count:
            await asyncio.sleep(0)
    return server.connections


@pytest.mark.parametrize(
    ("message", "text", "received"),
    [
        ("tea", None, "tea"),
        ("tea", False, b"tea"),
        (b"tea", None, b"tea"),
        (b"tea", True, "tea"),
        (bytearray(b"tea"), None, b"tea"),
        (memoryview(b"tea"), None, b"tea"),
        ("", None, ""),
        ("é" * 70_000, None, "é" * 70_000),
    ],
)
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_everybody_gets_it(message: Any, text: bool | None, received: Any, compression: Any) -> None:
    async with (
        running(compression=compression) as (server, uri),
        connect(uri, compression=compression) as one,
        connect(uri, compression=None) as other,
    ):
        broadcast(await opened(server, 2), message, text=text)
        assert [await one.recv(), await other.recv()] == [received, received]


@pytest.mark.parametrize("message", [None, 1, ["tea"], {"tea": 1}])
async def test_what_is_no_message(message: Any) -> None:
    with pytest.raises(TypeError, match="data must be str or bytes"):
        broadcast([], message)


async def test_broadcasts_and_own_messages_in_turn() -> None:
    """A compressed broadcast has no context, and the next message of the connection's own refers to none before it."""
    words = "the quick brown fox jumps over the lazy dog"
    async with (
        running() as (server, uri),
        connect(uri) as one,
        connect(uri, compression="deflate") as other,
        aiohttp.ClientSession() as session,
        session.ws_connect(uri, compress=15) as third,
    ):
        connections = await opened(server, 3)
        assert all(connection.extensions for connection in connections)
        for turn in range(20):
            message = f"{words} {turn % 3}"
            broadcast(connections, message)
            for client in (one, other):
                assert await client.recv() == message
                await client.send(message)
                assert await client.recv() == message
            assert await third.receive_str() == message
            await third.send_str(message)
            assert await third.receive_str() == message


async def test_those_that_are_not_open_are_skipped() -> None:
    async with running() as (server, uri), connect(uri) as one, connect(uri) as other:
        connections = await opened(server, 2)
        await one.close()
        broadcast(connections, "tea", raise_exceptions=True)
        assert await other.recv() == "tea"


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_many_get_everything_in_order(compression: Any) -> None:
    """More than one turn has time for: what is sent to one of them, and its closing, come after what was broadcast."""
    async with contextlib.AsyncExitStack() as stack:
        server, uri = await stack.enter_async_context(running(compression=compression))
        clients = [await stack.enter_async_context(connect(uri, compression=compression)) for _ in range(60)]
        for connection in await opened(server, 60):
            await connection.send("hello")
        before = turns.seconds()
        turns.set_seconds(0)
        try:
            for i in range(3):
                broadcast(server.connections, f"{i}")
                time.sleep(0.001)  # noqa: ASYNC251 - the loop must not turn
            assert any(connection.transport.get_write_buffer_size() for connection in server.connections)
            for connection in server.connections:
                await connection.send("own")
            broadcast(server.connections, "last")
        finally:
            turns.set_seconds(before)
        server.close()
        for client in clients:
            assert [message async for message in client] == ["hello", "0", "1", "2", "own", "last"]


async def fragments(gate: asyncio.Event) -> AsyncIterator[str]:
    yield "one"
    await gate.wait()
    yield "two"


@pytest.mark.parametrize("raising", [False, True])
async def test_a_fragmented_message_is_not_interrupted(raising: bool, caplog: pytest.LogCaptureFixture) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        task = asyncio.create_task(websocket.send(fragments(gate)))
        await asyncio.sleep(0)
        begun.set()
        await task
        await websocket.wait_closed()

    async with running(handler) as (server, uri), connect(uri) as client:
        await begun.wait()
        connections = await opened(server, 1)
        if raising:
            with pytest.raises(ExceptionGroup, match="skipped broadcast") as caught:
                broadcast(connections, "tea", raise_exceptions=True)
            [inner] = caught.value.exceptions
            assert isinstance(inner, ConcurrencyError)
            assert str(inner) == "sending a fragmented message"
        else:
            broadcast(connections, "tea")
            assert "skipped broadcast: sending a fragmented message" in caplog.text
        gate.set()
        assert await client.recv() == "onetwo"


class Refusing:
    """A transport that cannot write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        raise OSError("no more paper")


@pytest.mark.parametrize("raising", [False, True])
async def test_one_that_cannot_be_written_does_not_keep_the_others(
    raising: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (server, uri), connect(uri) as one, connect(uri) as other:
        [broken, _] = connections = sorted(await opened(server, 2), key=lambda c: c.remote_address != one.local_address)
        transport = broken.transport
        broken._connect(Refusing(transport))  # type: ignore[arg-type]
        if raising:
            with pytest.raises(ExceptionGroup) as caught:
                broadcast(connections, "tea", raise_exceptions=True)
            [inner] = caught.value.exceptions
            assert isinstance(inner, RuntimeError)
            assert str(inner) == "failed to write message"
            assert str(inner.__cause__) == "no more paper"
        else:
            broadcast(connections, "tea")
            assert "skipped broadcast: failed to write message: OSError: no more paper" in caplog.text
        assert await other.recv() == "tea"
        broken._connect(transport)


async def test_a_client_that_does_not_read_is_closed_with_1013(caplog: pytest.LogCaptureFixture) -> None:
    async with running(broadcast_limit=2**20, compression=None, close_timeout=1) as (server, uri):
        port = int(uri.rpartition(":")[2].rstrip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        [slow] = await opened(server, 1)
        before = slow._row.words("slow_consumers")[0]
        async with connect(uri, compression=None) as reading:
            connections = await opened(server, 2)
            message = b"x" * 2**18
            for _ in range(64):
                broadcast(connections, message)
                assert await reading.recv() == message
                if slow not in server.connections:
                    break
            assert slow.close_sent is not None
            assert (slow.close_sent.code, slow.close_sent.reason) == (1013, "too slow")
            assert slow.transport.get_write_buffer_size() <= 2**20 + 2**18
            assert "too slow for broadcasts" in caplog.text
            assert slow._row.words("slow_consumers")[0] == before + 1
            broadcast(server.connections, "still there")
            assert await reading.recv() == "still there"
        writer.transport.abort()
