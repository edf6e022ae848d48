"""Listening: with streams of our own where they can serve, with the event loop's transports elsewhere.

The loop always binds, by its own create_server(), with its own arguments and errors. Where streams serve, the server
that it makes is never started, and keeps the sockets, on which listeners of ours accept.

What must not live here: protocols.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from .._core.listener import Listener
from .._core.stream import STREAMS

__all__ = ["Factory", "StreamServer", "address_of", "listen"]

Factory = Callable[[], asyncio.Protocol]

BACKLOG = 100
"""asyncio's default length of the accept queue."""


async def listen(
    loop: asyncio.AbstractEventLoop,
    factory: Factory,
    host: Any = None,
    port: int | None = None,
    *,
    unix: bool = False,
    tls: bool = False,
    start_serving: bool = True,
    **kwargs: Any,
) -> asyncio.AbstractServer:
    """Bind, and accept connections.

    Args:
        loop: the running event loop.
        factory: makes the protocol of each connection.
        host, port: as for create_server().
        unix: listen on a Unix socket.
        tls: connections begin TLS, which is the loop's.
        start_serving: accept from now on.
        kwargs: passed to the loop.

    Raises:
        OSError: if the address cannot be bound.
        TypeError, ValueError: for arguments of which the loop says so.
    """
    streams = STREAMS and not tls and kwargs.get("ssl") is None
    started = start_serving and not streams
    server: asyncio.AbstractServer
    if unix:
        server = await loop.create_unix_server(factory, start_serving=started, **kwargs)
    else:
        server = await loop.create_server(factory, host, port, start_serving=started, **kwargs)
    if streams:
        server = StreamServer(loop, server, factory, kwargs.get("backlog", BACKLOG))
        if start_serving:
            await server.start_serving()
    return server


class StreamServer(asyncio.AbstractServer):
    """asyncio.Server's methods, for listeners of ours.

    Args:
        loop: the event loop.
        bound: a server of the loop's that was not started, which keeps the sockets.
        factory: makes the protocol of each connection.
        backlog: length of each accept queue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: Any, factory: Factory, backlog: int) -> None:
        self._loop, self._bound, self._backlog = loop, bound, backlog
        # Objects of our own on the same descriptors: the loop's are no whole sockets.
        self._listeners = [
            Listener(loop, socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno()), factory)
            for sock in bound.sockets
        ]
        self._serving = False
        self._closed = loop.create_future()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; none once the server is closed."""
        return tuple(self._bound.sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Return whether connections are accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Accept connections from now on; idempotent."""
        if self._closed.done():
            raise RuntimeError(f"server {self!r} is closed")
        if not self._serving:
            self._serving = True
            for listener in self._listeners:
                listener.start(self._backlog)

    async def serve_forever(self) -> None:
        """Accept connections until the server is closed or this is cancelled, which closes it."""
        await self.start_serving()
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()

    def close(self) -> None:
        """Accept nothing more, and close the sockets; idempotent. Connections go on."""
        if self._closed.done():
            return
        self._serving = False
        self._closed.set_result(None)
        for listener in self._listeners:
            listener.stop()
            listener.sock.detach()  # the descriptor is the loop's server's to close
        self._bound.close()

    def close_clients(self) -> None:
        """Close all connections that were accepted."""
        for listener in self._listeners:
            for stream in listener.streams():
                stream.close()

    def abort_clients(self) -> None:
        """Abort all connections that were accepted."""
        for listener in self._listeners:
            for stream in listener.streams():
                stream.abort()

    async def wait_closed(self) -> None:
        """Wait until the sockets are closed."""
        await asyncio.shield(self._closed)
        await self._bound.wait_closed()


def address_of(sock: socket.socket) -> str:
    """Return the address of a listening socket as the log has it."""
    if sock.family == socket.AF_INET:
        return "{}:{}".format(*sock.getsockname())
    if sock.family == socket.AF_INET6:
        return "[{}]:{}".format(*sock.getsockname()[:2])
    return str(sock.getsockname())
