"""A server of raw bytes, for what no decent server says: broken answers, half a closing handshake, silence.

What must not live here: test cases, and any use of a WebSocket library: this is the other side, written from RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

from tests.support.rawclient import frame


class Peer:
    """The server's end of one TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.line = ""  # of the request
        self.headers: list[tuple[str, str]] = []
        self.held: bytearray | None = None

    def send(self, data: bytes) -> None:
        if self.held is None:
            self.writer.write(data)
        else:
            self.held += data

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is sent within leaves in one piece."""
        held = self.held = bytearray()
        yield
        self.held = None
        self.send(bytes(held))

    async def request(self) -> Self:
        """Read the head of a request."""
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
        key = (self.header("Sec-WebSocket-Key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        fields: dict[str, str | None] = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1(key.encode()).digest()).decode(),
        }
        fields |= replace or {}
        lines = [f"{name}: {value}" for name, value in [*fields.items(), *headers] if value is not None]
        self.send("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode())

    async def open(self) -> Self:
        """Make an ordinary handshake."""
        (await self.request()).switch()
        return self

    def message(self, payload: bytes, opcode: int = 1, **kwargs: Any) -> None:
        self.send(frame(payload, opcode, mask=None, **kwargs))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the client: first byte (FIN, RSV, opcode), payload."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "a client must mask (RFC 6455 section 5.1)"
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(length)
        return first, bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))

    async def end(self) -> bytes:
        """What comes until the client ends the stream, or breaks it."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await self.reader.read(65536):
                rest += chunk
        return rest


class RawServer:
    """A TCP server on a free port of 127.0.0.1 that lets a coroutine say what it wants to each client.

    Attributes:
        peers: of all connections so far.
    """

    def __init__(
        self, handler: Callable[[Peer], Awaitable[None]] | bytes, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.handler = answering(handler) if isinstance(handler, bytes) else handler
        self.tls = tls
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self.handler(peer)
        except (ConnectionError, EOFError):
            pass
        except asyncio.CancelledError:
            pass
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
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.failures:
            raise self.failures[0]

    @property
    def uri(self) -> str:
        return f"ws{'s' if self.tls else ''}://127.0.0.1:{self.port}/"


def answering(response: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A handler that gives every request the same answer, and ends."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.send(response)

    return handler


async def forever(peer: Peer) -> None:
    """Say nothing."""
    await asyncio.get_running_loop().create_future()
