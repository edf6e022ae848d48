"""RFC 6455, judged by the Autobahn test suite: the cases 1 to 10 of its fuzzing client against the running daemon.

What must not live here: how the suite is installed and run (autobahn.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import autobahn
from tests.harness import ECHO, Daemon, require

# Chapter of the suite -> its subject, its number of cases: a run that left any out would prove nothing. There is no 8.
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
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
MAX_SIZE = 2**25  # the largest message of chapter 9 has 16 MiB,
MAX_FRAGMENTS = 2**17  # and the most divided one 65,536 fragments

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wstest() -> Path:
    """The suite's command; the first use installs it, in some 20 seconds."""
    interpreter = autobahn.python2()
    require(interpreter, "a Python 2.7 for the Autobahn test suite (TIDEGATE_PYTHON2, PATH or pyenv)")
    assert interpreter is not None
    return autobahn.install(interpreter)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """An echo server as people run it, but for the size of the messages that it takes."""
    limits = {"TIDEGATE_MAX_FRAGMENTS": str(MAX_FRAGMENTS)}
    with Daemon(ECHO, "--max-size", str(MAX_SIZE), workers=2, env=limits) as daemon:
        yield daemon


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: f"{chapter}-{CHAPTERS[chapter][0].replace(' ', '-')}")
def test_chapter(chapter: int, wstest: Path, daemon: Daemon, tmp_path: Path) -> None:
    results = autobahn.fuzz(wstest, daemon.uri, [f"{chapter}.*"], tmp_path, timeout=840)
    assert len(results) == CHAPTERS[chapter][1]
    bad = {
        case: f"{result['behavior']}, close {result['behaviorClose']}: {(tmp_path / 'reports' / result['reportfile'])}"
        for case, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= GOOD
    }
    assert not bad, "\n".join(f"case {case}: {what}" for case, what in bad.items())
    assert daemon.poll() is None
