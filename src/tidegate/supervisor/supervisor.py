"""The supervisor: binds, forks, watches, replaces, and ends with the status that it deserves.

It is a state machine over one poll. Nothing in it waits but `Poll.turn()`, so that a signal is heeded at any moment of
a boot, a crash or a drain. Its inputs are signals, what children tell, their ends, and timers; each comes in by a
method of its own, below in that order.

    run          open, turn until it is over, close
    open         sockets first, then the scoreboard, then a child for each slot
    signals      SIGTERM and SIGINT: drain, then close, then cut; SIGQUIT: cut; others ask for an operation
    children     booted: told to serve; ready: served; draining or ended: the slot is filled again, at once or after
                 a while
    operations   the doors through which operations.py adds slots, has successors forked, and dismisses workers
    end          orders to the workers, the admin process last

What must not live here: what a reload or a change of scale consists of (operations.py), WebSocket, the application, an
event loop, threads, network input.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from .. import logs
from ..config.bind import Tcp
from ..config.errors import ConfigError
from ..config.schema import Config
from ..config.types import SLOTS
from ..ipc import control_protocol
from ..ipc.exit_status import DUMP_GRACE, LAST_WORDS, NOT_BOUND, NOT_LOADED, STOPPED, UNEXPECTED
from ..ipc.handover_state import Estate, EstateError
from ..ipc.pipe import Level, Order, Report
from ..process import forks
from ..version import version
from . import upgrade
from .auto_reload import Changes
from .control import Control, Describe
from .counters import Accounts
from .event_loop import Poll
from .health import Watch
from .multiproc_dir import MetricFiles
from .operations import Operations
from .signals import Signals, has_terminal, name_of
from .sockets.accept_queues import Queues
from .sockets.addresses import AddressError, bind_admin
from .sockets.listeners import Listeners
from .system import cpu_affinity
from .system.daemon import Service, ServiceError, Stopped
from .worker_handle import AdminMain, Child, Generation, Handle, Role, Slot, WorkerMain

if TYPE_CHECKING:
    from .._core.scoreboard import Scoreboard

__all__ = ["Supervisor"]

logger = logging.getLogger("tidegate.supervisor")

# Boots that may fail in each slot, before a first worker has become ready, until the daemon gives up.
BOOT_ATTEMPTS = 3
CUT_GRACE = 2.0
# Seconds within which a signal to every process of the daemon has come to all of them.
EVERYBODY = 0.1
TICK = 0.5


class _Forked(BaseException):
    """Raised in a child right after its fork, to leave the supervisor's frames behind."""

    def __init__(self, child: Child) -> None:
        self.child = child


class Supervisor:
    """The parent of a daemon's processes.

    Parameters:
        config: the settings, with the number of workers decided.
        signals: the signals, being caught already.
        worker: the life of a worker.
        admin: the life of the admin process.
        service: the daemon towards the system.
        estate: what the program before this one has left, in an upgrade in place.
        describe: makes the status that the control socket tells, of a read of the scoreboard.
        load: the settings as they are to be now, for a reload; raises ConfigError, which says what is wrong with them.
        file: the configuration file that they are in, if any.
    """

    def __init__(
        self,
        config: Config,
        signals: Signals,
        *,
        worker: WorkerMain,
        admin: AdminMain,
        load: Callable[[], Config] | None = None,
        file: str | None = None,
        service: Service | None = None,
        estate: Estate | None = None,
        describe: Describe | None = None,
    ) -> None:
        assert isinstance(config.workers, int)
        self.generation = Generation(1, config)
        self.load = load or (lambda: config)
        self.signals = signals
        self.service = service or Service(config)
        self._worker_main, self._admin_main = worker, admin
        self.poll = Poll()
        self.listeners = Listeners()
        self.admin_sockets: list[socket.socket] = []
        self.scoreboard: Scoreboard
        self.workers = [Slot(index, self.generation) for index in range(config.workers)]
        self.retired: list[Slot] = []  # those that are to be no more, until nobody waits in their queues
        self.admin = Slot(0, self.generation, Role.ADMIN)
        self.operations = Operations(self)
        self.queues = Queues(self.listeners)
        self.control = Control(self, describe)
        self.health = Watch(self)
        self.accounts = Accounts(self)
        self.metric_files = MetricFiles()
        self.changes = Changes(self, file)
        self.foreign: dict[int, int | None] = {}  # children that fill no slot, and how they ended
        self._estate = estate
        self.resting = False  # workers refuse connections until the next reload
        self.level = Level.NONE  # how urgently it is to end
        self.status = STOPPED
        self.served = False  # a worker has been ready
        self.complete = False  # every worker has been ready
        self.failure: str | None = None  # what a child told last of why it could not go on
        self.over = False

    @property
    def config(self) -> Config:
        """The settings of the present generation."""
        return self.generation.config

    def run(self) -> int | Child:
        """Supervise until the end, and return the exit status.

        Like fork(), it returns in more than one process: in a child, what it returns is the child's life, to be
        called as soon as possible, for signals wait until then.
        """
        try:
            self._open()
            while not self.over:
                self.poll.turn()
        except _Forked as forked:
            return forked.child
        except (AddressError, ServiceError, EstateError) as error:
            logger.error("%s", error)
            self.service.failed(str(error))
            self.status = error.status if isinstance(error, ServiceError) else NOT_BOUND
        except Stopped:
            logger.info("stopped while the application was being imported")
        except Exception:
            logger.critical("the supervisor failed: its children are killed", exc_info=True)
            self._abandon()
            self.status = UNEXPECTED
        self._close()
        logger.info("stopped with status %d", self.status)
        return self.status

    # Open and close.

    def _open(self) -> None:
        from .._core.scoreboard import Scoreboard

        logger.info("tidegate %s started (pid %d): %s", version, os.getpid(), self.config.application)
        if signal.SIGHUP in self.signals.ignored:
            logger.info("SIGHUP is ignored, as nohup or whoever else started this asks for: `tidegate reload` reloads")
        self.poll.watch(self.signals.fd, self._on_signals, first=True)
        self.service.begin(self.config.boot_timeout + LAST_WORDS)
        if self._estate is not None:
            self._resume(self._estate)
            return
        user = self.service.identity.uid if self.service.identity is not None else None
        self.listeners.bind(self.config.bind, len(self.workers), user)
        self.admin_sockets = bind_admin(self.config.admin, self.listeners.socket_addresses)
        self.control.open(control_protocol.socket_path(self.config.control, os.environ), user)
        self.service.bound(self.listeners, self.control)
        if self.config.admin is not None:
            self.metric_files.make()
        forks.lend_nothing(self._let_go)
        self.service.preload(self.signals)
        self.scoreboard = Scoreboard.create()
        self.scoreboard.desired = len(self.workers)
        self._on_signals()
        _freeze()
        for slot in self._slots():
            self.fill(slot)
        self.changes.open()
        self._tick()

    def _resume(self, estate: Estate) -> None:
        """Go on where the program before this one in this process has stopped, and hand over to new workers."""
        tell = upgrade.resume(self, estate)
        self.service.bound(self.listeners, resumed=True)
        self._collect()  # whoever ended meanwhile
        forks.lend_nothing(self._let_go)
        try:
            self.service.preload(self.signals)
        except ServiceError as error:
            self.load = _never(error)
        except Stopped:
            pass  # the signal is still in the pipe, and children that are to be told
        self._on_signals()
        _freeze()
        self.changes.open()
        self._tick()
        self.operations.request("upgrade", tell, before=estate.version)

    def _tick(self) -> None:
        """Show that the supervisor is alive, and write what of the log could not be written at once."""
        self.scoreboard.tick(time.monotonic())
        interval = self.service.interval(TICK)
        self.health.look(interval)
        self.accounts.look()
        logs.catch_up()
        self._care()
        self.service.tick(self.scoreboard, self._working())
        self.poll.after(interval, self._tick)

    def _care(self) -> None:
        """Look after the queues of slots without a worker."""
        if not self.level:
            for slot in self.queues.care(self.workers, self.retired):
                self.retired.remove(slot)

    def _close(self) -> None:
        self.listeners.close()
        for sock in self.admin_sockets:
            sock.close()
        self.changes.close()
        self.service.close()
        self.control.close(self.status)
        self.metric_files.close()
        self.poll.close()

    def _abandon(self) -> None:
        """Leave nobody behind."""
        for handle in self._children():
            handle.kill(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(handle.pid, 0)

    def _slots(self) -> Iterator[Slot]:
        yield from self.workers
        yield from self.retired
        if self.config.admin is not None:
            yield self.admin

    def _children(self) -> Iterator[Handle]:
        for slot in self._slots():
            yield from slot.children

    def _working(self) -> list[Handle]:
        """The workers that have not ended."""
        return [handle for slot in (*self.workers, *self.retired) for handle in slot.children]

    # Fill a slot.

    def fill(self, slot: Slot) -> None:
        """Fork the slot's next child."""
        slot.retry = None
        if self.level:
            return
        try:
            slot.current = self.fork(slot, slot.generation)
        except OSError as error:
            self._refill(slot, None, f"{slot.name} could not be forked ({error})")

    def fork(self, slot: Slot, generation: Generation) -> Handle:
        """Fork a child for a slot. As with os.fork(), the child goes its own way: in it, `run()` returns its life.

        Raises:
            OSError: there is no process, memory or file descriptor to be had.
        """
        self.service.place.rescue()
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
            raise _Forked(partial(self._become, handle, pipe))
        if row is not None:
            self.scoreboard.spawn(row, handle.pid)
            self._expect(handle)
        self.follow(handle)
        return handle

    def follow(self, handle: Handle) -> None:
        """Notice what it tells, and its end."""
        self.poll.watch(handle.pipe.fileno(), partial(self._on_report, handle))
        if handle.pidfd >= 0:
            self.poll.watch(handle.pidfd, partial(self._on_end, handle))

    def _expect(self, handle: Handle) -> None:
        """Give it the time that it has to boot."""
        limit = handle.generation.config.boot_timeout
        handle.timers.append(self.poll.after(limit, partial(self._on_boot_timeout, handle)))

    def _become(self, handle: Handle, pipe: socket.socket) -> int:
        """In a child: let go of all that is the supervisor's, and live the child's life."""
        slot = handle.slot
        self._leave(slot if slot.role is Role.WORKER else None)
        if handle.row is None:
            sockets = self.admin_sockets
            before = [other.pid for other in slot.children]
            life = partial(self._admin_main, self.scoreboard, sockets, pipe, self.config.admin_access, before)
        else:
            for sock in self.admin_sockets:
                sock.close()
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

    def _leave(self, slot: Slot | None = None) -> None:
        """In a child: close what is the supervisor's, and the sockets of slots other than this."""
        self.poll.close()
        self.service.leave()
        self.control.leave()
        self.changes.leave()
        for sibling in self._children():
            sibling.close()
        self.listeners.leave(slot.index if slot is not None else None)

    def _let_go(self) -> None:
        """In a child that the application has forked from the supervisor, which has imported it."""
        self._leave()
        for sock in self.admin_sockets:
            sock.close()
        self.signals.close()
        forks.release(())

    def _refill(self, slot: Slot, served: float | None, why: str) -> None:
        """Fill the slot again, at once or after a while, or give up when nobody has ever served."""
        delay = slot.backoff.next(served)
        logger.warning("%s: the next one follows %s", why, f"in {delay:.2f} s" if delay else "at once")
        slot.retry = self.poll.after(delay, partial(self.fill, slot))
        if slot.role is Role.WORKER:
            self.scoreboard.backoff(slot.index, time.monotonic() + delay if delay else 0.0)
        if not self.served and all(slot.backoff.failures >= BOOT_ATTEMPTS for slot in self.workers):
            self._fail(UNEXPECTED, f"no worker has become ready in {BOOT_ATTEMPTS} attempts")

    # Signals.

    def _on_signals(self) -> None:
        for number in self.signals.read():
            if number == signal.SIGCHLD:
                self._collect()
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._end(Level(min(self.level + 1, Level.CUT)), name_of(number))
            elif number == signal.SIGQUIT:
                self._end(Level.CUT, name_of(number))
            elif number == signal.SIGUSR1:
                self._reopen_logs()
            else:
                self._on_request(number)

    def _on_request(self, number: int) -> None:
        """A signal that asks for an operation."""
        logger.info("%s", name_of(number))
        if number == signal.SIGHUP:
            self.operations.request("reload")
        elif number == signal.SIGTTIN:
            self.operations.request("scale", workers=len(self.workers) + 1)
        elif number == signal.SIGTTOU:
            self.operations.request("scale", workers=len(self.workers) - 1)
        elif number == signal.SIGWINCH and not has_terminal():  # whose size may have changed
            self.operations.request("rest")
        elif number == signal.SIGUSR2:
            self.operations.request("upgrade")

    def _reopen_logs(self) -> None:
        """Somebody has moved the log's file: every process opens it anew."""
        logs.reopen()
        for handle in self._children():
            handle.pipe.send(Order(reopen=True))

    def _collect(self) -> None:
        """Reap those children whose end no descriptor tells, and, as process 1, whoever was left to us."""
        for handle in list(self._children()):
            if handle.pidfd < 0:
                self._on_end(handle)
        if self.foreign:
            self.operations.advance()
        if os.getpid() != 1:
            return
        with contextlib.suppress(ChildProcessError):  # there is no child at all
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                known = next((handle for handle in self._children() if handle.pid == ended.si_pid), None)
                if known is not None:
                    self._on_end(known)
                else:
                    _, status = os.waitpid(ended.si_pid, 0)
                    if ended.si_pid in self.foreign:
                        self.foreign[ended.si_pid] = status
                        self.operations.advance()

    # What children tell, and their ends.

    def _on_report(self, handle: Handle) -> None:
        for report in handle.hear():
            if handle.row is not None:
                self.scoreboard.stage(handle.row, report.stage)
            if report.stage == "booted":
                self._on_booted(handle)
            elif report.stage == "ready":
                self._on_ready(handle)
            elif report.stage == "draining":
                self._on_draining(handle)
        if handle.pipe.ended or handle.stage == "gone":
            self.poll.forget(handle.pipe.fileno())
            # It can neither tell nor be told anything now; what is left of it must not stay.
            handle.timers.append(self.poll.after(LAST_WORDS, partial(handle.kill, signal.SIGKILL)))
        self._judge()
        self._proceed()

    def _on_booted(self, handle: Handle) -> None:
        for timer in handle.timers:
            timer.cancel()
        if handle.slot.current is not handle:
            return
        try:
            self.admit(handle)
        except AddressError as error:
            if not self.served:
                self._fail(NOT_BOUND, str(error))
                return
            handle.failure = Report("gone", str(error), NOT_BOUND)
            handle.kill(signal.SIGTERM)

    def _on_ready(self, handle: Handle) -> None:
        for timer in handle.timers:
            timer.cancel()
        logger.info("%s is ready after %.2f s", handle, time.monotonic() - handle.born)

    def _on_draining(self, handle: Handle) -> None:
        if handle.ordered or handle.slot.current is not handle:
            return
        self.limit(handle)
        handle.slot.step_down(handle)
        # Not at once: whoever sends SIGTERM to every process sends it to us as well.
        why = f"{handle} drains without an order"
        handle.slot.retry = self.poll.after(EVERYBODY, partial(self._refill, handle.slot, handle.served, why))

    def _on_boot_timeout(self, handle: Handle) -> None:
        limit = handle.generation.config.boot_timeout
        logger.error("%s is not ready after %g s: it is aborted, and shows where", handle, limit)
        handle.overdue = True
        self.abort(handle)

    def _on_end(self, handle: Handle) -> None:
        if not handle.reap():
            return
        self._on_report(handle)  # its last words
        self.poll.forget(handle.pipe.fileno())
        if handle.pidfd >= 0:
            self.poll.forget(handle.pidfd)
        handle.close()
        vacant = handle.slot.current is handle
        handle.slot.remove(handle)
        self.accounts.ended(handle)
        self._tell_failure(handle)
        if self.level or handle.ordered:
            as_told = handle.ended in (0, -signal.SIGTERM) and (handle.parted or handle.slot.role is Role.ADMIN)
            logger.log(logging.INFO if as_told else logging.WARNING, "%s %s", handle, handle.end)
        elif vacant and handle.slot not in self.retired:
            self._replace(handle)
        self._judge()
        self._proceed()

    def _tell_failure(self, handle: Handle) -> None:
        """Log why a child could not go on, in full the first time."""
        if handle.failure is None or not handle.failure.error:
            return
        if handle.failure.error == self.failure:
            logger.error("%s failed in the same way", handle)
        else:
            logger.error("%s: %s", handle, handle.failure.error)
            self.failure = handle.failure.error

    def _replace(self, handle: Handle) -> None:
        """Fill the slot of a child that ended without an order, or give up when none has ever served."""
        slot = handle.slot
        if slot.role is Role.WORKER and not self.served:
            if handle.failure is not None and handle.failure.exit in (NOT_LOADED, NOT_BOUND):
                self._fail(handle.failure.exit, "no worker can begin")
                return
            if handle.overdue:
                self._fail(UNEXPECTED, f"no worker has become ready within {self.config.boot_timeout:g} s")
                return
        self._refill(slot, handle.served, f"{handle} {handle.end}")

    def _judge(self) -> None:
        """Say once that the daemon serves, and once that it is complete; go on with what waits for a child."""
        ready = sum(slot.ready for slot in self.workers)
        if ready and not self.served:
            self.served = True
            for name in self.listeners.names:
                logger.info("listening on %s", name)
            for sock in self.admin_sockets:
                logger.info("metrics on http://%s/metrics", Tcp(*sock.getsockname()[:2]))
        if ready == len(self.workers) and not self.complete:
            self.complete = True
            self.scoreboard.ready = True
            self.service.ready(ready, len(self.workers))
            logger.info("ready: %d of %d workers", ready, len(self.workers))
        self._care()
        self.operations.advance()

    # Doors for operations.

    def add_slot(self) -> Slot:
        """One more slot, with sockets of its own; OSError when they cannot be bound."""
        taken = {slot.index for slot in (*self.workers, *self.retired)}
        index = next(number for number in range(SLOTS) if number not in taken)
        self.listeners.add(index)
        slot = Slot(index, self.generation)
        self.workers.append(slot)
        self.scoreboard.desired = len(self.workers)
        return slot

    def retire(self, slots: Sequence[Slot]) -> None:
        """Let these slots be no more, once their workers have ended and nobody waits in their queues."""
        for slot in slots:
            self.workers.remove(slot)
            self.retired.append(slot)
            slot.cancel_retry()
            if slot.current is not None:
                self.dismiss(slot.current, "stopped")
        self.scoreboard.desired = len(self.workers)
        self._care()

    def admit(self, handle: Handle) -> None:
        """Let a worker that has booted accept connections; AddressError when another program has an address by now."""
        if handle.stage != "booted":
            return
        self.listeners.listen(handle.slot.index, handle.generation.config.backlog)
        self.queues.listens(handle.slot.index)
        self._expect(handle)
        handle.serve()
        if self.resting and handle.generation is self.generation:
            handle.pipe.send(Order(rest=True))

    def dismiss(self, handle: Handle, why: str) -> None:
        """Let a worker drain and end; others accept from its sockets."""
        self.limit(handle)
        handle.order(Level.DRAIN, why, leave_queue=True)

    def limit(self, handle: Handle) -> None:
        """Kill a worker that drains, if it has not ended in time."""
        limit = handle.generation.config.graceful_timeout + LAST_WORDS
        handle.timers.append(self.poll.after(limit, partial(handle.kill, signal.SIGKILL)))

    def abort(self, handle: Handle) -> None:
        """End a child that does not listen; it shows where it is."""
        handle.kill(signal.SIGABRT)
        handle.timers.append(self.poll.after(DUMP_GRACE, partial(handle.kill, signal.SIGKILL)))

    def rest(self) -> None:
        """Let every worker close its connections and refuse new ones."""
        self.resting = self.scoreboard.draining = True
        for slot in self.workers:
            if slot.ready and slot.current is not None:
                slot.current.pipe.send(Order(rest=True))

    def wake(self, generation: Generation) -> None:
        """This generation serves now."""
        access, self.generation = self.config.admin_access, generation
        logs.become("supervisor", **generation.config.log_options(), thread=False)
        self.resting = self.scoreboard.draining = False
        if access != self.config.admin_access:
            self.renew_admin()

    def renew_admin(self) -> None:
        """Let another admin process take over."""
        if (old := self.admin.current) is not None:
            self.admin.step_down(old)
            self.fill(self.admin)
            self._end_admin(old)

    def connections(self) -> int:
        """How many there are, in every state."""
        counts = self.scoreboard.read().counts
        return sum(counts.words(f"connections_{state}")[0] for state in ("handshaking", "open", "closing"))

    def note(self, operation: str, done: bool, seconds: float) -> None:
        """An operation has ended: count it."""
        self.accounts.note(operation, done, seconds)
        if operation in ("reload", "upgrade"):
            self.service.reloaded(done, sum(slot.ready for slot in self.workers), len(self.workers))

    # The end.

    def stop(self, level: Level, why: str) -> None:
        """End, or end more urgently, because somebody asks for it."""
        self._end(level, why)

    def _fail(self, status: int, why: str) -> None:
        self.status = status
        self._end(Level.CLOSE, why)

    def _end(self, level: Level, why: str) -> None:
        """Stop, or stop more urgently."""
        if level <= self.level:
            return
        logger.log(logging.ERROR if self.status else logging.INFO, "%s: %s", why, _ENDINGS[level])
        self.level = level
        self.operations.cancel("the daemon is stopping")
        self.scoreboard.draining = True
        for slot in self._slots():
            slot.cancel_retry()
        for handle in self._working():
            handle.order(level)
        granted = {
            Level.DRAIN: self.config.graceful_timeout + LAST_WORDS,
            Level.CLOSE: LAST_WORDS,
            Level.CUT: CUT_GRACE,
        }
        self.service.stopping(granted[level] + 2 * CUT_GRACE, why)
        self.poll.after(granted[level], self._kill_workers)
        self._proceed()

    def _kill_workers(self) -> None:
        for handle in self._working():
            logger.warning("%s has not ended in time: it is killed", handle)
            handle.kill(signal.SIGKILL)

    def _proceed(self) -> None:
        """Take the next step to the end, as far as the children have come."""
        if not self.level:
            return
        workers = self._working()
        if all(handle.stage in ("draining", "gone") for handle in workers):
            self.listeners.close()  # nobody accepts any more: let clients know, and a successor bind
        if workers:
            return
        # The admin process goes last: until now it could be asked how far the drain is.
        admin = self.admin.current
        if admin is None:
            self.over = True
        elif not admin.ordered:
            self._end_admin(admin)

    def _end_admin(self, admin: Handle) -> None:
        admin.ordered = Level.DRAIN
        admin.kill(signal.SIGTERM)
        admin.timers.append(self.poll.after(CUT_GRACE, partial(admin.kill, signal.SIGKILL)))


def _freeze() -> None:
    """What has been imported so far is never garbage: children that do not look at it share its memory with us."""
    gc.collect()
    gc.freeze()


def _never(error: ServiceError) -> Callable[[], Config]:
    """What a reload calls for settings with which no worker could be forked."""

    def load() -> Config:
        reason = "the application could not be imported when this program began"
        raise ConfigError("--preload", "true", reason=reason, remedy=f"mend it, and upgrade again\n{error}")

    return load


_ENDINGS: Final = {
    Level.DRAIN: "stopping, connections are closed one by one",
    Level.CLOSE: "stopping at once, connections are closed",
    Level.CUT: "stopping at once, connections are cut",
}
