"""Signals, as the supervisor hears them: bytes in a pipe, read in its one poll.

A handler that does anything would do it between any two instructions; a byte in a pipe waits for its turn. The handler
must be there all the same: without one the interpreter writes no byte, and the system takes its default action.

    catch       from now on each of CAUGHT is a byte in the pipe, but for those that are not meant for a daemon here
    block       around a fork, so that no signal meets a child that has not decided yet what to do about it
    unblock     in the parent
    ignore      at the end, whose status is certain
    settle      in the child: it has forgotten the pipe, ends by SIGTERM, and heeds no terminal
    has_terminal    whether there is one, whose signals are not meant for a daemon

What must not live here: what a signal means (supervisor.py, worker/main.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from ..process import forks

__all__ = ["CAUGHT", "Signals", "has_terminal", "name_of"]

# Every signal that something is or will be made of, and that would end or stop a process by default.
CAUGHT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGCHLD,
)


def name_of(number: int) -> str:
    """``SIGTERM``; for a number without a name, the number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Unlike SIG_IGN it is not handed on to the programs that an application starts."""


def has_terminal() -> bool:
    """Whether this process belongs to a terminal: that sends signals to all of its foreground, or its background."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Signals:
    """The self-pipe. One for each process: a signal's disposition belongs to the whole of it.

    Attributes:
        ignored: those of CAUGHT that nobody hears: SIGHUP if whoever started us ignores it, as nohup does; SIGTTIN and
            SIGTTOU of a terminal, which they stop who reads from it or writes to it from the background. A write that
            is tried again whenever a handler has returned would be tried for ever; who ignores them may write.
    """

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self.ignored: set[int] = {signal.SIGTTIN, signal.SIGTTOU} if has_terminal() else set()
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            self.ignored.add(signal.SIGHUP)

    def catch(self) -> None:
        """Hear signals from now on, also those that whoever started us had masked or, but for SIGHUP, ignored."""
        # A full pipe has thousands of signals in it, among them whatever matters.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, signal.SIG_IGN if number in self.ignored else _ignore)
            if number != signal.SIGHUP or number not in self.ignored:
                forks.handled(number)
        self.unblock()

    def read(self) -> bytes:
        """The signals that came since the last time, a byte each, in their order; never waits."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def block(self) -> None:
        """Let signals wait. They are not lost: the system keeps one of each number."""
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)

    def unblock(self) -> None:
        """Let those that waited come."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def settle(self) -> None:
        """In a child, signals being blocked since before the fork: forget the parent's pipe, then let signals come.

        SIGTERM has its default action until the child knows better, so that it ends at once in whatever code it is.
        A terminal's signals go to every process of its foreground: the supervisor alone acts on them.
        """
        signal.set_wakeup_fd(-1)
        self.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.unblock()

    def ignore(self) -> None:
        """Let no signal change how this process ends.

        The interpreter gives its handlers up as it goes: one more SIGTERM in its last milliseconds would be the end,
        instead of the status.
        """
        signal.set_wakeup_fd(-1)
        for number in CAUGHT:
            if number != signal.SIGCHLD:
                signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Close this process's ends of the pipe."""
        for fd in (self.fd, self._write):
            with contextlib.suppress(OSError):
                os.close(fd)
