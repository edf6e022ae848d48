"""The bus and the hub, as /status and /live have them.

    BusStatus    the bus of all workers
    HubStatus    the process of local://

What must not live here: what is counted (the catalog of metrics), HTTP.
"""

from __future__ import annotations

from msgspec import Struct

from .._core.counters import BOUNDS, BusState, Row
from .._core.snapshot import Snapshot, Worker
from ..metrics import derived
from .quantiles import quantile

__all__ = ["BusStatus", "HubStatus", "bus_status"]


class HubStatus(Struct):
    """The hub. Times in seconds; what is stored are messages of channels with history.

    Attributes:
        pid: its process; None while there is none.
        restarts: how many hubs ended by themselves.
        links: processes that are linked with it.
        queue_bytes: what waits for workers to read it.
        evicted: messages that were lost for want of --bus-memory.
    """

    pid: int | None
    uptime: float
    restarts: int
    links: int
    topics: int
    queue_bytes: int
    journal_messages: int
    journal_bytes: int
    stored: int
    evicted: int


class BusStatus(Struct):
    """The bus of the daemon, and what happened on it since the supervisor started.

    Attributes:
        url: without secrets.
        up: whether messages come to every worker.
        reason: why they do not come to one; empty if they do.
        required: whether the daemon is not ready without.
        members: of all channels in all workers, once for each channel.
        topics: channels, once for each worker.
        published_per_second, lag_p99: over the last ten to twenty seconds; None: nothing came.
        repaired: times that a worker read what it had missed, and no member noticed.
        told: times that members were told that messages are missing.
        resumes: joins by what became of them.
        closes: members that were closed by channels, by reason.
    """

    url: str
    engine: str
    up: bool
    reason: str
    required: bool
    members: int
    topics: int
    published: int
    publish_failures: int
    received: int
    delivered: int
    published_per_second: float
    lag_p99: float | None
    repaired: int
    told: int
    resumes: dict[str, int]
    closes: dict[str, int]
    hub: HubStatus | None = None


def bus_status(snapshot: Snapshot, now: float) -> BusStatus | None:
    """Return the status of the bus at `now` (Unix time); None if no worker has one."""
    found = [pair for slot in snapshot.slots for pair in derived.buses(slot)]
    if not found:
        return None
    counts = snapshot.counts
    repaired, told = counts.words("bus_gaps")
    down = next((state for _, state in found if not state.up), None)
    rate, lag = _recent(found, snapshot.taken_at)
    return BusStatus(
        url=snapshot.bus_url,
        engine=found[-1][1].engine,
        up=down is None,
        reason=down.reason if down is not None else "",
        required=any(state.required for _, state in found),
        members=_only(counts, "bus_members"),
        topics=_only(counts, "bus_topics"),
        published=_only(counts, "bus_published"),
        publish_failures=sum(counts.words("bus_publish_failures")),
        received=_only(counts, "bus_received"),
        delivered=_only(counts, "bus_delivered"),
        published_per_second=rate,
        lag_p99=lag,
        repaired=repaired,
        told=told,
        resumes=derived.by_name(counts, "bus_resumes"),
        closes=derived.by_name(counts, "bus_closes"),
        hub=_hub_status(snapshot, now) if snapshot.hub_pid or any(snapshot.hub.words("hub_topics")) else None,
    )


def _recent(found: list[tuple[Worker, BusState]], now: float) -> tuple[float, float | None]:
    """Return how many messages a second were published of late, and the slowest hundredth's lag."""
    rate, lags = 0.0, [0] * (len(BOUNDS["bus_lag"]) + 1)
    for worker, _ in found:
        since, published, lag = worker.counts.bus_window
        if since and now > since:
            rate += published / (now - since)
            lags = [a + b for a, b in zip(lags, lag, strict=False)]
    return rate, quantile(0.99, BOUNDS["bus_lag"], lags)


def _hub_status(snapshot: Snapshot, now: float) -> HubStatus:
    hub = snapshot.hub
    return HubStatus(
        pid=snapshot.hub_pid or None,
        uptime=max(0.0, now - snapshot.hub_started_at) if snapshot.hub_pid else 0.0,
        restarts=snapshot.counters["hub_restarts"][""],
        links=_only(hub, "hub_links"),
        topics=_only(hub, "hub_topics"),
        queue_bytes=_only(hub, "hub_queue_bytes"),
        journal_messages=_only(hub, "journal_messages"),
        journal_bytes=_only(hub, "journal_bytes"),
        stored=_only(hub, "journal_stored"),
        evicted=sum(hub.words("journal_evicted")),
    )


def _only(row: Row, field: str) -> int:
    return row.words(field)[0]
