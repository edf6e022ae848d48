"""One process as /proc has it, see proc(5); nothing of it where there is no /proc.

    read               all that is here of a process: a `Process`
    state              what it does
    resident_memory    the memory that it takes
    open_fds           its open file descriptors

What must not live here: which processes belong to the daemon (metrics/procfs.py), what is too much
(supervisor/health.py).
"""

from __future__ import annotations

import math
import os
from typing import Final, NamedTuple

__all__ = ["Process", "open_fds", "read", "resident_memory", "state"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process.

    Attributes:
        cpu_seconds: processor time that it took.
        children_cpu_seconds: that its children took that have ended and that it has waited for.
        resident_memory_bytes: memory that it takes, with what it shares.
        open_fds: open file descriptors; None where the system does not tell.
        max_fds: how many there may be; infinity for no limit, None where the system does not tell.
    """

    cpu_seconds: float
    children_cpu_seconds: float
    resident_memory_bytes: int
    open_fds: int | None
    max_fds: float | None


def read(pid: int, parent: int | None = None) -> Process | None:
    """Return what the system tells of a process; None if there is none of this number, or none with this parent."""
    memory, fields = resident_memory(pid), _stat(pid)
    if memory is None or not fields or (parent is not None and int(fields[1]) != parent):
        return None
    own, children = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return Process(own / _TICKS, children / _TICKS, memory, open_fds(pid), _max_fds(pid))


def state(pid: int) -> str:
    """Return the letter for what a process does, as ps(1) shows it; empty where the system does not tell."""
    fields = _stat(pid)
    return fields[0].decode() if fields else ""


def resident_memory(pid: int) -> int | None:
    """Return the bytes of memory that a process takes, shared ones included; None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # exact, unlike the same in stat
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None


def _stat(pid: int) -> list[bytes]:
    """Return the fields of proc(5)'s stat from the third on; none where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()  # the name of the program may have anything in it
    except OSError:
        return []


def open_fds(pid: int) -> int | None:
    """Return how many descriptors a process has open; None where the system does not tell."""
    folder = f"/proc/{pid}/fd"
    try:
        # Linux 6.2 and later tell how many there are, also of other users' processes.
        if size := os.stat(folder).st_size:
            return size
        return len(os.listdir(folder)) - (pid == os.getpid())  # without the one that this takes
    except OSError:  # of others, or of our own that has changed its user
        return None


def _max_fds(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            limit = next(line for line in file if line.startswith(b"Max open files")).split()[3]
        return math.inf if limit == b"unlimited" else int(limit)
    except (OSError, StopIteration, IndexError, ValueError):
        return None
