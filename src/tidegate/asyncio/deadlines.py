"""One coarse timer for all connections of a server, or of all clients: it bounds handshakes, keepalive and closing.

A deadline is put off to the next multiple of about a sixteenth of its delay, and all deadlines of the same moment share
one entry of the loop's schedule. So a connection costs a place in a set, and no timer or task of its own. What must not
live here: what is done when a deadline passes.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import ClassVar, Protocol
from weakref import WeakValueDictionary

__all__ = ["Deadlines"]

SHORTEST_QUANTUM = 1 / 256
"""Seconds: the finest that deadlines are told apart."""


class Bounded(Protocol):
    """An object with a deadline."""

    _deadline: float | None

    def _on_deadline(self, now: float) -> None: ...


class Deadlines:
    """Deadlines of many connections on one event loop; each has one at a time."""

    _of_clients: ClassVar[WeakValueDictionary[int, Deadlines]] = WeakValueDictionary()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Deadlines:
        """Return the deadlines that all clients on `loop` share, while there are any."""
        deadlines = cls._of_clients.get(id(loop))
        if deadlines is None:
            deadlines = cls._of_clients[id(loop)] = cls(loop)
        return deadlines

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: dict[float, set[Bounded]] = {}
        self._moments: list[float] = []  # a heap of the keys of _due
        self._timer: asyncio.TimerHandle | None = None

    def set(self, bounded: Bounded, delay: float | None) -> None:
        """Call `_on_deadline` in about `delay` seconds (up to an eighth later), instead of any earlier deadline."""
        if bounded._deadline is not None:
            self.clear(bounded)
        if delay is None:
            return
        quantum = max(2.0 ** (math.frexp(delay)[1] - 4), SHORTEST_QUANTUM) if delay > 0 else SHORTEST_QUANTUM
        moment = math.ceil((self.loop.time() + delay) / quantum) * quantum
        bounded._deadline = moment
        group = self._due.get(moment)
        if group is None:
            group = self._due[moment] = set()
            heapq.heappush(self._moments, moment)
            if self._moments[0] == moment:
                self._arm()
        group.add(bounded)

    def clear(self, bounded: Bounded) -> None:
        """Forget the deadline."""
        if bounded._deadline is not None:
            group = self._due.get(bounded._deadline)
            if group is not None:
                group.discard(bounded)
            bounded._deadline = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(self._moments[0], self._sweep) if self._moments else None

    def _sweep(self) -> None:
        now = self.loop.time()
        self._timer = None
        try:
            # A loop's timer may fire a little early, by the resolution of its clock.
            while self._moments and self._moments[0] <= now + SHORTEST_QUANTUM:
                self._pass(heapq.heappop(self._moments), now)
        finally:
            self._arm()

    def _pass(self, moment: float, now: float) -> None:
        group = self._due.pop(moment)
        try:
            while group:
                bounded = group.pop()
                if bounded._deadline == moment:  # else one before it in the group has changed it
                    bounded._deadline = None
                    self._call(bounded, now)
        finally:
            if group:  # call_exception_handler() raised: the others keep their deadlines
                self._due.setdefault(moment, set()).update(group)
                heapq.heappush(self._moments, moment)

    def _call(self, bounded: Bounded, now: float) -> None:
        try:
            bounded._on_deadline(now)
        except Exception as exc:
            # The others keep their deadlines.
            self.loop.call_exception_handler({"message": f"deadline of {bounded!r} failed", "exception": exc})
