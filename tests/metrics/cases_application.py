"""An application that counts in a process of its own: what the library makes of a process cannot be undone.

What must not live here: tests.
"""

from __future__ import annotations

import os

from tidegate.metrics.application import count_as


def count(before: str, worker: str, gauge: str) -> None:
    """Count as one worker, then as another, which forks."""
    from prometheus_client import Counter, Gauge  # which looks at the process when it is imported

    count_as(before)
    count_as(worker)
    counter = Counter("seen", "Things.")
    counter.inc(2)
    Gauge(gauge, "Now.", multiprocess_mode="livesum").set(3)
    if os.fork() == 0:
        counter.inc(10)
        os._exit(0)
    os.wait()
