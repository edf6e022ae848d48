"""The admin process's entrance: probes come in, however many others are there.

Nobody has to be refused: what there is to be had is an answer, and it is given at once. So when there are as many
connections as there may be, or few descriptors are left, the oldest that is no listener of /live makes room: it has
not asked, or does not take its answer.

What must not live here: who may ask (access), how many listen (feed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asyncio.admission import Gate, Visit, descriptors
from ..limits import Limiter
from ..networks import Networks
from ..protocol import CONNECTING

if TYPE_CHECKING:
    from ..asyncio.server import ServerConnection

__all__ = ["BACKLOG", "CONNECTIONS", "Entrance"]

CONNECTIONS = 128
"""At a time, listeners included."""

BACKLOG = 64
"""Connections that the system queues for each socket, and that can come before one that made room has left."""


class Entrance(Gate):
    """The gate of the admin process's servers."""

    def __init__(self) -> None:
        _, last = descriptors()
        super().__init__(Limiter(), trusted=Networks(()), limits=(max(last - 2 * BACKLOG, last // 2), last))
        self._here: dict[Visit, ServerConnection] = {}  # in the order in which they came

    def arrived(self, connection: ServerConnection) -> bool:
        """It is about to begin its handshake, for which another may have to leave."""
        if len(self._here) >= CONNECTIONS or self.is_busy(connection.transport):
            self._make_room()
        visit = connection._visit = connection._visit or Visit(connection._opened_at)
        self._here[visit] = connection
        if self.cuts(connection.transport):  # so many came at once that those who leave have not left yet
            visit.refusal = "descriptors", 0
            self.refuse(connection, visit, cut=True)
        return visit.refusal is None

    def gone(self, visit: Visit) -> None:
        """It has ended."""
        self._here.pop(visit, None)

    def _make_room(self) -> None:
        for visit, connection in self._here.items():
            if connection._state == CONNECTING and not connection.transport.is_closing():
                connection._row.limit_rejection("daemon")
                connection._handshake_over("limited")
                connection.transport.abort()
                del self._here[visit]
                return
