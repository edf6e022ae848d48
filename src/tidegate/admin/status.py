"""The answer of /status: the whole daemon as one JSON object, for people and for scripts.

What must not live here: rates and quantiles (Prometheus makes them of /metrics), HTTP.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import asdict, astuple

from .._core.counters import Row
from .._core.snapshot import Snapshot, Worker
from ..metrics import derived
from ..process import proc
from . import health
from .bus import BusStatus, bus_status


class Connections(Struct):
    """Connections by state; `http` are those that speak HTTP to an ASGI application."""

    handshaking: int
    open: int
    closing: int
    http: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))

    def others(self) -> dict[str, int]:
        """Return those that are not open, by state; only what there is."""
        return {state: count for state, count in asdict(self).items() if count and state != "open"}


class Totals(Struct):
    """What all workers have counted since the supervisor started. Bytes are payload bytes of messages."""

    connections_accepted: int
    messages_received: int
    messages_sent: int
    received_bytes: int
    sent_bytes: int


class AcceptQueue(Struct):
    """Connections that wait to be accepted, and how many may."""

    length: int
    limit: int


class LastReload(Struct):
    """How the last reload or upgrade ended, and when, in Unix time."""

    succeeded: bool
    at: float


class WorkerStatus(Struct):
    """A live worker. Times in seconds; what the system does not tell is None, as is no limit."""

    pid: int
    generation: int
    stage: str
    started_at: float
    heartbeat_age: float | None
    connections: Connections
    cpu_seconds: float | None = None
    resident_memory_bytes: int | None = None
    open_fds: int | None = None
    max_fds: int | None = None


class SlotStatus(Struct):
    """A slot, which outlives its workers. During a handover it has two. `accept_queue` is that of its own sockets."""

    slot: int
    spawns: int
    exits: dict[str, int]
    backoff: float
    workers: list[WorkerStatus]
    accept_queue: AcceptQueue | None = None


class Status(Struct):
    """The daemon. `started_at` is Unix time, `uptime`, `tick_age`, `backoff` and `heartbeat_age` are seconds.

    `reloads` and `upgrades` are counts by result; `accept_queue` is that of the sockets that all slots share; `bus` is
    None if the application has no channels.
    """

    version: str
    python: str
    uvloop: str
    state: health.State
    pid: int
    started_at: float
    uptime: float
    tick_age: float
    workers_desired: int
    workers_ready: int
    connections: Connections
    totals: Totals
    slots: list[SlotStatus]
    reloads: dict[str, int] = {}
    upgrades: dict[str, int] = {}
    last_reload: LastReload | None = None
    accept_queue: AcceptQueue | None = None
    bus: BusStatus | None = None


def status(snapshot: Snapshot, now: float) -> Status:
    """Return the status of the daemon at `now` (Unix time)."""

    version, python, uvloop = derived.versions()
    ((_, tick_age),) = derived.tick_age(snapshot)
    return Status(
        version=version,
        python=python,
        uvloop=uvloop,
        state=health.state(snapshot),
        pid=snapshot.pid,
        started_at=snapshot.started_at,
        uptime=max(0.0, now - snapshot.started_at),
        tick_age=tick_age,
        workers_desired=snapshot.desired,
        workers_ready=derived.ready_slots(snapshot),
        connections=connections(snapshot.counts),
        totals=totals(snapshot.counts),
        slots=[
            SlotStatus(
                slot=slot.index,
                spawns=slot.spawns,
                exits={reason: count for reason, count in slot.exits.items() if count},
                backoff=slot.backoff_until - snapshot.taken_at if derived.in_backoff(slot, snapshot) else 0.0,
                workers=[_worker(worker, snapshot) for worker in slot.workers],
                accept_queue=_queue(*slot.accept_queue),
            )
            for slot in snapshot.slots
        ],
        reloads=snapshot.reloads,
        upgrades=snapshot.upgrades,
        last_reload=_last_reload(snapshot),
        accept_queue=_queue(*snapshot.accept_queue),
        bus=bus_status(snapshot, now),
    )


def _worker(worker: Worker, snapshot: Snapshot) -> WorkerStatus:
    process = proc.read(worker.pid, snapshot.pid)
    max_fds = process and process.max_fds
    return WorkerStatus(
        pid=worker.pid,
        generation=worker.generation,
        stage=worker.stage,
        started_at=worker.started_at,
        heartbeat_age=derived.silence(worker, snapshot),
        connections=connections(worker.counts),
        cpu_seconds=process and process.cpu_seconds + process.children_cpu_seconds,
        resident_memory_bytes=process and process.resident_memory_bytes,
        open_fds=process and process.open_fds,
        max_fds=int(max_fds) if max_fds is not None and math.isfinite(max_fds) else None,
    )


def _queue(length: int, limit: int) -> AcceptQueue | None:
    return AcceptQueue(length, limit) if limit else None


def _last_reload(snapshot: Snapshot) -> LastReload | None:
    if snapshot.last_reload is None:
        return None
    return LastReload(snapshot.last_reload == "success", snapshot.last_reload_at)


def connections(row: Row) -> Connections:
    """Return the connections that are counted in a row."""
    return Connections(*(row.words(f"connections_{state}")[0] for state in Connections.__struct_fields__))


def totals(row: Row) -> Totals:
    """Return the totals that are counted in a row."""
    messages = row.words("messages")
    received, sent = row.words("bytes")
    half = len(messages) // 2
    return Totals(row.words("connections_accepted")[0], sum(messages[:half]), sum(messages[half:]), received, sent)
