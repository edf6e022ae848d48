"""wsproto as a peer: the protocol without I/O, which asyncio's streams carry here.

It checks neither the size of messages nor passwords, so these are no part of what it shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from tests.interop.peers import program
from tests.interop.peers.program import Closed, Program, Rejected, fields, parameters


class WebSocket(program.Connection):
    """A connection over a pair of streams."""

    def __init__(self, side: ConnectionType, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocol = WSConnection(side)
        self.reader, self.writer = reader, writer
        self.subprotocol: str | None = None
        self.headers: dict[str, str] | None = None
        self.messages: asyncio.Queue[program.Message] = asyncio.Queue()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.parts: list[Any] = []
        self.closing = False  # on our own account

    async def say(self, event: Event) -> None:
        """Send an event."""
        self.writer.write(self.protocol.send(event))
        await self.writer.drain()

    async def handshake(self) -> Event:
        """The event that comes first."""
        while True:
            for event in self.protocol.events():
                return event
            data = await self.reader.read(65536)
            self.protocol.receive_data(data or None)

    def open(self, subprotocol: str | None, headers: Any) -> None:
        """The handshake is done: read on."""
        self.subprotocol = subprotocol
        self.headers = fields((name.decode(), value.decode()) for name, value in headers)
        self.end = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> Closed:
        closed = Closed(1006, "")
        with contextlib.suppress(ConnectionError), contextlib.closing(self.writer):
            while True:
                for event in self.protocol.events():
                    if isinstance(event, CloseConnection):
                        closed = Closed(event.code, event.reason or "")
                    await self._heard(event)
                if not (data := await self.reader.read(65536)):
                    break
                self.protocol.receive_data(data)
        return closed

    async def _heard(self, event: Event) -> None:
        match event:
            case TextMessage() | BytesMessage():
                self.parts.append(event.data)
                if event.message_finished:
                    whole = "".join(self.parts) if isinstance(event, TextMessage) else b"".join(self.parts)
                    self.messages.put_nowait(whole)
                    self.parts.clear()
            case Ping():
                await self.say(event.response())
            case Pong():
                self.pongs.put_nowait(bytes(event.payload))
            case CloseConnection():
                if not self.closing:
                    await self.say(event.response())
                if not self.protocol.client:
                    self.writer.close()

    async def send(self, message: program.Message) -> None:
        await self.say(Message(data=message))

    async def fragments(self, parts: list[Any]) -> None:
        for part in parts[:-1]:
            await self.say(Message(data=part, message_finished=False))
        await self.say(Message(data=parts[-1]))

    async def recv(self) -> program.Message | Closed:
        got = asyncio.ensure_future(self.messages.get())
        await asyncio.wait([got, self.end], return_when=asyncio.FIRST_COMPLETED)
        if got.done():
            return got.result()
        got.cancel()
        return self.end.result()

    async def ping(self, data: bytes) -> None:
        await self.say(Ping(data))
        while await self.pongs.get() != data:
            pass

    async def close(self, code: int, reason: str) -> Closed:
        if not self.end.done():
            self.closing = True
            await self.say(CloseConnection(code, reason))
        return await self.end


def extensions(options: dict[str, Any]) -> list[Any]:
    """permessage-deflate, as asked for."""
    compression = options.get("compression")
    return [] if compression is None else [PerMessageDeflate(**parameters(compression))]


def encoded(options: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """The headers to add."""
    return [(name.encode(), value.encode()) for name, value in options.get("headers", {}).items()]


class Wsproto(Program):
    """Clients and servers over streams."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[asyncio.Server] = []  # or they would be collected

    async def connect(self, uri: str, options: dict[str, Any]) -> program.Connection:
        parts = urlsplit(uri)
        assert parts.hostname is not None
        streams = await asyncio.open_connection(parts.hostname, parts.port)
        websocket = WebSocket(ConnectionType.CLIENT, *streams)
        await websocket.say(
            Request(
                host=parts.netloc,
                target=parts.path,
                extensions=extensions(options),
                extra_headers=encoded(options),
                subprotocols=options.get("subprotocols", []),
            )
        )
        event = await websocket.handshake()
        if isinstance(event, RejectConnection):
            raise Rejected(event.status_code)
        assert isinstance(event, AcceptConnection), event
        websocket.open(event.subprotocol, event.extra_headers)
        return websocket

    async def serve(self, options: dict[str, Any]) -> int:
        async def connected(*streams: Any) -> None:
            websocket = WebSocket(ConnectionType.SERVER, *streams)
            request = await websocket.handshake()
            assert isinstance(request, Request), request
            ours = options.get("subprotocols", [])
            subprotocol = next((name for name in ours if name in request.subprotocols), None)
            await websocket.say(
                AcceptConnection(
                    subprotocol=subprotocol, extensions=extensions(options), extra_headers=encoded(options)
                )
            )
            websocket.open(subprotocol, request.extra_headers)
            self.accepted.put_nowait(websocket)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]  # type: ignore[no-any-return]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Wsproto().run()
