"""What the supervisor counts in the scoreboard, of its own work and of its children.

    update             at each tick: how many connections wait in the queues, which only the owner of the sockets can
                       tell; with which settings the daemon serves; and which process is the hub
    operation_ended    a reload or an upgrade
    child_ended        what it counted becomes its slot's, with the processor time that the system tells of it

What must not live here: what workers count (their rows), names of metrics (metrics/catalog), what to do
about any of it.
"""

from __future__ import annotations

import hashlib
import time

from .. import logs
from ..config.schema import Config, settings
from .multiproc_dir import MultiprocDir
from .pool import WorkerPool
from .worker_handle import Generation, Handle, Role

__all__ = ["Counters", "fingerprint"]


def fingerprint(config: Config) -> int:
    """Return a hash of the settings, of 64 bits; secrets are not a part of it."""
    known = [
        f"{name}={shown}"
        for name, setting in settings().items()
        if getattr(config, name) != setting.default and (shown := setting.show(getattr(config, name))) is not None
    ]
    return int.from_bytes(hashlib.blake2b("\n".join(known).encode(errors="surrogateescape"), digest_size=8).digest())


class Counters:
    """The supervisor's entries in the scoreboard.

    Parameters:
        pool: the children, and the scoreboard.
        multiproc_dir: the application's, of workers that have ended.
    """

    def __init__(self, pool: WorkerPool, multiproc_dir: MultiprocDir) -> None:
        self._pool, self._multiproc_dir = pool, multiproc_dir
        self._measured: set[int | None] = set()  # slots that have entries of their queues
        self._hashed: Generation | None = None
        self._hub: Handle | None = None
        self._lost: int | None = None  # lines of the log, by the program before this one in this process

    def update(self) -> None:
        """Record the settings, the hub, and how full the queues are, of each slot and of the sockets that all share."""
        pool, scoreboard = self._pool, self._pool.scoreboard
        if self._lost is None:
            self._lost = scoreboard.log_messages_dropped
        scoreboard.log_messages_dropped = self._lost + logs.lost()
        if self._hashed is not pool.generation:
            self._hashed = pool.generation
            scoreboard.config_hash = fingerprint(pool.config)
            scoreboard.bus(settings()["bus"].show(pool.config.bus) or "")
        present = {None, *(slot.index for slot in (*pool.workers, *pool.retired))}
        for index in present | self._measured:
            length, limit = pool.listeners.queue(index) if index in present else (0, 0)
            scoreboard.accept_queue(index, length, limit)
        self._measured = present
        if (hub := pool.hub.slot.current) is not self._hub:
            self._hub = hub
            age = time.monotonic() - hub.born if hub is not None else 0.0
            scoreboard.hub(hub.pid if hub is not None else 0, time.time() - age)

    def operation_ended(self, operation: str, done: bool, seconds: float) -> None:
        """Record the end of an operation; the reload that is a part of an upgrade counts as an upgrade."""
        if operation == "reload":
            self._pool.scoreboard.reloaded(done, seconds)
        elif operation == "upgrade":
            self._pool.scoreboard.upgraded(done)

    def child_ended(self, handle: Handle) -> None:
        """Record the end of a child, which has been reaped."""

        scoreboard = self._pool.scoreboard
        if handle.slot.role is Role.ADMIN:
            scoreboard.retire_admin(handle.cpu_seconds)
        if handle.slot.role is Role.HUB and not handle.stop_mode:
            scoreboard.inc("hub_restarts")
        if handle.row is None:
            return
        self._multiproc_dir.ended(handle.row)
        scoreboard.retire(handle.row, handle.reason, handle.cpu_seconds)
        if handle.stopping_since and handle.ready_at is not None:
            scoreboard.drained(handle.ended_well, time.monotonic() - handle.stopping_since)
