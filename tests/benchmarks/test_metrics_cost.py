"""What counting costs: an echo with 16 messages in flight, against a build in which nothing is counted per message.

Instructions are the same at each run, and judged. The time that the processor takes is not, on a machine that does
other things as well: it is measured in turns with both builds, and the quickest run of each is shown (pytest -rA).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core import rebuild
from tests.support.patience import LONG

PROGRAM = Path(__file__).with_name("echo.py")
DEPTH = 16
# Of the instructions in user space: those of the kernel, which an echo needs more of, are not among them. 3 % of all is
# meant, so this is the stricter. Before CPython 3.12 the interpreter has a smaller share, and the same counting more.
MOST = 0.03 if sys.version_info >= (3, 12) else 0.035
TURNS = 5


def run(source: Path, command: list[str], *arguments: object) -> str:
    done = subprocess.run(
        [*command, sys.executable, str(PROGRAM), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(source / "src"), "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG,
        check=True,
    )
    return done.stdout


def instructions(source: Path, folder: Path) -> float:
    """For each message: what more messages take more."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'callgrind'}"]
    counted = []
    run(source, [], DEPTH, DEPTH)  # which compiles the modules, once
    for count in (32_000, 96_000):
        found = re.search(r"Collected : (\d+)", run(source, command, count, DEPTH))
        assert found is not None
        counted.append(int(found[1]))
    return (counted[1] - counted[0]) / 64_000


def nanoseconds(source: Path) -> float:
    return float(run(source, [], 400_000, DEPTH, "sockets"))


@pytest.mark.timed
def test_counting_costs_little(tmp_path: Path) -> None:
    rebuild.need_a_compiler("valgrind")
    counting = rebuild.copy(tmp_path / "counting", ["-O3"])
    silent = rebuild.copy(tmp_path / "silent", ["-O3", "-DTIDEGATE_NO_METRICS"])
    with_, without = instructions(counting, tmp_path), instructions(silent, tmp_path)
    print(f"instructions a message: {with_:.0f} with counting, {without:.0f} without: {with_ / without - 1:+.2%}")
    times = [(nanoseconds(counting), nanoseconds(silent)) for _ in range(TURNS)]
    quick, quicker = (min(turn[i] for turn in times) for i in (0, 1))
    print(f"nanoseconds a message: {quick:.0f} with counting, {quicker:.0f} without: {quick / quicker - 1:+.2%}")
    assert 0 < with_ / without - 1 <= MOST


def test_the_echo_that_is_measured() -> None:
    """All ways of it work, so that what other tests measure is an echo, or a handshake."""
    source = Path(__file__).parents[2]
    assert float(run(source, [], 320, DEPTH)) >= 0
    for mode in ("sockets", "lockstep"):
        for count, depth in ((320, DEPTH), (5, 0)):
            assert float(run(source, [], count, depth, mode)) > 0
