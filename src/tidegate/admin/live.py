"""The message of /live, each second: one JSON object, for the page at / and for `tidegate top`.

    Live       the message
    Sampler    makes it: of two samples in a row, rates, quantiles and events

A client gets, at once, a message whose `history` has the last minutes and whose `events` has all that are remembered;
then one message a second, with the new events.

What must not live here: the connections (feed.py), HTTP, the words of events (events.py), and what /status has already
(status.py).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec import Struct, field

from .._core.counters import CLOSE_CODES, FIELDS, HANDSHAKE_RESULTS, INITIATORS, Row
from .._core.scoreboard import Scoreboard
from .._core.snapshot import Snapshot
from ..metrics import derived
from ..process import proc
from . import health
from .bus import BusStatus, bus_status
from .events import Event, between, identity, known_before, workers
from .quantiles import Quantiles, quantiles
from .status import Connections, Totals, connections, totals

__all__ = ["Latency", "Live", "LiveWorker", "Point", "Pressure", "Rates", "Sampler"]

HISTORY: Final = 300
"""Points that are kept: five minutes."""

WINDOW: Final = 10
"""Seconds over which quantiles are taken: fewer would jump, more would hide what happens now."""

EVENTS: Final = 200
"""Events that are kept."""


class Rates(Struct):
    """Rates per second, since the sample before, of what `Totals` has."""

    connections_accepted: float = 0.0
    messages_received: float = 0.0
    messages_sent: float = 0.0
    received_bytes: float = 0.0
    sent_bytes: float = 0.0


class Latency(Struct):
    """How long things take: a handler with a message, a ping, a handshake, and the event loops' lag."""

    handler: Quantiles
    ping: Quantiles
    handshake: Quantiles
    event_loop: Quantiles


class Pressure(Struct):
    """Backlogs, by the names of /metrics: first what waits now, then how often a limit was reached, as totals.

    Attributes:
        accept_queue_length: connections that wait to be accepted.
        send_queue_bytes: bytes that wait for clients to read them.
        pauses_reading, pauses_writing: pauses because a handler was slow, or a client.
        slow_consumers: clients that were closed for their slowness.
    """

    accept_queue_length: int = 0
    send_queue_bytes: int = 0
    pauses_reading: int = 0
    pauses_writing: int = 0
    slow_consumers: int = 0
    pong_timeouts: int = 0
    limit_rejections: int = 0
    log_messages_dropped: int = 0


class LiveWorker(Struct):
    """A worker, or a slot that waits before it gets one: then `pid` is None and `stage` is "backoff".

    Times are in seconds, memory in bytes; what the system does not tell is None.

    Attributes:
        age: since it was started; of a slot that waits, None.
        cpu: processors that it kept busy since the reading before: 1.0 is a whole one.
        lag: how late its event loop has run, on average since the reading before; None: it has not.
        heartbeat_age: since its event loop last ran.
    """

    slot: int
    pid: int | None
    stage: str
    generation: int | None = None
    age: float | None = None
    connections: int = 0
    rates: Rates = field(default_factory=Rates)
    rss: int | None = None
    cpu: float | None = None
    lag: float | None = None
    heartbeat_age: float | None = None


class Point(Struct):
    """One second of the charts. `closes` is a rate by close code, `p50` and `p99` are the handlers', in seconds."""

    time: float
    connections: int
    rates: Rates
    closes: dict[str, float]
    p50: float | None
    p99: float | None


class Live(Struct):
    """The daemon at `time` (Unix time). Numbers of connections and totals are those of /metrics.

    Attributes:
        state: what /readyz says.
        tick_age: seconds since the supervisor's loop last ran.
        closes: open connections that ended, by close code, as totals; only what there is.
        closes_by: the same by who began.
        handshakes: opening handshakes that ended, by result, as totals; only what there is.
        rss: memory of all processes, in bytes; what they share counts for each.
        cpu: processors that they kept busy.
        interval: seconds that rates are taken over.
        bus: what /status has of it, with the rate of this second and the lag of the last ten; None: there is none.
        history: the points before `point`, in the first message of a connection; else empty.
        events: those since the message before; in the first message all that are remembered.
    """

    time: float
    version: str
    python: str
    state: health.State
    pid: int
    started_at: float
    tick_age: float
    workers_desired: int
    workers_ready: int
    connections: Connections
    totals: Totals
    rates: Rates
    latency: Latency
    closes: dict[str, int]
    closes_by: dict[str, int]
    handshakes: dict[str, int]
    rss: int | None
    cpu: float | None
    interval: float
    workers: list[LiveWorker]
    point: Point
    pressure: Pressure = field(default_factory=Pressure)
    bus: BusStatus | None = None
    history: list[Point] = []
    events: list[Event] = []


class _Work(NamedTuple):
    """What a worker had done."""

    totals: Totals
    lag: tuple[int, int]  # turns of the event loop that were measured, and the sum in ticks


class _Sample:
    """The scoreboard and the processes at one moment."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.at = snapshot.taken_at
        self.totals = totals(snapshot.counts)
        self.closes = _closes(snapshot.counts)
        self.work = {
            identity(worker): _Work(totals(worker.counts), _lag_words(worker.counts)) for worker in workers(snapshot)
        }
        self.processes: dict[int, proc.Process] = {}
        parents = {os.getpid(): None, snapshot.pid: None}
        for pid, parent in {**parents, **{worker.pid: snapshot.pid for worker in workers(snapshot)}}.items():
            if pid and (process := proc.read(pid, parent)) is not None:
                self.processes[pid] = process
        # The supervisor's reaped children were workers: their processor time is not of now.
        self.cpu = {
            pid: process.cpu_seconds + (process.children_cpu_seconds if pid != snapshot.pid else 0.0)
            for pid, process in self.processes.items()
        }

    @property
    def rss(self) -> int | None:
        return sum(process.resident_memory_bytes for process in self.processes.values()) or None


class Sampler:
    """Samples a daemon: its scoreboard, and what the system tells of its processes. Call `sample()` once a second.

    Attributes:
        points: the charts.
        events: all that are remembered, in order of time.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._before: _Sample | None = None
        self._window: deque[tuple[float, Row]] = deque()
        self.points: deque[Point] = deque(maxlen=HISTORY)
        self.events: deque[Event] = deque(maxlen=EVENTS)

    def sample(self, now: float) -> Live:
        """Return the daemon at `now` (Unix time), with what is new since the sample before.

        Raises:
            TimeoutError: like `Scoreboard.read()`; the next sample has what this one would have had.
        """
        snapshot = self._scoreboard.read()
        before, reading = self._before, _Sample(snapshot)
        live = self._live(before, reading, now)
        self._before = reading
        self.points.append(live.point)
        self.events.extend(live.events)
        return live

    def _live(self, before: _Sample | None, reading: _Sample, now: float) -> Live:
        snapshot, counts = reading.snapshot, reading.snapshot.counts
        elapsed = reading.at - before.at if before is not None else 0.0
        rates = _rates(before.totals if before is not None else None, reading.totals, elapsed)
        latency = self._latency(snapshot)
        found = connections(counts)
        version, python, _ = derived.versions()
        ((_, tick_age),) = derived.tick_age(snapshot)
        return Live(
            time=now,
            version=version,
            python=python,
            state=health.state(snapshot),
            pid=snapshot.pid,
            started_at=snapshot.started_at,
            tick_age=tick_age,
            workers_desired=snapshot.desired,
            workers_ready=derived.ready_slots(snapshot),
            connections=found,
            totals=reading.totals,
            rates=rates,
            latency=latency,
            closes=reading.closes,
            closes_by=_closes_by(counts),
            handshakes={name: n for name, n in zip(HANDSHAKE_RESULTS, counts.words("handshakes"), strict=False) if n},
            rss=reading.rss,
            cpu=_cpu(before, reading, reading.processes),
            interval=elapsed,
            workers=list(_live_workers(before, reading, now)),
            point=Point(
                time=now,
                connections=found.total,
                rates=rates,
                closes=_grown(before, reading),
                p50=latency.handler.p50,
                p99=latency.handler.p99,
            ),
            pressure=_pressure(snapshot),
            bus=self._bus(before, snapshot, elapsed, now),
            events=sorted(
                known_before(snapshot) if before is None else between(before.snapshot, snapshot, now),
                key=lambda event: event.time,
            ),
        )

    def _latency(self, snapshot: Snapshot) -> Latency:
        """Return quantiles over the last seconds."""
        self._window.append((snapshot.taken_at, snapshot.counts))
        while len(self._window) > 2 and self._window[1][0] <= snapshot.taken_at - WINDOW:
            self._window.popleft()
        first = self._window[0][1]
        names = ("handler_duration", "ping_rtt", "handshake_duration", "event_loop_lag")
        return Latency(*(quantiles(first, snapshot.counts, name) for name in names))

    def _bus(self, before: _Sample | None, snapshot: Snapshot, elapsed: float, now: float) -> BusStatus | None:
        """Return the bus, with what is newer than its own window; after `_latency()`."""
        bus = bus_status(snapshot, now)
        if bus is not None and before is not None and elapsed > 0:
            more = bus.published - before.snapshot.counts.words("bus_published")[0]
            bus.published_per_second = max(0.0, more / elapsed)
            bus.lag_p99 = quantiles(self._window[0][1], snapshot.counts, "bus_lag").p99
        return bus


# Numbers.


def _rates(before: Totals | None, present: Totals, elapsed: float) -> Rates:
    if before is None or elapsed <= 0:
        return Rates()
    names = Totals.__struct_fields__
    return Rates(*(max(0.0, (getattr(present, name) - getattr(before, name)) / elapsed) for name in names))


def _closes(counts: Row) -> dict[str, int]:
    """Return closes by code, of all initiators."""
    words = counts.words("closes")
    stride = len(words) // len(INITIATORS)
    found = {code: sum(words[i::stride]) for i, code in enumerate(CLOSE_CODES)}
    return {code: count for code, count in found.items() if count}


def _closes_by(counts: Row) -> dict[str, int]:
    words = counts.words("closes")
    stride = len(words) // len(INITIATORS)
    return {who: sum(words[stride * i : stride * (i + 1)]) for i, who in enumerate(INITIATORS)}


def _pressure(snapshot: Snapshot) -> Pressure:
    counts = snapshot.counts
    reading, writing = counts.words("pauses")
    return Pressure(
        accept_queue_length=sum(length for _, (length, _) in derived.accept_queues(snapshot)),
        send_queue_bytes=counts.words("send_queue_bytes")[0],
        pauses_reading=reading,
        pauses_writing=writing,
        slow_consumers=sum(counts.words("slow_consumers")),
        pong_timeouts=counts.words("pong_timeouts")[0],
        limit_rejections=sum(counts.words("limit_rejections")),
        log_messages_dropped=counts.words("log_messages_dropped")[0] + snapshot.log_messages_dropped,
    )


def _grown(before: _Sample | None, reading: _Sample) -> dict[str, float]:
    """Return closes a second, by code."""
    if before is None or reading.at <= before.at:
        return {}
    more = {code: count - before.closes.get(code, 0) for code, count in reading.closes.items()}
    return {code: count / (reading.at - before.at) for code, count in more.items() if count > 0}


def _cpu(before: _Sample | None, reading: _Sample, pids: Iterable[int]) -> float | None:
    """Return the processors that these processes have kept busy since the sample before."""
    if before is None or reading.at <= before.at:
        return None
    spent = [reading.cpu[pid] - before.cpu[pid] for pid in pids if pid in reading.cpu and pid in before.cpu]
    return sum(max(0.0, seconds) for seconds in spent) / (reading.at - before.at) if spent else None


# Workers.


def _lag_words(counts: Row) -> tuple[int, int]:
    *turns, ticks = counts.words("event_loop_lag")
    return sum(turns), ticks


def _live_workers(before: _Sample | None, reading: _Sample, now: float) -> Iterator[LiveWorker]:
    """Yield every live worker, slot by slot; and slots that wait for one."""

    elapsed = reading.at - before.at if before is not None else 0.0
    for slot in reading.snapshot.slots:
        for worker in slot.workers:
            work = reading.work[identity(worker)]
            last = before.work.get(identity(worker)) if before is not None else None
            process = reading.processes.get(worker.pid)
            yield LiveWorker(
                slot=slot.index,
                pid=worker.pid or None,
                stage=worker.stage,
                generation=worker.generation,
                age=max(0.0, now - worker.started_at),
                connections=connections(worker.counts).total,
                rates=_rates(last and last.totals, work.totals, elapsed),
                rss=process and process.resident_memory_bytes,
                cpu=_cpu(before, reading, (worker.pid,)),
                lag=_lag(last and last.lag, work.lag),
                heartbeat_age=derived.silence(worker, reading.snapshot),
            )
        if derived.in_backoff(slot, reading.snapshot):
            yield LiveWorker(slot=slot.index, pid=None, stage=derived.BACKOFF)


def _lag(before: tuple[int, int] | None, present: tuple[int, int]) -> float | None:
    turns, ticks = (b - a for a, b in zip(before or (0, 0), present, strict=True))
    return ticks / FIELDS["event_loop_lag"].ticks / turns if turns else None
