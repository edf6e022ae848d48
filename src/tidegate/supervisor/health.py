"""Heartbeats of children, and the limits of a worker's life.

    check      at each tick of the supervisor: check every child that serves, then request the recycling of one

A child that serves shows that its event loop turns: a worker by the heartbeat in its row, the admin process by a report
on its pipe. After two seconds of silence others accept a worker's connections (sockets/accept_queues.py). After half of
`worker_timeout` its stacks go to the log, once; after the whole of it, it is aborted, and killed if that does not end
it. The end of a child fills its slot again (pool.py).

Silence is counted in ticks of the supervisor, each for what a tick takes and no more: time in which the machine slept,
or the supervisor was stopped, does not count. Children that boot or stop have limits of their own.

What must not live here: how a worker is recycled (operations.py), when a slot is filled (pool.py).
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import Final

from .. import logs
from .._core.counters import HANDSHAKE_RESULTS
from ..config.types import write_number
from ..process import proc
from .operations import Operations
from .pool import WorkerPool
from .worker_handle import Handle, Role

__all__ = ["HealthMonitor"]

logger = logging.getLogger("tidegate.supervisor")

# Seconds of silence after which new connections should not wait for a worker.
SILENT = 2.0
# The least seconds of silence that the admin process or the hub is ended for: they report each second.
HELPER_PATIENCE = 4.0

# How far the limits of the slots are apart, as a part of each, so that workers that started together end apart.
SPREAD = 0.2
GOLDEN: Final = 0.618033988749895  # the fractional parts of its multiples are far apart, however many there are
# Seconds between two looks at the memory, and how many in a row must find too much.
MEMORY_INTERVAL = 2.0
MEMORY_LOOKS = 3
# A worker that has served so many seconds has not been recycled too soon.
STEADY = 60.0
# Seconds that the next one in the slot serves at least, when one was recycled too soon; twice as long each time.
UNSTEADY, UNSTEADY_MOST = 10.0, 3600.0
# Seconds until recycling is tried again after it failed; twice as long each time.
RETRY, RETRY_MOST = 30.0, 1800.0

_OK: Final = HANDSHAKE_RESULTS.index("ok")
# What the system says that a process does, in words.
_STATES: Final = {
    "R": "it runs",
    "S": "it waits",
    "D": "it waits for a device",
    "T": "it is stopped",
    "t": "a debugger has stopped it",
}


@dataclass(slots=True)
class _Note:
    """What is remembered of a child from tick to tick.

    Attributes:
        beat: its last heartbeat.
        silence: seconds without one.
        shown: whether its stacks have been shown for that.
        heavy: how many checks in a row found that it uses too much memory.
    """

    beat: float = 0.0
    silence: float = 0.0
    shown: bool = False
    heavy: int = 0


class HealthMonitor:
    """The health of the supervisor's children.

    Parameters:
        pool: the children.
        operations: for the recycling.
    """

    def __init__(self, pool: WorkerPool, operations: Operations) -> None:
        self._pool, self._operations = pool, operations
        self._notes: dict[Handle, _Note] = {}
        self._looked = time.monotonic()
        self._memory_checked_at = 0.0  # when the memory was looked at
        self._recycling: Handle | None = None  # the worker that is being recycled
        self._failures = 0  # of recycling, in a row
        self._not_before = 0.0  # when another worker may be recycled, at the earliest
        self._least: dict[int, float] = {}  # slot -> seconds that its worker serves in any case
        self._phase = random.random()  # so that daemons that were started together do not recycle together

    def check(self, interval: float) -> None:
        """Check every child that serves; the next check is due in `interval` seconds."""
        now = time.monotonic()
        step = min(now - self._looked, 2 * interval)
        self._looked = now
        if self._pool.stop_mode:
            return
        slots = (*self._pool.workers, self._pool.admin, self._pool.hub.slot)
        found = [handle for slot in slots for handle in (slot.current, slot.successor) if handle is not None]
        serving = [handle for handle in found if handle.stage == "ready" and not handle.stop_mode and not handle.hung]
        self._notes = {handle: self._notes.get(handle) or _Note() for handle in serving}
        for handle, note in self._notes.items():
            self._check_heartbeat(handle, note, step)
        self._check_memory(now)
        self._recycle(now)

    # Heartbeats.

    def _check_heartbeat(self, handle: Handle, note: _Note, step: float) -> None:
        """Act on the age of a child's heartbeat."""
        limit, beat = self._pool.config.worker_timeout, self._beat(handle)
        if not beat:
            return
        if beat != note.beat:
            if note.shown:
                logger.warning("%s responds again after %.1f s", handle, note.silence)
            note.beat, note.silence, note.shown, handle.silent = beat, 0.0, False, False
            return
        note.silence += step
        handle.silent = note.silence >= SILENT
        if limit is None:
            return
        if handle.slot.role is not Role.WORKER:
            limit = max(limit, HELPER_PATIENCE)
        if note.silence >= limit:
            self._end(handle, note.silence)
        elif note.silence >= limit / 2 and not note.shown:
            note.shown = True
            logger.warning(
                "%s hangs: its event loop has not turned for %.1f s%s; its stacks follow",
                handle,
                note.silence,
                _state(handle.pid),
            )
            handle.kill(logs.STACKS)

    def _beat(self, handle: Handle) -> float:
        """Return a child's last heartbeat; 0.0 before the first."""

        if handle.slot.role is not Role.WORKER:
            return handle.last_report_at
        return self._pool.scoreboard.row(handle.row).heartbeat if handle.row is not None else 0.0

    def _end(self, handle: Handle, silence: float) -> None:
        logger.error(
            "%s has hung for %.1f s%s: it is aborted, which logs its stacks", handle, silence, _state(handle.pid)
        )
        handle.hung = True
        self._pool.abort(handle)

    # Recycling.

    def _check_memory(self, now: float) -> None:
        """Look at the memory that the workers take, now and then."""
        limit = self._pool.config.max_rss
        if limit is None or now < self._memory_checked_at + MEMORY_INTERVAL:
            return
        self._memory_checked_at = now
        for handle, note in self._notes.items():
            too_much = _memory(handle.pid) >= limit * self._share(handle.slot.index)
            note.heavy = note.heavy + 1 if too_much else 0

    def _recycle(self, now: float) -> None:
        """Request the recycling of one worker, the oldest of those that are due, when nothing else is under way."""
        if self._recycling is not None or now < self._not_before:
            return
        if self._operations.current is not None or self._pool.drained:
            return
        due = [(handle, reason) for handle in self._notes if (reason := self._reason(handle)) is not None]
        if not due:
            return
        handle, (why, text) = min(due, key=lambda pair: pair[0].ready_at or now)
        logger.info("%s is to be recycled: %s", handle, text)
        if why != "recycle_age":
            self._space_out(handle)
        self._recycling = handle
        self._operations.request("recycle", self._on_recycled, handle=handle, why=why)

    def _reason(self, handle: Handle) -> tuple[str, str] | None:
        """Return why a worker is due for recycling, in the scoreboard's word and in the log's; None if it is not."""
        config, served = self._pool.config, handle.served
        slot = handle.slot
        if handle.row is None or served is None or slot.current is not handle:
            return None
        share = self._share(slot.index)
        if config.max_lifetime is not None and served >= config.max_lifetime * share:
            return "recycle_age", f"it has served for {served:.0f} s"
        if served < self._least.get(slot.index, 0.0):
            return None
        if config.max_connections_served is not None:
            connections = self._pool.scoreboard.row(handle.row).words("handshakes")[_OK]
            if connections >= config.max_connections_served * share:
                return "recycle_connections", f"it has served {connections} connections"
        if self._notes[handle].heavy >= MEMORY_LOOKS:
            return "recycle_memory", f"it takes {_memory(handle.pid) / 2**20:.0f} MiB of memory"
        return None

    def _share(self, slot: int) -> float:
        """Return the factor of a slot's limits: around 1, and different for each slot."""
        return 1.0 + SPREAD * ((self._phase + slot * GOLDEN) % 1.0 - 0.5)

    def _space_out(self, handle: Handle) -> None:
        """Recycle less often when workers reach a limit soon after they start."""
        served = handle.served or 0.0
        before = self._least.pop(handle.slot.index, 0.0)
        if served < max(STEADY, 2 * before):
            least = self._least[handle.slot.index] = min(max(UNSTEADY, 2 * before), UNSTEADY_MOST)
            text = "it served for %s s only: the next one serves for %s s at least; is the limit too low?"
            logger.warning(text, write_number(round(served, 1)), write_number(least))

    def _on_recycled(self, done: bool | None, text: str) -> None:
        """Follow up the end of a recycling."""

        if done is None:
            return
        self._recycling = None
        self._failures = 0 if done else self._failures + 1
        if not done:
            delay = min(RETRY * 2.0 ** min(self._failures - 1, 20), RETRY_MOST)
            self._not_before = time.monotonic() + delay


def _state(pid: int) -> str:
    """Return what a process does, in words that follow others; empty where the system does not tell."""
    words = _STATES.get(proc.state(pid))
    return f" ({words})" if words else ""


def _memory(pid: int) -> int:
    return proc.resident_memory(pid) or 0
