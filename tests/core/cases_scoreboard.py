"""Processes that look at a scoreboard whose descriptor they have, for test_snapshot.py.

What must not live here: tests; processes that a test forks (processes.py).
"""

from __future__ import annotations

from typing import Any

from tidegate._core.counters import FIELDS
from tidegate._core.scoreboard import Scoreboard


def read_until_draining(descriptor: str, row: str) -> None:
    """Read as fast as it can, count the reads in a row, and assert that no sum shrinks; print all handshakes."""
    board = Scoreboard.attach(int(descriptor))
    counting = board.row(int(row))
    names = [name for name, field in FIELDS.items() if field.kind != "gauge" and name != "pong_timeouts"]
    before: dict[Any, tuple[int, ...]] = {}
    while True:
        snapshot = board.read(10)
        for place in (*range(3), None):
            counts = snapshot.counts if place is None else snapshot.slots[place].counts
            for name in names:
                now = counts.words(name)
                assert all(a <= b for a, b in zip(before.get((place, name), now), now, strict=True)), (place, name)
                before[place, name] = now
        counting.inc("pong_timeouts")
        if snapshot.draining:
            print(sum(before[None, "handshakes"]))
            break
