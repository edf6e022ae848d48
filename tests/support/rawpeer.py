"""The other side of a connection as raw bytes, in an event loop: a client or a server that does what a test says.

    RawPeer       one end of a TCP connection, without a will of its own: both sides have this
    ClientPeer    a client's end: it connects, and sends requests and masked frames
    ServerPeer    a server's end: it reads requests, accepts them, and sends unmasked frames
    RawServer     a TCP server that lets a coroutine say what it wants to each client

For what no decent peer says: broken answers, half a closing handshake, silence. What must not live here: test cases;
frames as such (wire.py), the same without an event loop (rawclient.py); any use of a WebSocket library.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

from tests.support import wire
from tests.support.patience import PATIENCE

REQUEST = wire.request()


class RawPeer:
    """One end of a TCP connection. Each wait lasts PATIENCE at most."""

    masks: bool
    """Whether this side masks its frames, and the other does not (RFC 6455 section 5.1)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._held: bytearray | None = None

    def send(self, *data: bytes) -> None:
        """Send bytes as they are."""
        if self._held is None:
            self.writer.write(b"".join(data))
        else:
            self._held += b"".join(data)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is sent within leaves in one piece."""
        held = self._held = bytearray()
        yield
        self._held = None
        self.send(bytes(held))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: first byte (FIN, RSV, opcode), payload. IncompleteReadError at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            first, mask, payload = await wire.read_frame(self.reader)
        assert (mask is None) == self.masks, "a client must mask, a server must not (RFC 6455 section 5.1)"
        return first, payload

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
            if first & 0x0F == wire.CLOSE:
                return wire.close_of(payload)

    async def end(self) -> None:
        """Wait for the end of the stream, which must come next."""
        async with asyncio.timeout(PATIENCE):
            assert await self.reader.read(1) == b""

    async def rest(self) -> bytes:
        """What comes until the other side ends the stream, or breaks it."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while chunk := await self.reader.read(65536):
                    rest += chunk
        return rest

    def close(self) -> None:
        """Close the TCP connection, politely."""
        self.writer.close()

    def reset(self) -> None:
        """Break the TCP connection, so that the other side sees an error."""
        reset(self.writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a TCP connection: a reset goes out instead of an end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ClientPeer(RawPeer):
    """A client's end."""

    masks = True

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.response = b""

    @classmethod
    async def connect(cls, port: int, receive_buffer: int | None = None) -> Self:
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
        self.send(request)
        async with asyncio.timeout(PATIENCE):
            self.response = await self.reader.readuntil(b"\r\n\r\n")
        return self.response

    async def ask(self, request: bytes = REQUEST) -> tuple[int, dict[str, str], str]:
        """Send a request that will be refused: status, headers (names in lower case), body."""
        self.send(request)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], str]:
        """Wait for a response without WebSocket, which ends with the connection."""
        async with asyncio.timeout(PATIENCE):
            data = await self.reader.read(-1)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("iso-8859-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(status.split()[1]), headers, body.decode()


class ServerPeer(RawPeer):
    """A server's end."""

    masks = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.line = ""  # of the request
        self.headers: list[tuple[str, str]] = []
        self.done = asyncio.Event()

    async def request(self) -> Self:
        """Read the head of a request, however long the client takes over it."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.line, *lines = head.split("\r\n")[:-2]
        self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return self

    def header(self, name: str) -> str | None:
        """The value of a header that came at most once."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def switch(self, *headers: tuple[str, str], replace: dict[str, str | None] | None = None) -> None:
        """Answer with 101: the right headers, but for those replaced (None: left out), and more."""
        self.send(wire.acceptance(self.header("Sec-WebSocket-Key") or "", headers, replace))

    async def open(self) -> Self:
        """Make an ordinary handshake."""
        (await self.request()).switch()
        return self

    def message(self, payload: bytes, opcode: int = wire.TEXT, *, fin: bool = True, rsv: int = 0) -> None:
        """Send a frame."""
        self.send(wire.frame(payload, opcode, fin=fin, rsv=rsv, mask=None))


class RawServer:
    """A TCP server on a free port of 127.0.0.1 that lets a coroutine say what it wants to each client.

    What a handler raises is raised at the end of the block, the end of the stream included: a handler that expects no
    more calls `peer.rest()`. It must have come to its end by then.

    Attributes:
        peers: of all connections so far.
        done: set at the end of the block.
    """

    def __init__(
        self, handler: Callable[[ServerPeer], Awaitable[None]] | bytes, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.handler = answering(handler) if isinstance(handler, bytes) else handler
        self.tls = tls
        self.peers: list[ServerPeer] = []
        self.done = asyncio.Event()
        self.failures: list[BaseException] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = ServerPeer(reader, writer)
        peer.done = self.done
        self.peers.append(peer)
        try:
            await self.handler(peer)
        except BaseException as exc:
            self.failures.append(exc)
        finally:
            self.tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.server.close()
        self.done.set()
        if self.tasks:
            late = (await asyncio.wait(set(self.tasks), timeout=PATIENCE))[1]
            for task in late:
                task.cancel()
            assert not late, f"{len(late)} handlers have not ended"
        if self.failures:
            raise self.failures[0]

    @property
    def uri(self) -> str:
        return f"ws{'s' if self.tls else ''}://127.0.0.1:{self.port}/"


def answering(response: bytes) -> Callable[[ServerPeer], Awaitable[None]]:
    """A handler that gives every request the same answer, and ends."""

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        peer.send(response)

    return handler


async def forever(peer: ServerPeer) -> None:
    """Say nothing, until the end of the test."""
    await peer.done.wait()
