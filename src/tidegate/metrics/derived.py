"""Samples of metrics that follow from a `Snapshot`, one function for each metric, as (label values, value).

What must not live here: anything that workers count (that is a field of a row, named in the catalog).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import version as installed_version

from .._core.counters import FIELDS, BusState, Row
from .._core.snapshot import DAEMON_COUNTERS, SLOT_COUNTERS, STAGES, Slot, Snapshot, Worker
from ..version import version

Sample = tuple[tuple[str, ...], float]
Source = Callable[[Snapshot], Iterator[Sample]]

SHARED = "shared"
"""The label of what all slots share, in the place of a slot."""

BUS_PATIENCE = 5.0
"""Seconds for which a worker may be without the bus that it needs, before the daemon is not ready."""

BACKOFF = "backoff"
"""The stage of a slot that has no worker and waits before it gets the next."""


@cache
def versions() -> tuple[str, str, str]:
    """Return the versions of tidegate, Python and uvloop."""
    return version, platform.python_version(), installed_version("uvloop")


def _counted(name: str, snapshot: Snapshot) -> Iterator[Sample]:
    for label, count in snapshot.counters[name].items():
        yield (label,) if label else (), count


def _counted_by_slot(name: str, snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        for label, count in slot.counters[name].items():
            yield (str(slot.index), label) if label else (str(slot.index),), count


def counted(name: str) -> Source:
    """Return the source of a counter of the supervisor, in scoreboard.h: of the daemon, or by slot."""
    assert name in DAEMON_COUNTERS or name in SLOT_COUNTERS
    return partial(_counted if name in DAEMON_COUNTERS else _counted_by_slot, name)


def build_info(snapshot: Snapshot) -> Iterator[Sample]:
    yield versions(), 1


def config_hash(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.config_hash:
        yield (f"{snapshot.config_hash:016x}",), 1


def start_time(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), snapshot.started_at


def desired(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), snapshot.desired


def ready(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), is_ready(snapshot)


def draining(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), snapshot.draining


def tick_age(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), max(0.0, snapshot.taken_at - snapshot.ticked_at)


def supervisor_log_dropped(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), snapshot.log_messages_dropped


def last_reload_success(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), snapshot.last_reload != "failure"


def last_reload_timestamp(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), snapshot.last_reload_at or snapshot.started_at


def reload_duration(snapshot: Snapshot) -> Mapping[str, tuple[int, ...]]:
    return snapshot.reload_duration


def drain_duration(snapshot: Snapshot) -> Mapping[str, tuple[int, ...]]:
    return snapshot.drain_duration


def accept_queues(snapshot: Snapshot) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield slot and queue, (connections that wait to be accepted, connections that may), where there is a queue."""
    for name, queue in (
        *((str(slot.index), slot.accept_queue) for slot in snapshot.slots),
        (SHARED, snapshot.accept_queue),
    ):
        if queue[1]:
            yield name, queue


def accept_queue_length(snapshot: Snapshot) -> Iterator[Sample]:
    for name, (length, _) in accept_queues(snapshot):
        yield (name,), length


def accept_queue_limit(snapshot: Snapshot) -> Iterator[Sample]:
    for name, (_, limit) in accept_queues(snapshot):
        yield (name,), limit


def stages(snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        for stage in STAGES:
            yield (str(slot.index), stage), sum(worker.stage == stage for worker in slot.workers)
        yield (str(slot.index), BACKOFF), in_backoff(slot, snapshot)


def worker_start_time(snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        if slot.workers:
            yield (str(slot.index),), max(worker.started_at for worker in slot.workers)


def worker_generation(snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        if slot.workers:
            yield (str(slot.index),), max(worker.generation for worker in slot.workers)


def silence(worker: Worker, snapshot: Snapshot) -> float | None:
    """Return the seconds since a worker's event loop last ran; None before it first did."""
    beat = worker.counts.heartbeat
    return max(0.0, snapshot.taken_at - beat) if beat else None


def heartbeat_age(snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        ages = [age for worker in slot.workers if (age := silence(worker, snapshot)) is not None]
        if ages:
            yield (str(slot.index),), max(ages)


def send_queue_max(snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        yield (str(slot.index),), max((worker.counts.send_queue_max_bytes for worker in slot.workers), default=0)


def connections_max(snapshot: Snapshot) -> Iterator[Sample]:
    """Add up the limits of the newest worker of each slot. There is no sample before the first worker has started."""
    slots = [max(slot.workers, key=lambda worker: worker.started_at) for slot in snapshot.slots if slot.workers]
    limits = [worker.counts.connections_max for worker in slots if worker.counts.connections_max[0]]
    if limits:
        yield (), min([sum(own for own, _ in limits), *(of_all for _, of_all in limits if of_all is not None)])


def by_name(row: Row, counter: str) -> dict[str, int]:
    """Return a counter of one dimension, by the names of its words."""
    return {name: row.words(counter)[place] for (name,), place in FIELDS[counter].places.items()}


def buses(slot: Slot) -> Iterator[tuple[Worker, BusState]]:
    """Yield the workers of a slot that have a bus, and what they say of it."""
    for worker in slot.workers:
        if (bus := worker.counts.bus) is not None:
            yield worker, bus


def bus_up(snapshot: Snapshot) -> Iterator[Sample]:
    for slot in snapshot.slots:
        found = [bus for _, bus in buses(slot)]
        if found:
            yield (str(slot.index), found[-1].engine), all(bus.up for bus in found)


def without_bus(snapshot: Snapshot) -> tuple[Slot, str] | None:
    """Return a slot whose worker needs the bus and has been without it for too long, and why; None if there is none."""
    for slot in snapshot.slots:
        for worker, bus in buses(slot):
            late = bus.required and not bus.up and snapshot.taken_at - bus.changed_at > BUS_PATIENCE
            if late and worker.stage == "ready":
                return slot, bus.reason
    return None


def in_backoff(slot: Slot, snapshot: Snapshot) -> bool:
    """Return whether a slot has no live worker, and waits to fork one because the workers before ended too soon."""
    return not slot.workers and slot.backoff_until > snapshot.taken_at


def ready_slots(snapshot: Snapshot) -> int:
    """Return how many slots have a ready worker, of whatever generation."""
    return sum(any(worker.stage == "ready" for worker in slot.workers) for slot in snapshot.slots)


def is_ready(snapshot: Snapshot) -> bool:
    """Return whether every desired worker has been ready, one still is, and the daemon was not told to stop.

    Each that needs the bus must have it, or have lost it just now.

    The crash of one worker does not change it: the socket of its slot stays open, its successor accepts what waits
    there, and a load balancer that takes the daemon out would disconnect the clients of the other workers.
    """
    return snapshot.ready and not snapshot.draining and ready_slots(snapshot) > 0 and without_bus(snapshot) is None
