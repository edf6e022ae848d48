"""The daemon's children: their slots, the forks that fill them, and what follows the end of a child.

    slots        `add_slot`, `retire`, `tend_queues`: a slot outlives its workers, and its queue outlives the slot
    fork         `fill` a slot, `fork` a successor, `follow` its reports and its end
    children     booted: admitted; ready: served; draining or ended: the slot is filled again, at once or after a delay
    commands     `admit`, `dismiss`, `limit`, `abort`, `drain`, `switch` (to another generation), `end_workers`
    upgrade      `restore` the children of the program before this one in this process

The pool calls its owner back when something has changed, a child has been reaped, or the daemon cannot go on.

What must not live here: signals and shutdown (supervisor.py), when which command is sent (operations.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from .. import logs
from .._core.scoreboard import Scoreboard
from .._core.snapshot import EXIT_REASONS
from ..config.schema import Config
from ..config.types import SLOTS
from ..ipc.exit_status import DUMP_GRACE, HELPER_GRACE, LAST_WORDS, NOT_BOUND, NOT_LOADED, UNEXPECTED
from ..ipc.handover_state import HandoverState, SlotState
from ..ipc.pipe import Command, Report, StopMode
from ..process.working_directory import WorkingDirectory
from .declarations import Declarations
from .event_loop import EventLoop
from .hub import Hub
from .signals import Signals
from .sockets.accept_queues import AcceptQueues
from .sockets.addresses import AddressError
from .sockets.listeners import Listeners
from .system import cpu_affinity
from .worker_handle import AdminMain, Child, Generation, Handle, HubMain, Role, Slot, WorkerMain

__all__ = ["Forked", "WorkerPool"]

logger = logging.getLogger("tidegate.supervisor")

# Boots that may fail in each slot, before a first worker has become ready, until the daemon gives up.
BOOT_ATTEMPTS = 3
# Seconds that the admin process has to end.
# Seconds within which a signal that is sent to every process of the daemon has reached all of them.
SIGNAL_SPREAD = 0.1


class Forked(BaseException):
    """Raised in a child right after its fork, to leave the supervisor's frames."""

    def __init__(self, child: Child) -> None:
        self.child = child


class WorkerPool:
    """The slots of the workers and of the admin process, with the processes that fill them.

    Parameters:
        config: the settings, with the number of workers decided.
        loop: where children's reports and ends are waited for.
        signals: the signals, being caught already.
        directory: the working directory.
        worker: the life of a worker.
        admin: the life of the admin process.
        hub: the life of the hub.
        store: has the service manager keep a file, by its name, for the next daemon.
        on_change: a child has reported something, or ended.
        on_end: this child has been reaped.
        on_failure: the daemon cannot go on: with which exit status, and why.
        close_in_child: called in a new child: closes what is the supervisor's and not the pool's.

    Attributes:
        generation: the generation of new workers.
        workers: the slots of the workers, in order of their numbers as far as none was retired.
        retired: slots that are being removed, until no connection waits in their queues.
        admin: the slot of the admin process, which is filled if there is an admin address.
        hub: the hub, which there is once a worker has asked for it.
        declarations: what workers have said of the application's channels.
        listeners: the addresses that workers accept from.
        admin_sockets: those of the admin process.
        scoreboard: where its processes count; there is none before `create_scoreboard()` or `restore()`.
        foreign: children that fill no slot, and how they ended.
        drained: whether workers refuse connections until the next reload.
        stop_mode: how urgently the daemon is to end; its supervisor says so.
        served: whether a worker has been ready.
    """

    scoreboard: Scoreboard

    def __init__(
        self,
        config: Config,
        loop: EventLoop,
        signals: Signals,
        directory: WorkingDirectory,
        *,
        worker: WorkerMain,
        admin: AdminMain,
        hub: HubMain,
        store: Callable[[str, int], object],
        on_change: Callable[[], None],
        on_end: Callable[[Handle], None],
        on_failure: Callable[[int, str], None],
        close_in_child: Callable[[], None],
    ) -> None:
        assert isinstance(config.workers, int)
        self.loop, self.signals, self.directory = loop, signals, directory
        self.generation = Generation(1, config)
        self.workers = [Slot(index, self.generation) for index in range(config.workers)]
        self.retired: list[Slot] = []
        self.admin = Slot(0, self.generation, Role.ADMIN)
        self.hub = Hub(self.generation, self.fill, self.working, store)
        self.declarations = Declarations(self.working)
        self.listeners = Listeners()
        self.admin_sockets: list[socket.socket] = []
        self.foreign: dict[int, int | None] = {}
        self.drained = False
        self.stop_mode = StopMode.NONE
        self.served = False
        self._queues = AcceptQueues(self.listeners)
        self._worker_main, self._admin_main, self._hub_main = worker, admin, hub
        self._on_change, self._on_reaped, self._on_failure = on_change, on_end, on_failure
        self._close_in_child = close_in_child
        self._failure: str | None = None  # the reason that a failing child reported last

    # Slots and children.

    @property
    def config(self) -> Config:
        """The settings of the present generation."""
        return self.generation.config

    @property
    def bus(self) -> str | None:
        """The URL of the bus for processes that are no workers; None if they cannot connect to it."""
        return self.hub.url if self.config.bus.startswith("local:") else self.config.bus

    @property
    def ready(self) -> int:
        """The number of slots that have a worker that serves."""
        return sum(slot.ready for slot in self.workers)

    def slots(self) -> Iterator[Slot]:
        """Yield every slot that may have children."""
        yield from self.workers
        yield from self.retired
        if self.config.admin is not None:
            yield self.admin
        if self.hub.journal is not None:
            yield self.hub.slot

    def children(self) -> Iterator[Handle]:
        """Yield every child that has not been reaped."""
        for slot in self.slots():
            yield from slot.children

    def working(self) -> list[Handle]:
        """Return the workers that have not been reaped."""
        return [handle for slot in (*self.workers, *self.retired) for handle in slot.children]

    def connections(self) -> int:
        """Return the number of connections, in every state."""
        return self.scoreboard.connections

    # Begin, and end.

    def begin(self) -> None:
        """Fork a child for each slot."""
        for slot in self.slots():
            self.fill(slot)

    def create_scoreboard(self) -> None:
        """Create the memory in which processes count."""
        self.scoreboard = Scoreboard.create()
        self.scoreboard.desired = len(self.workers)

    def restore(self, state: HandoverState, scoreboard: Scoreboard) -> None:
        """Take over what the program before this one in this process had.

        Raises:
            HandoverError: it cannot be taken over.
        """
        self.generation = Generation(state.generation, msgspec.structs.replace(self.config, workers=state.workers))
        self.listeners.restore(state.listeners)
        for number in state.admin_sockets:
            os.set_inheritable(number, False)
            self.admin_sockets.append(socket.socket(fileno=number))
        self.scoreboard = scoreboard
        self.workers = [self._restore_slot(slot) for slot in state.slots]
        self.retired = [self._restore_slot(slot) for slot in state.retired]
        self.admin = self._restore_slot(state.admin, Role.ADMIN)
        self.hub.restore(state, self._restore_slot(state.hub, Role.HUB) if state.hub is not None else None)
        scoreboard.desired = len(self.workers)
        self.drained = scoreboard.draining = state.drained
        self.served = True
        for listener in state.listeners:
            for index in listener.numbered:
                self._queues.listens(index)

    def _restore_slot(self, state: SlotState, role: Role = Role.WORKER) -> Slot:
        slot = Slot.restore(self.generation, state, role)
        for handle in slot.children:
            if handle.why not in EXIT_REASONS:  # a word of another release, which has no counter here
                handle.why = "stopped"
            self.follow(handle)
            if handle.stop_mode:
                self.limit(handle)
        if slot.current is None and role is Role.WORKER and state.leaving == []:
            slot.retry = self.loop.call_later(0, partial(self.fill, slot))
        return slot

    def end_workers(self) -> None:
        """Stop every worker, as urgently as `stop_mode` says, and fill no slot again; the admin process stays."""
        self.scoreboard.draining = True
        for slot in self.slots():
            slot.cancel_retry()
        for handle in self.working():
            handle.stop(self.stop_mode)

    def kill(self) -> None:
        """Kill and reap every child."""
        for handle in self.children():
            handle.kill(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(handle.pid, 0)

    def close(self) -> None:
        """Close the listening sockets."""
        self.listeners.close()
        for sock in self.admin_sockets:
            sock.close()
        self.hub.close()

    # Fill a slot.

    def fill(self, slot: Slot) -> None:
        """Fork the slot's next child."""
        slot.retry = None
        if self._is_over(slot):
            return
        try:
            if slot.role is Role.HUB:
                self.hub.mend(self.config)
            slot.current = self.fork(slot, slot.generation)
        except OSError as error:
            self._refill(slot, None, f"{slot.name} could not be forked ({error})")

    def _is_over(self, slot: Slot) -> bool:
        """Return whether a slot is not filled any more; a hub is needed until the last worker has ended."""
        return self.stop_mode > 0 and not (slot.role is Role.HUB and self.working())

    def fork(self, slot: Slot, generation: Generation) -> Handle:
        """Fork a child for a slot.

        In the child, `Forked` is raised, with the child's life.

        Raises:
            OSError: the system has no process, memory or file descriptor left.
        """
        self.directory.enter_if_removed()
        worker = slot.role is Role.WORKER
        row = self.scoreboard.assign(slot.index, generation.number) if worker else None
        handle = Handle(slot, generation, row)
        try:
            pipe = handle.fork(self.signals)
        except OSError:
            if row is not None:
                self.scoreboard.retire(row)
            raise
        if pipe is not None:
            raise Forked(partial(self._run_child, handle, pipe))
        if row is not None:
            self.scoreboard.spawn(row, handle.pid)
            self._expect(handle)
        self.follow(handle)
        return handle

    def follow(self, handle: Handle) -> None:
        """Watch a child's pipe and its end."""
        self.loop.add_reader(handle.pipe.fileno(), partial(self._on_report, handle))
        if handle.pidfd >= 0:
            self.loop.add_reader(handle.pidfd, partial(self._on_end, handle))

    def _expect(self, handle: Handle) -> None:
        """Start the timer of a child's boot timeout."""
        limit = handle.generation.config.boot_timeout
        handle.timers.append(self.loop.call_later(limit, partial(self._on_boot_timeout, handle)))

    def _run_child(self, handle: Handle, pipe: socket.socket) -> int:
        """Close, in a child, what is the supervisor's; then live the child's life."""
        slot = handle.slot
        self._close_others(slot if slot.role is Role.WORKER else None)
        self.hub.close_in_child(is_hub=slot.role is Role.HUB)
        if slot.role is not Role.ADMIN:
            for sock in self.admin_sockets:
                sock.close()
        if slot.role is Role.ADMIN:
            sockets = self.admin_sockets
            before = [other.pid for other in slot.children]
            access, bus = self.config.admin_access, self.bus
            life = partial(self._admin_main, self.scoreboard, sockets, pipe, access, before, bus)
        elif slot.role is Role.HUB:
            assert self.hub.journal is not None
            sockets = []
            limit, row = self.config.bus_message_limit, self.scoreboard.hub_row()
            life = partial(self._hub_main, self.hub.journal, pipe, self.hub.socket, limit, row)
            self.scoreboard.close()
        else:
            assert handle.row is not None
            sockets = self.listeners.at(slot.index)
            cpu_affinity.pin(handle.generation.config.cpu_affinity, slot.index)
            row = self.scoreboard.row(handle.row)
            life = partial(self._worker_main, handle.generation.config, slot.index, sockets, row, pipe)
            self.scoreboard.close()
        self.signals.settle()
        try:
            return life()
        finally:
            for sock in (*sockets, pipe):
                sock.close()

    def close_in_child(self) -> None:
        """Close all that is the pool's, in a child that fills no slot."""
        self._close_others()
        self.hub.close_in_child()
        for sock in self.admin_sockets:
            sock.close()

    def _close_others(self, slot: Slot | None = None) -> None:
        """Close, in a child, what is the supervisor's, and the sockets of other slots."""
        self.loop.close()
        self._close_in_child()
        for sibling in self.children():
            sibling.close()
        self.listeners.close_in_child(slot.index if slot is not None else None)

    def _refill(self, slot: Slot, served: float | None, why: str) -> None:
        """Fill the slot again, at once or after a delay, or give up when no worker has ever served."""
        delay = slot.backoff.next(served)
        logger.warning("%s: a replacement starts %s", why, f"in {delay:.2f} s" if delay else "at once")
        slot.retry = self.loop.call_later(delay, partial(self.fill, slot))
        if slot.role is Role.WORKER:
            self.scoreboard.backoff(slot.index, time.monotonic() + delay if delay else 0.0)
        if not self.served and all(slot.backoff.failures >= BOOT_ATTEMPTS for slot in self.workers):
            self._on_failure(UNEXPECTED, f"no worker has become ready in {BOOT_ATTEMPTS} attempts")

    # What children report, and their ends.

    def reap(self) -> None:
        """Reap children without a pidfd, and, as process 1, orphans."""
        for handle in list(self.children()):
            if handle.pidfd < 0:
                self._on_end(handle)
        if self.foreign:
            self._on_change()
        if os.getpid() != 1:
            return
        with contextlib.suppress(ChildProcessError):  # there is no child at all
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                known = next((handle for handle in self.children() if handle.pid == ended.si_pid), None)
                if known is not None:
                    self._on_end(known)
                else:
                    _, status = os.waitpid(ended.si_pid, 0)
                    if ended.si_pid in self.foreign:
                        self.foreign[ended.si_pid] = status
                        self._on_change()

    def _on_report(self, handle: Handle) -> None:
        for report in handle.receive_reports():
            if handle.row is not None:
                self.scoreboard.stage(handle.row, report.stage)
            if report.stage == "booted":
                self._on_booted(handle)
            elif report.stage == "ready":
                self._on_ready(handle)
            elif report.stage == "draining":
                self._on_draining(handle)
        if handle.pipe.ended or handle.stage == "gone":
            self.loop.remove_reader(handle.pipe.fileno())
            # Its pipe has ended; the process must end as well.
            handle.timers.append(self.loop.call_later(LAST_WORDS, partial(handle.kill, signal.SIGKILL)))
        self.hub.tend(self.config)
        self.declarations.tend(self.admin.current)
        self._on_change()

    def _on_booted(self, handle: Handle) -> None:
        for timer in handle.timers:
            timer.cancel()
        if handle.slot.current is not handle:
            return
        try:
            self.admit(handle)
        except AddressError as error:
            if not self.served:
                self._on_failure(NOT_BOUND, str(error))
                return
            handle.failure = Report("gone", str(error), NOT_BOUND)
            handle.kill(signal.SIGTERM)

    def _on_ready(self, handle: Handle) -> None:
        for timer in handle.timers:
            timer.cancel()
        logger.info("%s is ready after %.2f s", handle, time.monotonic() - handle.born)

    def _on_draining(self, handle: Handle) -> None:
        if handle.stop_mode or handle.slot.current is not handle:
            return
        self.limit(handle)
        handle.slot.step_down(handle)
        # Not at once: a SIGTERM to every process of the daemon reaches the supervisor as well.
        why = f"{handle} drains without a command"
        handle.slot.retry = self.loop.call_later(SIGNAL_SPREAD, partial(self._refill, handle.slot, handle.served, why))

    def _on_boot_timeout(self, handle: Handle) -> None:
        limit = handle.generation.config.boot_timeout
        logger.error("%s is not ready after %g s: it is aborted, which logs its stacks", handle, limit)
        handle.overdue = True
        self.abort(handle)

    def _on_end(self, handle: Handle) -> None:
        if not handle.reap():
            return
        self._on_report(handle)  # its last words
        self.loop.remove_reader(handle.pipe.fileno())
        if handle.pidfd >= 0:
            self.loop.remove_reader(handle.pidfd)
        handle.close()
        vacant = handle.slot.current is handle
        handle.slot.remove(handle)
        if vacant and handle.slot.role is Role.HUB:
            self.hub.unlink()
        self._on_reaped(handle)
        self._log_failure(handle)
        if handle.stop_mode or self._is_over(handle.slot):
            well = handle.ended_well or handle.slot.role is not Role.WORKER
            expected = handle.ended in (0, -signal.SIGTERM) and well
            logger.log(logging.INFO if expected else logging.WARNING, "%s %s", handle, handle.end)
        elif vacant and handle.slot not in self.retired:
            self._replace(handle)
        self._on_change()

    def _log_failure(self, handle: Handle) -> None:
        """Log why a child failed, in full the first time."""
        if handle.failure is None or not handle.failure.error:
            return
        if handle.failure.error == self._failure:
            logger.error("%s failed in the same way", handle)
        else:
            logger.error("%s: %s", handle, handle.failure.error)
            self._failure = handle.failure.error

    def _replace(self, handle: Handle) -> None:
        """Fill the slot of a child that ended without a command, or give up when none has ever served."""
        slot = handle.slot
        if slot.role is Role.WORKER and not self.served:
            if handle.failure is not None and handle.failure.exit in (NOT_LOADED, NOT_BOUND):
                self._on_failure(handle.failure.exit, "no worker can start")
                return
            if handle.overdue:
                limit = self.config.boot_timeout
                self._on_failure(UNEXPECTED, f"no worker has become ready within {limit:g} s")
                return
        self._refill(slot, handle.served, f"{handle} {handle.end}")

    # Slots that come and go.

    def add_slot(self) -> Slot:
        """Add a slot, with sockets of its own; OSError when they cannot be bound."""
        taken = {slot.index for slot in (*self.workers, *self.retired)}
        index = next(number for number in range(SLOTS) if number not in taken)
        self.listeners.add(index)
        slot = Slot(index, self.generation)
        self.workers.append(slot)
        self.scoreboard.desired = len(self.workers)
        return slot

    def retire(self, slots: Sequence[Slot]) -> None:
        """Remove these slots, once their workers have ended and their queues are empty."""
        for slot in slots:
            self.workers.remove(slot)
            self.retired.append(slot)
            slot.cancel_retry()
            if slot.current is not None:
                self.dismiss(slot.current, "stopped")
        self.scoreboard.desired = len(self.workers)
        self.tend_queues()

    def tend_queues(self) -> None:
        """Look after the queues of slots without a worker."""
        if not self.stop_mode:
            for slot in self._queues.tend(self.workers, self.retired):
                self.retired.remove(slot)

    # Commands to children.

    def admit(self, handle: Handle) -> None:
        """Let a worker that has booted accept connections; AddressError when an address has been taken meanwhile."""
        if handle.stage != "booted":
            return
        self.listeners.listen(handle.slot.index, handle.generation.config.backlog)
        self._queues.listens(handle.slot.index)
        self._expect(handle)
        handle.serve()
        if self.drained and handle.generation is self.generation:
            handle.pipe.send(Command(drain=True))

    def dismiss(self, handle: Handle, why: str) -> None:
        """Let a worker stop gracefully; others accept from its sockets."""
        self.limit(handle)
        handle.stop(StopMode.GRACEFUL, why, leave_queue=True)

    def close_leaving(self) -> None:
        """Let draining workers close their connections at once."""
        for slot in self.workers:
            for handle in slot.leaving:
                handle.stop(StopMode.CLOSE)

    def limit(self, handle: Handle) -> None:
        """Kill a worker that is stopping, if it has not ended in time."""
        limit = handle.generation.config.graceful_timeout + LAST_WORDS
        handle.timers.append(self.loop.call_later(limit, partial(handle.kill, signal.SIGKILL)))

    def abort(self, handle: Handle) -> None:
        """End a child that does not respond; its stacks go to the log."""
        handle.kill(signal.SIGABRT)
        handle.timers.append(self.loop.call_later(DUMP_GRACE, partial(handle.kill, signal.SIGKILL)))

    def drain(self) -> None:
        """Let every worker close its connections and refuse new ones."""
        self.drained = self.scoreboard.draining = True
        for slot in self.workers:
            if slot.ready and slot.current is not None:
                slot.current.pipe.send(Command(drain=True))

    def switch(self, generation: Generation) -> None:
        """Make this the present generation."""
        access, self.generation = self.config.admin_access, generation
        logs.set_role("supervisor", **generation.config.log_options(), thread=False)
        self.drained = self.scoreboard.draining = False
        if access != self.config.admin_access:
            self.renew_admin()

    def renew_admin(self) -> None:
        """Replace the admin process, if there is an admin address."""
        if self.config.admin is not None:
            self._renew(self.admin)

    def renew_hub(self) -> None:
        """Replace the hub, if there is one: the next one waits until this one has left the journal."""
        if self.hub.journal is not None:
            self.hub.unlink()
            self._renew(self.hub.slot)

    def _renew(self, slot: Slot) -> None:
        """Replace what is in a slot; one that is empty, because its process has just failed, is filled now."""
        slot.cancel_retry()
        old = slot.current
        if old is not None:
            slot.step_down(old)
        self.fill(slot)
        if old is not None:
            self.end_helper(old)

    def end_helper(self, helper: Handle, seconds: float = HELPER_GRACE) -> None:
        """Let an admin process or a hub end, within so many seconds."""
        helper.stop_mode = StopMode.GRACEFUL
        if helper.slot.role is Role.HUB:
            helper.pipe.send(Command(stop=StopMode.GRACEFUL))
        else:
            helper.kill(signal.SIGTERM)
        helper.timers.append(self.loop.call_later(seconds, partial(helper.kill, signal.SIGKILL)))

    def reopen_logs(self) -> None:
        """Let every child reopen the log's file."""

        for handle in self.children():
            handle.pipe.send(Command(reopen=True))
