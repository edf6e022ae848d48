"""The lock on an address, which keeps a second daemon from joining an SO_REUSEPORT group by accident.

    AddressLock    one lock: `on` an address, `restore` (in an upgrade), `fileno`, `release`

What must not live here: sockets that clients connect to (sockets/listeners.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
import sys
import tempfile

from .addresses import TWICE

__all__ = ["AddressLock"]

logger = logging.getLogger("tidegate.supervisor")


class AddressLock:
    """An advisory lock on an address, held as long as this process lives; OSError when another daemon has it.

    SO_REUSEPORT lets any process of the same user join an address, so the address itself is no lock. On Linux
    the lock is an abstract Unix socket: like a port it belongs to the network namespace, and vanishes with its owner.
    Any user may take such a name. If another one than root and the daemon's user has it, there is no lock, and the
    address itself must keep a second daemon away. On other systems it is a locked file.
    """

    def __init__(self, lock: socket.socket | int) -> None:
        self._lock = lock

    @classmethod
    def on(cls, name: str, user: int | None = None) -> AddressLock | None:
        """Make a lock for a process that will be `user`; return None if another user keeps it from being made."""
        if sys.platform != "linux":
            return cls(cls._file(name))
        lock = cls._abstract(name, {0, os.geteuid(), *([] if user is None else [user])})
        return None if lock is None else cls(lock)

    @classmethod
    def restore(cls, number: int) -> AddressLock:
        """Take over a lock of the program before this one in this process."""
        os.set_inheritable(number, False)
        return cls(socket.socket(fileno=number) if sys.platform == "linux" else number)

    def fileno(self) -> int:
        return self._lock if isinstance(self._lock, int) else self._lock.fileno()

    @staticmethod
    def _abstract(name: str, ours: set[int]) -> socket.socket | None:
        path = f"\0tidegate/{name}"
        if len(path.encode()) > 107:
            path = f"\0tidegate/{hashlib.sha256(name.encode()).hexdigest()}"
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(path)
            lock.listen(1)
        except OSError as error:
            lock.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return lock
        pid, uid = _holder(path)
        if uid in ours:
            raise OSError(errno.EADDRINUSE, TWICE if pid == os.getpid() else f"another tidegate (pid {pid}) has it")
        text = "%s of another user has the name @%s: the address is not locked against a second daemon"
        logger.warning(text, _process(pid), path[1:])
        return None

    @staticmethod
    def _file(name: str) -> int:
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = os.path.join(tempfile.gettempdir(), f"tidegate-{os.geteuid()}-{key}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise OSError(errno.EADDRINUSE, "another tidegate has it") from None
        return fd

    def release(self) -> None:
        if isinstance(self._lock, int):
            if self._lock >= 0:
                os.close(self._lock)
            self._lock = -1
        else:
            self._lock.close()


def _holder(path: str) -> tuple[int, int]:
    """Return process and user that have an abstract Unix socket; (0, -1) if this user may not look at them.

    Connecting would not tell: its queue may be full, and other processes can fill it.
    """
    name = "@" + path[1:]
    with contextlib.suppress(OSError):
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
            fields = [line.split(None, 7) for line in file]
        links = {f"socket:[{line[6]}]" for line in fields if len(line) == 8 and line[7].rstrip("\n") == name}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it is gone, or another user's
                for number in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"/proc/{pid}/fd/{number}") in links:
                            return int(pid), os.stat(f"/proc/{pid}").st_uid
    return 0, -1


def _process(pid: int) -> str:
    return f"process {pid}" if pid else "a process"
