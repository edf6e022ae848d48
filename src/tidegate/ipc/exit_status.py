"""How the processes of a daemon end: their exit statuses, and how long the end may take.

What must not live here: who ends when (supervisor, worker/drain), and the words for it.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ABORT_GRACE",
    "DONE",
    "DUMP_GRACE",
    "FAILED",
    "HELPER_GRACE",
    "INTERRUPTED",
    "LAST_WORDS",
    "NOT_BOUND",
    "NOT_LOADED",
    "NOT_RUNNING",
    "STOPPED",
    "TIMED_OUT",
    "TRIAL_GRACE",
    "UNEXPECTED",
    "USAGE",
]

# Of the daemon, and of a worker: if one fails before any has served, the daemon ends with that worker's status.
STOPPED: Final = 0  # as asked
UNEXPECTED: Final = 1
USAGE: Final = 2  # a setting, or the command line, is wrong
NOT_LOADED: Final = 3  # the application cannot be imported, or its lifespan failed
NOT_BOUND: Final = 4  # an address is taken

# Of commands, next to USAGE.
DONE: Final = 0
FAILED: Final = 1
NOT_RUNNING: Final = 5  # no daemon is there
TIMED_OUT: Final = 6
INTERRUPTED: Final = 130  # 128 and SIGINT's number, as of a shell

# Seconds.
LAST_WORDS: Final = 5.0  # beyond the graceful timeout, for the end of the lifespan and of the process
ABORT_GRACE: Final = 2.0  # for an end that waits for nothing
HELPER_GRACE: Final = 3.0  # for the end of the admin process, or of the hub
TRIAL_GRACE: Final = 10.0  # of the trial of an upgrade, beyond the time that a worker has to boot and to end
DUMP_GRACE: Final = 1.0  # between SIGABRT, which shows where a process hangs, and SIGKILL
