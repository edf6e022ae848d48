"""Quantiles of histograms: of counts, and of what came between two reads."""

import pytest

from tidegate._core.counters import Row
from tidegate.admin.quantiles import Quantiles, quantile, quantiles


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.5),  # even from 0 to 1
        ([0, 10, 0, 0], 1.0, 2.0),
        ([5, 5, 0, 0], 0.5, 1.0),
        ([5, 0, 5, 0], 0.9, 3.6),
        ([0, 0, 0, 7], 0.5, 4),  # above the last bound: that is all that is known
        ([0, 0, 5, 0], 0.0, 2.0),
    ],
)
def test_quantile(counts: list[int], q: float, expected: float | None) -> None:
    """Values lie evenly in their bucket; above the last bound, the quantile is that bound."""
    found = quantile(q, (1, 2, 4), [*counts, 0, 0])
    assert found == (expected if expected is None else pytest.approx(expected))


def test_quantiles_between_two_reads() -> None:
    before, after = Row(), Row()
    for row in (before, after):
        row.observe("bus_lag", 9.0)
    for _ in range(100):
        after.observe("bus_lag", 0.002)
    assert quantiles(before, before, "bus_lag") == Quantiles()
    found = quantiles(before, after, "bus_lag")
    assert found.p50 == pytest.approx(0.00175)
    assert found.p99 == pytest.approx(0.002485)
