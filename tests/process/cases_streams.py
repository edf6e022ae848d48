"""Processes whose standard streams are closed, or in the background of a terminal, for test_streams.py.

What must not live here: tests.
"""

from __future__ import annotations

import os
import pty
import sys
import termios

from tidegate.process import streams


def fill() -> None:
    """Fill what is closed, use all three, and leave a file "done"."""
    streams.fill()
    for number in range(3):
        assert os.get_inheritable(number)
    opened = os.open("/dev/null", os.O_RDONLY)
    assert opened > 2, opened
    sys.stdout.write("a word")
    sys.stderr.write("")
    assert sys.stdin.read() == ""
    streams.flush()
    open("done", "w").close()


def in_background(*command: str) -> int:
    """Run a command in the background of a terminal with TOSTOP, of which all is passed on: its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        settings = termios.tcgetattr(1)
        settings[3] |= termios.TOSTOP
        termios.tcsetattr(1, termios.TCSANOW, settings)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            os.execv(command[0], command)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
    while True:
        try:
            os.write(1, os.read(terminal, 65536))
        except OSError:
            break
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
