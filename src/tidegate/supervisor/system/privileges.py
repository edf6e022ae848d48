"""From root to somebody else, for good.

    Identity    whom to become: a user, its group and its other groups
    identify    from the names or numbers of the settings `user` and `group`
    drop        become it, and make sure that there is no way back
    give        before: let it have a file

What must not live here: what root is needed for before (sockets/listeners.py, system/pidfile.py), who owns which file
(system/daemon.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import logging
import os
import pwd
import sys
from dataclasses import dataclass

from ...config.errors import ConfigError

__all__ = ["Identity", "drop", "give", "identify"]

logger = logging.getLogger("tidegate.supervisor")

PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to become.

    Attributes:
        uid, gid: the user and the group.
        groups: the other groups, those that the group database gives the user.
        name, home: the user's, None where the user database does not know it.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str | None = None
    home: str | None = None

    def __str__(self) -> str:
        return f"{self.name or self.uid} (uid {self.uid}, gid {self.gid})"


def identify(user: str | None, group: str | None) -> Identity | None:
    """Whom the settings ask for; None if that is who we are.

    Parameters:
        user: a name or a number; None: the user stays.
        group: a name or a number; None: the user's own.

    Raises:
        ConfigError: there is no such user or group, or only root could become it.
    """
    if user is None and group is None:
        return None
    known = _user(user) if user is not None else None
    uid = os.geteuid() if user is None else known.pw_uid if known is not None else int(user)
    if group is not None:
        gid = _group(group)
    elif known is not None:
        gid = known.pw_gid
    else:
        raise ConfigError("--user", str(user), "--group as well", "a number of no known user has no group")
    if (uid, gid) == (os.getuid(), os.getgid()) == (os.geteuid(), os.getegid()) and uid != 0:
        return None  # as under systemd's User=, where the option is not needed but right
    if os.geteuid() != 0:
        option, value = ("--user", user) if user is not None else ("--group", group)
        reason, remedy = "only root may become somebody else", f"start the daemon as root, or leave out {option}"
        raise ConfigError(option, str(value), reason=reason, remedy=remedy)
    if known is not None:
        groups = tuple(os.getgrouplist(known.pw_name, gid))
        return Identity(uid, gid, groups, known.pw_name, known.pw_dir)
    return Identity(uid, gid, (gid,))


def _user(user: str) -> pwd.struct_passwd | None:
    """What the user database has; None for a number that it does not know, as in containers."""
    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if _is_number(user) and int(user) < 2**32 - 1:
            return None
        raise ConfigError("--user", user, "the name or number of a user", "there is no such user") from None


def _group(group: str) -> int:
    if _is_number(group) and int(group) < 2**32 - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError("--group", group, "the name or number of a group", "there is no such group") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def drop(identity: Identity) -> None:
    """Become it for good, with every process that is forked afterwards.

    Raises:
        OSError: it cannot be done.
        RuntimeError: it was done, and yet there is a way back.
    """
    os.setgroups(identity.groups)
    # Real, effective and saved: the last one is what a process could return to.
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
        # Let processes of the same user look at us, as they may at any other of their own. The system forbids it to
        # those that were root. Then the admin process could not count a worker's descriptors, and no debugger or
        # profiler of the daemon's own user could attach. What a worker knows, such as a private key, it knows anyway.
        _control(PR_SET_DUMPABLE)
    # Libraries look for their files in the home of whom they take us for, and must not find root's closed.
    if identity.name is not None and identity.home is not None:
        os.environ.update(USER=identity.name, LOGNAME=identity.name, HOME=identity.home)


def _verify(identity: Identity) -> None:
    """Make sure that nothing of root is left, by trying to get it back."""
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
    """Switch something on for this process and those that are forked from it, where the system has it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, 1, 0, 0, 0)


def give(path: str, made: tuple[int, int] | None, uid: int, gid: int) -> None:
    """Let another user have a file that this process has made, and nothing else that may have got its name.

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
            raise OSError(errno.ESTALE, "somebody has put another file there", path)
        os.chown(f"/proc/self/fd/{number}", uid, gid)
    finally:
        os.close(number)
