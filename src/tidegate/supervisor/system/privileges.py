"""Switching from root to another user, for good.

    drop     switch, and verify that there is no way back
    chown    before: give the user a file

What must not live here: which user (config/prerequisites.py), what root is needed for before (sockets/listeners.py,
system/pidfile.py), which file belongs to which user (system/daemon.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import sys

from ...config.prerequisites import Identity

__all__ = ["chown", "drop"]

logger = logging.getLogger("tidegate.supervisor")

PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38


def drop(identity: Identity) -> None:
    """Switch to a user for good, with every process that is forked afterwards.

    Raises:
        OSError: it cannot be done.
        RuntimeError: it was done, and the process could return to root.
    """
    os.setgroups(identity.groups)
    # Real, effective and saved: a process could return to the last one.
    if sys.platform == "linux":
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    else:
        os.setgid(identity.gid)
        os.setuid(identity.uid)
    if identity.uid != 0:
        _verify(identity)
        # What this process and its children execute gets no more than they have, whatever the file's bits say.
        _control(PR_SET_NO_NEW_PRIVS)
        # Let processes of the same user inspect this one, as they may any other of their own. The system forbids that
        # for one that was root: the admin process could not count a worker's descriptors, and debuggers and profilers
        # of the daemon's user could not attach. The user could read what a worker has, such as a private key, anyway.
        _control(PR_SET_DUMPABLE)
    # Libraries look for files in the home of the user: without this, in root's, which is closed.
    if identity.name is not None and identity.home is not None:
        os.environ.update(USER=identity.name, LOGNAME=identity.name, HOME=identity.home)


def _verify(identity: Identity) -> None:
    """Verify that nothing of root is left, by trying to get it back."""
    ids = {os.getuid(), os.geteuid()}
    if sys.platform == "linux":
        ids |= set(os.getresuid())
    if ids != {identity.uid} or set(os.getgroups()) != set(identity.groups) or os.getegid() != identity.gid:
        raise RuntimeError(f"this process is not {identity} after it became so: {ids}, groups {os.getgroups()}")
    for attempt in (os.setuid, os.seteuid, os.setgid):
        try:
            attempt(0)
        except PermissionError:
            continue
        if attempt is os.setgid and identity.gid == 0:
            continue
        raise RuntimeError(f"this process could become root again after it became {identity}")


def _control(option: int) -> None:
    """Switch an option on for this process and its children, where the system has it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, 1, 0, 0, 0)


def chown(path: str, made: tuple[int, int] | None, uid: int, gid: int) -> None:
    """Give another user a file that this process has made, and no other file that may have its name by now.


    Parameters:
        made: its device and inode.

    Raises:
        OSError: another file has its name by now, or this process may not give it away.
    """
    if not hasattr(os, "O_PATH"):
        os.chown(path, uid, gid, follow_symlinks=False)
        return
    number = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(number)
        if (found.st_dev, found.st_ino) != made:
            raise OSError(errno.ESTALE, "another file has been put there", path)
        os.chown(f"/proc/self/fd/{number}", uid, gid)
    finally:
        os.close(number)
