"""What an application may change of a process, and that it is put back, for test_surroundings.py.

Each case is called in a new folder, with a process of its own, and asserts what only that process can see.
What must not live here: tests.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from tidegate.process.surroundings import Surroundings


def surround(change: Callable[[], None], check: Callable[[str], None]) -> None:
    """Remember, change, put back, apply again and check, which is told the first folder."""
    os.environ.update(KEPT="1", CHANGED="before", REMOVED="before")
    os.environ.pop("ADDED", None)
    os.umask(0o022)
    here = Surroundings()
    first = os.getcwd()
    os.mkdir("there")
    change()
    here.put_back()
    assert os.getcwd() == first
    assert [os.environ.get(name) for name in ("CHANGED", "REMOVED", "ADDED")] == ["before", "before", None]
    assert os.umask(0o022) == 0o022
    assert socket.getdefaulttimeout() is None
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    os.environ["KEPT"] = "2"
    here.apply()
    assert os.environ["KEPT"] == "2"
    check(first)


def nothing() -> None:
    def check(first: str) -> None:
        assert os.getcwd() == first

    surround(lambda: None, check)


def much() -> None:
    def change() -> None:
        os.chdir("there")
        os.environ["CHANGED"] = os.environ["ADDED"] = "after"
        del os.environ["REMOVED"]
        os.umask(0o007)
        socket.setdefaulttimeout(3)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def check(first: str) -> None:
        assert os.getcwd() == first + "/there"
        assert [os.environ.get(name) for name in ("CHANGED", "ADDED", "REMOVED")] == ["after", "after", None]
        assert os.umask(0) == 0o007
        assert socket.getdefaulttimeout() == 3
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a worker's own

    surround(change, check)


def a_directory_that_is_gone() -> None:
    def change() -> None:
        os.rmdir("there")
        os.mkdir("there")
        os.chdir("there")
        os.rmdir("../there")

    surround(change, lambda first: None)
