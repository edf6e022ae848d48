"""Makes prometheus_client's families, as the catalog declares them, of one reading of the scoreboard and the system.

What must not live here: names of metrics (catalog), formats (expose).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .._core.counters import BOUNDS, FIELDS, Row
from .._core.scoreboard import Scoreboard
from .._core.snapshot import OPERATION_BOUNDS, OPERATION_TICKS, Snapshot
from .catalog import CATALOG, ByLabel, ByOutcome, FromSystem, Metric
from .derived import Sample
from .procfs import Observer, Reading

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

    def __init__(self, scoreboard: Scoreboard, before: Collection[int] = ()) -> None:
        self._observer = Observer(scoreboard, before)

    def describe(self) -> list[Family]:
        return [_family(metric) for metric in CATALOG]

    def collect(self) -> list[Family]:
        return families(self._observer.read())


def families(reading: Reading) -> list[Family]:
    """Return a family for each metric of the catalog, with the values of a reading."""
    return [_filled(metric, reading) for metric in CATALOG]


def _family(metric: Metric) -> Family:
    return _FAMILIES[metric.type](metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)


def _filled(metric: Metric, reading: Reading) -> Family:
    family = _family(metric)
    if isinstance(family, HistogramMetricFamily):
        for labels, buckets, total in _histograms(metric, reading.snapshot):
            family.add_metric(labels, buckets, total)
    else:
        for labels, value in _samples(metric, reading):
            family.add_metric(labels, value)
    return family


def _rows(metric: Metric, snapshot: Snapshot) -> list[tuple[tuple[str, ...], Row]]:
    """Return the rows that a metric is read from, each with its label."""
    if "worker" in metric.labels:
        return [((str(slot.index),), slot.counts) for slot in snapshot.slots]
    return [((), snapshot.counts)]


def _samples(metric: Metric, reading: Reading) -> Iterator[Sample]:
    source = metric.source
    assert not isinstance(source, str | ByLabel | ByOutcome)
    if isinstance(source, FromSystem):
        yield from source.of(reading)
        return
    if callable(source):
        yield from source(reading.snapshot)
        return
    for labels, row in _rows(metric, reading.snapshot):
        values = {field: row.words(field) for field, _ in source.values()}
        for names, (field, index) in source.items():
            yield (*labels, *names), values[field][index]


def _histograms(metric: Metric, snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], list[tuple[str, float]], float]]:
    source = metric.source
    if isinstance(source, ByOutcome):
        for outcome, words in source.of(snapshot).items():
            yield (outcome,), *_histogram(words, OPERATION_BOUNDS, OPERATION_TICKS)
        return
    if isinstance(source, ByLabel):
        for labels, row in _rows(metric, snapshot):
            for value, field in source.fields.items():
                yield (*labels, value), *histogram(row, field)
        return
    assert isinstance(source, str)
    for labels, row in _rows(metric, snapshot):
        yield labels, *histogram(row, source)


def histogram(row: Row, field: str) -> tuple[list[tuple[str, float]], float]:
    """Return a histogram of a row: (upper bound, count up to it) for each bucket, and the sum."""
    return _histogram(row.words(field), BOUNDS[field], FIELDS[field].ticks)


def _histogram(words: Sequence[int], bounds: Sequence[float], ticks: float) -> tuple[list[tuple[str, float]], float]:
    *counts, total = words
    names = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=False)), total / ticks
