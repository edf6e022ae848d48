"""A child as its parent sees it, and the place that it fills.

    Role          what a child is for
    Handle        one process, from its fork to its end: `fork`, `serve`, `order`, `kill`, `hear`, `reap`, `close`
    Generation    what the workers that were begun together have in common
    Slot          a place for a process; it outlives those that fill it, as do its sockets
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

__all__ = ["AdminMain", "Backoff", "Child", "Generation", "Handle", "Role", "Slot", "WorkerMain"]

_STAGES: Final[tuple[Stage, ...]] = ("starting", "booted", "ready", "draining", "gone")


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
        /,
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Generation:
    """Workers with the same settings, and the application as it was when they began.

    Attributes:
        number: one more with each hand-over.
        config: their settings.
    """

    number: int
    config: Config


class Handle:
    """A child process.

    Attributes:
        slot: the place that it fills, or filled.
        generation: which generation of workers it belongs to.
        row: its row of the scoreboard, None where it counts nothing.
        pid: its process id, for as long as that is its own: until it is reaped.
        stage: what it told last.
        stop_mode: the most urgent order to end that it was given.
        stopping_since: when it was given the first one; 0.0 before.
        why: why it was, in one of the scoreboard's words for ends.
        failure: what it told of why it ends.
        overdue: whether it was not ready in time.
        hung: whether it is ended because it gave no sign of life.
        killed: whether it was sent a signal that nobody survives.
        heard: when it told something last.
        silent: whether it gives no sign of life at present: nobody new should have to wait for it.
        ended: None while it runs, then its exit status, or the number of the signal that killed it, negative.
        cpu_seconds: the processor time that it took, with the programs that it ran; 0.0 while it runs.
        timers: what is to happen to it if it is still there by then.
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
        self.born = time.monotonic()
        self.ready_at: float | None = None

    def __str__(self) -> str:
        return f"{self.slot.name} (pid {self.pid})"

    def fork(self, signals: Signals) -> socket.socket | None:
        """Fork. In the parent the result is None; in the child it is the child's end of the pipe.

        In the child signals stay blocked, and wait, until it has decided what to do about them: `Signals.settle()`.

        Raises:
            OSError: there is no process, memory or file descriptor to be had.
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
            # The end of the pipe tells a child that looks; this is for one that never will again.
            end_with_parent(parent, math.ceil(self.generation.config.graceful_timeout + LAST_WORDS))
            return theirs
        theirs.close()
        self.pipe = Pipe(ours, Report)
        # It may have died already: until it is reaped, the number is its own. Where there are no such descriptors
        # (not Linux, or none left), SIGCHLD says that it is time to look.
        with contextlib.suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(self.pid)
        signals.unblock()
        return None

    def state(self) -> ChildState:
        """What the program that is started anew in this process must know of it."""
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
        )

    @classmethod
    def restore(cls, slot: Slot, generation: Generation, left: ChildState) -> Handle:
        """A child that the program before this one has forked."""
        handle = cls(slot, generation, left.row)
        handle.pid, handle.stage, handle.stop_mode, handle.why = left.pid, left.stage, left.stop_mode, left.why
        handle.failure, handle.born, handle.ready_at = left.failure, left.born, left.ready_at
        handle.stopping_since = left.stopping_since
        os.set_inheritable(left.pipe, False)
        handle.pipe = Pipe(socket.socket(fileno=left.pipe), Report, left.line)
        with contextlib.suppress(AttributeError, OSError):
            handle.pidfd = os.pidfd_open(handle.pid)
        return handle

    def serve(self) -> None:
        """Tell it to accept connections."""
        self.pipe.send(Command(serve=True))

    def stop(self, mode: StopMode, why: str = "stopped", *, leave_queue: bool = False) -> None:
        """Tell it to end; whoever cannot listen yet, or no longer, gets a signal."""
        if mode <= self.stop_mode:
            return
        if not self.stop_mode:
            self.why, self.stopping_since = why, time.monotonic()
        self.stop_mode = mode
        if self.stage == "starting" or not self.pipe.send(Command(mode, leave_queue)):
            self.kill(signal.SIGKILL if mode is StopMode.ABORT else signal.SIGTERM)

    def kill(self, number: int) -> None:
        """Send a signal; nothing happens to one that has been reaped."""
        if self.pid and self.ended is None:
            self.killed = self.killed or number in (signal.SIGKILL, signal.SIGABRT)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def receive_reports(self) -> list[Report]:
        """What it has told since the last time. Stages only go forward, whatever it tells."""
        news = []
        for report in self.pipe.receive():
            self.last_report_at = time.monotonic()
            if report.error is not None or report.exit:
                self.failure = report
            if _STAGES.index(report.stage) > _STAGES.index(self.stage):
                self.stage = report.stage
                if report.stage == "ready":
                    self.ready_at = time.monotonic()
                news.append(report)
        return news

    def reap(self) -> bool:
        """Whether it has ended. Its process id means nothing afterwards."""
        if self.ended is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has reaped it: how it ended is lost
                self.ended = 0
            else:
                if pid:
                    self.ended = os.waitstatus_to_exitcode(status)
                    self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self.ended is not None

    @property
    def served(self) -> float | None:
        """Seconds since it became ready; None if it never was."""
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
        """Whether it ended as a child should: after it has said so, or by the signal that told it to.

        Whatever its status: an application that calls os._exit(0) takes the clients of the worker with it.
        """
        if self.ended is None or self.ended < 0:
            return self.ended == -signal.SIGTERM and self.stop_mode is not StopMode.NONE
        if self.slot.role is Role.ADMIN:  # it says nothing at its end
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
        """Close what this process holds of it: in its parent when it has ended, in its siblings at once.

        A sibling that kept the pipe open would keep it from noticing its parent's end.
        """
        for timer in self.timers:
            timer.cancel()
        self.pipe.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Backoff:
    """How long to wait until a slot is filled again: longer after each failure, until one child has lasted."""

    FIRST = 0.1  # seconds
    LONGEST = 30.0
    FORGET = 60.0  # a child that served so long has nothing to do with the failures before it

    def __init__(self) -> None:
        self.failures = 0

    def next(self, served: float | None) -> float:
        """The wait after the end of a child that served so many seconds (None: it never became ready).

        One that had served is replaced at once, unless it is not the first: its clients wait in its queue.
        """
        if served is not None and served >= self.FORGET:
            self.failures = 0
        self.failures += 1
        if served is not None and self.failures == 1:
            return 0.0
        longest: float = min(self.LONGEST, self.FIRST * 2.0 ** min(self.failures - 1, 20))
        return longest * random.uniform(0.5, 1.0)  # so that slots that fail for one reason do not retry as one


class Slot:
    """A place for a child.

    Attributes:
        index: its number among those of its role; a worker's own.
        role: what its children are for.
        generation: what its next child is to be.
        current: the child that serves, or is to.
        successor: the child that is to take over from it.
        leaving: those that were there before and have not ended yet.
        backoff: how its children fare.
        retry: when it will be filled again.
    """

    def __init__(self, index: int, generation: Generation, role: Role = Role.WORKER) -> None:
        self.index, self.role = index, role
        self.name = f"worker {index}" if role is Role.WORKER else role.value
        self.generation = generation
        self.current: Handle | None = None
        self.successor: Handle | None = None
        self.leaving: list[Handle] = []
        self.backoff = Backoff()
        self.retry: Timer | None = None

    def state(self) -> SlotState:
        """What the program that is started anew in this process must know of it."""
        current = self.current.state() if self.current is not None else None
        leaving = [handle.state() for handle in self.leaving]
        index = self.index if self.role is Role.WORKER else None
        return SlotState(index=index, current=current, leaving=leaving, failures=self.backoff.failures)

    @classmethod
    def restore(cls, generation: Generation, left: SlotState, role: Role = Role.WORKER) -> Slot:
        """A slot of the program before this one, whose present generation that was."""
        slot = cls(left.index or 0, generation, role)
        slot.backoff.failures = left.failures
        for child in (*left.leaving, *([left.current] if left.current is not None else [])):
            own = generation
            if child.generation != generation.number:
                own = Generation(child.generation, generation.config)
            slot.leaving.append(Handle.restore(slot, own, child))
        if left.current is not None:
            slot.current = slot.leaving.pop()
        return slot

    @property
    def children(self) -> list[Handle]:
        """Every child of the slot that has not been reaped."""
        return [*self.leaving, *(child for child in (self.current, self.successor) if child is not None)]

    @property
    def ready(self) -> bool:
        """Whether somebody serves here."""
        return self.current is not None and self.current.stage == "ready"

    def step_down(self, handle: Handle) -> None:
        """The child serves no longer, or never will: it makes room for the next."""
        self.remove(handle)
        self.leaving.append(handle)

    def take_over(self) -> Handle | None:
        """The successor takes its place; whoever had it, if anybody, is returned, and among those who leave."""
        before = self.current
        if before is not None:
            self.step_down(before)
        assert self.successor is not None
        self.current, self.successor = self.successor, None
        self.generation = self.current.generation
        return before

    def remove(self, handle: Handle) -> None:
        """The child has ended."""
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
