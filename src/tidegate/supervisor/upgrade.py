"""The upgrade in place: the supervisor's process executes the program that is installed now, and its children stay.

    Upgrade    of one daemon
      trial      run the new program beside the daemon: it must understand the state that it would take over, and a
                 worker of it must boot. If not, nothing has happened
      execute    leave open what must stay, write the state down, and execute the new program in this process
      resume     in the new program: take over the state; a reload follows
    check      in the new program: whether it can take over

The process id stays, so that a pid file, a service manager and a container see no change.

What must not live here: the form of the state (ipc/handover_state.py), what a reload is (operations.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

import msgspec

from .. import logs
from .._core.scoreboard import Scoreboard
from ..config.schema import Config, settings
from ..environment import MULTIPROC_DIR
from ..ipc import handover_state
from ..ipc.exit_status import TRIAL_GRACE
from ..ipc.handover_state import HandoverError, HandoverState, ListenerState, SlotState
from ..process import streams
from ..version import version
from .auto_reload import AutoReload
from .multiproc_dir import MultiprocDir
from .pool import WorkerPool
from .sockets import listener
from .system.daemon import Service

__all__ = ["Trial", "Upgrade", "check"]

LONGEST = 4000  # characters of a trial's output, from its end


class Trial:
    """A run of the new program, to check the state that it would take over, and to boot a worker.

    Parameters:
        pool: the children; as process 1, it reaps the new program as well.
        service: the daemon towards the system.
        state: what it would take over.

    Attributes:
        status: its exit status; None while it runs.
    """

    def __init__(self, pool: WorkerPool, service: Service, state: HandoverState) -> None:
        self.status: int | None = None
        self._foreign = pool.foreign
        config = pool.config
        self.deadline = time.monotonic() + config.boot_timeout + config.graceful_timeout + TRIAL_GRACE
        self._output = os.memfd_create("tidegate-trial")
        number = handover_state.write(state)
        os.set_inheritable(number, True)
        environment = _environment(service, "check", number)
        environment.pop("NOTIFY_SOCKET", None)  # a trial does not notify the service manager
        environment.pop(MULTIPROC_DIR, None)  # nor count for it
        try:
            with service.directory.at_start() as environment["PWD"]:
                self.pid = os.posix_spawn(
                    sys.executable,
                    _command(),
                    environment,
                    file_actions=[(os.POSIX_SPAWN_DUP2, self._output, 1), (os.POSIX_SPAWN_DUP2, self._output, 2)],
                    setsigmask=(),
                    setpgroup=0,
                )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(number)
        self._foreign[self.pid] = None

    def poll(self) -> bool:
        """Return whether it has ended; kill it if it takes too long."""
        if self.status is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._foreign[self.pid] = status
            if (status_or_none := self._foreign[self.pid]) is not None:
                self.status = os.waitstatus_to_exitcode(status_or_none)
                del self._foreign[self.pid]
            elif time.monotonic() > self.deadline:
                self._kill()
        return self.status is not None

    @property
    def output(self) -> str:
        """The end of its output."""
        os.lseek(self._output, 0, os.SEEK_SET)
        with open(self._output, "rb", closefd=False) as file:
            return file.read().decode(errors="replace").strip()[-LONGEST:]

    def close(self) -> None:
        """Kill it if it runs, and close its output."""
        if self.status is None:
            self._kill()
        os.close(self._output)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Upgrade:
    """The upgrade of one daemon.

    Parameters:
        pool: the children, which stay.
        service: the daemon towards the system.
        multiproc_dir: the application's, which stay.
        auto_reload: what looks out for changed files, which does not stay.
        control: returns the state of the control socket, and the clients that wait.
    """

    def __init__(
        self,
        pool: WorkerPool,
        service: Service,
        multiproc_dir: MultiprocDir,
        auto_reload: AutoReload,
        control: Callable[[], tuple[ListenerState | None, list[int]]],
    ) -> None:
        self._pool, self._service = pool, service
        self._multiproc_dir, self._auto_reload, self._control = multiproc_dir, auto_reload, control

    def trial(self) -> Trial:
        """Start the new program beside this one; OSError when that is not possible."""
        return Trial(self._pool, self._service, self._collect())

    def _collect(self) -> HandoverState:
        """Return the state that this program hands over."""
        pool = self._pool
        control, clients = self._control()
        assert isinstance(pool.config.workers, int)
        return HandoverState(
            version=version,
            fixed=_fixed(pool.config),
            workers=pool.config.workers,
            generation=pool.generation.number,
            slots=[slot.state() for slot in pool.workers],
            retired=[slot.state() for slot in pool.retired],
            admin=pool.admin.state(),
            listeners=pool.listeners.state(),
            admin_sockets=[sock.fileno() for sock in pool.admin_sockets],
            scoreboard=pool.scoreboard.fd,
            drained=pool.drained,
            control=control,
            clients=clients,
            metrics=self._multiproc_dir.folder,
            hub=pool.hub.slot.state() if pool.hub.journal is not None else None,
            journal=pool.hub.journal,
            hub_socket=pool.hub.listener.state() if pool.hub.listener is not None else None,
        )

    def execute(self) -> None:
        """Execute the new program in this process; do not return.

        Raises:
            OSError: it cannot be executed, and nothing has changed.
        """
        pool = self._pool
        state = self._collect()
        number = handover_state.write(state)
        kept = [number, *state.descriptors()]
        logs.catch_up()
        streams.flush()
        self._auto_reload.close()
        # A signal waits until the new program has handlers.
        pool.signals.block()
        environment = _environment(self._service, "take", number)
        try:
            for descriptor in kept:
                os.set_inheritable(descriptor, True)
            with self._service.directory.at_start() as environment["PWD"]:
                os.execve(sys.executable, _command(), environment)
        except OSError:
            for descriptor in kept:
                os.set_inheritable(descriptor, False)
            os.close(number)
            pool.signals.unblock()
            self._auto_reload.open(pool.config)
            raise

    def resume(self, state: HandoverState) -> None:
        """Take over the state, and the application's files.

        Raises:
            HandoverError: it cannot be taken over.
        """
        os.set_inheritable(state.scoreboard, False)
        rows = True
        try:
            scoreboard = Scoreboard.attach(state.scoreboard)
        except ValueError:  # of another layout: what present workers still count is lost
            os.close(state.scoreboard)
            scoreboard = Scoreboard.create()
            state, rows = _without_rows(state), False
        if self._pool.config.admin is not None:
            self._multiproc_dir.restore(state.metrics, rows=rows)
        self._pool.restore(state, scoreboard)
        scoreboard.ready = True


def check(config: Config, state: HandoverState) -> None:
    """Check that this program, with these settings, can take over.

    Raises:
        HandoverError: it cannot.
    """
    now = _fixed(config)
    for name, text in state.fixed.items():
        if now.get(name, text) != text:
            raise HandoverError(f"{settings()[name].flag} cannot change from {text} to {now[name]} in a running daemon")
    # A fault that is found later, in the daemon's own process, would end it.
    for found in (*state.listeners, *(each for each in (state.control, state.hub_socket) if each is not None)):
        listener.check(found)


def _fixed(config: Config) -> dict[str, str]:
    """Return the settings that a running daemon cannot change."""
    return {name: setting.write(getattr(config, name)) for name, setting in settings().items() if setting.fixed}


def _command() -> list[str]:
    """Return the command line of this program, for the interpreter that is installed now."""
    return [sys.executable, *sys.orig_argv[1:]]


def _environment(service: Service, task: str, number: int) -> dict[str, str]:
    given = f"{task} {handover_state.FORMAT} {number}"
    return {**os.environ, **service.environment, handover_state.ENVIRONMENT: given}


def _without_rows(state: HandoverState) -> HandoverState:
    """Return the same state for a scoreboard in which no child has a row."""

    def without(left: SlotState) -> SlotState:
        current = msgspec.structs.replace(left.current, row=None) if left.current is not None else None
        leaving = [msgspec.structs.replace(child, row=None) for child in left.leaving]
        return msgspec.structs.replace(left, current=current, leaving=leaving)

    return msgspec.structs.replace(
        state, slots=[without(slot) for slot in state.slots], retired=[without(slot) for slot in state.retired]
    )
