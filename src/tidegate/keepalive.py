"""Pings and the pongs that answer them (RFC 6455 sections 5.5.2 and 5.5.3), with the time as an argument.

What must not live here: clocks, timers, I/O; when to ping is decided where the deadlines are, in `asyncio.connection`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["Pings"]


class Pings:
    """Pings that wait for their pong, oldest first. A connection that waits for none has no Pings."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: dict[bytes, tuple[Future[float] | None, float]] = {}

    def __len__(self) -> int:
        return len(self.pending)

    def add(self, data: bytes | None, waiter: Future[float] | None, now: float) -> bytes:
        """Note a ping that leaves now: its payload, four random bytes if `data` is None.

        Raises:
            ConcurrencyError: if a ping with the same payload is still unanswered.
        """
        if data is None:
            data = random.getrandbits(32).to_bytes(4, "big")
            while data in self.pending:
                data = random.getrandbits(32).to_bytes(4, "big")
        elif data in self.pending:
            raise ConcurrencyError("already waiting for a pong with the same data")
        latest = self._latest()
        if latest is not None:
            before, _ = self.pending[latest]
            if before is not None and before.cancelled():
                del self.pending[latest]
        self.pending[data] = (waiter, now)
        return data

    def acknowledge(self, data: bytes, now: float) -> float | None:
        """Return the latency in seconds that a pong shows, or None if it answers no ping.

        It answers earlier pings as well: a peer may answer only the latest (RFC 6455 5.5.3).
        """
        if data not in self.pending:
            return None
        for payload in list(self.pending):
            waiter, sent = self.pending.pop(payload)
            if waiter is not None and not waiter.done():
                waiter.set_result(now - sent)
            if payload == data:
                return now - sent
        raise AssertionError("unreachable: data was among the pending pings")

    def abandon(self, data: bytes, waiter: Future[float]) -> None:
        """Forget a ping whose waiter was cancelled, unless it is the latest, whose pong would answer earlier ones."""
        if waiter.cancelled() and data in self.pending and (len(self.pending) == 1 or data != self._latest()):
            del self.pending[data]

    def _latest(self) -> bytes | None:
        return next(reversed(self.pending), None)

    def waiters(self) -> Iterator[Future[float]]:
        """Return the futures that wait for a pong which will not come."""
        for waiter, _ in self.pending.values():
            if waiter is not None and not waiter.done():
                yield waiter
