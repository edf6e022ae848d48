"""Numbers as people read them. What must not live here: where they are shown."""

from __future__ import annotations

import pytest

from tidegate.cli.humanize import bars, duration, latency, rate, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90061, "1 d 1 h"),
        (1e7, "115 d 17 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A duration has its two largest units."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 us"),
        (0.0000504, "50 us"),
        (0.0009994, "999 us"),
        (0.0009996, "1.0 ms"),
        (0.00123, "1.2 ms"),
        (0.00996, "10 ms"),
        (0.34, "340 ms"),
        (0.9996, "1.0 s"),
        (12.3, "12 s"),
    ],
)
def test_latencies(seconds: float | None, text: str) -> None:
    """A latency has a unit that leaves few digits."""
    assert latency(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.04, "0"),
        (0.1, "0.1"),
        (9.94, "9.9"),
        (9.96, "10"),
        (123.4, "123"),
        (1e6, "1,000,000"),
    ],
)
def test_rates(number: float | None, text: str) -> None:
    """A rate has a decimal only when it is small."""
    assert rate(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023.2, "1023 B"),
        (1023.9, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (212 * 2**20, "212 MiB"),
        (5 * 2**40, "5,120 GiB"),
    ],
)
def test_sizes(number: float | None, text: str) -> None:
    """A size has the largest unit that fits."""
    assert size(number) == text


def test_bars() -> None:
    """Bars are relative to the highest value, and an unknown value is blank."""
    assert bars([]) == ""
    assert bars([0.0, 0.0]) == "▁▁"
    assert bars([None, 0.0, 5.0, 10.0]) == " ▁▅█"
    assert bars([None, 0.0, 5.0, 10.0], ascii_only=True) == " _+@"
