"""An application that counts on a disk that is full, for test_value_file.py.

What must not live here: what is to come of it; the disk (test_value_file.py).
"""

from __future__ import annotations

import logging
import os
import sys

from tidegate.metrics.application import count_as


def full_disk() -> None:
    """Fill what is left of the disk, then count what has a place, what has none, in a second file, and in a child."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    count_as("0")
    from prometheus_client import Counter, Gauge  # which looks at the process when it is imported

    counter = Counter("seen", "Things.", ["what"])
    counter.labels("before").inc()
    with open(os.environ["PROMETHEUS_MULTIPROC_DIR"] + "/filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    for number in range(1500):
        counter.labels(f"{number:0200}").inc(2)
        counter.labels("before").inc()
    gauge = Gauge("now", "Now.", multiprocess_mode="livesum")
    gauge.set(7)
    gauge.inc()
    counters = counter.labels("before"), counter.labels(f"{1499:0200}")
    print(*(metric._value.get() for metric in (*counters, gauge)), flush=True)
    if os.fork() == 0:
        counter.labels("before").inc()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
