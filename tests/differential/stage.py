"""Where scenarios play: a library's server with actors as its clients, and a library's client with one as its server.

Actors know neither library. What must not live here: scenarios; frames as such (tests/support/wire.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.differential.library import ADDED, VARYING
from tests.support import wire
from tests.support.rawpeer import REQUEST, reset
from tests.support.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

NAMES = {CONT: "cont", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
SHORT = 0.05
"""Seconds of a timeout that a scenario waits for."""


class Actor:
    """One end of a TCP connection: it does what a scenario says, answers close frames, and tells what came in words."""

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
        """Send a request that is rejected: the head, the body; or how the connection ended instead."""
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
        """The response that accepts the request that came, with more header lines."""
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return wire.acceptance(self.key, fields)

    async def frame(self) -> tuple[Any, ...]:
        """The next frame, as (kind, payload) or ("close", code, reason); ("end",) at the end of the stream."""
        try:
            found = await wire.read_frame(self.reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.end()
            return ("end",)
        opcode, payload = found.opcode, found.payload
        kind = NAMES[opcode] + ("" if found.fin else "...")
        if (found.mask is not None) == self.client:
            kind += " with the wrong masking"
        if found.rsv:
            kind += f" rsv={found.rsv}"
        if opcode == CLOSE:
            self.closed(payload)
            return (kind, int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (kind, b"")
        if self.inflate is not None and opcode < CLOSE:
            self.deflated = self.deflated if opcode == CONT else found.rsv == 4
            if self.deflated:
                payload = self.inflate.decompress(payload + (b"\0\0\xff\xff" if found.fin else b""))
        return kind, payload

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
        reset(self.writer)


def inflater(bits: int = 15) -> Any:
    """What decompresses the messages of a connection."""
    return zlib.decompressobj(-bits)


def deflated(data: bytes) -> bytes:
    """A message compressed as the first of its connection."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def idle(websocket: Any) -> None:
    """A handler that only waits for the end."""
    await websocket.wait_closed()


QUIET: dict[str, Any] = {"compression": None, "ping_interval": None, "close_timeout": 5}


class Serving:
    """A server of a library on a free port, and the peers that a scenario made of it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self.uri = f"ws://127.0.0.1:{self.port}/"
        self.peers: list[Actor] = []

    async def raw(self) -> Actor:
        """A peer that has said nothing."""
        self.peers.append(Actor(*await asyncio.open_connection("127.0.0.1", self.port), client=True))
        return self.peers[-1]

    async def peer(self, request: bytes = REQUEST) -> Actor:
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
async def accepted(lib: Any, request: bytes = REQUEST, **options: Any) -> AsyncIterator[tuple[Any, Actor]]:
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
async def raw_server(script: Callable[[Actor], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that does with each connection what a script says: its URI."""
    tasks: list[asyncio.Task[None]] = []

    async def play(peer: Actor) -> None:
        try:
            await script(peer)
        finally:
            peer.end()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(play(Actor(reader, writer, client=False))))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await asyncio.gather(*tasks)
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def dialled(lib: Any, *lines: str, **options: Any) -> AsyncIterator[tuple[Any, Actor]]:
    """The library's end of a connection that it made, and the raw peer, which accepted with these header lines."""
    done = asyncio.Event()
    here: asyncio.Future[Actor] = asyncio.get_running_loop().create_future()

    async def script(peer: Actor) -> None:
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
