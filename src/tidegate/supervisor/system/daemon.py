"""The daemon towards the system: its pid file, its user, its limits, and what the service manager is told.

    Service      begin, bound, preload, then ready, reloading, stopping as it happens, tick all the while, close

Root is needed to bind; so the daemon binds, writes its pid file and gives away what it has made, and only then switches
to another user, before it forks or imports anything of an application.

What must not live here: whether the configuration can run here (config/prerequisites.py), each part's own doing
(system/sd_notify.py, sockets/activation.py, system/pidfile.py, system/privileges.py, system/cpu_affinity.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, MutableMapping
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from ... import logs
from ...config.bind import Fd, Systemd
from ...config.prerequisites import Identity
from ...config.schema import Config, settings
from ...ipc.exit_status import NOT_BOUND, NOT_LOADED, USAGE
from ...process import forks, surroundings
from ...process.working_directory import WorkingDirectory
from ..signals import Signals
from ..sockets import activation
from ..worker_handle import Handle
from . import privileges
from .pidfile import Pidfile, PidfileError
from .sd_notify import Notify

if TYPE_CHECKING:
    from ..._core.scoreboard import Scoreboard

__all__ = ["Service", "ServiceError", "Stopped", "forget_secrets"]

logger = logging.getLogger("tidegate.supervisor")

# Seconds between two statuses that differ in the number of connections alone: each is a message on the system's bus.
STATUS_INTERVAL = 2.0
# Seconds beyond the worker's timeout within which the supervisor replaces it: until then the daemon is healthy.
REPLACED_WITHIN = 5.0


class _Given(Protocol):
    """Sockets that can be given to another user."""

    def chown(self, uid: int, gid: int, /) -> None: ...


class ServiceError(Exception):
    """A setting that this system does not allow.

    Attributes:
        status: the exit status.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status, self.problem = status, problem

    def __str__(self) -> str:
        return self.problem


class Stopped(BaseException):
    """A signal to end came while the application was being imported."""


def forget_secrets(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take secret settings out of the environment; return what they were.

    The settings have been read. What an application starts would inherit them, and a command that shows its
    environment would show them.
    """
    names = [setting.environment for setting in settings().values() if setting.secret]
    return {name: environment.pop(name) for name in names if name in environment}


class Service:
    """The daemon towards the system.

    Parameters:
        config: the settings.
        load: imports an application; what it raises says why it could not.
        directory: where the program was started, and where it is.
        identity: the user to switch to; None to stay.

    Attributes:
        notify: the way to the service manager.
        environment: what was taken out of the environment, for an upgrade in this process.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[str], object] | None = None,
        directory: WorkingDirectory | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.config = config
        self.directory = directory or WorkingDirectory()
        self.directory.entered()
        self.notify = Notify.from_environment()
        self.environment = self.notify.environment | forget_secrets()
        self.identity = identity
        self._load = load
        self._pidfile = Pidfile(config.pidfile) if config.pidfile is not None else None
        self._reported: tuple[object, ...] = ()
        self._reported_at = 0.0
        self._watchdog_due = 0.0
        self._doing = ""

    # The start.

    def begin(self, seconds: float) -> None:
        """Tell the service manager, before anything is bound, that the start may take so long."""
        self.notify.starting(seconds)

    def bound(self, *listeners: _Given, resumed: bool = False) -> None:
        """Write the pid file, give away what listens, and switch to the user of the settings, after all is bound.

        Parameters:
            listeners: what listens.
            resumed: whether this is an upgrade: then a failing pid file does not end the daemon.

        Raises:
            ServiceError: the pid file cannot be written, or the user cannot be switched to.
        """
        taken = activation.forget()
        self.environment |= taken
        used = taken.get("LISTEN_FDNAMES") == activation.JOURNAL or any(
            isinstance(address, Systemd | Fd) for address in self.config.bind
        )
        if "LISTEN_FDS" in taken and not used:
            logger.warning("systemd has passed %s sockets: only --bind systemd uses them", taken["LISTEN_FDS"])
        if self._pidfile is not None:
            try:
                self._pidfile.write()
            except PidfileError as error:
                if not resumed:
                    raise ServiceError(NOT_BOUND if error.living else USAGE, str(error)) from None
                logger.warning("%s: the daemon goes on without it", error)
        if self.identity is not None:
            try:
                for given in listeners:
                    given.chown(self.identity.uid, self.identity.gid)
                logs.chown(self.identity.uid, self.identity.gid)
                privileges.drop(self.identity)
            except (OSError, RuntimeError) as error:
                raise ServiceError(USAGE, f"cannot switch to {self.identity}: {error}") from None
            logger.info("running as %s from now on", self.identity)
            self._look_around(self.identity)

    def _look_around(self, identity: Identity) -> None:
        """Check that the new user may read what processes still have to import."""
        # access() goes by the real user, which is the new one by now.
        for path in (os.__file__, __file__):
            if not os.access(path, os.R_OK):
                raise ServiceError(USAGE, f"{identity} may not read {path}: move it, or let others enter its folders")
        if not os.access(".", os.R_OK | os.X_OK):
            logger.warning(
                "%s may not read %s: no application can be imported from there", identity, self.directory.name
            )

    def preload(self, signals: Signals) -> None:
        """Import the application, if --preload asks for it: children share its memory.

        Raises:
            ServiceError: it could not be imported.
            Stopped: a signal to end came.
        """
        if not self.config.preload or self._load is None:
            return
        stopped = False

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal stopped
            stopped = True  # the application may catch what is raised
            raise Stopped

        pid = os.getpid()
        try:
            # The pipe of signals is not read until the import ends, and it may never end.
            for number in _ENDING:
                signal.signal(number, stop)
                forks.handled(number)
            surroundings.imported = surroundings.Surroundings()
            self._load(self.config.application)
        except Exception as error:
            if not stopped:
                raise ServiceError(NOT_LOADED, str(error)) from None
        finally:
            if os.getpid() == pid:  # not in a child that the application has forked
                if surroundings.imported is not None:
                    surroundings.imported.put_back()
                signals.catch()  # also the three that raise during the import
        if stopped:
            raise Stopped
        if (threads := _threads()) > 1:
            logger.warning(
                "importing %s has started %d threads: the workers are forked without them; start them in the lifespan,"
                " or leave out --preload",
                self.config.application,
                threads - 1,
            )

    # Reports to the service manager.

    def ready(self, ready: int, desired: int) -> None:
        """Report that the daemon serves, when its workers are ready for the first time."""
        self._doing = ""
        self._reported = ()
        self.notify.ready(_count(ready, desired))

    def reloading(self, seconds: float) -> None:
        """Report that a reload begins, and may take so long."""
        self._doing = "reloading: "
        self.notify.reloading(seconds, "reloading")
        if self.config.preload:
            logger.warning(
                "%s stays as it was imported at the start, because of --preload: an upgrade loads new code",
                self.config.application,
            )

    def reloaded(self, done: bool, ready: int, desired: int) -> None:
        """Report the end of a reload, successful or not: the daemon serves either way."""
        if self._doing == "reloading: ":  # not if it is stopping by now
            self._doing = "" if done else "the last reload failed: "
            self._reported = ()
            self.notify.ready(f"{self._doing}{_count(ready, desired)}")

    def stopping(self, seconds: float, why: str) -> None:
        """Report that the daemon ends within so many seconds."""
        self._doing = "stopping: "
        self.notify.stopping(seconds, f"stopping: {why}")

    def failed(self, why: str) -> None:
        """Report why the daemon cannot run."""
        self.notify.status(why)

    def tick(self, scoreboard: Scoreboard, workers: Iterable[Handle]) -> None:
        """Report status and watchdog. To be called twice a second, or oftener for a short watchdog."""
        if not self.notify.enabled:
            return
        self.notify.flush()
        now = time.monotonic()
        slots, connections, oldest = set(), 0, now
        for handle in workers:
            if handle.row is None:
                continue
            row = scoreboard.row(handle.row)
            connections += sum(row.words(f"connections_{state}")[0] for state in ("open", "closing", "http"))
            if handle.stage == "ready" and not handle.stop_mode:
                slots.add(handle.slot.index)
                oldest = min(oldest, row.heartbeat or now)
        self._report_status(now, len(slots), scoreboard.desired, connections)
        if self.notify.watchdog_interval is not None and now >= self._watchdog_due and self._well(now - oldest):
            self.notify.watchdog()
            self._watchdog_due = now + self.notify.watchdog_interval

    def _report_status(self, now: float, ready: int, desired: int, connections: int) -> None:
        if (self._doing, ready, desired) == self._reported and now < self._reported_at + STATUS_INTERVAL:
            return
        self._reported, self._reported_at = (self._doing, ready, desired), now
        self.notify.status(f"{self._doing}{_count(ready, desired)}, {connections} connections")

    def _well(self, age: float) -> bool:
        """Return whether no worker's heartbeat is older than both the watchdog and the supervisor allow.

        The supervisor replaces a worker that hangs; only if that fails should the manager restart the whole daemon.
        """
        limit = self.notify.watchdog_seconds or 0.0
        if self.config.worker_timeout is not None:
            limit = max(limit, self.config.worker_timeout + REPLACED_WITHIN)
        return age <= limit

    def interval(self, usual: float) -> float:
        """Return the seconds until the next `tick()`: the usual ones, or less for a short watchdog."""
        return min(usual, self.notify.watchdog_interval or usual)

    # The end.

    def close_in_child(self) -> None:
        """Close the socket to the manager, in a child."""
        self.notify.close()

    def close(self) -> None:
        """Remove the pid file, and close the socket to the manager."""
        if self._pidfile is not None:
            self._pidfile.remove()
        self.notify.flush()
        self.notify.close()


_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def _threads() -> int:
    """Return how many threads this process has, where the system tells; else 1."""

    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task"))
    return 1


def _count(ready: int, desired: int) -> str:
    return f"{ready} of {desired} workers ready"
