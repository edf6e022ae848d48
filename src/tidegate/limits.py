"""Limits on connections and on handshakes a second: of all clients together, and of one client's address.

    share      a worker's part of a limit on one address
    Limiter    counts; says which limit a new connection would pass

Each worker counts by itself. It sees all connections together in the scoreboard, so that limit is exactly the daemon's.
Connections of one address are counted by each worker alone: the system spreads them over the workers at random, so a
worker enforces its share, and as much more as keeps a client within the limit from being rejected for the uneven
spread. A rate is enforced in equal parts, so that over time the parts are the whole.

Time is an argument. What must not live here: answers, addresses (networks.py), I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ._core.counters import LIMITS

__all__ = ["ADDRESS", "DAEMON", "DESCRIPTORS", "RATE", "Exceeded", "Limiter", "share"]

# Names of limits, as metrics have them.
DAEMON, DESCRIPTORS, ADDRESS, RATE = LIMITS

Exceeded = tuple[str, int]
"""Name of the limit that is reached, and seconds after which it makes sense to try again."""

RETRY_AFTER = 5
"""Seconds, when it is not known when a place becomes free."""

KEPT = 65536
"""Addresses without a connection that are remembered, for the rate of their handshakes: some 16 MB."""


def share(limit: int, workers: int) -> int:
    """Return one worker's share of a limit on one address: three standard deviations of the spread above the mean.

    Never more than the limit, and exactly the limit with one worker.
    """
    mean = limit / workers
    return min(limit, math.ceil(mean + 3 * math.sqrt(mean * (1 - 1 / workers))))


class _Client:
    """The record of one address."""

    __slots__ = ("connections", "tokens", "updated")

    def __init__(self, tokens: float, now: float) -> None:
        self.connections = 0
        self.tokens = tokens
        self.updated = now


class Limiter:
    """The limits of one worker. None is no limit.

    Parameters:
        connections: of the daemon.
        of_all: returns how many there are now, in all workers.
        per_address: of one address, in the daemon.
        rate: handshakes a second of one address, in the daemon.
        burst: handshakes that one address may begin at once after a rest.
        workers: how many share them.
    """

    def __init__(
        self,
        *,
        connections: int | None = None,
        of_all: Callable[[], int] = lambda: 0,
        per_address: int | None = None,
        rate: float | None = None,
        burst: int | None = None,
        workers: int = 1,
    ) -> None:
        self._connections = connections
        self._of_all = of_all
        self._per_address = None if per_address is None else share(per_address, workers)
        self._rate = None if rate is None else rate / workers
        self._burst = 1 if rate is None else share(max(1, math.ceil(rate)) if burst is None else burst, workers)
        self._present: dict[bytes, _Client] = {}
        self._resting: dict[bytes, _Client] = {}  # without a connection, in the order in which they left

    @property
    def by_address(self) -> bool:
        """Whether it has to know the addresses of clients."""
        return self._per_address is not None or self._rate is not None

    @property
    def remembered(self) -> int:
        """The number of addresses that it knows now."""
        return len(self._present) + len(self._resting)

    def full(self) -> bool:
        """Return whether there are too many connections in the daemon, the new one included."""
        return self._connections is not None and self._of_all() > self._connections

    def enter(self, key: bytes, now: float) -> Exceeded | None:
        """Count a connection of a client, unless a limit on its address is reached; then it must not `leave()`."""
        client = self._present.get(key)
        if client is None:
            client = self._resting.pop(key, None) or _Client(self._burst, now)
        exceeded = self._check(client, now)
        if exceeded is None:
            client.connections += 1
        if client.connections:
            self._present[key] = client
        else:
            self._rest(key, client, now)
        return exceeded

    def leave(self, key: bytes, now: float) -> None:
        """Count a connection of a client no more."""
        client = self._present[key]
        client.connections -= 1
        if not client.connections:
            del self._present[key]
            self._rest(key, client, now)

    def _check(self, client: _Client, now: float) -> Exceeded | None:
        if self._per_address is not None and client.connections >= self._per_address:
            return ADDRESS, RETRY_AFTER
        if self._rate is not None:
            # A bucket of tokens: a handshake takes one, and they come back at the rate, up to the burst.
            client.tokens = min(self._burst, client.tokens + (now - client.updated) * self._rate)
            client.updated = now
            if client.tokens < 1:
                return RATE, math.ceil((1 - client.tokens) / self._rate)
            client.tokens -= 1
        return None

    def _rest(self, key: bytes, client: _Client, now: float) -> None:
        """Remember a client without connections as long as its bucket is not full, and make room for it."""
        if self._rate is None:
            return
        self._resting[key] = client
        for _ in range(2):  # two for each new one, so that those that may be forgotten do not pile up
            oldest = next(iter(self._resting), None)
            if oldest is None:
                return
            other = self._resting[oldest]
            full = other.tokens + (now - other.updated) * self._rate >= self._burst
            if not full and len(self._resting) <= KEPT:
                return
            del self._resting[oldest]
