"""The server runs as many instructions for a message and a handshake as were recorded: a regression, without a clock.

What must not live here: counting and recording them (instructions.py), and what messages take of time (compare.py).
"""

from __future__ import annotations

import shutil

import pytest

from tests.benchmarks import instructions
from tests.benchmarks.instructions import COMMAND, COUNTED
from tests.support.harness import require

MOST = 0.03  # of what was recorded, more or fewer: what was gained is not to be lost again unseen


@pytest.mark.timed
@pytest.mark.parametrize("name", COUNTED)
def test_as_many_as_were_recorded(name: str) -> None:
    """Other tools give other counts by themselves, so they need a record of their own: it is missing, not wrong."""
    require(shutil.which("valgrind"), "valgrind")
    tools, record = instructions.tools(), instructions.recorded().get(instructions.interpreter(), {})
    require(record.get("tools") == tools, f"a record of instructions with {tools} (to make it: {COMMAND})")
    before, now = record["instructions"][name], instructions.count(name)
    change = now / before - 1
    print(f"{name}: {now} instructions, {before} recorded: {change:+.2%}")
    assert abs(change) <= MOST, f"{name}: {now} instructions instead of {before}, {change:+.1%}; if meant: {COMMAND}"


@pytest.mark.parametrize("interpreter", ["3.11", "3.13"])
def test_records_are_whole(interpreter: str) -> None:
    record = instructions.recorded()[interpreter]
    assert set(record["instructions"]) == set(COUNTED)
    assert set(record["tools"]) == set(instructions.tools())
