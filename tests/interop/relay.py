"""A relay between two peers that keeps what each has sent: what was agreed on, and how messages were framed.

What must not live here: test cases; frames as such (tests/support/wire.py); any use of a WebSocket library.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, Literal, Self

from tests.support.wire import Frame, parsed

Side = Literal["client", "server"]


class Relay:
    """Listens on a free port of 127.0.0.1 as long as its block lasts, and passes all on to a port. Of several
    connections, what it tells is the last one's."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.sent: dict[Side, bytearray] = {"client": bytearray(), "server": bytearray()}
        self.tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.uri = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/"
        self._start(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.listener.close()

    def _start(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _listen(self) -> None:
        while True:
            near, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            self._start(self._relay(near))

    async def _relay(self, near: socket.socket) -> None:
        with near, socket.socket() as far:
            for sock in (near, far):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(far, ("127.0.0.1", self.target))
            self.sent = {"client": bytearray(), "server": bytearray()}
            await asyncio.gather(_pass(near, far, self.sent["client"]), _pass(far, near, self.sent["server"]))

    # What was said.

    def header(self, side: Side, name: str) -> str:
        """The values of a header of the handshake, joined; "" when there is none."""
        head = bytes(self.sent[side]).partition(b"\r\n\r\n")[0].decode()
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        return ", ".join(value.strip() for found, _, value in lines if found.lower() == name.lower())

    def frames(self, side: Side) -> list[Frame]:
        """The whole frames sent so far."""
        return list(parsed(bytes(self.sent[side]).partition(b"\r\n\r\n")[2], partial=True))

    def messages(self, side: Side) -> list[Frame]:
        """The frames of `frames()` that are no control frames."""
        return [frame for frame in self.frames(side) if frame.opcode < 8]


async def _pass(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    """Sockets, not streams: who no longer reads may still have said something, which streams lose."""
    loop = asyncio.get_running_loop()
    heard = True
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(source, 65536):
            kept += data
            try:
                if heard:
                    await loop.sock_sendall(target, data)
            except ConnectionError:
                heard = False
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
