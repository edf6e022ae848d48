"""How a worker takes leave of its clients.

    Orders     how urgently to end, as told so far; it only ever gets more urgent
    Drain      `begin`: stop accepting; `run`: close connections with 1001, each at its own moment, idle ones first;
               wait for their ends and for handlers; cut what is left. `rest`: close connections so, and refuse new ones

Spread, because clients that are disconnected in one second come back in the next one, all of them. Idle ones first,
because whoever is talking may be done before its turn comes.

What must not live here: signals and the supervisor (main.py), the closing handshake (closing.py, asyncio).
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Sequence
from typing import Any

from ..asyncio.server import Server, ServerConnection, handshakes_done
from ..frames import CloseCode
from ..ipc.pipe import Level

__all__ = ["Drain", "Orders"]

logger = logging.getLogger("tidegate.worker")

REASON = "server shutting down"
# Seconds for the answers to close frames that were sent at once, since somebody is in a hurry.
AT_ONCE = 1.0
# Connections that are accepted after the order to stop accepting, at most, for more may come all the time.
QUEUED = 4096
# Seconds for handshakes that were in progress when others began to accept instead.
HANDSHAKES = 3.0
# Seconds for handlers to end after they were cancelled.
CANCELLED = 1.0


class Orders:
    """The most urgent order so far, to be read, or to be waited for."""

    def __init__(self) -> None:
        self.level = Level.NONE
        self.leave_queue = False  # whoever waits in a queue is left to others who accept from it
        self._given = {level: asyncio.Event() for level in Level}

    def give(self, level: Level) -> None:
        """An order; one that is less urgent than the last changes nothing."""
        self.level = max(self.level, level)
        for each, event in self._given.items():
            if each <= self.level:
                event.set()

    async def wait(self, level: Level) -> None:
        """Return once the order is as urgent as this."""
        await self._given[level].wait()


class Drain:
    """The end of a worker's servers.

    Parameters:
        servers: those that serve, with their connections.
        orders: how urgent it is; DRAIN has been given.
        window: seconds over which closing is spread.
        timeout: seconds until what is left is cut.
    """

    def __init__(self, servers: Sequence[Server], orders: Orders, *, window: float, timeout: float) -> None:
        self._servers = servers
        self._orders = orders
        self._window = window
        self._timeout = timeout
        self._closings: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Accept nobody more, if others accept from the same sockets: they have it to themselves from now on."""
        if self._orders.leave_queue:
            for server in self._servers:
                server.stop_accepting()

    async def run(self) -> int:
        """Take leave; the number of handlers that did not end even though they were cancelled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        if self._orders.leave_queue:
            await self._hand_over()
        else:
            await self._accept_queued()
        for server in self._servers:
            server.close(close_connections=False)
        ended = asyncio.gather(*(server.wait_closed() for server in self._servers))
        spreading = loop.create_task(self._spread())
        if not await self._until(ended, Level.CLOSE, deadline):
            spreading.cancel()
        if not ended.done() and self._orders.level >= Level.CLOSE:
            self._close_all()
            await self._until(ended, Level.CUT, min(deadline, loop.time() + AT_ONCE))
        if not ended.done():
            await self._cut(ended)
        spreading.cancel()
        ended.cancel()
        return sum(len(server.handler_tasks) for server in self._servers)

    async def _until(self, ended: asyncio.Future[list[None]], level: Level, deadline: float) -> bool:
        """Wait for the end, for a more urgent order, or for the deadline; whether it is the end."""
        loop = asyncio.get_running_loop()
        order = loop.create_task(self._orders.wait(level))
        timeout = max(0.0, deadline - loop.time())
        waited: list[asyncio.Future[Any]] = [ended, order]
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        order.cancel()
        return ended.done()

    async def _accept_queued(self) -> None:
        """Accept whoever has connected already, to be told 503: closing the socket would reset them."""
        queues = select.poll()
        for server in self._servers:
            for sock in server.sockets:
                queues.register(sock.fileno(), select.POLLIN)
        for _ in range(QUEUED):
            if not queues.poll(0):
                break
            await asyncio.sleep(0)  # in each turn of its loop uvloop accepts one of each socket

    async def _hand_over(self) -> None:
        """Let others accept, and handshakes in progress succeed: nobody is refused."""
        self.begin()
        await handshakes_done(self._servers, HANDSHAKES, lambda: self._orders.level >= Level.CLOSE)

    async def rest(self) -> None:
        """Close every connection as in a drain, and refuse new ones from now on, but go on accepting them for that."""
        for server in self._servers:
            server.reject_handshakes()
        await self._spread_out()

    # Three ways to close.

    async def _spread(self) -> None:
        """Close every connection at its own moment within the window."""
        await self._spread_out()
        self._close_all()  # whose handshake was with a hook when we looked

    async def _spread_out(self) -> None:
        """The longest idle first."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        connections = sorted(self._connections(), key=lambda connection: connection.idle_since)
        for turn, connection in enumerate(connections):
            moment = start + self._window * turn / len(connections)
            if moment > loop.time():
                await asyncio.sleep(moment - loop.time())
            self._close(connection)

    def _close_all(self) -> None:
        for server in self._servers:
            server.close(close_connections=True, code=CloseCode.GOING_AWAY, reason=REASON)

    def _close(self, connection: ServerConnection) -> None:
        task = asyncio.get_running_loop().create_task(connection.close(CloseCode.GOING_AWAY, REASON))
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _cut(self, ended: asyncio.Future[list[None]]) -> None:
        """Cut connections and cancel handlers, also those that make new ones meanwhile."""
        handlers = {task for server in self._servers for task in server.handler_tasks}
        connections = len(self._connections())
        logger.warning("cut: %d open connections, %d handlers that had not ended", connections, len(handlers))
        for server in self._servers:
            server.abort_connections()
        for task in handlers:
            task.cancel("the worker ends")
        await asyncio.wait([ended], timeout=CANCELLED)

    def _connections(self) -> list[ServerConnection]:
        return [connection for server in self._servers for connection in server.connections]
