"""Both ends of a connection for tests: a server in this event loop, and a peer that speaks raw frames.

    async with connected() as (websocket, peer): ...     # the server's connection, and the other end of it
    async with serving(handler) as server: ...           # server.peer(), or any client on server.uri

What must not live here: test cases; any WebSocket library on the peer's side, which is written from RFC 6455.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient, frame
from tidegate.asyncio.server import Server, ServerConnection, serve

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
REQUEST = RawClient.request()


def close(code: int | None = 1000, reason: str = "") -> bytes:
    """A close frame as a client sends it; None for one without a code."""
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason.encode(), CLOSE)


class Peer:
    """The client's end, without a will of its own: it sends and receives what a test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.response = b""

    @classmethod
    async def connect(cls, port: int, receive_buffer: int | None = None) -> Peer:
        """A TCP connection; with a small `receive_buffer`, one that is soon full."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        limit = 65536 if receive_buffer is None else receive_buffer
        return cls(*await asyncio.open_connection(sock=sock, limit=limit))

    async def handshake(self, request: bytes = REQUEST) -> bytes:
        """Send a request, return the head of its response."""
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE):
            self.response = await self.reader.readuntil(b"\r\n\r\n")
        return self.response

    async def ask(self, request: bytes = REQUEST) -> tuple[int, dict[str, str], str]:
        """Send a request that will be refused: status, headers (names in lower case), body."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], str]:
        """Wait for a response without WebSocket, which ends with the connection."""
        async with asyncio.timeout(PATIENCE):
            data = await self.reader.read(-1)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("iso-8859-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(status.split()[1]), headers, body.decode()

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: first byte (FIN, RSV, opcode), payload."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server must not mask (RFC 6455 section 5.1)"
            length = second & 0x7F
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            return first, await self.reader.readexactly(length)

    async def frames(self) -> list[tuple[int, bytes]]:
        """All frames, to the end of the stream."""
        found = []
        try:
            while True:
                found.append(await self.frame())
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise AssertionError("the stream ends within a frame") from exc
        return found

    async def close_frame(self) -> tuple[int, str]:
        """Skip to the close frame: code (1005 for none), reason."""
        while True:
            first, payload = await self.frame()
            if first & 0x0F == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    async def end(self) -> None:
        """Wait for the end of the stream, which must come next."""
        async with asyncio.timeout(PATIENCE):
            assert await self.reader.read(1) == b""

    def close(self) -> None:
        """Close the TCP connection, politely."""
        self.writer.close()

    def reset(self) -> None:
        """Break the TCP connection, so that the other side sees an error."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Serving:
    """A server on a free port, and the peers that a test made of it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self.uri = f"ws://127.0.0.1:{self.port}/"
        self.peers: list[Peer] = []

    async def raw(self, receive_buffer: int | None = None) -> Peer:
        """A peer that has said nothing."""
        self.peers.append(await Peer.connect(self.port, receive_buffer))
        return self.peers[-1]

    async def peer(self, request: bytes = REQUEST, receive_buffer: int | None = None) -> Peer:
        """A peer whose handshake is done."""
        peer = await self.raw(receive_buffer)
        response = await peer.handshake(request)
        assert response.startswith(b"HTTP/1.1 101 "), response
        return peer

    async def ask(self, request: bytes = REQUEST) -> tuple[int, dict[str, str], str]:
        """The answer to a request that is refused."""
        peer = await self.raw()
        return await peer.ask(request)


@contextlib.asynccontextmanager
async def serving(handler: Callable[[ServerConnection], Awaitable[None]], **options: Any) -> AsyncIterator[Serving]:
    """A server of `handler`. Whatever the event loop complains of is an error of the test."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    options = {"compression": None, "ping_interval": None, **options}
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        made = Serving(server)
        try:
            yield made
        finally:
            for peer in made.peers:
                peer.close()
    assert not complaints
    assert not server.registry.all
    assert not server.registry.open
    assert not server.registry.handshaking
    assert not server.handler_tasks


@contextlib.asynccontextmanager
async def connected(
    *, receive_buffer: int | None = None, request: bytes = REQUEST, **options: Any
) -> AsyncIterator[tuple[ServerConnection, Peer]]:
    """The two ends of one connection. The handler waits until the test is done with it."""
    done = asyncio.Event()
    here: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        here.set_result(websocket)
        await done.wait()

    async with serving(handler, **options) as server:
        peer = await server.peer(request, receive_buffer)
        try:
            yield await here, peer
        finally:
            done.set()


async def until(condition: Callable[[], Any]) -> None:
    """Let the event loop run until something is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What comes out of it: the value, or the exception."""
    try:
        return await awaitable
    except Exception as exc:
        return exc
