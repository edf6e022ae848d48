"""Servers of listeners of ours, and of the event loop where those cannot serve: one interface, asyncio.Server's.

What must not live here: accepting (tests/core/test_listener.py), WebSocket.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tidegate.asyncio.listening import StreamServer, listen


class Echo(asyncio.Protocol):
    """Says what it is told."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(**options: Any) -> Any:
    return await listen(asyncio.get_running_loop(), Echo, "127.0.0.1", 0, **options)


async def answers(address: Any) -> bool:
    """Whether a server echoes."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(sock, address)
                await loop.sock_sendall(sock, b"hello")
                return await loop.sock_recv(sock, 5) == b"hello"
        except (ConnectionError, FileNotFoundError):
            return False


async def test_it_serves_until_it_is_closed() -> None:
    server = await serve()
    assert isinstance(server, StreamServer)
    assert server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    (sock,) = server.sockets
    address = sock.getsockname()
    assert await answers(address)
    server.close()
    server.close()
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()
    assert not server.is_serving()
    assert server.sockets == ()
    assert not await answers(address)
    with pytest.raises(RuntimeError, match="closed"):
        await server.start_serving()


async def test_start_serving_later() -> None:
    """Bound, it does not listen yet: nobody is let into a queue that no one looks at."""
    server = await serve(start_serving=False)
    address = server.sockets[0].getsockname()
    assert not server.is_serving()
    assert not await answers(address)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    assert await answers(address)
    server.close()


async def test_serve_forever() -> None:
    server = await serve(start_serving=False)
    address = server.sockets[0].getsockname()
    task = asyncio.create_task(server.serve_forever())
    while not server.is_serving():
        await asyncio.sleep(0)
    assert await answers(address)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await answers(address)


async def test_a_context() -> None:
    async with await serve() as server:
        address = server.sockets[0].getsockname()
        assert await answers(address)
    assert not await answers(address)


async def test_several_addresses() -> None:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        other.bind(("127.0.0.2", port))
    async with await listen(asyncio.get_running_loop(), Echo, ["127.0.0.1", "127.0.0.2"], port) as server:
        assert len(server.sockets) == 2
        assert await answers(("127.0.0.1", port))
        assert await answers(("127.0.0.2", port))


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    async with await listen(asyncio.get_running_loop(), Echo, unix=True, path=path):
        assert await answers(path)
    assert not await answers(path)


async def test_a_socket_that_is_bound_already() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    async with await listen(asyncio.get_running_loop(), Echo, sock=sock):
        assert await answers(address)
    assert not await answers(address)


async def test_an_address_that_is_taken() -> None:
    """The error is the event loop's."""
    async with await serve() as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="ddress") as raised:
            await listen(asyncio.get_running_loop(), Echo, "127.0.0.1", port)
        assert raised.value.errno == errno.EADDRINUSE


async def test_the_backlog() -> None:
    """As long as nobody accepts, so many connections and one more are let in."""
    server = await serve(backlog=3, start_serving=False)
    await server.start_serving()
    for listener in server._listeners:
        listener.stop()
    address = server.sockets[0].getsockname()
    peers = []
    for _ in range(8):
        peer = socket.socket()
        peer.setblocking(False)
        peer.connect_ex(address)
        peers.append(peer)
    connected = [peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1 for peer in peers]
    assert connected.count(True) == 4
    for peer in peers:
        peer.close()
    server.close()


@pytest.fixture
async def tls_server() -> AsyncIterator[Any]:
    server = await serve(tls=True)
    yield server
    server.close()


async def test_tls_is_the_loops(tls_server: Any) -> None:
    assert not isinstance(tls_server, StreamServer)
    assert tls_server.is_serving()
