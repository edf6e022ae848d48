"""The cases of the Autobahn test suite: how many there are, what they must yield, and the limits that they need.

What must not live here: how the suite is run (autobahn.py), and who is tested (test_*.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.autobahn import Result

# Chapter of the suite -> its subject, its number of cases: a run that left any out would prove nothing. There is no 8
# and no 11.
CHAPTERS = {
    1: ("framing", 16),
    2: ("pings and pongs", 11),
    3: ("reserved bits", 7),
    4: ("opcodes", 10),
    5: ("fragmentation", 20),
    6: ("UTF-8", 145),
    7: ("close handling", 37),
    9: ("limits and performance", 54),
    10: ("auto-fragmentation", 1),
}

# Of 12, compression of five kinds of data, and 13, seven negotiations of it, each section is 18 times 1,000 messages of
# up to 128 KiB. The slowest come first, so that several processes end together.
COMPRESSION = ["12.2", "12.3", "12.5", "12.4", "12.1", "13.1", "13.2", "13.3", "13.4", "13.5", "13.6", "13.7"]
CASES_OF_A_SECTION = 18

MAX_SIZE = 2**25  # the largest message of chapter 9 has 16 MiB

_GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def check(results: Mapping[str, Result], number: int, folder: Path) -> None:
    """AssertionError naming each case that failed, and its report, unless `number` cases were run and all are good."""
    bad = {
        case: f"{result['behavior']}, close {result['behaviorClose']}: {folder / 'reports' / result['reportfile']}"
        for case, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= _GOOD
    }
    assert not bad, "\n".join(f"case {case}: {what}" for case, what in bad.items())
    assert len(results) == number


def check_compression(run: Callable[[str, Path], Mapping[str, Result]], folder: Path) -> None:
    """Check all sections of 12 and 13, as many at once as there are processors: they compute all the time.

    `run(pattern, folder)` runs the cases of a pattern; it is called in threads.
    """

    def section(name: str) -> None:
        own = folder / name
        own.mkdir()
        check(run(f"{name}.*", own), CASES_OF_A_SECTION, own)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        done = [pool.submit(section, name) for name in COMPRESSION]
    errors = [error for future in done if (error := future.exception()) is not None]
    if errors:
        raise errors[0] if len(errors) == 1 else BaseExceptionGroup("several sections failed", errors)
