"""The histogram of latencies, against sorted lists.

What must not live here: what is recorded into it (test_load.py).
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate._core.histogram import ERROR, Histogram

VALUES = st.lists(st.one_of(st.integers(0, 2000), st.integers(0, 2**42 - 1)), min_size=1, max_size=200)


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, st.floats(0, 1))
def test_quantiles(values: list[int], q: float) -> None:
    """A quantile is never below the exact one, and above it by no more than the documented error."""
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert exact <= of(values).quantile(q) <= exact * (1 + ERROR)


@given(VALUES)
def test_what_is_exact(values: list[int]) -> None:
    histogram = of(values)
    assert (histogram.count, histogram.total) == (len(values), sum(values))
    assert (histogram.minimum, histogram.maximum) == (min(values), max(values))
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.quantile(1) == max(values)


@given(VALUES)
def test_buckets_hold_their_values(values: list[int]) -> None:
    buckets = list(of(values).buckets())
    assert sum(count for _, _, count in buckets) == len(values)
    for lowest, highest, count in buckets:
        assert sum(lowest <= value <= highest for value in values) == count
        assert highest - lowest <= lowest * ERROR


@given(VALUES, VALUES)
def test_adding_up(some: list[int], others: list[int]) -> None:
    histogram = of(some)
    histogram.merge(of(others))
    assert histogram.dump() == of(some + others).dump()


@given(VALUES)
def test_to_another_process_and_back(values: list[int]) -> None:
    histogram = of(values)
    assert Histogram.load(histogram.dump()).dump() == histogram.dump()
    assert Histogram.load(histogram.dump()).count == len(values)


def test_empty() -> None:
    """A histogram without values has zeros for all its figures."""
    histogram = Histogram()
    assert (histogram.count, histogram.minimum, histogram.maximum, histogram.mean) == (0, 0, 0, 0.0)
    assert histogram.quantile(0.5) == 0
    assert list(histogram.buckets()) == []
    assert Histogram.load(histogram.dump()).minimum == 0
    histogram.record(5, 0)
    assert histogram.count == 0


def test_more_than_it_can_tell_apart() -> None:
    histogram = of([2**50, 2**60])
    assert histogram.count == 2
    assert histogram.maximum == histogram.quantile(0.5) == 2**60


def test_mistakes() -> None:
    """What is no quantile, and what is no dump, is refused."""
    with pytest.raises(ValueError, match="from 0 to 1, not"):
        Histogram().quantile(1.5)
    with pytest.raises(ValueError, match="no bucket of this histogram: 8960"):
        Histogram.load({"counts": [(8960, 1)], "total": 1, "minimum": 1, "maximum": 1})
