"""What a worker measures of itself, beside what its connections count.

    record_collections    garbage collections, and the pauses that they make
    record_send_queues    bytes that wait for slow clients
    record_capacity       how many connections there may be

What must not live here: names of metrics (metrics/catalog.py), what is done about any of it.
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

__all__ = ["record_capacity", "record_collections", "record_send_queues"]


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
