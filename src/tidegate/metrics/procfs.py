"""What the system reports of a daemon: of each of its processes, and of its network, whatever state a process is in.

    Observer    reads the scoreboard and the system together: a `Reading`
    Reading     a `Snapshot`, with a `Usage` for each slot, for the supervisor and for this process, the admin process

So the processor time of a worker that hangs can be seen, and that of a worker that has ended is in the scoreboard.
What the system does not report is left out.

What must not live here: reading one process (process/proc.py), anything that the daemon counts by itself (scoreboard),
names of metrics (catalog).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from .._core.scoreboard import Scoreboard
from .._core.snapshot import Slot, Snapshot, Worker
from ..process.proc import Process, read
from .derived import Sample

__all__ = ["Observer", "Reading", "Usage", "sampled", "tcp_counter"]

# Seconds until the scoreboard has the end of a process that the system does not report any more.
PATIENCE = 0.05

SUPERVISOR, ADMIN = "supervisor", "admin"

_Number = TypeVar("_Number", int, float)


class Usage(NamedTuple):
    """What the processes of a slot use, which may be two, or none; see `Process`.

    Attributes:
        cpu_seconds: of all processes that the slot has had.
        resident_memory_bytes: of its processes now.
        open_fds: of the process with the most.
        max_fds: of the process with the lowest limit.
    """

    cpu_seconds: float
    resident_memory_bytes: int | None = None
    open_fds: int | None = None
    max_fds: float | None = None


@dataclass(frozen=True)
class Reading:
    """The scoreboard and the system at one moment.

    Attributes:
        snapshot: the scoreboard.
        usage: slot, "supervisor" or "admin" -> what it uses.
        tcp: the system's counters of TCP, by the names that it has for them.
    """

    snapshot: Snapshot
    usage: Mapping[str, Usage] = field(default_factory=dict)
    tcp: Mapping[str, int] = field(default_factory=dict)


class Observer:
    """Reads the scoreboard and the system; processor time never goes backwards from one reading to the next.

    Parameters:
        scoreboard: of the daemon.
        before: process ids of earlier admin processes that may not have ended yet.
    """

    def __init__(self, scoreboard: Scoreboard, before: Collection[int] = ()) -> None:
        self._scoreboard = scoreboard
        self._before = set(before)
        self._retired = 0.0  # processor time of ended admin processes, in the last reading
        self._most: dict[str, float] = {}  # processor time in the last reading

    def read(self) -> Reading:
        """Return a reading. Raise TimeoutError like `Scoreboard.read()`."""
        deadline = time.monotonic() + PATIENCE
        while True:
            snapshot = self._scoreboard.read()
            if (own := read(os.getpid())) is None:
                return Reading(snapshot)  # a system without /proc
            workers = {worker.pid: read(worker.pid, snapshot.pid) for worker in _workers(snapshot)}
            others = {pid: read(pid, snapshot.pid) for pid in self._before}
            # The processor time of a process that has ended is in its slot, or the supervisor is about to add it.
            entered = all(others.values()) or snapshot.admin_cpu_seconds > self._retired
            if (all(workers.values()) and entered) or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        usage = {str(slot.index): _usage(slot, workers) for slot in snapshot.slots}
        if (supervisor := read(snapshot.pid)) is not None:
            usage[SUPERVISOR] = Usage(supervisor.cpu_seconds, *supervisor[2:])
        if os.getpid() != snapshot.pid:
            alive = {pid: other for pid, other in others.items() if other is not None}
            self._before, self._retired = set(alive), snapshot.admin_cpu_seconds
            ended = self._retired + sum(other.cpu_seconds for other in alive.values())
            usage[ADMIN] = Usage(own.cpu_seconds + ended, *own[2:])
        for name, used in usage.items():
            self._most[name] = max(used.cpu_seconds, self._most.get(name, 0.0))
            usage[name] = used._replace(cpu_seconds=self._most[name])
        return Reading(snapshot, usage, _tcp())


def _workers(snapshot: Snapshot) -> Iterator[Worker]:
    for slot in snapshot.slots:
        yield from (worker for worker in slot.workers if worker.pid)


def _usage(slot: Slot, workers: Mapping[int, Process | None]) -> Usage:
    found = [process for worker in slot.workers if (process := workers.get(worker.pid)) is not None]
    return Usage(
        slot.cpu_seconds + sum(process.cpu_seconds + process.children_cpu_seconds for process in found),
        sum(process.resident_memory_bytes for process in found) if found else None,
        max(_known(process.open_fds for process in found), default=None),
        min(_known(process.max_fds for process in found), default=None),
    )


def _known(numbers: Iterable[_Number | None]) -> list[_Number]:
    return [number for number in numbers if number is not None]


def _tcp() -> dict[str, int]:
    """Return the kernel's own counters of TCP (TcpExt), of this network namespace."""
    try:
        with open("/proc/self/net/netstat", encoding="ascii") as file:
            names, values = [line.split()[1:] for line in file if line.startswith("TcpExt:")]
        return dict(zip(names, map(int, values), strict=True))
    except (OSError, ValueError):
        return {}


# Sources of metrics.


def _sampled(name: str, reading: Reading) -> Iterator[Sample]:
    for worker, usage in reading.usage.items():
        if (value := getattr(usage, name)) is not None:
            yield (worker,), value


def _counted(name: str, reading: Reading) -> Iterator[Sample]:
    if name in reading.tcp:
        yield (), reading.tcp[name]


def sampled(name: str) -> Callable[[Reading], Iterator[Sample]]:
    """Return a source of this attribute of `Usage`, for each slot and the other processes."""
    assert name in Usage._fields
    return partial(_sampled, name)


def tcp_counter(name: str) -> Callable[[Reading], Iterator[Sample]]:
    """Return a source of the kernel's counter with this name."""
    return partial(_counted, name)
