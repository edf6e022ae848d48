"""The file that says which process is the daemon.

    write     atomically: readers see a whole number, the former one or the new one; never over a living daemon's
    remove    at the end, by the process that wrote it, if it still is the file that it wrote

A lock on the file tells whether its daemon lives, not the number, which may be another program's by now. The lock is of
the kind that belongs to one process, so that children do not have it, and it ends when the process ends, however that
is. It ends too when that process closes the file by any other descriptor: it must not read it. Any process that may
read the file can have a shared lock too: of those, only the lock of the process that the file names counts.

What must not live here: process ids for anything else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

__all__ = ["Pidfile", "PidfileError"]


class PidfileError(Exception):
    """A pid file that could not be written.

    Attributes:
        path: the file.
        reason: why not.
        living: whether another daemon has it.
    """

    def __init__(self, path: str, reason: str, *, living: bool = False) -> None:
        super().__init__(path, reason)
        self.path, self.reason, self.living = path, reason, living

    def __str__(self) -> str:
        return f"the pid file {self.path} could not be written: {self.reason}"


class Pidfile:
    """A pid file, from `write()` to `remove()`.

    Parameters:
        path: its path.
    """

    def __init__(self, path: str) -> None:
        # The current directory may be another one at the end.
        self.path = os.path.abspath(path)
        self._fd = -1
        self._owner = 0

    def write(self) -> None:
        """Write this process's id.

        Raises:
            PidfileError: another daemon has it, it is not a pid file, or it cannot be written.
        """
        if self._resume():
            return
        draft = f"{self.path}.{os.getpid()}"
        try:
            # Other users who may write to the folder could have put a link there.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PidfileError(self.path, _reason(error)) from None
        try:
            os.write(fd, b"%d\n" % os.getpid())
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before other users may open it
            os.fchmod(fd, 0o644 & ~_umask())
            self._publish(draft)
            if not _is(self.path, fd):
                raise PidfileError(self.path, "another file has been put there", living=True)
        except OSError as error:
            os.close(fd)
            raise PidfileError(self.path, _reason(error)) from None
        except PidfileError:
            os.close(fd)
            raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft)
        self._fd, self._owner = fd, os.getpid()

    def _resume(self) -> bool:
        """Take over the file if it names this process, after an upgrade; return whether it does.

        The daemon may have switched to a user that cannot write the file; a shared lock needs reading alone, and other
        processes may have one too.
        """
        for access, kinds in ((os.O_RDWR, (fcntl.LOCK_EX, fcntl.LOCK_SH)), (os.O_RDONLY, (fcntl.LOCK_SH,))):
            try:
                fd = os.open(self.path, access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            with contextlib.suppress(OSError):
                # In another namespace of processes that number is another daemon's, which holds the lock.
                if os.read(fd, 64).strip() == b"%d" % os.getpid() and _lock(fd, *kinds) is not None:
                    self._fd, self._owner = fd, os.getpid()
                    return True
            os.close(fd)
            return False
        return False

    def _publish(self, draft: str) -> None:
        """Give the file its name, in one step."""
        try:
            os.link(draft, self.path, follow_symlinks=False)  # fails where there is one, unlike a rename
        except FileExistsError:
            self._replace(draft)

    def _replace(self, draft: str) -> None:
        """Replace a file whose daemon has ended."""
        try:
            stale = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PidfileError(self.path, "it is a symbolic link") from None
            raise
        try:
            content = os.read(stale, 64).strip()
            if content and not content.isdigit():  # an empty one is left by a daemon that may not remove it
                raise PidfileError(self.path, "a file of that name exists and is not a pid file")
            # Held until the new file is in place: of two daemons that start at once, only one gets here.
            kind = _lock(stale, fcntl.LOCK_EX, fcntl.LOCK_SH)
            if kind is None or (kind == fcntl.LOCK_SH and _locked_by(stale, int(content or 0))):
                raise PidfileError(
                    self.path, f"the daemon that it names, process {content.decode()}, is running", living=True
                )
            if not _is(self.path, stale):
                raise PidfileError(self.path, "another daemon has just written it", living=True)
            os.rename(draft, self.path)
        finally:
            os.close(stale)

    def remove(self) -> None:
        """Remove it; in a child of the process that wrote it, leave it alone."""
        if self._fd < 0:
            return
        if self._owner == os.getpid():
            with contextlib.suppress(OSError):
                if _is(self.path, self._fd):
                    # Emptied first: the user switched to may not be allowed to remove it from its folder.
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._fd, 0)
                    os.unlink(self.path)
        os.close(self._fd)
        self._fd = -1


def _lock(fd: int, *kinds: int) -> int | None:
    """Lock a file with the first of these kinds that succeeds; return that kind, None if none does."""
    for kind in kinds:
        with contextlib.suppress(BlockingIOError):
            fcntl.lockf(fd, kind | fcntl.LOCK_NB)
            return kind
    return None


def _locked_by(fd: int, pid: int) -> bool:
    """Return whether that process has a lock on a file; True where the system does not tell."""
    inode = b":%d" % os.fstat(fd).st_ino  # after the device, whose number some file systems have two of
    try:
        with open("/proc/locks", "rb") as file:
            locks = [line.split() for line in file]
    except OSError:
        return True
    return any(b"POSIX" in lock and lock[-4] == b"%d" % pid and lock[-3].endswith(inode) for lock in locks)


def _is(path: str, fd: int) -> bool:
    """Return whether that is the file with this name."""
    return os.path.samestat(os.lstat(path), os.fstat(fd))


def _umask() -> int:
    """Return the umask, which can only be read by setting it."""

    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
