"""The program that measures many connections: that it measures, with few of them.

What must not live here: figures.
"""

from __future__ import annotations

import pytest

from tests.benchmarks.scale import HEAD, lag, measure
from tests.support.harness import Metrics


def scrape(*counts: int) -> Metrics:
    bounds = ("0.001", "0.005", "+Inf")
    name = "tidegate_event_loop_lag_seconds_bucket"
    samples = [f'{name}{{worker="0",le="{bound}"}} {count}' for bound, count in zip(bounds, counts, strict=True)]
    return Metrics("\n".join([*samples, ""]))


def test_lag_is_of_the_time_between_two_scrapes() -> None:
    """The bucket that holds the quantile."""
    assert lag(scrape(5, 10, 10), scrape(105, 110, 110)) == 0.001
    assert lag(scrape(5, 10, 10), scrape(95, 110, 110)) == 0.005
    assert lag(scrape(0, 0, 0), scrape(90, 95, 100)) == float("inf")


@pytest.mark.slow
def test_a_few_connections() -> None:
    line = measure(20, 2, rate=4000.0, seconds=1.0)  # processor time is told in hundredths of a second
    assert line[:2] == (20, 2)
    assert line.status == 0
    assert line.cost > 0
    assert str(line).count("|") == HEAD.splitlines()[0].count("|")
