"""Stacks in the log, from processes that do as they like.

What must not live here: who asks for them (tests/supervisor/test_health.py).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.logs import cases_stacks as cases
from tests.support import programs
from tidegate.logs.stacks import STACKS


def shown(tmp_path: Path, case: Callable[..., None], *arguments: str, status: int = 0) -> str:
    """The log of a case that ends with this status."""
    done = programs.run(case, *arguments, python=("-X", "dev"), cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert not done.stderr
    return (tmp_path / "log").read_text()


def test_the_signal_is_nobody_elses() -> None:
    assert STACKS not in (signal.SIGUSR1, signal.SIGTERM, signal.SIGABRT)
    if sys.platform == "linux":
        assert signal.SIGRTMIN < STACKS < signal.SIGRTMAX


def test_of_every_thread_and_the_process_goes_on(tmp_path: Path) -> None:
    log = shown(tmp_path, cases.every_thread)
    assert "in blocked" in log
    assert "in elsewhere" in log


def test_from_code_that_holds_the_interpreter(tmp_path: Path) -> None:
    log = shown(tmp_path, cases.holds_the_interpreter)
    assert "in match" in log


def test_of_one_that_is_aborted(tmp_path: Path) -> None:
    log = shown(tmp_path, cases.aborted, status=-signal.SIGABRT)
    assert "Fatal Python error: Aborted" in log
    assert "in blocked" in log


@pytest.mark.parametrize("moved", [False, True])
def test_they_follow_the_log_when_it_is_opened_anew(tmp_path: Path, moved: bool) -> None:
    log = shown(tmp_path, cases.opened_anew, *["log.1"][:moved])
    assert "in here" in log
    if moved:
        assert "in here" not in (tmp_path / "log.1").read_text()
