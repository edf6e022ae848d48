"""Where scenarios play: a library's server with raw peers, and a library's client with a raw server.

The raw side is written from RFC 6455 and knows neither library. What must not live here: scenarios.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.differential.library import ADDED, VARYING
from tests.support.rawclient import RawClient, frame

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {CONT: "cont", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
REQUEST = RawClient.request()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SHORT = 0.05
"""Seconds of a timeout that a scenario waits for."""


class Peer:
    """One end of a TCP connection, which sends and tells what a scenario says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.client = client
        self.answering = True  # the close frame that comes, unless we closed first
        self.inflate: Any = None  # of a permessage-deflate stream with context takeover
        self.deflated = False  # whether the message that comes is

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        """Send a frame as this side must: masked by a client."""
        self.write(frame(payload, opcode, fin=fin, rsv=rsv, mask=b"\1\2\3\4" if self.client else None))

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.answering = False
        self.send(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())

    async def head(self) -> tuple[str, list[tuple[str, str | None]]]:
        """The first line and the headers of a message of HTTP, without the values that vary."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("iso-8859-1")
        first, *lines = head[:-4].split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        self.key = dict(headers).get("Sec-WebSocket-Key", "")
        return first, [(name, None if name in VARYING else value) for name, value in headers if name not in ADDED]

    async def ask(self, request: bytes = REQUEST) -> tuple[str, list[tuple[str, str | None]]]:
        """Send a request: the head of the response."""
        self.write(request)
        return await self.head()

    async def answer(self, request: bytes) -> Any:
        """Send a request that is refused: the head, the body; or how the connection ended instead."""
        try:
            first, headers = await self.ask(request)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return "end", ""
        body = "" if first.startswith("HTTP/1.1 101 ") else await self.reader.read()
        return (first, headers), body

    async def accept(self, *lines: str) -> tuple[str, list[tuple[str, str | None]]]:
        """As a server: read a request, accept it with more header lines; the request."""
        head = await self.head()
        self.write(self.acceptance(*lines))
        return head

    def acceptance(self, *lines: str) -> bytes:
        """The response that accepts the request that came."""
        accept = base64.b64encode(hashlib.sha1(self.key.encode() + GUID).digest()).decode()
        head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        return "\r\n".join([*head, f"Sec-WebSocket-Accept: {accept}", *lines, "", ""]).encode()

    async def frame(self) -> tuple[Any, ...]:
        """The next frame, as (kind, payload) or ("close", code, reason); ("end",) at the end of the stream."""
        try:
            first, mask, payload = await self.read_frame()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.end()
            return ("end",)
        opcode = first & 0xF
        if mask:
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        kind = NAMES[opcode] + ("" if first & 0x80 else "...")
        if bool(mask) == self.client:
            kind += " with the wrong masking"
        if first & 0x70:
            kind += f" rsv={first >> 4 & 7}"
        if opcode == CLOSE:
            self.closed(payload)
            return (kind, int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (kind, b"")
        if self.inflate is not None and opcode < CLOSE:
            self.deflated = self.deflated if opcode == CONT else bool(first & 0x40)
            if self.deflated:
                payload = self.inflate.decompress(payload + (b"\0\0\xff\xff" if first & 0x80 else b""))
        return kind, payload

    async def read_frame(self) -> tuple[int, bytes, bytes]:
        """The next frame's first byte, mask and payload."""
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        mask = await self.reader.readexactly(4) if second & 0x80 else b""
        return first, mask, await self.reader.readexactly(length)

    def closed(self, payload: bytes) -> None:
        """A close frame came: answer it."""
        if self.answering:
            self.answering = False
            self.send(CLOSE, payload)
            if not self.client:
                self.end()  # the server does first (RFC 6455 7.1.1)

    async def rest(self) -> list[tuple[Any, ...]]:
        """All frames, and the end of the stream."""
        frames = [await self.frame()]
        while frames[-1] != ("end",):
            frames.append(await self.frame())
        return frames

    def listen(self) -> asyncio.Task[list[tuple[Any, ...]]]:
        """The same while a scenario goes on; close frames are answered."""
        return asyncio.create_task(self.rest())

    def end(self) -> None:
        """Close the TCP connection, politely."""
        self.writer.close()

    def reset(self) -> None:
        """Break the TCP connection, so that the other side sees an error."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def inflater(bits: int = 15) -> Any:
    """What decompresses the messages of a connection."""
    return zlib.decompressobj(-bits)


def deflated(data: bytes) -> bytes:
    """A message compressed as the first of its connection."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


QUIET: dict[str, Any] = {"compression": None, "ping_interval": None, "close_timeout": 5}


class Serving:
    """A server of a library on a free port, and the peers that a scenario made of it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self.uri = f"ws://127.0.0.1:{self.port}/"
        self.peers: list[Peer] = []

    async def raw(self) -> Peer:
        """A peer that has said nothing."""
        self.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", self.port), client=True))
        return self.peers[-1]

    async def peer(self, request: bytes = REQUEST) -> Peer:
        """A peer whose handshake is done."""
        peer = await self.raw()
        first, _ = await peer.ask(request)
        assert first == "HTTP/1.1 101 Switching Protocols"
        return peer

    def hang_up(self) -> None:
        """End all peers."""
        for peer in self.peers:
            peer.end()


@contextlib.asynccontextmanager
async def serving(lib: Any, handler: Callable[[Any], Awaitable[None]], **options: Any) -> AsyncIterator[Serving]:
    """A server of `handler`."""
    async with lib.serve(handler, "127.0.0.1", 0, **{**QUIET, **options}) as server:
        made = Serving(server)
        try:
            yield made
        finally:
            made.hang_up()


@contextlib.asynccontextmanager
async def accepted(lib: Any, request: bytes = REQUEST, **options: Any) -> AsyncIterator[tuple[Any, Peer]]:
    """The library's end of a connection that it accepted, and the raw peer. The handler waits until the end."""
    done = asyncio.Event()
    here: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(websocket: Any) -> None:
        here.set_result(websocket)
        await done.wait()

    async with serving(lib, handler, **options) as server:
        peer = await server.peer(request)
        try:
            yield await here, peer
        finally:
            done.set()


@contextlib.asynccontextmanager
async def raw_server(script: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that does with each connection what a script says: its URI."""
    tasks: list[asyncio.Task[None]] = []

    async def play(peer: Peer) -> None:
        try:
            await script(peer)
        finally:
            peer.end()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(play(Peer(reader, writer, client=False))))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await asyncio.gather(*tasks)
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def dialled(lib: Any, *lines: str, **options: Any) -> AsyncIterator[tuple[Any, Peer]]:
    """The library's end of a connection that it made, and the raw peer, which accepted with these header lines."""
    done = asyncio.Event()
    here: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.accept(*lines)
        here.set_result(peer)
        await done.wait()

    async with raw_server(script) as uri:
        try:
            websocket = await lib.connect(uri, proxy=None, **{**QUIET, **options})
            peer = await here
            try:
                yield websocket, peer
            finally:
                peer.end()
                await websocket.wait_closed()
        finally:
            done.set()


async def until(condition: Callable[[], Any]) -> None:
    """Let the event loop run until something is true."""
    while not condition():
        await asyncio.sleep(0.001)
