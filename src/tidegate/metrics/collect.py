"""From a consistent read of the scoreboard to prometheus_client's families, as the catalog says.

What must not live here: names of metrics (catalog), formats (expose).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .._core.scoreboard import BOUNDS, FIELDS, Row, Scoreboard, Snapshot
from .catalog import CATALOG, Metric
from .facts import Sample

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_FAMILIES: dict[str, type[Family]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class ScoreboardCollector(Collector):
    """Collects every metric of the catalog. Each `collect()` is one consistent read.

    Raises TimeoutError like `Scoreboard.read()`.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard

    def describe(self) -> list[Family]:
        return [_family(metric) for metric in CATALOG]

    def collect(self) -> list[Family]:
        return families(self._scoreboard.read())


def families(snapshot: Snapshot) -> list[Family]:
    """The whole catalog, with the values of a snapshot."""
    return [_filled(metric, snapshot) for metric in CATALOG]


def _family(metric: Metric) -> Family:
    return _FAMILIES[metric.type](metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)


def _filled(metric: Metric, snapshot: Snapshot) -> Family:
    family = _family(metric)
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(metric.source, str)
        for labels, row in _rows(metric, snapshot):
            buckets, total = histogram(row, metric.source)
            family.add_metric(labels, buckets, total)
    else:
        for labels, value in _samples(metric, snapshot):
            family.add_metric(labels, value)
    return family


def _rows(metric: Metric, snapshot: Snapshot) -> list[tuple[tuple[str, ...], Row]]:
    """The rows that a metric is read from, with the label that each one has."""
    if "worker" in metric.labels:
        return [((str(slot.index),), slot.counts) for slot in snapshot.slots]
    return [((), snapshot.counts)]


def _samples(metric: Metric, snapshot: Snapshot) -> Iterator[Sample]:
    source = metric.source
    assert not isinstance(source, str)
    if callable(source):
        yield from source(snapshot)
        return
    for labels, row in _rows(metric, snapshot):
        values = {field: row.words(field) for field, _ in source.values()}
        for names, (field, index) in source.items():
            yield (*labels, *names), values[field][index]


def histogram(row: Row, field: str) -> tuple[list[tuple[str, float]], float]:
    """A histogram of a row as (upper bound, how many up to it) for each bucket, and its sum."""
    bounds = [*map(floatToGoString, BOUNDS[field]), "+Inf"]
    *counts, ticks = row.words(field)
    return list(zip(bounds, accumulate(counts), strict=False)), ticks / FIELDS[field].ticks
