"""Connections on transports of both kinds, our streams and the event loop's own, with a protocol that writes down.

    Kind        who makes the transports: `STREAM` is ours, `LOOP` the event loop's, by which expectations are asyncio's
    Recording   a protocol that remembers each callback, does what a test wants in it, and is waited for
    Peer        the other end: a socket without a transport
    connection  both ends of a connection

What must not live here: test cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from tests.support.patience import PATIENCE
from tidegate._core.listener import Listener

BUFFER = 1 << 18
"""What sockets that are made here are asked to hold, each way."""

LARGE = 4 << 20
"""Bytes that no socket's buffers hold."""


class Recording(asyncio.BaseProtocol):
    """Remembers what it is told, as (name, *arguments): made, data, eof, lost, pause, resume.

    Args:
        stay: what eof_received() returns.
        on: what to do in a callback, by its name; called with this protocol.
    """

    def __init__(self, *, stay: bool = False, **on: Callable[[Recording], object]) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.faults: list[str] = []
        self.stay, self.on = stay, on
        self.transport: Any = None
        self._within: list[str] = []
        self._news = asyncio.Event()

    def tell(self, name: str, *arguments: Any) -> None:
        """Write down a callback; pause_writing() may come within another, by its write()."""
        if self._within and name != "pause":
            self.faults.append(f"{name} within {self._within}")
        if not self.events and name != "made":
            self.faults.append(f"{name} came first")
        if "lost" in self.names or (name == "made" and self.events):
            self.faults.append(f"{name} after {self.names}")
        self.events.append((name, *arguments))
        self._news.set()
        self._within.append(name)
        try:
            if name in self.on:
                self.on[name](self)
        finally:
            self._within.pop()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tell("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.tell("data", data)

    def eof_received(self) -> bool:
        self.tell("eof")
        return self.stay

    def connection_lost(self, exc: Exception | None) -> None:
        self.tell("lost", exc)

    def pause_writing(self) -> None:
        self.tell("pause")

    def resume_writing(self) -> None:
        self.tell("resume")

    @property
    def names(self) -> list[str]:
        """Which callbacks came, several of data in a row as one."""
        names = [event[0] for event in self.events]
        return [name for i, name in enumerate(names) if name != "data" or names[i - 1 : i] != ["data"]]

    @property
    def data(self) -> bytes:
        """All that was received."""
        return b"".join(event[1] for event in self.events if event[0] == "data")

    @property
    def error(self) -> Any:
        """What connection_lost() was told."""
        name, error = self.events[-1]
        assert name == "lost"
        return error

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a callback has made the condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def happens(self, name: str) -> None:
        """Wait for a callback."""
        await self.until(lambda: name in self.names)

    async def receives(self, size: int) -> bytes:
        """Wait for so many bytes in all, and return them."""
        await self.until(lambda: len(self.data) >= size)
        return self.data


class Peer:
    """The other end of a connection. What the system takes or has at once needs no waiting: `sock` is for that."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end."""
        data = bytearray()
        async with asyncio.timeout(PATIENCE):
            while len(data) < size:
                chunk = await asyncio.get_running_loop().sock_recv(self.sock, min(size - len(data), 1 << 20))
                if not chunk:
                    break
                data += chunk
        return bytes(data)

    async def rest(self) -> bytes:
        """All that comes, to the end."""
        return await self.receive(1 << 40)

    def end(self) -> None:
        """Send nothing more."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Kind:
    """Who makes the transports."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    @contextlib.asynccontextmanager
    async def serving(self, sock: socket.socket, factory: Callable[[], Any], backlog: int = 100) -> AsyncIterator[Any]:
        """Accept connections on a bound socket, which is closed at the end."""
        loop = asyncio.get_running_loop()
        if self is STREAM:
            listener = Listener(loop, sock, factory)
            listener.start(backlog)
            try:
                yield listener
            finally:
                listener.stop()
                sock.close()
        elif sock.family == socket.AF_UNIX:
            async with await loop.create_unix_server(factory, sock=sock, backlog=backlog) as server:
                yield server
        else:
            async with await loop.create_server(factory, sock=sock, backlog=backlog) as server:
                yield server


STREAM, LOOP = Kind("stream"), Kind("loop")
KINDS = (STREAM, LOOP)


@contextlib.contextmanager
def bound(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A socket bound to a free address of this machine."""
    proto = 0 if family == socket.AF_UNIX else socket.IPPROTO_TCP
    with socket.socket(family, socket.SOCK_STREAM, proto) as sock, tempfile.TemporaryDirectory() as folder:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        if family == socket.AF_UNIX:
            sock.bind(os.path.join(folder, "sock"))
        else:
            sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        yield sock


def connect(address: Any, family: int = socket.AF_INET) -> Peer:
    """Connect; the system lets a connection into the queue of a listening socket at once."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.connect(address)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Peer(sock)


@contextlib.asynccontextmanager
async def connection(
    kind: Kind, protocol: Any = None, family: int = socket.AF_INET, receive_buffer: int | None = None
) -> AsyncIterator[tuple[Any, Peer]]:
    """Make a connection: (protocol, peer). At the end, it is aborted, and the order of its callbacks is judged."""
    if protocol is None:
        protocol = Recording()
    with bound(family) as sock:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        async with kind.serving(sock, lambda: protocol):
            peer = connect(sock.getsockname(), family)
            try:
                await protocol.happens("made")
                yield protocol, peer
            finally:
                peer.close()
                if not protocol.transport.is_closing():
                    protocol.transport.abort()
            await protocol.happens("lost")
            await settle()
            assert protocol.faults == []


async def settle() -> None:
    """Let happen what can: what is sent on this machine is there at once, so a few turns of the loop bring all."""
    for _ in range(12):
        await asyncio.sleep(0)


@contextlib.contextmanager
def exceptions() -> Iterator[list[dict[str, Any]]]:
    """What the loop's exception handler is told meanwhile."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(None)


def descriptors() -> set[int]:
    """Those of this process that are open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(name))
            found.add(int(name))
    return found
