"""The upgrade in place: the program of the supervisor is started anew in its process, and its children stay.

    Trial      the new program, as it is installed now, is run beside the daemon: it must understand what it would be
               left, and an application of its must boot. If not, nothing has happened
    execute    everything that must stay is left open and written down, and the new program takes the place of this one
    resume     in it: what was left becomes this supervisor's own; a reload follows

The process keeps its number, so that a pid file, a service manager and a container see no change.

What must not live here: the form in which it is written down (ipc/handover_state.py), what a reload is (operations.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from .. import logs
from ..config.schema import Config, settings
from ..ipc import handover_state as estates
from ..ipc.handover_state import Estate, EstateError, SlotLeft
from ..process import streams
from ..version import version
from . import multiproc_dir
from .sockets import listeners
from .worker_handle import Generation, Role, Slot

if TYPE_CHECKING:
    from .operations import Tell
    from .supervisor import Supervisor

__all__ = ["Trial", "check", "collect", "execute", "resume"]

LONGEST = 4000  # characters of what a trial says, from its end
GRACE = 10.0  # seconds of a trial beyond the time that a worker has to boot and to end


def _command() -> list[str]:
    """The command line of this program, for the interpreter that is installed now."""
    return [sys.executable, *sys.orig_argv[1:]]


def _environment(supervisor: Supervisor, task: str, number: int) -> dict[str, str]:
    given = f"{task} {estates.FORMAT} {number}"
    return {**os.environ, **supervisor.service.environment, estates.ENVIRONMENT: given}


class Trial:
    """The new program, run with the task to check what it would be left, and to boot a worker.

    Parameters:
        supervisor: whose place it would take.

    Attributes:
        status: its exit status; None while it runs.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.status: int | None = None
        config = supervisor.config
        self.deadline = time.monotonic() + config.boot_timeout + config.graceful_timeout + GRACE
        self._output = os.memfd_create("tidegate-trial")
        number = estates.write(collect(supervisor))
        os.set_inheritable(number, True)
        environment = _environment(supervisor, "check", number)
        environment.pop("NOTIFY_SOCKET", None)  # it does not speak for the daemon
        environment.pop(multiproc_dir.VARIABLE, None)  # nor count for it
        try:
            with supervisor.service.place.at_start() as environment["PWD"]:
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
        supervisor.foreign[self.pid] = None

    def ended(self) -> bool:
        """Whether it has ended; one that takes too long is killed."""
        if self.status is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.supervisor.foreign[self.pid] = status
            if (status_or_none := self.supervisor.foreign[self.pid]) is not None:
                self.status = os.waitstatus_to_exitcode(status_or_none)
                del self.supervisor.foreign[self.pid]
            elif time.monotonic() > self.deadline:
                self._kill()
        return self.status is not None

    @property
    def output(self) -> str:
        """What it has said, from its end."""
        os.lseek(self._output, 0, os.SEEK_SET)
        with open(self._output, "rb", closefd=False) as file:
            return file.read().decode(errors="replace").strip()[-LONGEST:]

    def close(self) -> None:
        """Leave nobody behind."""
        if self.status is None:
            self._kill()
        os.close(self._output)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def collect(supervisor: Supervisor) -> Estate:
    """What this program would leave."""
    config = supervisor.config
    control, clients = supervisor.control.left()
    assert isinstance(config.workers, int)
    return Estate(
        version=version,
        fixed=_fixed(config),
        workers=config.workers,
        generation=supervisor.generation.number,
        slots=[slot.left() for slot in supervisor.workers],
        retired=[slot.left() for slot in supervisor.retired],
        admin=supervisor.admin.left(),
        listeners=supervisor.listeners.left(),
        admin_sockets=[sock.fileno() for sock in supervisor.admin_sockets],
        scoreboard=supervisor.scoreboard.fd,
        resting=supervisor.resting,
        control=control,
        clients=clients,
        metrics=supervisor.metric_files.folder,
    )


def _fixed(config: Config) -> dict[str, str]:
    """What a running daemon cannot change."""
    return {name: setting.write(getattr(config, name)) for name, setting in settings().items() if setting.fixed}


def check(config: Config, estate: Estate) -> None:
    """Whether this program, with these settings, can take over.

    Raises:
        EstateError: it cannot.
    """
    now = _fixed(config)
    for name, text in estate.fixed.items():
        if now.get(name, text) != text:
            raise EstateError(f"{settings()[name].flag} cannot change from {text} to {now[name]} in a running daemon")
    # What is found out later, in the daemon's own process, would end it.
    for listener in (*estate.listeners, *([estate.control] if estate.control is not None else [])):
        listeners.check(listener)


def execute(supervisor: Supervisor) -> None:
    """Start the program anew in this process: it does not return.

    Raises:
        OSError: that was not possible, and nothing has changed.
    """
    estate = collect(supervisor)
    number = estates.write(estate)
    kept = [number, *estate.descriptors()]
    logs.catch_up()
    streams.flush()
    supervisor.changes.close()
    # A signal waits for the new program, which hears it when it is ready to.
    supervisor.signals.block()
    environment = _environment(supervisor, "take", number)
    try:
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        with supervisor.service.place.at_start() as environment["PWD"]:
            os.execve(sys.executable, _command(), environment)
    except OSError:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
        os.close(number)
        supervisor.signals.unblock()
        supervisor.changes.open()
        raise


def resume(supervisor: Supervisor, estate: Estate) -> Tell | None:
    """Make what was left this supervisor's own; the result tells those who wait for the upgrade.

    Raises:
        EstateError: it cannot be taken over.
    """
    from .._core.scoreboard import Scoreboard

    config = msgspec.structs.replace(supervisor.config, workers=estate.workers)
    before = supervisor.generation = Generation(estate.generation, config)
    supervisor.listeners.take(estate.listeners)
    for number in estate.admin_sockets:
        os.set_inheritable(number, False)
        supervisor.admin_sockets.append(socket.socket(fileno=number))
    os.set_inheritable(estate.scoreboard, False)
    rows = True
    try:
        supervisor.scoreboard = Scoreboard.attach(estate.scoreboard)
    except ValueError:  # of another layout: the workers that are there count on where nobody looks
        os.close(estate.scoreboard)
        supervisor.scoreboard = Scoreboard.create()
        estate, rows = _without_rows(estate), False
    if config.admin is not None:
        supervisor.metric_files.take(estate.metrics, rows=rows)
    supervisor.workers = [_slot(supervisor, before, left) for left in estate.slots]
    supervisor.retired = [_slot(supervisor, before, left) for left in estate.retired]
    supervisor.admin = _slot(supervisor, before, estate.admin, Role.ADMIN)
    supervisor.scoreboard.desired = len(supervisor.workers)
    supervisor.scoreboard.ready = True
    supervisor.served = supervisor.complete = True
    supervisor.resting = supervisor.scoreboard.draining = estate.resting
    for listener in estate.listeners:
        for index in listener.numbered:
            supervisor.queues.listens(index)
    return supervisor.control.take(estate.control, estate.clients)


def _slot(supervisor: Supervisor, generation: Generation, left: SlotLeft, role: Role = Role.WORKER) -> Slot:
    from .._core.snapshot import EXIT_REASONS

    slot = Slot.take(generation, left, role)
    for handle in slot.children:
        if handle.why not in EXIT_REASONS:  # a word of another release, for which there is no counter
            handle.why = "stopped"
        supervisor.follow(handle)
        if handle.ordered:
            supervisor.limit(handle)
    if slot.current is None and role is Role.WORKER and left.leaving == []:
        slot.retry = supervisor.poll.after(0, partial(supervisor.fill, slot))
    return slot


def _without_rows(estate: Estate) -> Estate:
    """The same for a scoreboard in which none of the children has a row."""

    def without(left: SlotLeft) -> SlotLeft:
        current = msgspec.structs.replace(left.current, row=None) if left.current is not None else None
        leaving = [msgspec.structs.replace(child, row=None) for child in left.leaving]
        return msgspec.structs.replace(left, current=current, leaving=leaving)

    return msgspec.structs.replace(
        estate, slots=[without(slot) for slot in estate.slots], retired=[without(slot) for slot in estate.retired]
    )
