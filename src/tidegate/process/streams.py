"""Standard input, output and error.

    fill     first of all: whichever of them is closed leads to /dev/null
    flush    what was printed so far is written, before anything by which it would be written twice, or never

What must not live here: the log (logs), terminals that commands draw on (cli).
"""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["fill", "flush"]

_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def fill() -> None:
    """Open /dev/null in the place of each standard stream that is closed.

    The system gives the lowest free number to the next descriptor that is opened: output of the whole process would go
    there, and libuv aborts a process that closes one of these numbers.
    """
    for number, name, mode in _STREAMS:
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        if opened == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(opened, number)
            os.close(opened)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def flush() -> None:
    """Write what was printed and is still in a buffer: a fork copies it, os.execve() and os._exit() lose it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the application has closed or replaced it, or its reader is gone
            stream.flush()
