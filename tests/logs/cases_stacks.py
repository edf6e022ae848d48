"""Processes whose stacks are asked for, where they do as they like, for test_stacks.py.

What must not live here: tests.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time

from tidegate import logs
from tidegate.logs.stacks import STACKS

asked, asking = os.pipe()


def begin() -> None:
    """Log to a file as a worker, and show stacks in it."""
    logs.begin("supervisor", "info", file="log")
    logs.set_role("worker 0")
    logs.show_stacks()


def logged(words: str) -> bool:
    with open("log") as log:
        return words in log.read()


def signal_when_asked(number: int) -> int:
    """Fork the process that sends the signal, as the supervisor does: here there may be nothing else that runs."""
    if not (child := os.fork()):
        os.read(asked, 1)
        os.kill(os.getppid(), number)
        os._exit(0)
    return child


def signal_now() -> None:
    os.write(asking, b"x")


def every_thread() -> None:
    stop = threading.Event()

    def elsewhere() -> None:
        stop.wait()

    def blocked() -> None:
        signal_now()
        while not logged("in elsewhere") or not logged("in blocked"):
            time.sleep(0.01)

    begin()
    thread = threading.Thread(target=elsewhere)
    child = signal_when_asked(STACKS)
    thread.start()
    blocked()
    os.waitpid(child, 0)
    stop.set()
    thread.join()


def holds_the_interpreter() -> None:
    def match() -> None:
        signal_now()
        re.match("(a*)*b", "a" * 24)

    begin()
    child = signal_when_asked(STACKS)
    while not logged("in match"):
        match()
    os.waitpid(child, 0)


def aborted() -> None:
    def blocked() -> None:
        signal_now()
        time.sleep(1000)

    begin()
    signal_when_asked(signal.SIGABRT)
    blocked()


def opened_anew(*moved: str) -> None:
    """Show stacks, if a name is given after the file has been renamed to it."""

    def here() -> None:
        os.kill(os.getpid(), STACKS)

    begin()
    for name in moved:
        os.rename("log", name)
        logs.reopen()
    here()
