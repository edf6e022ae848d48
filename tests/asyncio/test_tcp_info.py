"""What the kernel tells of a connection whose other side is silent."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.coroutines import until
from tidegate.asyncio.tcp_info import unacknowledged


def stop_answering(sock: socket.socket) -> None:
    """Have the kernel drop all that comes for `sock`, unseen, as if its host were gone."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: ret 0
    program = struct.pack("HP", 1, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@asynccontextmanager
async def between() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A transport, and the plain socket at its other end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        plain = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    accepted.setblocking(False)
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
    try:
        yield transport, plain
    finally:
        transport.abort()
        plain.close()
        await asyncio.sleep(0)


async def test_a_host_that_is_up_acknowledges() -> None:
    async with between() as (transport, plain):
        assert not unacknowledged(transport)
        transport.write(b"x")
        await until(lambda: not unacknowledged(transport))
        assert plain.recv(1) == b"x"


async def test_a_host_that_is_gone_does_not() -> None:
    async with between() as (transport, plain):
        stop_answering(plain)
        transport.write(b"x")
        await until(lambda: unacknowledged(transport))


async def test_a_peer_that_does_not_read_is_there() -> None:
    """What has no room at the other side is not sent, and so not unacknowledged."""
    async with between() as (transport, _):
        transport.write(bytes(2**24))
        await until(lambda: not unacknowledged(transport))
        assert transport.get_write_buffer_size() > 0


async def test_unix_sockets_and_closed_ones_tell_nothing() -> None:
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    one.setblocking(False)
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=one)
    transport.write(b"x")
    assert not unacknowledged(transport)
    transport.abort()
    other.close()
    async with between() as (transport, _):
        transport.abort()
        await asyncio.sleep(0.01)
        assert not unacknowledged(transport)
