"""An ASGI application that a test speaks for: each of its calls is handed to the test, which receives and sends.

    async with asgi_serving() as made:
        peer = await made.raw(); peer.send(REQUEST)
        call = await made.call()
        assert await call.receive() == {"type": "websocket.connect"}

What must not live here: test cases.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.asyncio.ends import Serving
from tests.support.patience import PATIENCE
from tests.support.rawpeer import REQUEST, ClientPeer
from tidegate.asyncio.asgi import serve_asgi
from tidegate.asyncio.http_service import HttpService
from tidegate.asyncio.server import Server


class Call:
    """One call of the application, which lasts until the test returns or raises for it."""

    def __init__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.scope, self.send, self._receive = scope, send, receive
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    async def receive(self) -> Any:
        """The next event; each wait lasts PATIENCE at most."""
        async with asyncio.timeout(PATIENCE):
            return await self._receive()

    async def accept(self, **more: Any) -> None:
        """Take the event of the connection, and accept."""
        assert await self.receive() == {"type": "websocket.connect"}
        await self.send({"type": "websocket.accept", **more})

    async def finish(self, error: BaseException | None = None) -> None:
        """Return, or raise, and wait until the server has seen it."""
        if not self.end.done():
            if error is None:
                self.end.set_result(None)
            else:
                self.end.set_exception(error)
        await self.ended.wait()


class AsgiServing(Serving):
    """A server of such an application."""

    def __init__(self, server: Server, calls: asyncio.Queue[Call]) -> None:
        super().__init__(server)
        self.calls = calls

    async def call(self) -> Call:
        """The next call of the application."""
        async with asyncio.timeout(PATIENCE):
            return await self.calls.get()

    async def asked(self, request: bytes = REQUEST) -> tuple[ClientPeer, Call]:
        """A peer that has sent its request, and the call that it is."""
        peer = await self.raw()
        peer.send(request)
        return peer, await self.call()

    async def opened(self, request: bytes = REQUEST, receive_buffer: int | None = None) -> tuple[ClientPeer, Call]:
        """An open connection: the client's end, and the application's."""
        peer = await self.raw(receive_buffer)
        handshake = asyncio.ensure_future(peer.handshake(request))
        call = await self.call()
        await call.accept()
        assert (await handshake).startswith(b"HTTP/1.1 101 ")
        return peer, call


@contextlib.asynccontextmanager
async def asgi_serving(
    application: Any = None, *, root_path: str = "", state: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[AsgiServing]:
    """A server of the application, or of one that the test speaks for. What the loop complains of is an error."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    calls: asyncio.Queue[Call] = asyncio.Queue()
    made: list[Call] = []

    async def ask(scope: Any, receive: Any, send: Any) -> None:
        call = Call(scope, receive, send)
        made.append(call)
        calls.put_nowait(call)
        try:
            await call.end
        finally:
            call.ended.set()

    application = application or ask
    options = {"compression": None, "ping_interval": None, **options}
    http = HttpService(application, root_path=root_path, state={} if state is None else state)
    async with serve_asgi(application, "127.0.0.1", 0, http=http, **options) as server:
        serving = AsgiServing(server, calls)
        try:
            yield serving
        finally:
            for peer in serving.peers:
                peer.close()
            for call in made:
                if not call.end.done():
                    call.end.set_result(None)
    assert not complaints
    for members in (server._registry.all, server._registry.open, server._registry.handshaking, server._registry.http):
        assert not members
    assert not server.handler_tasks
