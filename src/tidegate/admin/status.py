"""What /status says: the whole daemon as one JSON object, for people and for scripts.

What must not live here: rates and quantiles (Prometheus makes them of /metrics), HTTP.
"""

from __future__ import annotations

from msgspec import Struct

from .._core.scoreboard import Row, Snapshot, Worker
from ..metrics import facts
from . import health


class Connections(Struct):
    """Connections by state."""

    handshaking: int
    open: int
    closing: int


class Totals(Struct):
    """What all workers have counted since the supervisor started. Bytes are payload bytes of messages."""

    connections_accepted: int
    messages_received: int
    messages_sent: int
    received_bytes: int
    sent_bytes: int


class WorkerStatus(Struct):
    """A live worker. Times in seconds."""

    pid: int
    generation: int
    stage: str
    started_at: float
    heartbeat_age: float | None
    connections: Connections


class SlotStatus(Struct):
    """A slot, which outlives its workers. During a handover it has two."""

    slot: int
    spawns: int
    exits: dict[str, int]
    backoff: float
    workers: list[WorkerStatus]


class Status(Struct):
    """The daemon. `started_at` is Unix time, `uptime`, `tick_age`, `backoff` and `heartbeat_age` are seconds."""

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


def status(snapshot: Snapshot, now: float) -> Status:
    """The status of the daemon at `now` (Unix time)."""
    version, python, uvloop = facts.versions()
    ((_, tick_age),) = facts.tick_age(snapshot)
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
        workers_ready=facts.ready_slots(snapshot),
        connections=_connections(snapshot.counts),
        totals=_totals(snapshot.counts),
        slots=[
            SlotStatus(
                slot=slot.index,
                spawns=slot.spawns,
                exits={reason: count for reason, count in slot.exits.items() if count},
                backoff=slot.backoff_until - snapshot.taken_at if facts.in_backoff(slot, snapshot) else 0.0,
                workers=[_worker(worker, snapshot) for worker in slot.workers],
            )
            for slot in snapshot.slots
        ],
    )


def _worker(worker: Worker, snapshot: Snapshot) -> WorkerStatus:
    beat = worker.counts.heartbeat
    return WorkerStatus(
        pid=worker.pid,
        generation=worker.generation,
        stage=worker.stage,
        started_at=worker.started_at,
        heartbeat_age=max(0.0, snapshot.taken_at - beat) if beat else None,
        connections=_connections(worker.counts),
    )


def _connections(row: Row) -> Connections:
    return Connections(*(row.words(f"connections_{state}")[0] for state in Connections.__struct_fields__))


def _totals(row: Row) -> Totals:
    messages = row.words("messages")
    received, sent = row.words("bytes")
    half = len(messages) // 2
    return Totals(row.words("connections_accepted")[0], sum(messages[:half]), sum(messages[half:]), received, sent)
