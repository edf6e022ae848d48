"""How a worker closes its connections: over a window, each with 1001 at its own moment, idle ones first.

    StopRequest    how urgently to stop, as requested so far; it only ever gets more urgent
    Drain          `stop_accepting`; `run` to the end: close connections, wait for their ends and for handlers, abort
                   what is left. `close_connections` alone: refuse new ones, and stay

Spread, because clients that are disconnected in one second reconnect in the next one, all of them. Idle ones first,
because a busy client may be done before its turn comes.

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
from ..ipc.pipe import StopMode

__all__ = ["Drain", "StopRequest"]

logger = logging.getLogger("tidegate.worker")

REASON = "server shutting down"
# Seconds for the answers to close frames, when all were sent at once.
AT_ONCE = 1.0
# Connections that are accepted after the request to stop, at most, for more may come all the time.
QUEUED = 4096
# Seconds for handshakes that were in progress when others began to accept instead.
HANDSHAKES = 3.0
# Seconds for handlers to end after they were cancelled.
CANCELLED = 1.0


class StopRequest:
    """The most urgent request to stop so far, to be read, or to be waited for."""

    def __init__(self) -> None:
        self.mode = StopMode.NONE
        self.leave_queue = False  # connections in a queue are left to others who accept from it
        self._reached = {mode: asyncio.Event() for mode in StopMode}

    def escalate(self, mode: StopMode) -> None:
        """Make it as urgent as this; a less urgent mode than the present one changes nothing."""
        self.mode = max(self.mode, mode)
        for each, event in self._reached.items():
            if each <= self.mode:
                event.set()

    async def wait(self, mode: StopMode) -> None:
        """Return once the request is as urgent as this."""
        await self._reached[mode].wait()


class Drain:
    """The closing of the connections of a worker's servers.

    Parameters:
        servers: those that serve, with their connections.
        stop_request: how urgent it is: GRACEFUL at first.
        window: seconds over which closing is spread.
        timeout: seconds until what is left is aborted.
    """

    def __init__(self, servers: Sequence[Server], stop_request: StopRequest, *, window: float, timeout: float) -> None:
        self._servers = servers
        self._stop_request = stop_request
        self._window = window
        self._timeout = timeout
        self._closings: set[asyncio.Task[None]] = set()

    def stop_accepting(self) -> None:
        """Accept no more connections, if others accept from the same sockets."""
        if self._stop_request.leave_queue:
            for server in self._servers:
                server.stop_accepting()

    async def run(self) -> int:
        """Close everything; return the number of handlers that did not end even though they were cancelled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        if self._stop_request.leave_queue:
            await self._hand_over()
        else:
            await self._accept_queued()
        for server in self._servers:
            server.close(close_connections=False)
        ended = asyncio.gather(*(server.wait_closed() for server in self._servers))
        spreading = loop.create_task(self._spread())
        if not await self._until(ended, StopMode.CLOSE, deadline):
            spreading.cancel()
        if not ended.done() and self._stop_request.mode >= StopMode.CLOSE:
            self._close_all()
            await self._until(ended, StopMode.ABORT, min(deadline, loop.time() + AT_ONCE))
        if not ended.done():
            await self._abort(ended)
        spreading.cancel()
        ended.cancel()
        return sum(len(server.handler_tasks) for server in self._servers)

    async def _until(self, ended: asyncio.Future[list[None]], mode: StopMode, deadline: float) -> bool:
        """Wait for the end, for a more urgent request, or for the deadline; return whether it is the end."""
        loop = asyncio.get_running_loop()
        request = loop.create_task(self._stop_request.wait(mode))
        timeout = max(0.0, deadline - loop.time())
        waited: list[asyncio.Future[Any]] = [ended, request]
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        request.cancel()
        return ended.done()

    async def _accept_queued(self) -> None:
        """Accept the connections in the queues, to answer 503: closing a listening socket would reset them."""
        queues = select.poll()
        for server in self._servers:
            for sock in server.sockets:
                queues.register(sock.fileno(), select.POLLIN)
        for _ in range(QUEUED):
            if not queues.poll(0):
                break
            await asyncio.sleep(0)  # in each turn of its loop uvloop accepts one of each socket

    async def _hand_over(self) -> None:
        """Leave the queues to others, and let handshakes in progress succeed: no client is refused."""
        self.stop_accepting()
        await handshakes_done(self._servers, HANDSHAKES, lambda: self._stop_request.mode >= StopMode.CLOSE)

    async def close_connections(self) -> None:
        """Refuse new connections from now on, and close every open one over the window."""
        for server in self._servers:
            server.reject_handshakes()
        await self._spread_out()

    # Three ways to close.

    async def _spread(self) -> None:
        """Close every connection at its own moment within the window."""
        await self._spread_out()
        self._close_all()  # those whose handshake waited for a hook until now

    async def _spread_out(self) -> None:
        """Close connections one by one, the longest idle first."""
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

    async def _abort(self, ended: asyncio.Future[list[None]]) -> None:
        """Abort connections and cancel handlers, also those that make new ones meanwhile."""
        handlers = {task for server in self._servers for task in server.handler_tasks}
        connections = len(self._connections())
        logger.warning("aborted: %d open connections, %d handlers that had not ended", connections, len(handlers))
        for server in self._servers:
            server.abort_connections()
        for task in handlers:
            task.cancel("the worker ends")
        await asyncio.wait([ended], timeout=CANCELLED)

    def _connections(self) -> list[ServerConnection]:
        return [connection for server in self._servers for connection in server.connections]
