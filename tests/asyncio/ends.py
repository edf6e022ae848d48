"""Both ends of a connection for tests: a server in this event loop, and a peer that speaks raw frames.

    async with connected() as (websocket, peer): ...     # the server's connection, and the other end of it
    async with serving(handler) as server: ...           # server.peer(), or any client on server.uri

What must not live here: test cases; the peer (tests/support/rawpeer.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.support.rawpeer import REQUEST, ClientPeer
from tidegate.asyncio.server import Server, ServerConnection, serve


async def echo(websocket: ServerConnection) -> None:
    """A handler that sends back what comes."""
    async for message in websocket:
        await websocket.send(message)


async def idle(websocket: ServerConnection) -> None:
    """A handler that reads nothing, and is there until the connection is closed."""
    await websocket.wait_closed()


class Serving:
    """A server on a free port, and the peers that a test made of it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self.uri = f"ws://127.0.0.1:{self.port}/"
        self.peers: list[ClientPeer] = []

    async def raw(self, receive_buffer: int | None = None) -> ClientPeer:
        """A peer that has said nothing."""
        self.peers.append(await ClientPeer.connect(self.port, receive_buffer))
        return self.peers[-1]

    async def peer(self, request: bytes = REQUEST, receive_buffer: int | None = None) -> ClientPeer:
        """A peer whose handshake is done."""
        peer = await self.raw(receive_buffer)
        response = await peer.handshake(request)
        assert response.startswith(b"HTTP/1.1 101 "), response
        return peer

    async def ask(self, request: bytes = REQUEST) -> tuple[int, dict[str, str], str]:
        """The answer to a request that is rejected."""
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
    assert not server._registry.all
    assert not server._registry.open
    assert not server._registry.handshaking
    assert not server.handler_tasks


@contextlib.asynccontextmanager
async def connected(
    *, receive_buffer: int | None = None, request: bytes = REQUEST, **options: Any
) -> AsyncIterator[tuple[ServerConnection, ClientPeer]]:
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
