"""Operations on a running daemon: reload, scale, recycle, drain, upgrade. One at a time, each to its end.

An operation is a generator: each `yield` waits for the next turn in which something has happened, so that what takes
many turns of the supervisor's loop reads from top to bottom, and a signal takes effect at each of them. It raises
`Failed` when it cannot be done, and has then left everything as it was.

    reload     the next generation takes over: a first worker boots alone, then the others; they must live for a while,
               then accept, beside the old ones, for a while; then the old ones stop accepting, together, and drain
    scale      slots are added, or retired
    recycle    one slot gets a new worker
    drain      every connection is closed and new ones are refused, until the next reload
    upgrade    the program of the supervisor itself is replaced, and hands over to workers of its own

What must not live here: forking and watching (pool.py), queues of slots without a worker (sockets/accept_queues.py),
who may request an operation (control.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

from ..config.errors import ConfigError
from ..config.schema import Config, changed_fixed
from ..config.types import SLOTS
from ..version import version
from .auto_reload import AutoReload
from .pool import WorkerPool
from .sockets.addresses import AddressError
from .system.daemon import Service
from .upgrade import Upgrade
from .worker_handle import Generation, Handle, Slot

__all__ = ["Failed", "OnProgress", "Operations"]

logger = logging.getLogger("tidegate.supervisor")

Steps: TypeAlias = Generator[None, None, None]
OnProgress: TypeAlias = Callable[[bool | None, str], None]
"""Called with progress (None and what happens), and at the end with whether it was done, and how."""

GLANCE = 0.2  # seconds between two looks at what has no event
STOP_ACCEPTING = 2.0  # seconds for old workers to stop accepting; one that takes longer is blocked, and accepts nothing


class Failed(Exception):
    """An operation that cannot be done; everything is as it was before."""


class _Operation:
    """An operation that was requested.

    Attributes:
        name, arguments: as requested.
        on_progress: reports to who asked: progress, and once the end.
        finished: whether they were: the rest is cleaning up.
    """

    def __init__(self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> None:
        self.name, self.arguments = name, arguments
        self.on_progress = on_progress
        self.finished = False
        self.began = 0.0
        self.steps: Steps

    def __str__(self) -> str:
        return f"{self.name} {self.arguments['workers']}" if "workers" in self.arguments else self.name


class Operations:
    """The operation that is under way, and those that wait.

    Parameters:
        pool: the slots and their workers.
        service: the daemon towards the system.
        auto_reload: the watching of files.
        upgrade: the replacement of the program.
        load: the settings as they are to be now; raises ConfigError, which says what is wrong with them.
        on_end: an operation has ended: which, whether it was done, and after how many seconds.
    """

    def __init__(
        self,
        pool: WorkerPool,
        service: Service,
        auto_reload: AutoReload,
        upgrade: Upgrade,
        load: Callable[[], Config],
        on_end: Callable[[str, bool, float], None],
    ) -> None:
        self.load = load
        self._pool, self._service, self._auto_reload, self._upgrades = pool, service, auto_reload, upgrade
        self._on_end = on_end
        self.current: _Operation | None = None
        self._waiting: deque[_Operation] = deque()
        self._advancing = False
        self._table: dict[str, Callable[..., Steps]] = {
            "reload": self._reload,
            "scale": self._scale,
            "recycle": self._recycle,
            "drain": self._drain,
            "upgrade": self._upgrade,
        }

    # Requests and reports.

    def request(
        self, name: str, on_progress: OnProgress | None = None, *, force: bool = False, **arguments: Any
    ) -> None:
        """Do an operation, after those that were requested before.

        Parameters:
            name: of the table.
            on_progress: called with progress, and with the end.
            force: do it now: give up what is under way, and end a drain at once.
            arguments: the operation's own.
        """
        operation = _Operation(name, arguments, on_progress)
        if self._pool.stop_mode:
            self._finish(operation, False, "the daemon is stopping")
            return
        if name == "reload" and not force:
            # A reload that has not begun reads the configuration when it does: one serves every request.
            for other in self._waiting:
                if other.name == "reload":
                    other.on_progress = _both(other.on_progress, on_progress)
                    return
        if force:
            self._force(f"{operation} was requested, with force")
            self._waiting.appendleft(operation)
        else:
            if self.current is not None:
                self._report_progress(operation, f"waits for {self.current} to end")
            self._waiting.append(operation)
        self.advance()

    def reload_for_changes(self) -> None:
        """Reload because files have changed, without a drain: developers want to see the new code."""
        # The reload that is under way may have read what was there before.
        again = self.current is not None and self.current.name == "reload"

        def end_drain(done: bool | None, text: str) -> None:
            if done:
                self._pool.close_leaving()

        self.request("reload", end_drain, force=again)

    def knows(self, name: str) -> bool:
        """Return whether there is an operation of this name."""
        return name in self._table

    def advance(self) -> None:
        """Continue after something has happened, as far as that allows."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        finally:
            self._advancing = False

    def cancel(self, why: str) -> None:
        """Give up what is under way or waits: the daemon ends."""
        for operation in self._waiting:
            self._finish(operation, False, why)
        self._waiting.clear()
        if self.current is not None:
            self._give_up(self.current, why)

    def _step(self) -> bool:
        """Take one step; return whether there may be more to do at once."""
        if self.current is None:
            if not self._waiting:
                return False
            operation = self.current = self._waiting.popleft()
            operation.began = time.monotonic()
            operation.steps = self._table[operation.name](operation, **operation.arguments)
        operation = self.current
        try:
            next(operation.steps)
        except StopIteration:
            self._finish(operation, True, "done")
        except Failed as failure:
            self._finish(operation, False, str(failure))
        else:
            return False
        self.current = None
        return True

    def _force(self, why: str) -> None:
        operation = self.current
        if operation is None:
            return
        self._give_up(operation, why)
        self._pool.close_leaving()

    def _give_up(self, operation: _Operation, why: str) -> None:
        operation.steps.close()
        self.current = None
        self._finish(operation, False, why)

    def _finish(self, operation: _Operation, done: bool, text: str) -> None:
        """Report the end, once."""
        if operation.finished:
            return
        operation.finished = True
        logger.log(logging.INFO if done else logging.ERROR, "%s: %s%s", operation, "" if done else "failed: ", text)
        if operation.began:
            self._on_end(operation.name, done, time.monotonic() - operation.began)
        if operation.on_progress is not None:
            operation.on_progress(done, text)

    def _report_progress(self, operation: _Operation, text: str) -> None:
        """Report progress."""
        logger.info("%s: %s", operation, text)
        if operation.on_progress is not None:
            operation.on_progress(None, text)

    # The operations.

    def _reload(self, operation: _Operation) -> Steps:
        pool = self._pool
        before = pool.generation
        self._service.reloading(before.config.boot_timeout * 2)
        try:
            config = self.load()
        except ConfigError as error:
            raise Failed(str(error)) from None
        if fixed := changed_fixed(before.config, config):
            names = " and ".join(setting.flag for setting in fixed)
            raise Failed(f"{names} cannot change while the daemon runs: undo the change, or restart the daemon")
        generation = Generation(before.number + 1, config)
        added, surplus = [], []
        if config.workers != before.config.workers:
            assert isinstance(config.workers, int)
            added = self._add_slots(config.workers)
            surplus = pool.workers[config.workers :]
        kept = [slot for slot in pool.workers if slot not in surplus]
        for words in pool.listeners.renew():
            self._report_progress(operation, words)
        self._report_progress(operation, f"generation {generation.number} boots")
        try:
            moved = self._follow_directory()
            if config.reload == "rolling":
                yield from self._roll(operation, kept, generation)
            else:
                yield from self._hand_over(kept, generation, "reload")
        except (Failed, GeneratorExit):
            pool.retire(added)
            self._service.directory.back()
            raise
        pool.retire(surplus)
        pool.switch(generation)
        self._service.directory.stay()
        if moved:  # to other files
            self._auto_reload.close()
            self._auto_reload.open(pool.config)
        yield from self._wait_for_old_to_stop_accepting()
        self._finish(operation, True, f"generation {generation.number} serves with {_workers(len(kept))}")
        yield from _until(lambda: not any(slot.leaving for slot in pool.workers))
        logger.info("generation %d has ended", before.number)

    def _follow_directory(self) -> bool:
        """Enter the directory that --working-dir leads to now; return whether that is another one."""
        directory = self._service.directory
        try:
            moved = directory.follow()
        except OSError as error:
            raise Failed(
                f"--working-dir {directory.name} cannot be entered: {(error.strerror or str(error)).lower()}"
            ) from None
        if moved:
            logger.info("%s leads to %s now", directory.name, os.getcwd())
        return moved

    def _roll(self, operation: _Operation, slots: Sequence[Slot], generation: Generation) -> Steps:
        """Hand over slot by slot, so that there is at most one additional worker."""
        for number, slot in enumerate(slots):
            try:
                yield from self._hand_over([slot], generation, "reload")
            except Failed as failure:
                if not number:
                    raise
                raise Failed(
                    f"{number} of {len(slots)} workers are of generation {generation.number}: {failure}"
                ) from None
            self._report_progress(operation, f"{slot.current} serves")
            yield from _until(lambda slot=slot: not slot.leaving)  # type: ignore[misc]

    def _scale(self, operation: _Operation, workers: int) -> Steps:
        pool = self._pool
        if not 1 <= workers <= SLOTS:
            raise Failed(f"{workers} workers are not possible: give a number from 1 to {SLOTS}")
        added = self._add_slots(workers)
        surplus = pool.workers[workers:]
        try:
            yield from self._hand_over(added, pool.generation, "stopped")
        except (Failed, GeneratorExit):
            pool.retire(added)
            raise
        pool.retire(surplus)
        yield from _until(lambda: not any(slot.children for slot in surplus))
        self._finish(operation, True, _workers(workers))

    def _recycle(self, operation: _Operation, handle: Handle, why: str) -> Steps:
        slot = handle.slot
        if slot.current is handle:
            yield from self._hand_over([slot], slot.generation, why)
            self._finish(operation, True, f"{slot.current} has taken over")
            yield from _until(lambda: not slot.leaving)

    def _drain(self, operation: _Operation) -> Steps:
        pool = self._pool
        pool.drain()
        deadline = time.monotonic() + pool.config.graceful_timeout
        while left := pool.connections():
            if time.monotonic() > deadline:
                raise Failed(f"{left} connections are left after {pool.config.graceful_timeout:g} s")
            pool.loop.call_later(GLANCE, self.advance)
            yield
        self._finish(operation, True, "no connection is left; a reload makes the daemon serve again")

    def _upgrade(self, operation: _Operation, before: str | None = None) -> Steps:
        """Try the new program, then execute it; in the new program, hand over to new workers."""
        if before is not None:
            self._pool.renew_admin()
            self._report_progress(operation, f"tidegate {version} has taken over from {before}")
            yield from self._reload(operation)
            return
        self._report_progress(operation, "trying the program that is installed now")
        try:
            trial = self._upgrades.trial()
        except OSError as error:
            raise Failed(f"it could not be started: {_where(error)}") from None
        try:
            while not trial.poll():
                self._pool.loop.call_later(GLANCE, self.advance)
                yield
            if trial.status:
                raise Failed(f"it ended with status {trial.status}: {trial.output}")
        finally:
            trial.close()
        try:
            self._upgrades.execute()
        except OSError as error:
            raise Failed(f"it could not be started: {_where(error)}") from None

    # Their parts.

    def _add_slots(self, workers: int) -> list[Slot]:
        """Add slots, with their sockets, up to this number of workers."""
        added: list[Slot] = []
        try:
            while len(self._pool.workers) < workers:
                added.append(self._pool.add_slot())
        except OSError as error:
            self._pool.retire(added)
            raise Failed(f"a socket for one more worker could not be bound: {error.strerror or error}") from None
        return added

    def _wait_for_old_to_stop_accepting(self) -> Steps:
        """Wait a moment until the old workers have stopped: after a reload, new workers accept every connection."""
        leaving = [handle for slot in self._pool.workers for handle in slot.leaving]
        deadline = time.monotonic() + STOP_ACCEPTING
        self._pool.loop.call_later(STOP_ACCEPTING, self.advance)
        yield from _until(lambda: not any(map(_may_accept, leaving)) or time.monotonic() >= deadline)

    def _hand_over(self, slots: Sequence[Slot], generation: Generation, why: str) -> Steps:
        """Let workers of this generation take over in these slots, or leave the slots as they are."""
        pool = self._pool
        handles: list[Handle] = []
        try:
            # One goes first: a fault in it is a fault in all.
            for group in (slots[:1], slots[1:]):
                handles.extend(self._successor(slot, generation) for slot in group)
                yield from _until(partial(_have_reached, "booted", handles))
            # Half of the time without clients, who could suffer from a fault, and half with clients.
            yield from self._settle("booted", handles, generation.config.settle / 2)
            try:
                for handle in handles:
                    pool.admit(handle)
            except AddressError as error:
                raise Failed(str(error)) from None
            yield from self._settle("ready", handles, generation.config.settle / 2)
        except (Failed, GeneratorExit):
            for handle in handles:
                if handle.slot.successor is handle:
                    handle.slot.step_down(handle)
                    pool.dismiss(handle, "reload")
            raise
        for slot in slots:
            slot.cancel_retry()
            if (old := slot.take_over()) is not None:
                pool.dismiss(old, why)

    def _settle(self, stage: str, handles: Sequence[Handle], seconds: float) -> Steps:
        """Wait until workers have reached a stage, and then so many seconds."""
        yield from _until(partial(_have_reached, stage, handles))
        if handles:
            deadline = time.monotonic() + seconds
            self._pool.loop.call_later(seconds, self.advance)
            yield from _until(lambda: _have_reached(stage, handles) and time.monotonic() >= deadline)

    def _successor(self, slot: Slot, generation: Generation) -> Handle:
        try:
            handle = slot.successor = self._pool.fork(slot, generation)
        except OSError as error:
            raise Failed(f"{slot.name} could not be forked: {error.strerror or error}") from None
        return handle


_LINE: tuple[str, ...] = ("starting", "booted", "ready")


def _have_reached(stage: str, handles: Sequence[Handle]) -> bool:
    """Return whether all of them have reached a stage; Failed if one of them never will."""
    for handle in handles:
        if handle.ended is not None or handle.stage not in _LINE or handle.stop_mode:
            raise Failed(_complaint(handle))
    return all(_LINE.index(handle.stage) >= _LINE.index(stage) for handle in handles)


def _may_accept(handle: Handle) -> bool:
    """Return whether a worker that was told to drain may still accept connections."""
    return handle.ended is None and handle.stage == "ready"


def _complaint(handle: Handle) -> str:
    """Return why a worker did not reach a stage."""
    if handle.failure is not None and handle.failure.error:
        return f"{handle}: {handle.failure.error}"
    if handle.overdue:
        return f"{handle} was not ready within {handle.generation.config.boot_timeout:g} s"
    return f"{handle} {handle.end}" if handle.ended is not None else f"{handle} drains without a command"


def _where(error: OSError) -> str:
    """Return an error's text, with the file's name."""

    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


def _workers(number: int) -> str:
    return f"{number} workers" if number != 1 else "1 worker"


def _until(condition: Callable[[], bool]) -> Iterator[None]:
    while not condition():
        yield


def _both(one: OnProgress | None, other: OnProgress | None) -> OnProgress | None:
    if one is None or other is None:
        return one or other

    def both(done: bool | None, text: str) -> None:
        one(done, text)
        other(done, text)

    return both
