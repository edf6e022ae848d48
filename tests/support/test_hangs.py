"""A test that hangs is told by name, with what it waits for, and the others run.

What must not live here: tests of tidegate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT
from tests.support.patience import LONG

HANGING = """
import asyncio
import time

import uvloop


def test_before(): ...


def test_a_loop():
    async def forever():
        await asyncio.Event().wait()

    uvloop.run(forever())


def test_a_call():
    time.sleep(10_000)


def test_after(): ...
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_a_test_that_hangs(tmp_path: Path, processes: int) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_hanging.py").write_text(HANGING)
    plugins = ("-p", "tests.support.hangs", "-p", "tests.support.parallel")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-q", "-n", str(processes), "--timeout=3", "test_hanging.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert done.returncode == 1, done.stderr
    told = done.stdout + done.stderr
    assert "test_hanging.py::test_a_loop did not end within" in told
    assert "line 13 in forever" in told
    if processes:
        assert "test_hanging.py::test_a_call did not end within" in told
        assert "line 19 in test_a_call" in told
        assert "2 failed, 2 passed" in told
