"""The working directory of a process, by its name, which may lead elsewhere after a deploy.

    here                the name of the current directory, as the shell has it
    WorkingDirectory    of the daemon, once it is `entered`: `follow` enters what its name leads to now, and `back`
                        or `stay` ends that; `at_start` is where the program was started

A deploy makes another folder and lets a symbolic link lead there, or replaces the former one. A process that entered
that one is still in it, even if it has been removed.

What must not live here: which directory that is (config/schema.py), what is done there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["WorkingDirectory", "here"]

_OPEN = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


def here() -> str:
    """Return the current directory: as the shell calls it, which knows the links that led there, else as it is."""
    name = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(name) and os.path.samefile(name, os.curdir):
            return name
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return name if os.path.isabs(name) else os.sep


class WorkingDirectory:
    """A working directory.

    Parameters:
        working_dir: the one that was asked for, relative to where the program was started; None: that one.

    Attributes:
        start: where the program was started.
        name: the working directory.
    """

    def __init__(self, working_dir: str | None = None) -> None:
        self.asked = working_dir is not None
        self.start = here()
        self.name = os.path.join(self.start, working_dir or "")
        self._former: int | None = None
        self._path = ""  # the directory that the name led to when it was followed last

    def entered(self) -> None:
        """Note that it has been entered."""
        self._path = _path()

    def follow(self) -> bool:
        """Enter the directory that the name leads to now; return whether that is another one. `back()` undoes it.

        Raises:
            OSError: there is no such directory any more, and it was asked for.
        """
        former = os.open(os.curdir, _OPEN)
        path = self._path
        try:
            os.chdir(self.name)
        except OSError as error:
            os.close(former)
            # Root could enter it, and the user switched to cannot: it is taken to be the same.
            if self.asked and not isinstance(error, PermissionError):
                raise
            return False
        if _is_current(former):
            os.close(former)
            return False
        self.stay()
        self._former = former
        self.entered()
        _replace(path, self._path)
        return True

    def stay(self) -> None:
        """Stay here: `back()` is no longer possible."""
        if self._former is not None:
            os.close(self._former)
            self._former = None

    def back(self) -> None:
        """Return to where it was before it followed the name."""
        if self._former is None:
            return
        os.fchdir(self._former)
        path = self._path
        self.entered()
        _replace(path, self._path)
        self.stay()

    def enter_if_removed(self) -> None:
        """Enter the directory that the name leads to now, if the current one has been removed."""
        if not _path():
            with contextlib.suppress(OSError):
                self.follow()
            self.stay()

    @contextlib.contextmanager
    def at_start(self) -> Iterator[str]:
        """Be where the program was started, or if that is gone, in the working directory; yield its name.

        Raises:
            OSError: both are gone; it names the one.
        """
        former = os.open(os.curdir, _OPEN)
        try:
            for name in (self.start, self.name):
                try:
                    os.chdir(name)
                except OSError as error:
                    if name == self.name:
                        raise type(error)(error.errno, error.strerror, self.start) from None
                else:
                    break
            yield name
        finally:
            os.fchdir(former)
            os.close(former)


def _path() -> str:
    """Return the current directory as it is; empty if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _is_current(directory: int) -> bool:
    return os.path.samestat(os.fstat(directory), os.stat(os.curdir))


def _replace(before: str, now: str) -> None:
    """Replace a folder by another one in the path of imports."""

    if before and now:
        sys.path[:] = [now if entry == before else entry for entry in sys.path]
