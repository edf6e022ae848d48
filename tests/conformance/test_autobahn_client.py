"""RFC 6455 and RFC 7692, judged by the Autobahn test suite: its fuzzing server against our client.

What must not live here: how the suite is run (autobahn.py), its cases (cases.py), our server (test_autobahn.py).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.conformance import autobahn
from tests.conformance.cases import CHAPTERS, MAX_SIZE, check, check_compression
from tests.support.patience import LONG

PROGRAM = Path(__file__).with_name("echo_client.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(wstest: Path, pattern: str, folder: Path, at_once: int = 1) -> Mapping[str, autobahn.Result]:
    """Run the cases of a pattern against our client in a process of its own, which must have nothing to complain of."""
    with autobahn.FuzzingServer(wstest, pattern, folder) as server:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), server.uri, str(at_once), str(MAX_SIZE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONG,
            check=False,
        )
        assert (done.returncode, done.stdout.decode(errors="replace")) == (0, "")
        return server.results()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: f"{chapter}-{CHAPTERS[chapter][0].replace(' ', '-')}")
def test_chapter(chapter: int, wstest: Path, tmp_path: Path) -> None:
    """The client passes a chapter of Autobahn's test suite."""
    # In the others the suite is mostly waiting; in 9 it computes, and has limits on how long a case may take.
    results = run(wstest, f"{chapter}.*", tmp_path, at_once=1 if chapter == 9 else 16)
    check(results, CHAPTERS[chapter][1], tmp_path)


def test_compression(wstest: Path, tmp_path: Path) -> None:
    """The chapters 12 and 13, with what the client offers by default."""
    check_compression(partial(run, wstest), tmp_path)
