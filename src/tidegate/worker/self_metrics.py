"""What a worker measures of itself, beside what its connections count: queues to slow clients, pauses, its capacity.

    watch_collector    have each garbage collection counted
    measure_queues     how much waits for clients who are slow
    tell_capacity      how many connections there may be

What must not live here: names of metrics (metrics/catalog), what is done about any of it.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import Any

from .._core.counters import Row
from .._core.writer import slow_connections
from ..asyncio.admission import descriptors
from ..process.proc import open_fds

__all__ = ["measure_queues", "tell_capacity", "watch_collector"]


def watch_collector(row: Row) -> Callable[[], None]:
    """Count garbage collections from now on, and how long each takes; the result makes an end of it.

    In a child that a handler forks nothing is counted: it is not the worker.
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


def measure_queues(row: Row) -> None:
    """Enter how much waits for clients who are slow. It takes time for each of those, and none for the others."""
    sizes = [connection.transport.get_write_buffer_size() for connection in slow_connections]
    row.send_queues(len(sizes), sum(sizes), max(sizes, default=0))


def tell_capacity(row: Row, of_all: int | None) -> None:
    """Enter how many connections this worker can have: as many as it has descriptors for, beside those open now.

    Args:
        row: where the worker counts.
        of_all: how many all of the daemon may have; None: no such limit.
    """
    busy, _ = descriptors()
    row.connections_max = max(1, busy - (open_fds(os.getpid()) or 0)), of_all
