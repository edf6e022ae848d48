"""Whether the daemon is alive, and whether it is ready: each as yes or no, with one line that says why.

What must not live here: HTTP, and what makes a daemon ready (metrics/derived.py).
"""

from __future__ import annotations

from typing import Literal

from .._core.snapshot import Snapshot
from ..metrics import derived

LIVE_SECONDS = 10.0
"""The supervisor's loop runs at least once a second. Ten missed turns mean that it is stuck, not that it is busy."""

State = Literal["starting", "ready", "draining", "down"]


def alive(snapshot: Snapshot) -> tuple[bool, str]:
    """Return whether the supervisor's loop runs. Workers do not count: the supervisor replaces those that hang."""
    ((_, age),) = derived.tick_age(snapshot)
    if age < LIVE_SECONDS:
        return True, f"alive: the supervisor's loop ran {age:.1f} s ago"
    return False, f"stuck: the supervisor's loop has not run for {age:.1f} s, and {LIVE_SECONDS:g} s is the limit"


def ready(snapshot: Snapshot) -> tuple[bool, str]:
    """Return whether new connections should be sent here."""
    now = state(snapshot)
    text = f"{now}: {derived.ready_slots(snapshot)} of {snapshot.desired} workers ready"
    if now == "down" and (found := derived.without_bus(snapshot)) is not None:
        slot, reason = found
        text += f", but worker {slot.index} has no bus: {reason}"
    return now == "ready", text


def state(snapshot: Snapshot) -> State:
    """Return what the daemon does.

    It is "down" when it has served, and now no worker is ready, or one has not the bus that it needs: see
    `derived.is_ready()`.
    """
    if derived.is_ready(snapshot):
        return "ready"
    if snapshot.draining:
        return "draining"
    return "down" if snapshot.ready else "starting"
