"""Where links to the hub come from: the supervisor gives them to a worker; other processes connect to a path.

    Links      those of a worker, one after the other
    provide    make them this process's
    find       what gives links by a URL
    at_path    connect to the socket of a daemon

What must not live here: what is said on a link (local.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from ..exceptions import BusError

__all__ = ["Connect", "Links", "at_path", "find", "provide"]

Connect = Callable[[], Awaitable[socket.socket]]
"""Gives a connected socket to the hub, when there is one; raises OSError if there will be none soon."""


class Links:
    """The links that the supervisor sends to this process: one, and another after each end of the hub.

    Parameters:
        name: what operators call this process.
        ask: called when a link is needed, and none has come: also one to the hub that there was before, for a link may
            end though the hub lives on.

    Attributes:
        generation: the number of its settings, which comes with a link.
    """

    def __init__(self, name: str, ask: Callable[[], None]) -> None:
        self.name, self.generation = name, 0
        self._ask = ask
        self._waiting: asyncio.Future[None] | None = None
        self._offered: socket.socket | None = None

    def offer(self, sock: socket.socket, generation: int = 0) -> None:
        """Take a link; one before it that was not taken led to a hub that has ended."""
        self.generation = generation
        if self._offered is not None:
            self._offered.close()
        self._offered = sock
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def connect(self) -> socket.socket:
        """Return the next link once it has come."""
        while self._offered is None:
            if self._waiting is not None and not self._waiting.done():
                raise BusError("this worker has one bus on local:// already: use that")
            self._waiting = asyncio.get_running_loop().create_future()
            self._ask()
            await self._waiting
        sock, self._offered = self._offered, None
        return sock

    def close(self) -> None:
        """Close a link that was not taken."""
        if self._offered is not None:
            self._offered.close()
            self._offered = None


_provided: Links | None = None


def provide(links: Links | None) -> None:
    """Make these the links that local:// without a path means in this process; None: it has none."""
    global _provided
    _provided = links


def find(path: str) -> tuple[Connect, Links | None]:
    """Return what gives links to the hub at a path, or, without one, the links that this process is given.

    Raises:
        BusError: it is given none.
    """
    if path:
        return at_path(path), None
    if _provided is None:
        raise BusError(
            "local:// is the bus of an application that tidegate serves; elsewhere, give the path of the daemon's "
            "socket, as in local:///run/tidegate/hub"
        )
    return _provided.connect, _provided


def at_path(path: str) -> Connect:
    """Return what connects to the hub that listens at a path."""

    async def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
        return sock

    return connect
