"""What a worker measures of itself, beside what its connections count.

    record_collections    garbage collections, and the pauses that they make
    record_send_queues    bytes that wait for slow clients
    record_capacity       how many connections there may be
    BusRecord             what happened on its bus, and whether messages come

What must not live here: names of metrics (metrics/catalog.py), what is done about any of it.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core.counters import ENGINES, BusState, Row
from .._core.writer import slow_connections
from ..asyncio.admission import descriptors
from ..process.proc import open_fds

if TYPE_CHECKING:
    from ..bus.bus import Bus

__all__ = ["BusRecord", "record_capacity", "record_collections", "record_send_queues"]

WINDOW = 10.0
"""Seconds for which what is recorded of the bus tells what goes on."""


def record_collections(row: Row) -> Callable[[], None]:
    """Count garbage collections from now on, and how long each takes; return a function that ends this.

    Nothing is counted in a child that a handler forks.
    """
    began = 0.0
    pid = os.getpid()

    def note(phase: str, info: dict[str, Any]) -> None:
        nonlocal began
        if phase == "start":
            began = time.monotonic()
        elif os.getpid() == pid:
            row.inc("gc_collections", str(info["generation"]))
            row.observe("gc_pause", time.monotonic() - began)

    gc.callbacks.append(note)
    return lambda: gc.callbacks.remove(note)


def record_send_queues(row: Row) -> None:
    """Record how much waits for slow clients. It takes time for each of those, and none for the others."""
    sizes = [connection.transport.get_write_buffer_size() for connection in slow_connections]
    row.send_queues(len(sizes), sum(sizes), max(sizes, default=0))


def record_capacity(row: Row, of_all: int | None) -> None:
    """Record how many connections this worker can have: as many as it has descriptors for, beside those open now.

    Args:
        row: where the worker counts.
        of_all: the limit of the whole daemon; None: there is none.
    """
    busy, _ = descriptors()
    row.connections_max = max(1, busy - (open_fds(os.getpid()) or 0)), of_all


class BusRecord:
    """What a worker records of its bus; `update()` is called once a second, and at its end.

    Parameters:
        row: where the worker counts.
        bus: the worker's.
        required: whether the daemon is not ready without it.
    """

    def __init__(self, row: Row, bus: Bus, required: bool) -> None:
        self._row, self._bus, self._required = row, bus, required
        scheme = "nats" if bus.url.startswith("tls://") else bus.url
        self._engine = next(engine for engine in ENGINES if scheme.startswith(engine))
        self._window_at = 0.0
        self._counted: dict[tuple[str, ...], int] = {}

    def update(self) -> None:
        """Record what happened since the last time, and what is now."""
        row, bus, counts = self._row, self._bus, self._bus.counts
        for counter, by_name in (
            ("bus_state_changes", counts.changes),
            ("bus_publish_failures", counts.failures),
            ("bus_resumes", counts.resumes),
            ("bus_reads", counts.reads),
            ("bus_closes", counts.closes),
            ("bus_gaps", {"repaired": counts.repaired, "told": counts.told}),
            ("bus_dropped", {"subscription": counts.dropped}),
        ):
            for name, count in by_name.items():
                self._count(count, counter, name)
        for name in ("published", "received", "delivered", "duplicates", "resumed_messages"):
            self._count(getattr(counts, name), f"bus_{name}")
        now = time.monotonic()
        if now >= self._window_at:
            self._window_at = now + WINDOW
            row.begin_window(now)
        members, topics, pending, queued = bus.load
        row.set("bus_members", members)
        row.set("bus_topics", topics)
        row.set("bus_subscriptions_pending", pending)
        row.set("bus_queue_bytes", queued)
        records = bus.records
        row.bus = BusState(self._engine, records.is_up, self._required, records.changed_at, records.reason)

    def _count(self, count: int, *word: str) -> None:
        more = count - self._counted.get(word, 0)
        if more:
            self._counted[word] = count
            self._row.inc(*word, by=more)
