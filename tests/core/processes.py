"""Processes that a test forks. What must not live here: tests; programs (tests/support/programs.py)."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(action: Callable[[], object]) -> int:
    """Run an action in a forked child; its exit status: 0 if it returned."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
