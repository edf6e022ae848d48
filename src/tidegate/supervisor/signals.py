"""The supervisor's signals: bytes in a pipe, read in its event loop.

A handler that did anything would do it between any two instructions; a byte in a pipe waits for its turn. The handler
is needed all the same: without one the interpreter writes no byte, and the system takes its default action.

    catch           from now on each of CAUGHT is a byte in the pipe, except signals that a terminal sends
    block           around a fork, so that no signal reaches a child that has no handlers of its own yet
    unblock         in the parent
    ignore          at the end, when the exit status is decided
    settle          in the child: close the pipe, end by SIGTERM, ignore the terminal
    has_terminal    whether this process belongs to a terminal

What must not live here: what a signal means (supervisor.py, worker/main.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from ..process import forks

__all__ = ["CAUGHT", "Signals", "has_terminal", "name_of"]

# Every signal that the supervisor acts on, or that would end or stop it by default.
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
    """Return a signal's name, such as ``SIGTERM``; for a number without a name, the number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, programs that an application starts do not inherit this."""


def has_terminal() -> bool:
    """Return whether this process belongs to a terminal, which sends signals to all of its processes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Signals:
    """The self-pipe. One for each process: a signal's disposition belongs to the whole of it.

    Attributes:
        ignored: those of CAUGHT that are ignored: SIGHUP if the parent process ignores it, as nohup does; SIGTTIN and
            SIGTTOU of a terminal, which stop a background process that reads from it or writes to it. With a handler,
            such a write would be tried again for ever; with SIG_IGN, it is allowed.
    """

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self.ignored: set[int] = {signal.SIGTTIN, signal.SIGTTOU} if has_terminal() else set()
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            self.ignored.add(signal.SIGHUP)

    def catch(self) -> None:
        """Catch signals from now on, also those that the parent process had masked or, except SIGHUP, ignored."""
        # A full pipe has thousands of signals in it, among them all that matter.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, signal.SIG_IGN if number in self.ignored else _ignore)
            if number != signal.SIGHUP or number not in self.ignored:
                forks.handled(number)
        self.unblock()

    def read(self) -> bytes:
        """Return the signals that came since the last call, a byte each, in their order, without waiting."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def block(self) -> None:
        """Block signals. They are not lost: the system keeps one of each number."""
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)

    def unblock(self) -> None:
        """Unblock signals, and with it receive those that waited."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def settle(self) -> None:
        """Close the parent's pipe and unblock signals, in a child, where they are blocked since before the fork.

        SIGTERM has its default action until the child has a handler, so that it ends at once in whatever code it is.
        A terminal's signals go to every process of its foreground: the supervisor alone acts on them.
        """
        signal.set_wakeup_fd(-1)
        self.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.unblock()

    def ignore(self) -> None:
        """Ignore every signal, so that none changes the exit status.

        The interpreter removes its handlers as it ends: a SIGTERM in its last milliseconds would decide the status.
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
