"""Peers that want to cost the server memory, over real sockets: what they are given is bounded.

What must not live here: broken frames, which end a connection (tests/process/test_bad_input).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.asyncio.ends import idle
from tests.support import wire
from tests.support.coroutines import until
from tests.support.wire import frame
from tidegate.asyncio.server import Server, ServerConnection, serve


async def opened(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection after its handshake, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.sockets[0].getsockname())
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
    writer.write(wire.request())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.transport.pause_reading()
    return reader, writer


async def serving(
    handler: Callable[[ServerConnection], Awaitable[None]],
) -> tuple[Server, ServerConnection, asyncio.StreamReader, asyncio.StreamWriter]:
    server = await serve(handler, "127.0.0.1", 0, ping_interval=None)
    reader, writer = await opened(server)
    (connection,) = server.connections
    return server, connection, reader, writer


async def test_pings_of_a_peer_that_reads_no_pongs() -> None:
    server, connection, reader, writer = await serving(idle)
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pings = frame(b"p" * 125, 9) * 500
    largest = 0
    for _ in range(100):  # 6.5 MB
        writer.write(pings)
        await writer.drain()
        largest = max(largest, connection.transport.get_write_buffer_size())
    writer.write(frame(b"the last", 9))
    await writer.drain()
    await until(lambda: getattr(connection, "_unsent_pong", None) == b"the last")
    assert largest < 1_000_000
    # The latest ping is answered once the peer reads again.
    writer.transport.resume_reading()
    while b"the last" not in await reader.read(65536):
        pass
    writer.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("name", ["max_size", "max_queue", "write_limit"])
def test_limits_that_native_code_cannot_hold(name: str) -> None:
    options: dict[str, int] = {name: 2**63}
    with pytest.raises(ValueError, match=f"{name} must be less than"):
        serve(idle, **options)  # type: ignore[arg-type]


async def test_large_messages_to_a_peer_that_does_not_read() -> None:
    """They leave uncopied, on a way through the transport of their own: it must have backpressure as well."""
    sent = 0

    async def flood(connection: ServerConnection) -> None:
        nonlocal sent
        while sent < 200:
            await connection.send(bytes(2**18))
            sent += 1

    server, connection, _, writer = await serving(flood)
    await until(lambda: connection.paused)
    assert connection.transport.get_write_buffer_size() < 2**20
    assert sent < 50
    writer.transport.abort()
    server.close()
    await server.wait_closed()
