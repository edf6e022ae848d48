"""Quantiles of histograms, as Prometheus' histogram_quantile() has them.

What must not live here: which histogram, and over which time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct

from .._core.counters import BOUNDS, Row

__all__ = ["Quantiles", "quantile", "quantiles"]


class Quantiles(Struct):
    """Quantiles of durations, in seconds; None: there were none."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


def quantiles(first: Row, last: Row, name: str) -> Quantiles:
    """Return the quantiles of the values between two reads of a histogram."""
    between = [b - a for a, b in zip(first.words(name)[:-1], last.words(name)[:-1], strict=True)]
    return Quantiles(*(quantile(q, BOUNDS[name], between) for q in (0.5, 0.9, 0.99)))


def quantile(q: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return a quantile of the values of a histogram; None: there are none.

    Within a bucket, values are taken to lie evenly; above the last bound, the result is that bound.

    Args:
        q: which quantile: 0.5 is the median.
        bounds: the upper bound of each bucket but the last one.
        counts: the number of values in each bucket, the last one included.
    """
    upto = list(accumulate(counts[: len(bounds) + 1]))
    if not upto[-1]:
        return None
    rank = q * upto[-1]
    i = next(i for i, count in enumerate(upto) if count and count >= rank)
    if i >= len(bounds):
        return bounds[-1]
    low, below = (bounds[i - 1], upto[i - 1]) if i else (0.0, 0)
    return low + (bounds[i] - low) * (rank - below) / (upto[i] - below)
