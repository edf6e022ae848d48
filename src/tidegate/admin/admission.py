"""The admin process's entrance: probes come in, however many others are there.

Nobody has to be refused: what there is to be had is an answer, and it is given at once. So when there are as many
connections as there may be, or few descriptors are left, the oldest that is no listener of /live makes room: it has
not asked, or does not take its answer.

What must not live here: who may ask (access), how many listen (feed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asyncio.admission import Gate, Verdict, Visit, descriptors
from ..limits import DESCRIPTORS, Limiter
from ..networks import Networks

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Callable

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
        self._here: dict[Visit, Callable[[], bool]] = {}  # and what cuts it; in the order in which they came

    def arrived(
        self, transport: BaseTransport, since: float, visit: Visit | None, displace: Callable[[], bool]
    ) -> Visit:
        """As any gate, but that another connection may have to leave for it."""
        if len(self._here) >= CONNECTIONS or self.is_busy(transport):
            self._make_room()
        if visit is None:
            visit = Visit(since)
        self._here[visit] = displace
        if self.cuts(transport):  # so many came at once that those who leave have not left yet
            visit.verdict = Verdict.of((DESCRIPTORS, 0), cut=True)
        return visit

    def gone(self, visit: Visit) -> None:
        """It has ended."""
        self._here.pop(visit, None)

    def _make_room(self) -> None:
        for visit, displace in self._here.items():
            if displace():
                self._here.pop(visit, None)
                return
