"""Proxies that pass bytes on: HTTP CONNECT (RFC 9110, 9.3.6) and SOCKS 4, 4a and 5 (RFC 1928, RFC 1929).

They say what they were asked, so that tests can tell who looked up which name. What must not live here: test cases.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import ssl
from typing import Any, Self


class Proxy:
    """A proxy on a free port of 127.0.0.1. Whatever it is asked for, it connects to 127.0.0.1 and the port asked for.

    Attributes:
        asked: (host, port) of each request, as it came.
        heads: of HTTP requests, in full.
    """

    def __init__(
        self,
        *,
        user: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n",
    ) -> None:
        self.user = user
        self.tls = tls
        self.answer = answer
        self.asked: list[tuple[str, int]] = []
        self.heads: list[str] = []
        self.clients: list[Any] = []  # their addresses
        self.tasks: set[asyncio.Task[Any]] = set()

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

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.clients.append(writer.get_extra_info("peername"))
        try:
            with contextlib.suppress(ConnectionError, EOFError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self.tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        ask = {b"\x05": self._socks5, b"\x04": self._socks4}.get(first, self._http)
        port = await ask(first, reader, writer)
        if port is None:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        finally:
            far_writer.close()

    async def _http(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, authority, version = head.partition("\r\n")[0].split(" ")
        assert (method, version) == ("CONNECT", "HTTP/1.1")
        host, _, port = authority.rpartition(":")
        self.asked.append((host, int(port)))
        if self.user is not None:
            credentials = base64.b64encode(":".join(self.user).encode()).decode()
            if f"\r\nProxy-Authorization: Basic {credentials}\r\n" not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nno\n")
                return None
        writer.write(self.answer)
        return int(port) if self.answer.split(b" ")[1].startswith(b"2") else None

    async def _socks5(self, _: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        count = (await reader.readexactly(1))[0]
        methods = await reader.readexactly(count)
        if self.user is None:
            writer.write(b"\x05\x00")
        elif 2 not in methods:
            writer.write(b"\x05\xff")
            return None
        else:
            writer.write(b"\x05\x02")
            await reader.readexactly(1)
            user = [(await reader.readexactly((await reader.readexactly(1))[0])).decode() for _ in range(2)]
            if tuple(user) != self.user:
                writer.write(b"\x01\x01")
                return None
            writer.write(b"\x01\x00")
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((host, port))
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return port

    async def _socks4(self, _: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        await reader.readexactly(1)
        port = int.from_bytes(await reader.readexactly(2), "big")
        address = await reader.readexactly(4)
        await reader.readuntil(b"\0")
        host = str(ipaddress.ip_address(address))
        if address[:3] == b"\0\0\0" and address[3]:
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        self.asked.append((host, port))
        writer.write(b"\x00\x5a\x00\x00\x00\x00\x00\x00")
        return port


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, NotImplementedError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
