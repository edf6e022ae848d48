"""A child as its parent sees it, and the slot that it fills.

    Role          what a child is for
    Handle        one process, from its fork to its end: `fork`, `serve`, `stop`, `kill`, `receive_reports`, `reap`
    Generation    what workers that were started together have in common
    Slot          a place for a process; it outlives the processes that fill it, as do its sockets
    Backoff       how long a slot waits until it is filled again

What must not live here: what to do about any of it (pool.py); the child's own life (worker/main.py).
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

from .._core.parent import end_with_parent
from ..config.schema import AdminAccess, Config
from ..ipc.exit_status import LAST_WORDS
from ..ipc.handover_state import ChildState, SlotState
from ..ipc.pipe import Command, Pipe, Report, Stage, StopMode
from ..process import forks
from .event_loop import Timer
from .signals import Signals, name_of

if TYPE_CHECKING:
    from .._core.counters import Row
    from .._core.scoreboard import Scoreboard

__all__ = ["AdminMain", "Backoff", "Child", "Generation", "Handle", "HubMain", "Role", "Slot", "WorkerMain"]

_STAGES: Final[tuple[Stage, ...]] = ("starting", "booted", "ready", "draining", "gone")
_UNSAID: Final[msgspec.Raw | msgspec.UnsetType] = msgspec.UNSET


class Role(Enum):
    """What a child is for."""

    WORKER = "worker"
    ADMIN = "admin"
    HUB = "hub"


Child: TypeAlias = Callable[[], int]
"""The life of a child, whose result is its exit status."""


class WorkerMain(Protocol):
    """The life of a worker, from what its supervisor gives it to its exit status."""

    def __call__(
        self, config: Config, slot: int, sockets: list[socket.socket], row: Row, pipe: socket.socket, /
    ) -> int: ...


class AdminMain(Protocol):
    """The life of an admin process, likewise."""

    def __call__(
        self,
        scoreboard: Scoreboard,
        sockets: list[socket.socket],
        pipe: socket.socket,
        access: AdminAccess,
        before: list[int],
        bus: str | None,
        /,
    ) -> int: ...


class HubMain(Protocol):
    """The life of a hub, likewise."""

    def __call__(
        self,
        journal: int,
        pipe: socket.socket,
        listener: socket.socket | None,
        message_limit: int,
        row: Row,
        /,
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Generation:
    """Workers with the same settings, and the application as it was when they started.

    Attributes:
        number: one more with each hand-over.
        config: their settings.
    """

    number: int
    config: Config


class Handle:
    """A child process.

    Attributes:
        slot: the slot that it fills, or filled.
        generation: which generation of workers it belongs to.
        row: its row of the scoreboard, None where it counts nothing.
        pid: its process id, valid until it is reaped.
        stage: the stage that it reported last.
        stop_mode: the most urgent command to stop that it was sent.
        stopping_since: when it was sent the first one; 0.0 before.
        why: why it is stopped, in one of the scoreboard's words for exits.
        failure: its report of why it ends.
        overdue: whether it was not ready in time.
        hung: whether it is ended because its heartbeat stopped.
        killed: whether it was sent a signal that no process survives.
        last_report_at: when it reported something last.
        silent: whether its heartbeat is missing at present: new connections should not wait for it.
        ended: None while it runs, then its exit status, or the number of the signal that killed it, negative.
        cpu_seconds: the processor time that it took, with the programs that it ran; 0.0 while it runs.
        timers: what is done about it if it has not ended by then.
        wants_link: whether it has asked for a link to the hub.
        is_linked: whether it was given one to the present hub.
        declares: what a worker has said that its application declares of channels.
        told: what of that an admin process was told.
    """

    def __init__(self, slot: Slot, generation: Generation, row: int | None) -> None:
        self.slot, self.generation, self.row = slot, generation, row
        self.pid = 0
        self.pidfd = -1
        self.pipe: Pipe[Report]
        self.stage: Stage = "starting"
        self.stop_mode = StopMode.NONE
        self.stopping_since = 0.0
        self.why = "stopped"
        self.failure: Report | None = None
        self.overdue = False
        self.hung = False
        self.killed = False
        self.last_report_at = 0.0
        self.silent = False
        self.ended: int | None = None
        self.cpu_seconds = 0.0
        self.timers: list[Timer] = []
        self.wants_link = self.is_linked = False
        self.declares = self.told = _UNSAID
        self.born = time.monotonic()
        self.ready_at: float | None = None

    def __str__(self) -> str:
        return f"{self.slot.name} (pid {self.pid})"

    def fork(self, signals: Signals) -> socket.socket | None:
        """Fork. Return None in the parent, and the child's end of the pipe in the child.

        In the child signals stay blocked until it has handlers of its own: `Signals.settle()`.

        Raises:
            OSError: the system has no process, memory or file descriptor left.
        """
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        signals.block()
        try:
            with forks.own():
                self.pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            signals.unblock()
            raise
        if self.pid == 0:
            ours.close()
            # A responsive child notices the end of the pipe; this is for one that hangs.
            end_with_parent(parent, math.ceil(self.generation.config.graceful_timeout + LAST_WORDS))
            return theirs
        theirs.close()
        self.pipe = Pipe(ours, Report)
        # It may have died already: until it is reaped, the number is its own. Without such a descriptor (not Linux,
        # or none left), SIGCHLD makes the pool look.
        with contextlib.suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(self.pid)
        signals.unblock()
        return None

    def state(self) -> ChildState:
        """Return what the program that replaces this one must know of it."""
        return ChildState(
            pid=self.pid,
            pipe=self.pipe.fileno(),
            line=self.pipe.line,
            generation=self.generation.number,
            row=self.row,
            stage=self.stage,
            stop_mode=self.stop_mode,
            stopping_since=self.stopping_since,
            why=self.why,
            failure=self.failure,
            born=self.born,
            ready_at=self.ready_at,
            link=self.wants_link,
            declares=self.declares,
        )

    @classmethod
    def restore(cls, slot: Slot, generation: Generation, state: ChildState) -> Handle:
        """Return the handle of a child that the program before this one has forked."""
        handle = cls(slot, generation, state.row)
        handle.pid, handle.stage, handle.stop_mode, handle.why = state.pid, state.stage, state.stop_mode, state.why
        handle.failure, handle.born, handle.ready_at = state.failure, state.born, state.ready_at
        handle.stopping_since, handle.wants_link = state.stopping_since, state.link
        handle.declares = state.declares
        os.set_inheritable(state.pipe, False)
        handle.pipe = Pipe(socket.socket(fileno=state.pipe), Report, state.line)
        with contextlib.suppress(AttributeError, OSError):
            handle.pidfd = os.pidfd_open(handle.pid)
        return handle

    def serve(self) -> None:
        """Tell it to accept connections."""
        self.pipe.send(Command(serve=True))

    def stop(self, mode: StopMode, why: str = "stopped", *, leave_queue: bool = False) -> None:
        """Tell it to stop; a child that cannot receive commands yet, or any more, gets a signal."""
        if mode <= self.stop_mode:
            return
        if not self.stop_mode:
            self.why, self.stopping_since = why, time.monotonic()
        self.stop_mode = mode
        if self.stage == "starting" or not self.pipe.send(Command(mode, leave_queue)):
            self.kill(signal.SIGKILL if mode is StopMode.ABORT else signal.SIGTERM)

    def kill(self, number: int) -> None:
        """Send a signal, unless it has been reaped."""
        if self.pid and self.ended is None:
            self.killed = self.killed or number in (signal.SIGKILL, signal.SIGABRT)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def receive_reports(self) -> list[Report]:
        """Return new reports. Stages only go forward, whatever it reports."""
        news = []
        for report in self.pipe.receive():
            self.last_report_at = time.monotonic()
            if report.error is not None or report.exit:
                self.failure = report
            if report.link:
                self.wants_link, self.is_linked = True, False
            if report.declares is not msgspec.UNSET:
                self.declares = report.declares
            if _STAGES.index(report.stage) > _STAGES.index(self.stage):
                self.stage = report.stage
                if report.stage == "ready":
                    self.ready_at = time.monotonic()
                news.append(report)
        return news

    def reap(self) -> bool:
        """Reap it if it has ended; return whether it has. Its process id means nothing afterwards."""
        if self.ended is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # it has been reaped elsewhere: its status is lost
                self.ended = 0
            else:
                if pid:
                    self.ended = os.waitstatus_to_exitcode(status)
                    self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self.ended is not None

    @property
    def served(self) -> float | None:
        """The seconds since it became ready; None if it never was."""
        return None if self.ready_at is None else time.monotonic() - self.ready_at

    @property
    def end(self) -> str:
        """How it ended, in words."""
        if self.ended is None:
            return "runs"
        if self.ended >= 0:
            return f"exited with status {self.ended}"
        killed = f"was killed by signal {-self.ended} ({name_of(-self.ended)})"
        if self.hung:
            killed += ", because it hung"
        elif -self.ended == signal.SIGKILL and self.stop_mode is StopMode.NONE and not self.overdue:
            killed += ", sent by an operator or the kernel's out-of-memory killer"
        return killed

    @property
    def ended_well(self) -> bool:
        """Whether it ended as a child should: after a report, or by the signal that stops it.

        The status does not decide: an application that calls os._exit(0) disconnects the worker's clients.
        """
        if self.ended is None or self.ended < 0:
            return self.ended == -signal.SIGTERM and self.stop_mode is not StopMode.NONE
        if self.slot.role is not Role.WORKER:  # it does not report its end
            return self.stop_mode is not StopMode.NONE
        return self.stage == "gone" and (self.ended == 0 or self.stop_mode is not StopMode.NONE)

    @property
    def reason(self) -> str:
        """How it ended, in one of the scoreboard's words."""
        if self.stop_mode and (self.ended_well or self.killed):
            return self.why
        if self.ready_at is None:
            return "boot_failed"
        if self.hung:
            return "hung"
        if self.ended == -signal.SIGKILL:
            return "oom_suspect"
        if self.ended is not None and self.ended < 0:
            return "signal"
        return "stopped" if self.ended_well else "crash"

    def close(self) -> None:
        """Close its descriptors: in the parent when it has ended, in its siblings at once.

        A sibling that kept the pipe open would hide the parent's end from it.
        """
        for timer in self.timers:
            timer.cancel()
        self.pipe.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Backoff:
    """The delay until a slot is filled again: longer after each failure, until a child has lasted.

    Parameters:
        role: of the slot. There is no second hub: meanwhile nothing is published, and no worker becomes ready.
    """

    FIRST = 0.1  # seconds
    LONGEST = 30.0
    LONGEST_OF_HUB = 0.5
    FORGET = 60.0  # after a child that served so long, earlier failures do not count

    def __init__(self, role: Role = Role.WORKER) -> None:
        self.failures = 0
        self._longest = self.LONGEST_OF_HUB if role is Role.HUB else self.LONGEST

    def next(self, served: float | None) -> float:
        """Return the delay after the end of a child that served so many seconds (None: it never became ready).

        The first child that ends after it has served is replaced at once, since clients wait in its queue.
        """
        if served is not None and served >= self.FORGET:
            self.failures = 0
        self.failures += 1
        if served is not None and self.failures == 1:
            return 0.0
        longest: float = min(self._longest, self.FIRST * 2.0 ** min(self.failures - 1, 20))
        return longest * random.uniform(0.5, 1.0)  # so that slots that fail for one reason do not retry as one


class Slot:
    """A place for a child.

    Attributes:
        index: its number among the slots of its role.
        role: what its children are for.
        generation: the generation of its next child.
        current: the child that serves, or boots to serve.
        successor: the child that boots to take over from it.
        leaving: former children that have not ended yet.
        backoff: the failures of its children.
        retry: when it will be filled again.
    """

    def __init__(self, index: int, generation: Generation, role: Role = Role.WORKER) -> None:
        self.index, self.role = index, role
        self.name = f"worker {index}" if role is Role.WORKER else role.value
        self.generation = generation
        self.current: Handle | None = None
        self.successor: Handle | None = None
        self.leaving: list[Handle] = []
        self.backoff = Backoff(role)
        self.retry: Timer | None = None

    def state(self) -> SlotState:
        """Return what the program that replaces this one must know of it."""
        current = self.current.state() if self.current is not None else None
        leaving = [handle.state() for handle in self.leaving]
        index = self.index if self.role is Role.WORKER else None
        return SlotState(index=index, current=current, leaving=leaving, failures=self.backoff.failures)

    @classmethod
    def restore(cls, generation: Generation, state: SlotState, role: Role = Role.WORKER) -> Slot:
        """Return a slot of the program before this one, whose present generation was `generation`."""
        slot = cls(state.index or 0, generation, role)
        slot.backoff.failures = state.failures
        for child in (*state.leaving, *([state.current] if state.current is not None else [])):
            own = generation
            if child.generation != generation.number:
                own = Generation(child.generation, generation.config)
            slot.leaving.append(Handle.restore(slot, own, child))
        if state.current is not None:
            slot.current = slot.leaving.pop()
        return slot

    @property
    def children(self) -> list[Handle]:
        """Every child of the slot that has not been reaped."""
        return [*self.leaving, *(child for child in (self.current, self.successor) if child is not None)]

    @property
    def ready(self) -> bool:
        """Whether its current child serves."""
        return self.current is not None and self.current.stage == "ready"

    def step_down(self, handle: Handle) -> None:
        """Move a child that serves no longer, or never will, to those that leave."""
        self.remove(handle)
        self.leaving.append(handle)

    def take_over(self) -> Handle | None:
        """Make the successor the current child; return the former one, if any, which leaves."""
        before = self.current
        if before is not None:
            self.step_down(before)
        assert self.successor is not None
        self.current, self.successor = self.successor, None
        self.generation = self.current.generation
        return before

    def remove(self, handle: Handle) -> None:
        """Remove a child that has ended."""

        if self.current is handle:
            self.current = None
        elif self.successor is handle:
            self.successor = None
        else:
            self.leaving.remove(handle)

    def cancel_retry(self) -> None:
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
