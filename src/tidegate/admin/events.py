"""What has happened between two reads of the scoreboard, in words: the events of /live.

    Event                one of them
    known_before         what the first read tells of the time before it
    between              what has happened between two reads
    workers, identity    of a snapshot, and what tells them apart

What must not live here: numbers, and which events are remembered (live.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from .._core.snapshot import Snapshot, Worker
from . import health

__all__ = ["ENDED", "Event", "between", "identity", "known_before", "workers"]


class Event(Struct, frozen=True):
    """Something that happened; `time` is Unix time. `level` is "info", or "warning" where something went wrong."""

    time: float
    text: str
    level: str = "info"


def workers(snapshot: Snapshot) -> Iterator[Worker]:
    """Yield every worker of every slot."""
    for slot in snapshot.slots:
        yield from slot.workers


def identity(worker: Worker) -> tuple[int, float]:
    """Return what tells workers apart: process ids are used again, and so are rows."""
    return worker.row, worker.started_at


class _Did(NamedTuple):
    """What a worker did: in words for one worker, and in words for several."""

    time: float
    slot: int
    alone: str
    together: str
    level: str = "info"


_WRONG = ("crash", "signal", "hung", "oom_suspect", "boot_failed")

ENDED = {
    "stopped": ("stopped", "stopped"),
    "reload": ("ended, as its successor serves", "ended, as their successors serve"),
    "recycle_age": ("ended: it was old enough", "ended: they were old enough"),
    "recycle_connections": ("ended: it had served enough connections", "ended: they had served enough connections"),
    "recycle_memory": ("ended: it took too much memory", "ended: they took too much memory"),
    "crash": ("crashed", "crashed"),
    "signal": ("was ended by a signal", "were ended by a signal"),
    "hung": ("hung, and was killed", "hung, and were killed"),
    "oom_suspect": (
        "was killed, perhaps by the out-of-memory killer",
        "were killed, perhaps by the out-of-memory killer",
    ),
    "boot_failed": ("did not become ready", "did not become ready"),
}

_STAGES = {"ready": ("is ready", "are ready"), "draining": ("drains", "drain")}

_STATES = {
    "starting": "starting: not every worker has been ready yet",
    "ready": "ready: new connections are served",
    "draining": "draining: connections are closed one by one",
    "down": "down: no worker is ready",
}

FEW: Final = 3
"""Workers that do the same at once are events of their own; more are one event."""


def known_before(snapshot: Snapshot) -> Iterator[Event]:
    """Yield the events that the first read tells of the time before it."""
    yield Event(snapshot.started_at, f"tidegate started (pid {snapshot.pid})")
    yield from _together(_started(worker) for worker in workers(snapshot) if worker.pid)
    yield from _decided(None, snapshot)


def between(before: Snapshot, snapshot: Snapshot, now: float) -> Iterator[Event]:
    """Yield the events between two reads."""
    yield from _together(_did(before, snapshot, now))
    yield from _decided(before, snapshot)
    if before.desired != snapshot.desired:
        yield Event(now, f"workers wanted: {snapshot.desired}, not {before.desired}")
    if health.state(before) != (state := health.state(snapshot)):
        yield Event(now, _STATES[state], "warning" if state == "down" else "info")


def _did(before: Snapshot, snapshot: Snapshot, now: float) -> Iterator[_Did]:
    known = {identity(worker): worker for worker in workers(before)}
    new = [worker for worker in workers(snapshot) if (old := known.get(identity(worker))) is None or not old.pid]
    # A worker that ended did so before its successor in the slot started.
    ends = {worker.slot: worker.started_at for worker in new}
    slots = {slot.index: slot for slot in before.slots}
    for slot in snapshot.slots:
        for reason, count in slot.exits.items():
            more = count - (slots[slot.index].exits.get(reason, 0) if slot.index in slots else 0)
            times = f" ({more} times)" if more > 1 else ""
            if more > 0:
                alone, together = ENDED[reason]
                level = "warning" if reason in _WRONG else "info"
                yield _Did(ends.get(slot.index, now), slot.index, alone + times, together, level)
    yield from (_started(worker) for worker in new if worker.pid)
    for worker in workers(snapshot):
        old = known.get(identity(worker))
        if (old is None or old.stage != worker.stage) and worker.stage in _STAGES:
            alone, together = _STAGES[worker.stage]
            yield _Did(now, worker.slot, f"{alone} (pid {worker.pid})", together)


def _started(worker: Worker) -> _Did:
    generation = f"generation {worker.generation}"
    return _Did(worker.started_at, worker.slot, f"started (pid {worker.pid}, {generation})", f"started ({generation})")


def _together(all_of_it: Iterable[_Did]) -> Iterator[Event]:
    """Yield an event for each of a few workers that did the same, and one event for many."""
    groups: dict[str, list[_Did]] = {}
    for did in all_of_it:
        groups.setdefault(did.together, []).append(did)
    for together, group in groups.items():
        if len(group) > FEW:
            slots = _ranges({did.slot for did in group})
            yield Event(max(did.time for did in group), f"workers {slots} {together}", group[0].level)
        else:
            yield from (Event(did.time, f"worker {did.slot} {did.alone}", did.level) for did in group)


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ``0-3, 7``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in found)


def _decided(before: Snapshot | None, snapshot: Snapshot) -> Iterator[Event]:
    """Yield the ends of reloads and upgrades."""
    for name, old, new in (
        ("reload", before and before.reloads, snapshot.reloads),
        ("upgrade", before and before.upgrades, snapshot.upgrades),
    ):
        for outcome, count in new.items():
            if before is None:
                # The time of the last one is known; if there were both kinds, which one it was is not.

                other = snapshot.upgrades if name == "reload" else snapshot.reloads
                if not count or outcome != snapshot.last_reload or any(other.values()):
                    continue
            elif count <= (old or {}).get(outcome, 0):
                continue
            if outcome == "success":
                yield Event(snapshot.last_reload_at, f"{name} done")
            else:
                yield Event(snapshot.last_reload_at, f"{name} failed: the old workers go on serving", "warning")
