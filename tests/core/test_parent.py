"""The end of a process whose parent has ended: of one that computes in native code, and of one that came too late.

Each is a grandchild of this process, and holds the end of a pipe for as long as it lives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.support.patience import PATIENCE
from tidegate._core.parent import end_with_parent

# The parent forks, lets the child begin, and ends, or stays until its standard input is closed.
PROGRAM = """
import ctypes, os, signal, sys, time
from tidegate._core.parent import end_with_parent
parent, (begun, begin) = os.getpid(), os.pipe()
if os.fork() == 0:
    {before}
    assert end_with_parent(parent, 1)
    {between}
    os.write(begin, b"x")
    {what}
    os._exit(7)
{wait}
"""
WAIT = "os.read(begun, 1)"
BLOCKED = "ctypes.PyDLL(None).sleep(1000)"  # with the interpreter's lock


def lived(what: str, *, before: str = "", between: str = "", wait: str = WAIT) -> float:
    """Seconds from the parent's end to that of its child."""
    program = PROGRAM.format(what=what, before=before, between=between, wait=wait)
    reader, writer = os.pipe()
    with open(reader, "rb") as lives:
        try:
            subprocess.run([sys.executable, "-c", program], check=True, pass_fds=[writer], timeout=PATIENCE)
        finally:
            os.close(writer)
        began = time.monotonic()
        assert lives.read() == b""
        return time.monotonic() - began


@pytest.mark.parametrize("what", [BLOCKED, "while True: pass", "time.sleep(1000)"], ids=["native", "loop", "sleep"])
def test_whatever_it_does_it_ends(what: str) -> None:
    assert lived(what) < PATIENCE


def test_it_ends_although_it_has_a_handler_for_alarms() -> None:
    """One that it had when its parent ended: the alarm is nobody's to hear from then on."""
    assert lived("time.sleep(1000)", between="signal.signal(signal.SIGALRM, print)") < PATIENCE


def test_it_has_the_time_to_end_as_it_likes_to() -> None:
    assert lived("time.sleep(0.5)") >= 0.3


def test_a_parent_that_has_ended_before() -> None:
    before = "\n    ".join(["import select", "while os.getppid() == parent: time.sleep(0.01)"])
    assert lived(BLOCKED, before=before, wait="") < PATIENCE


def test_nothing_happens_while_the_parent_lives() -> None:
    """A thread of the parent may end: it has not forked."""
    wait = "\n".join(
        [
            "import threading",
            "thread = threading.Thread(target=print)",
            "thread.start()",
            "thread.join()",
            "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7",
        ]
    )
    lived("time.sleep(2)", wait=wait)


def test_it_may_end_before() -> None:
    program = "import os; from tidegate._core.parent import end_with_parent as end; print(end(os.getppid(), 1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_an_alarm_that_would_never_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="a second or more"):
        end_with_parent(os.getppid(), 0)
