"""Stacks in the log, from processes that do as they like.

What must not live here: who asks for them (tests/supervisor/test_health.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tidegate.logs.stacks import STACKS

PRELUDE = """
import os, re, signal, sys, threading, time
from tidegate import logs

logs.begin("supervisor", "info", file="log")
logs.become("worker 0")
logs.show_stacks()

asked, asking = os.pipe()

def signal_now():
    os.write(asking, b"x")

def logged(words):
    with open("log") as log:
        return words in log.read()

def signal_when_asked(number):
    # From another process, as the supervisor does it: this one may be where nothing else gets to run.
    if not (child := os.fork()):
        os.read(asked, 1)
        os.kill(os.getppid(), number)
        os._exit(0)
    return child
"""


def shown(tmp_path: Path, program: str, status: int = 0) -> str:
    """The log of a program that ends with this status."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PRELUDE + textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == status, done.stderr
    assert not done.stderr
    return (tmp_path / "log").read_text()


def test_the_signal_is_nobody_elses() -> None:
    assert STACKS not in (signal.SIGUSR1, signal.SIGTERM, signal.SIGABRT)
    if sys.platform == "linux":
        assert signal.SIGRTMIN < STACKS < signal.SIGRTMAX


def test_of_every_thread_and_the_process_goes_on(tmp_path: Path) -> None:
    log = shown(
        tmp_path,
        f"""
        def elsewhere():
            stop.wait()
        stop = threading.Event()
        thread = threading.Thread(target=elsewhere)
        child = signal_when_asked({STACKS})
        thread.start()
        def blocked():
            signal_now()
            while not logged("in elsewhere") or not logged("in blocked"):
                time.sleep(0.01)
        blocked()
        os.waitpid(child, 0)
        stop.set()
        thread.join()
        """,
    )
    assert "in blocked" in log
    assert "in elsewhere" in log


def test_from_code_that_holds_the_interpreter(tmp_path: Path) -> None:
    log = shown(
        tmp_path,
        f"""
        def match():
            signal_now()
            re.match("(a*)*b", "a" * 24)
        child = signal_when_asked({STACKS})
        while not logged("in match"):
            match()
        os.waitpid(child, 0)
        """,
    )
    assert "in match" in log


def test_of_one_that_is_aborted(tmp_path: Path) -> None:
    log = shown(
        tmp_path,
        """
        def blocked():
            signal_now()
            time.sleep(1000)
        signal_when_asked(signal.SIGABRT)
        blocked()
        """,
        -signal.SIGABRT,
    )
    assert "Fatal Python error: Aborted" in log
    assert "in blocked" in log


@pytest.mark.parametrize("moved", [False, True])
def test_they_follow_the_log_when_it_is_opened_anew(tmp_path: Path, moved: bool) -> None:
    log = shown(
        tmp_path,
        f"""
        if {moved}:
            os.rename("log", "log.1")
            logs.reopen()
        def here():
            os.kill(os.getpid(), {STACKS})
        here()
        """,
    )
    assert "in here" in log
    if moved:
        assert "in here" not in (tmp_path / "log.1").read_text()
