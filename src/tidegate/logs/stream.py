"""Where the log goes: a file, or whatever standard error is. No write waits, and no other process's writes fail for it.

An inherited descriptor is shared with other processes, whose writes would fail if it became non-blocking. So a pipe or
terminal is opened again, for this process alone; a socket, which cannot be, is written to with a flag; and where
neither works, the system is asked before each small write, and told not to wait.

    write      as much as goes without waiting
    wait       until there may be room again: for threads that have nothing else to do
    reopen     open the file that has the name now
    chown      give the file to another user

What must not live here: lines, queues, threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from typing import Final

from .files import open_file

__all__ = ["STANDARD_ERROR", "Output"]

STANDARD_ERROR: Final = "-"

_MOST_AT_ONCE = 65536
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PERMISSIONS = 0o640  # addresses of clients are not for every user


class Output:
    """The log's file descriptor, whose number stays the same for as long as the process lives.

    Parameters:
        path: of a file, which is appended to; "-" for standard error.

    Attributes:
        most: bytes of a single write into which no other process's are mixed, if none of them writes more at once.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str = STANDARD_ERROR) -> None:
        # The working directory may change.
        self.path = None if path == STANDARD_ERROR else os.path.abspath(path)
        self._socket: socket.socket | None = None
        self._asks = False  # before each write
        self.most = _MOST_AT_ONCE
        self._fd = self._standard_error() if self.path is None else _opened(self.path)
        self._look()

    def fileno(self) -> int:
        return self._fd

    def _standard_error(self) -> int:
        try:
            mode = os.fstat(2).st_mode
        except OSError:  # the parent process has closed it
            return os.open(os.devnull, _FLAGS)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(2))
            return self._socket.fileno()
        if not stat.S_ISREG(mode):
            with contextlib.suppress(OSError):  # the terminal may be another user's, after su(1) for example
                return os.open("/proc/self/fd/2", _FLAGS)
            self._asks = True
        return os.dup(2)

    def _look(self) -> None:
        mode = os.fstat(self._fd).st_mode
        self.most = _MOST_AT_ONCE if stat.S_ISREG(mode) else select.PIPE_BUF

    def write(self, data: bytes | memoryview) -> int:
        """Write; return how many bytes were written; 0: there is no room for now.

        Raises:
            OSError: it cannot be written: the disk is full, or the reader is gone.
        """
        part = memoryview(data)[: self.most]
        try:
            if self._socket is not None:
                return self._socket.send(part, socket.MSG_DONTWAIT)
            return self._write_carefully(part) if self._asks else os.write(self._fd, part)
        except BlockingIOError:
            return 0

    def _write_carefully(self, part: memoryview) -> int:
        """Write to a shared descriptor, and return how much was written.

        Between the question and the write, another process may take the room: a recent kernel returns an error then,
        and an older one would wait.
        """
        if not self.wait(0):
            return 0
        try:
            return os.pwritev(self._fd, [part], -1, os.RWF_NOWAIT)
        except AttributeError:
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE):
                raise
        return os.write(self._fd, part)

    def wait(self, seconds: float) -> bool:
        """Wait at most so many seconds; return whether a write would do something, or fail at once."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def reopen(self) -> None:
        """Open the file that has the name now; standard error stays as it is.

        Raises:
            OSError: it cannot be opened; what was open before still is.
        """
        if self.path is None:
            return
        fresh = _opened(self.path)
        try:
            os.dup2(fresh, self._fd, inheritable=False)
        finally:
            os.close(fresh)
        self._look()

    def chown(self, user: int, group: int) -> None:
        """Give the file to another user, if it belongs to this process's user.

        Raises:
            OSError: the system does not allow it.

        """
        found = os.fstat(self._fd)
        if self.path is not None and stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            os.fchown(self._fd, user, group)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)


def _opened(path: str) -> int:
    return open_file(path, _FLAGS | os.O_CREAT, _PERMISSIONS)
