"""Numbers as people read them: durations, rates, sizes, and a row of bars for the course of one.

What must not live here: what the numbers measure.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bars", "duration", "latency", "rate", "size"]

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-=+*#@"  # of ASCII
_SIZES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def duration(seconds: float) -> str:
    """Format seconds in their two largest units: 2 d 3 h, 5 min 7 s, 12 s."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def latency(seconds: float | None) -> str:
    """Format seconds in a unit that leaves few digits: 85 us, 1.2 ms, 340 ms, 2.5 s."""
    if seconds is None:
        return "-"
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{_digits(seconds * 1e3)} ms"
    return f"{_digits(seconds)} s"


def rate(number: float | None) -> str:
    """Format a rate, with a decimal only for small ones: 0, 0.2, 3.5, 120, 12,345."""
    if number is None:
        return "-"
    return "0" if number < 0.05 else _digits(number)


def size(number: float | None) -> str:
    """Format bytes in the largest unit that fits: 17 B, 1.5 KiB, 212 MiB."""
    if number is None:
        return "-"
    for unit, bytes_of_it in _SIZES:
        if number >= bytes_of_it * 0.9995:
            return f"{_digits(number / bytes_of_it)} {unit}"
    return f"{number:.0f} B"


def bars(values: Sequence[float | None], *, ascii_only: bool = False) -> str:
    """Return one bar for each value, relative to the highest; a blank for an unknown one."""
    letters = _PLAIN_BARS if ascii_only else _BARS
    highest = max((value for value in values if value is not None), default=0.0)
    if highest <= 0.0:
        return "".join(" " if value is None else letters[0] for value in values)
    top = len(letters) - 1
    return "".join(" " if value is None else letters[round(max(0.0, value) / highest * top)] for value in values)


def _digits(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"
