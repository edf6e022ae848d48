"""Other processes that look at a scoreboard, for the tests of it. What must not live here: tests."""

import os
import subprocess
import sys


def run(code: str, *arguments: object, fds: tuple[int, ...] = (), **options: object) -> "subprocess.Popen[str]":
    """Starts Python code in another process that has the scoreboard's descriptor."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, pass_fds=fds, text=True, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]


def in_child(action) -> int:
    """Runs an action in a forked child; its exit status: 0 if it returned."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
