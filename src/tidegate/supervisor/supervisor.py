"""The supervisor: binds addresses, has children forked, and ends with the daemon's exit status.

It is a state machine over one event loop. Only `EventLoop.run_once()` waits, so that a signal takes effect at any
moment of a boot, a crash or a drain. Its inputs are signals, reports of children, their ends, and timers; signals come
in here, what concerns a child in the pool.

    run          open, turn until it is over, close
    open         sockets first, then the scoreboard, then a child for each slot
    signals      SIGTERM and SIGINT: a graceful stop, then close, then abort; SIGQUIT: abort; others: an operation
    readiness    the daemon serves, and is complete
    shutdown     commands to the workers; then the hub ends, the admin process last

What must not live here: slots and what becomes of children (pool.py), what a reload or a change of scale consists of
(operations.py), WebSocket, the application, an event loop, threads, network input.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from .. import logs
from ..config.bind import Tcp
from ..config.errors import ConfigError
from ..config.schema import Config
from ..ipc import control_protocol
from ..ipc.exit_status import ABORT_GRACE, HELPER_GRACE, LAST_WORDS, NOT_BOUND, STOPPED, UNEXPECTED
from ..ipc.handover_state import HandoverError, HandoverState
from ..ipc.pipe import StopMode
from ..process import forks
from ..version import version
from .auto_reload import AutoReload
from .control import Control, Describe
from .counters import Counters
from .event_loop import EventLoop
from .health import HealthMonitor
from .multiproc_dir import MultiprocDir
from .operations import Operations
from .pool import Forked, WorkerPool
from .signals import Signals, has_terminal, name_of
from .sockets.addresses import AddressError, bind_admin
from .system.daemon import Service, ServiceError, Stopped
from .upgrade import Upgrade
from .worker_handle import AdminMain, Child, Handle, HubMain, WorkerMain

__all__ = ["Supervisor"]

logger = logging.getLogger("tidegate.supervisor")

TICK = 0.5


class Supervisor:
    """The parent of a daemon's processes.

    Parameters:
        config: the settings, with the number of workers decided.
        signals: the signals, being caught already.
        worker: the life of a worker.
        admin: the life of the admin process.
        hub: the life of the hub.
        service: the daemon towards the system.
        handover: the state of the program before this one, in an upgrade in place.
        describe: makes the status that the control socket sends, of a read of the scoreboard.
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
        hub: HubMain,
        load: Callable[[], Config] | None = None,
        file: str | None = None,
        service: Service | None = None,
        handover: HandoverState | None = None,
        describe: Describe | None = None,
    ) -> None:
        self.signals = signals
        self.service = service or Service(config)
        self.loop = EventLoop()
        self.pool = WorkerPool(
            config,
            self.loop,
            signals,
            self.service.directory,
            worker=worker,
            admin=admin,
            hub=hub,
            store=self.service.notify.store,
            on_change=self._on_change,
            on_end=self._on_child_end,
            on_failure=self._fail,
            close_in_child=self._close_in_child,
        )
        self.multiproc_dir = MultiprocDir()
        self.auto_reload = AutoReload(self.loop, lambda: self.operations.reload_for_changes(), file)
        self.upgrade = Upgrade(
            self.pool, self.service, self.multiproc_dir, self.auto_reload, lambda: self.control.state()
        )
        self.operations = Operations(
            self.pool, self.service, self.auto_reload, self.upgrade, load or (lambda: config), self._on_operation_end
        )
        self.control = Control(self.pool, self.operations, self._stop, describe)
        self.health = HealthMonitor(self.pool, self.operations)
        self.counters = Counters(self.pool, self.multiproc_dir)
        self._handover = handover
        self.status = STOPPED
        self.complete = False  # every worker has been ready
        self._end_by = 0.0  # when workers that have not ended are killed, once it stops
        self.over = False

    def run(self) -> int | Child:
        """Supervise until the end, and return the exit status.

        Like fork(), it returns in more than one process: in a child, it returns the child's life, to be called as soon
        as possible, for signals stay blocked until then.
        """
        try:
            self._open()
            while not self.over:
                self.loop.run_once()
        except Forked as forked:
            return forked.child
        except (AddressError, ServiceError, HandoverError) as error:
            logger.error("%s", error)
            self.service.failed(str(error))
            self.status = error.status if isinstance(error, ServiceError) else NOT_BOUND
        except Stopped:
            logger.info("stopped while the application was being imported")
        except Exception:
            logger.critical("the supervisor failed: its children are killed", exc_info=True)
            self.pool.kill()
            self.status = UNEXPECTED
        self._close()
        logger.info("stopped with status %d", self.status)
        self.signals.ignore()
        return self.status

    # Open and close.

    def _open(self) -> None:
        logger.info("tidegate %s started (pid %d): %s", version, os.getpid(), self.pool.config.application)
        if signal.SIGHUP in self.signals.ignored:
            logger.info("SIGHUP is ignored, as nohup or another parent process has set it: `tidegate reload` reloads")
        self.loop.add_reader(self.signals.fd, self._on_signals, first=True)
        config = self.pool.config
        self.service.begin(config.boot_timeout + LAST_WORDS)
        if self._handover is not None:
            self._resume(self._handover)
            return
        listeners = self.pool.listeners
        user = self.service.identity.uid if self.service.identity is not None else None
        listeners.bind(config.bind, len(self.pool.workers), user)
        self.pool.admin_sockets = bind_admin(config.admin, listeners.socket_addresses)
        self.control.open(control_protocol.socket_path(config.control, os.environ), user)
        self.pool.hub.open(config, self.control.path, user)
        self.service.bound(listeners, self.control, self.pool.hub)
        if config.admin is not None:
            self.multiproc_dir.make()
        forks.on_application_fork(self._close_in_foreign_child)
        self.service.preload(self.signals)
        self.pool.create_scoreboard()
        self._on_signals()
        _freeze()
        self.pool.begin()
        self.auto_reload.open(config)
        self._tick()

    def _resume(self, state: HandoverState) -> None:
        """Continue where the program before this one in this process has stopped, and hand over to new workers."""
        self.upgrade.resume(state)
        self.complete = True
        on_progress = self.control.restore(state.control, state.clients)
        self.service.bound(self.pool.listeners, resumed=True)
        self.pool.reap()  # children that ended meanwhile
        forks.on_application_fork(self._close_in_foreign_child)
        try:
            self.service.preload(self.signals)
        except ServiceError as error:
            self.operations.load = _never(error)
        except Stopped:
            pass  # the signal is still in the pipe, and the children are still to be stopped
        self._on_signals()
        _freeze()
        self.auto_reload.open(self.pool.config)
        self.pool.renew_hub()
        self._tick()
        self.operations.request("upgrade", on_progress, before=state.version)

    def _tick(self) -> None:
        """Do what is due twice a second: heartbeat, health, files, counters, the log, the queues."""
        self.pool.scoreboard.tick(time.monotonic())
        interval = self.service.interval(TICK)
        self.health.check(interval)
        self._check_files()
        self.counters.update()
        logs.catch_up()
        self.pool.tend_queues()
        self.pool.hub.tend(self.pool.config)
        self.service.tick(self.pool.scoreboard, self.pool.working())
        self.loop.call_later(interval, self._tick)

    def _check_files(self) -> None:
        """Notice that files by which clients find the daemon have been removed."""
        if self.pool.stop_mode:
            return
        self.pool.listeners.report_missing()
        self.control.renew_file()
        self.pool.hub.renew_file()
        if self.multiproc_dir.renew_if_removed():
            self.pool.renew_admin()

    def _close(self) -> None:
        self.pool.close()
        self.auto_reload.close()
        self.service.close()
        self.control.close(self.status)
        self.multiproc_dir.close()
        self.loop.close()

    def _close_in_child(self) -> None:
        """Close, in a child that the pool has forked, what is not the pool's."""
        self.service.close_in_child()
        self.control.close_in_child()
        self.auto_reload.close_in_child()

    def _close_in_foreign_child(self) -> None:
        """Close everything of the daemon's, in a child that the application has forked while it was imported."""
        self.pool.close_in_child()
        self.signals.close()
        forks.release(())

    # Signals.

    def _on_signals(self) -> None:
        for number in self.signals.read():
            if number == signal.SIGCHLD:
                self.pool.reap()
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._stop(StopMode(min(self.pool.stop_mode + 1, StopMode.ABORT)), name_of(number))
            elif number == signal.SIGQUIT:
                self._stop(StopMode.ABORT, name_of(number))
            elif number == signal.SIGUSR1:
                self._reopen_logs()
            else:
                self._on_request(number)

    def _on_request(self, number: int) -> None:
        """Request the operation that a signal asks for."""
        logger.info("%s", name_of(number))
        if number == signal.SIGHUP:
            self.operations.request("reload")
        elif number == signal.SIGTTIN:
            self.operations.request("scale", workers=len(self.pool.workers) + 1)
        elif number == signal.SIGTTOU:
            self.operations.request("scale", workers=len(self.pool.workers) - 1)
        elif number == signal.SIGWINCH and not has_terminal():  # whose size may have changed
            self.operations.request("drain")
        elif number == signal.SIGUSR2:
            self.operations.request("upgrade")

    def _reopen_logs(self) -> None:
        """Reopen the log's file, which has been moved, in every process."""
        logs.reopen()
        self.pool.reopen_logs()

    # What happens to children, and operations.

    def _on_change(self) -> None:
        """Follow up a report of a child, or its end."""
        self._update_readiness()
        self.pool.tend_queues()
        self.operations.advance()
        self._advance_shutdown()

    def _on_child_end(self, handle: Handle) -> None:
        self.counters.child_ended(handle)

    def _on_operation_end(self, operation: str, done: bool, seconds: float) -> None:
        self.counters.operation_ended(operation, done, seconds)
        if operation in ("reload", "upgrade"):
            self.service.reloaded(done, self.pool.ready, len(self.pool.workers))

    def _update_readiness(self) -> None:
        """Log once that the daemon serves, and once that it is complete."""
        pool = self.pool
        ready = pool.ready
        if ready and not pool.served:
            pool.served = True
            for name in pool.listeners.names:
                logger.info("listening on %s", name)
            for sock in pool.admin_sockets:
                logger.info("metrics on http://%s/metrics", Tcp(*sock.getsockname()[:2]))
        if ready == len(pool.workers) and not self.complete:
            self.complete = True
            pool.scoreboard.ready = True
            self.service.ready(ready, len(pool.workers))
            logger.info("ready: %d of %d workers", ready, len(pool.workers))

    # Shutdown.

    def _fail(self, status: int, why: str) -> None:
        self.status = status
        self._stop(StopMode.CLOSE, why)

    def _stop(self, mode: StopMode, why: str) -> None:
        """Stop, or stop more urgently."""
        if mode <= self.pool.stop_mode:
            return
        logger.log(logging.ERROR if self.status else logging.INFO, "%s: %s", why, _ENDINGS[mode])
        self.pool.stop_mode = mode
        self.operations.cancel("the daemon is stopping")
        self.pool.end_workers()
        granted = {
            StopMode.GRACEFUL: self.pool.config.graceful_timeout + LAST_WORDS,
            StopMode.CLOSE: LAST_WORDS,
            StopMode.ABORT: ABORT_GRACE,
        }
        self._end_by = time.monotonic() + granted[mode]
        self.service.stopping(granted[mode] + 2 * HELPER_GRACE, why)
        self.loop.call_later(granted[mode], self._kill_workers)
        hub = self.pool.hub.slot.current
        if hub is not None and hub.stop_mode:
            self._end_hub(hub)
        self._advance_shutdown()

    def _kill_workers(self) -> None:
        for handle in self.pool.working():
            logger.warning("%s has not ended in time: it is killed", handle)
            handle.kill(signal.SIGKILL)

    def _advance_shutdown(self) -> None:
        """Take the next step of the shutdown, as far as the children have come."""
        if not self.pool.stop_mode:
            return
        workers = self.pool.working()
        if all(handle.stage in ("draining", "gone") for handle in workers):
            self.pool.listeners.close()  # no worker accepts any more: clients are refused, another daemon may bind
        if workers:
            return
        # The hub ends when no worker publishes; the admin process last: until now it answers how far the drain is.
        helper = self.pool.hub.slot.current or self.pool.admin.current
        if helper is None:
            self.over = True
        elif not helper.stop_mode:
            if helper is self.pool.hub.slot.current:
                self._end_hub(helper)
            else:
                self.pool.end_helper(helper)

    def _end_hub(self, hub: Handle) -> None:
        """Let the hub end, with all the time that is left: it writes its journal to disk, or that is worth nothing."""
        self.pool.end_helper(hub, max(HELPER_GRACE, self._end_by - time.monotonic()))


def _freeze() -> None:
    """Exempt what has been imported from garbage collection, so that children share its memory."""
    gc.collect()
    gc.freeze()


def _never(error: ServiceError) -> Callable[[], Config]:
    """Return a loader of settings that fails, for a daemon whose application could not be imported."""

    def load() -> Config:
        reason = "the application could not be imported when this program started"
        raise ConfigError("--preload", "true", reason=reason, remedy=f"correct it, and upgrade again\n{error}")

    return load


_ENDINGS: Final = {
    StopMode.GRACEFUL: "stopping, connections are closed one by one",
    StopMode.CLOSE: "stopping at once, connections are closed",
    StopMode.ABORT: "stopping at once, connections are aborted",
}
