"""Opening a file by a path of the settings, without following a link that another user may have made.

Root opens files in folders of the user that it is about to switch to, such as /var/log/tidegate. That user could have a
name there lead to any file of the system, which would then be written to, and given away. So a link is followed only
where only root or this user can have made it, as its folder tells; and so are descriptors, by which /dev/stdout leads
to what the process has anyway.

What must not live here: what is written (stream.py).
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["open_file"]

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS = 40
"""As many as the system follows (path_resolution(7))."""


def open_file(path: str, flags: int, mode: int) -> int:
    """Open a file; return its descriptor, as `os.open()` does.

    Args:
        path: absolute.
        flags, mode: as for `os.open()`.

    Raises:
        OSError: the system does not allow it; ELOOP: a link on the way, or a second name of the file, may be another
            user's.
    """
    try:
        return _walk(path.split("/")[::-1], flags, mode)
    except OSError as error:
        error.filename = path  # all of it, and not the name that was looked up last
        raise


def _walk(names: list[str], flags: int, mode: int) -> int:
    """Go from folder to folder, by their descriptors, so that none can be moved meanwhile; `names` are reversed."""
    links = 0
    folder = os.open("/", _FOLDER)
    try:
        while True:
            name = names.pop() or "."
            target = _link(name, folder)
            if target is None and not names:
                return _checked(os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=folder), folder)
            if target is None:
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            elif _is_descriptor(target):
                return os.open(name, flags, mode, dir_fd=folder)
            else:
                links += 1
                if links > _LINKS or not _only_ours(folder, os.stat(name, dir_fd=folder, follow_symlinks=False)):
                    raise OSError(errno.ELOOP, "a symbolic link that others could have made is not followed")
                names += target.split("/")[::-1]
                below = os.open("/" if target.startswith("/") else ".", _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
    finally:
        os.close(folder)


def _link(name: str, folder: int) -> str | None:
    """Return the target of a link; None: it is not a link, or there is nothing."""
    try:
        return os.readlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _is_descriptor(target: str) -> bool:
    """Return whether a link leads to an open file without a name, as in /proc/self/fd: a pipe, a socket."""
    return target.startswith(("pipe:[", "socket:[", "anon_inode:"))


def _only_ours(folder: int, found: os.stat_result) -> bool:
    """Return whether only root and this user can have put that into a folder.

    A user other than root also trusts the owners of folders, who can do no more with this user's process than without.
    """
    ours, place = (0, os.geteuid()), os.fstat(folder)
    if os.geteuid() != 0:
        return not place.st_mode & stat.S_IWOTH or found.st_uid in (*ours, place.st_uid)
    if found.st_uid != 0 or place.st_uid != 0:
        return False
    return not place.st_mode & 0o022 or bool(place.st_mode & stat.S_ISVTX)


def _checked(descriptor: int, folder: int) -> int:
    """Refuse a file with a second name that other users could have made: it could be any file of the system."""

    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and not _only_ours(folder, found):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "a file with other names, which others could have given it, is not opened")
    return descriptor
