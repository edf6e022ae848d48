"""The queues of a slot whose worker hangs, or that has no worker, for a while or for good.

Closing such a socket would reset every connection in its queue. So it stays open, new connections are steered around
it, and another worker, which is lent the socket, accepts those that come nevertheless; where this system cannot steer,
that is all of them. When a slot is being removed and its queue has been empty for a while, its socket is closed.

What must not live here: how to steer (sockets/reuseport.py), which slots there are (pool.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...ipc.pipe import Command
from ..worker_handle import Handle, Slot
from .listeners import Listeners

__all__ = ["AcceptQueues"]

# Seconds for connections that had begun when they were steered around a socket: SYNs answered again after 1 and 3 s.
STRAGGLERS = 5.0
# Seconds without a worker that a queue can wait.
SOON = 0.2


class AcceptQueues:
    """The queues of slots without a worker.

    Parameters:
        listeners: the addresses.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._lent: dict[int, Handle] = {}  # slot -> the worker that has its sockets besides its own
        self._quiet: dict[int, float] = {}  # retired slot -> since when its queue has been empty
        self._closing: set[int] = set()  # retired slots whose sockets only the supervisor has open
        self._around: frozenset[int] = frozenset()
        self._steered = True
        self._listening: set[int] = set()

    def listens(self, slot: int) -> None:
        """Note that the slot's sockets listen from now on."""
        if slot not in self._listening:
            self._listening.add(slot)
            self._steer(self._around)

    def tend(self, workers: Sequence[Slot], retired: Sequence[Slot]) -> list[Slot]:
        """Steer, lend, reclaim and close; return the retired slots whose sockets have been closed.

        To be called when a worker was forked, became ready or ended, and now and then.
        """
        now = time.monotonic()
        orphans = {slot.index for slot in retired} | {slot.index for slot in workers if _waits(slot, now)}
        orphans = {index for index in orphans if index in self._listening}
        self._steer(frozenset(orphans))
        current = [slot.current for slot in workers if slot.ready]
        keepers = [handle for handle in current if handle is not None and not handle.silent]
        for index in orphans - self._closing:
            self._lend(index, keepers)
        for index in set(self._lent) - orphans:
            self._reclaim(index)
        return self._close_one(retired, now)

    def _steer(self, around: frozenset[int]) -> None:
        self._around = around
        self._steered = self._listeners.steer(around)

    def _lend(self, index: int, keepers: Sequence[Handle]) -> None:
        """Let a worker accept from the sockets of a slot, unless one does."""
        if self._lent.get(index) in keepers:
            return
        self._lent.pop(index, None)
        sockets = self._listeners.own(index)
        if not keepers or not sockets:
            return
        keeper = keepers[index % len(keepers)]
        if keeper.pipe.send(Command(adopt=index, sockets=len(sockets)), sockets):
            self._lent[index] = keeper

    def _reclaim(self, index: int) -> None:
        keeper = self._lent.pop(index)
        if keeper.ended is None:
            keeper.pipe.send(Command(release=index))

    def _close_one(self, retired: Sequence[Slot], now: float) -> list[Slot]:
        """Close the sockets of one slot: the kernel numbers those that stay by the order in which others are closed."""
        for slot in retired:
            since = self._quiet.setdefault(slot.index, now)
            shares = slot.index not in self._listening or not self._listeners.own(slot.index)
            if slot.children or self._listeners.waiting(slot.index) or not self._steered:
                self._quiet[slot.index] = now
                self._closing.discard(slot.index)
            elif shares or (slot.index in self._closing and now - since > 2 * STRAGGLERS):
                self._forget(slot.index)
                return [slot]
            elif now - since > STRAGGLERS and slot.index not in self._closing:
                self._closing.add(slot.index)
                if slot.index in self._lent:
                    self._reclaim(slot.index)
        return []

    def _forget(self, index: int) -> None:
        self._listeners.drop(index)
        self._listening.discard(index)
        self._closing.discard(index)
        self._quiet.pop(index, None)
        self._steer(self._around - {index})


def _waits(slot: Slot, now: float) -> bool:
    """Return whether a slot has no worker and will not have one soon, or its worker's heartbeat is missing."""

    if slot.current is not None:
        return slot.current.silent
    return slot.retry is not None and slot.retry.when - now > SOON
