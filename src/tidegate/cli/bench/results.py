"""What came out of a benchmark: reports of processes, rounds that are added up, and the object of --json.

What must not live here: how people see it (report.py).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self

import msgspec

from ..._core.histogram import Histogram

__all__ = ["QUANTILES", "Comparison", "Latency", "Report", "Round", "ServerCost", "median_round"]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
SECOND = 1e9


class Report(msgspec.Struct, kw_only=True):
    """What a process says while it works; counts are from its start on, latencies since its last report."""

    stage: str
    opened: int = 0
    open: int = 0
    answered: int = 0
    sent: int = 0
    bytes_received: int = 0
    unexpected: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    errors: dict[str, int] = {}
    latencies: dict[str, Any] | None = None
    handshakes: dict[str, Any] | None = None


class Latency(msgspec.Struct, kw_only=True):
    """A distribution, in seconds."""

    count: int
    min: float
    mean: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """The distribution of a histogram of nanoseconds."""
        return cls(
            count=histogram.count,
            min=histogram.minimum / SECOND,
            mean=histogram.mean / SECOND,
            max=histogram.maximum / SECOND,
            **{name: histogram.quantile(share) / SECOND for name, share in QUANTILES.items()},
        )


class ServerCost(msgspec.Struct, kw_only=True):
    """What the server says it took.

    Attributes:
        cpu_seconds: processor time, while it was measured.
        cpu_per_message: seconds of it for a message, a delivery or a handshake.
        memory_per_connection: bytes that are resident now for each connection that was opened.
    """

    cpu_seconds: float | None = None
    cpu_per_message: float | None = None
    memory_per_connection: float | None = None


class Round(msgspec.Struct, kw_only=True):
    """One round: what was measured at one server.

    Attributes:
        uri: of the server.
        seconds: that were measured.
        connections: that were opened.
        messages: that came back; of a fan, deliveries; of handshakes, those that succeeded.
        rate: of these a second.
        bytes_received: in what was measured.
        latency: of messages, rounds of a fan, or handshakes; None if there was none.
        handshake: of the opening handshakes.
        unanswered: messages that were not answered at the end; they are in the latencies with the time so far.
        unexpected: messages that nothing was sent for.
        client_cpu: share of a processor that the busiest process of load took: near 1, the load is what is measured.
        errors: kind of failure -> connections.
        server: what the server says of itself, if it was asked.
        histogram: [seconds, count] of each bucket, by the highest value in it.
    """

    uri: str
    seconds: float = 0.0
    connections: int = 0
    messages: int = 0
    rate: float = 0.0
    bytes_received: int = 0
    latency: Latency | None = None
    handshake: Latency | None = None
    unanswered: int = 0
    unexpected: int = 0
    client_cpu: float = 0.0
    errors: dict[str, int] = {}
    server: ServerCost | None = None
    histogram: list[tuple[float, int]] = []

    @classmethod
    def of(cls, uri: str, finals: Iterable[Report], latencies: Histogram) -> Self:
        """Add up the last reports of processes."""
        reports = list(finals)
        errors: Counter[str] = Counter()
        handshakes = Histogram()
        for report in reports:
            errors.update(report.errors)
            if report.handshakes is not None:
                handshakes.merge(Histogram.load(report.handshakes))
        seconds = max((report.seconds for report in reports), default=0.0)
        messages = sum(report.answered for report in reports)
        return cls(
            uri=uri,
            seconds=seconds,
            connections=sum(report.opened for report in reports),
            messages=messages,
            rate=messages / seconds if seconds else 0.0,
            bytes_received=sum(report.bytes_received for report in reports),
            latency=Latency.of(latencies) if latencies.count else None,
            handshake=Latency.of(handshakes) if handshakes.count else None,
            unanswered=sum(report.unanswered for report in reports),
            unexpected=sum(report.unexpected for report in reports),
            client_cpu=max((r.processor_seconds / r.seconds for r in reports if r.seconds), default=0.0),
            errors=dict(errors),
            histogram=[(highest / SECOND, count) for _, highest, count in latencies.buckets()],
        )

    @property
    def failed(self) -> int:
        """Connections that failed, or were lost."""
        return sum(self.errors.values())


class Comparison(msgspec.Struct, kw_only=True):
    """One server's figures over another's: the medians of the ratios of rounds that followed each other."""

    uri: str
    over: str
    rate: float | None = None
    p50: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, pairs: Iterable[tuple[Round, Round]]) -> Self:
        """Compare the first of each pair with the second."""
        found = list(pairs)
        ratios: Mapping[str, list[float]] = {"rate": [], "p50": [], "p99": []}
        for one, other in found:
            if other.rate:
                ratios["rate"].append(one.rate / other.rate)
            if one.latency and other.latency:
                ratios["p50"].append(one.latency.p50 / other.latency.p50)
                ratios["p99"].append(one.latency.p99 / other.latency.p99)
        medians = {name: statistics.median(values) if values else None for name, values in ratios.items()}
        return cls(uri=found[0][0].uri, over=found[0][1].uri, **medians)


def median_round(rounds: Iterable[Round]) -> Round:
    """The one in the middle by rate: of an even number, the better one."""
    ordered = sorted(rounds, key=lambda each: each.rate)
    return ordered[len(ordered) // 2]
