"""Alive? Ready? Each as yes or no, and one line that says why.

What must not live here: HTTP, and who should be ready (the supervisor's, and metrics/derived.py).
"""

from __future__ import annotations

from typing import Literal

from .._core.snapshot import Snapshot
from ..metrics import derived

LIVE_SECONDS = 10.0
"""The supervisor's loop runs at least once a second. Ten missed turns are no busy machine but a stuck supervisor."""

State = Literal["starting", "ready", "draining", "down"]


def alive(snapshot: Snapshot) -> tuple[bool, str]:
    """Whether the supervisor's loop runs. Workers are the supervisor's own business: it replaces those that hang."""
    ((_, age),) = derived.tick_age(snapshot)
    if age < LIVE_SECONDS:
        return True, f"alive: the supervisor's loop ran {age:.1f} s ago"
    return False, f"stuck: the supervisor's loop has not run for {age:.1f} s, and {LIVE_SECONDS:g} s is the limit"


def ready(snapshot: Snapshot) -> tuple[bool, str]:
    """Whether new connections should be sent here."""
    now = state(snapshot)
    return now == "ready", f"{now}: {derived.ready_slots(snapshot)} of {snapshot.desired} workers ready"


def state(snapshot: Snapshot) -> State:
    """What the daemon is doing; "down" when it has served, and now no worker is ready. See `derived.is_ready`."""
    if derived.is_ready(snapshot):
        return "ready"
    if snapshot.draining:
        return "draining"
    return "down" if snapshot.ready else "starting"
