"""For developers: a reload whenever a file of the application has changed, as ``--reload-on-change`` asks for.

The supervisor has no threads and watches no folders: a process of its own does (file_watcher.py), without a slot. It
reports what has changed, and the supervisor requests a reload like any other: if the application cannot be loaded, the
old workers stay.

    AutoReload     the file watcher as its parent sees it: `open`, `close`, and `close_in_child`
    Task           what it is to watch
    FileChanges    what it reports

What must not live here: which files those are (file_watcher.py), what a reload is (operations.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from ..config.schema import Config
from .event_loop import EventLoop

__all__ = ["AutoReload", "FileChanges", "Task"]

logger = logging.getLogger("tidegate.supervisor")

SHOWN = 3  # names of changed files in one line of the log
LONGEST = 1 << 20  # bytes of one report


class Task(msgspec.Struct, frozen=True):
    """What the file watcher is to watch.

    Attributes:
        application: the target, whose package is watched besides the current directory.
        files: other files.
    """

    application: str
    files: list[str]


class FileChanges(msgspec.Struct, frozen=True):
    """A report of the file watcher, in a line of JSON: at first what it watches, then what has changed."""

    watches: list[str] = []
    changed: list[str] = []


class AutoReload:
    """The file watcher, if the settings ask for one.

    Parameters:
        loop: where its reports are waited for.
        on_change: called when files have changed.
        file: the configuration file, if there is one.
    """

    def __init__(self, loop: EventLoop, on_change: Callable[[], None], file: str | None = None) -> None:
        self.file = file
        self._loop, self._on_change = loop, on_change
        self._pid: int | None = None
        self._pipe: socket.socket | None = None
        self._received = b""

    def open(self, config: Config) -> None:
        """Start the file watcher, if the settings ask for it."""
        if not config.reload_on_change:
            return
        task = Task(config.application, [self.file] if self.file is not None else [])
        self._pipe, theirs = socket.socketpair()
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", f"{__package__}.file_watcher", msgspec.json.encode(task).decode()],
                {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                setsigmask=(),
                setpgroup=0,
            )
        except OSError as error:
            self._pipe.close()
            self._pipe = None
            logger.error("file changes are not noticed: the file watcher could not be started (%s)", error)
            return
        finally:
            theirs.close()
        self._pipe.setblocking(False)
        self._loop.add_reader(self._pipe.fileno(), self._on_readable)

    def close(self) -> None:
        """End the file watcher."""
        if self._pipe is None:
            return
        self._loop.remove_reader(self._pipe.fileno())
        self.close_in_child()
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # as process 1 we may have reaped it
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = None

    def close_in_child(self) -> None:
        """Close the pipe, in a child."""

        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _on_readable(self) -> None:
        assert self._pipe is not None
        try:
            said = self._pipe.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        *lines, self._received = (self._received + said).split(b"\n")
        if not said or len(self._received) > LONGEST:
            self.close()
            logger.error("file changes are no longer noticed: the file watcher has ended; SIGHUP still reloads")
            return
        for line in lines:
            self._on_changes(msgspec.json.decode(line, type=FileChanges))

    def _on_changes(self, said: FileChanges) -> None:
        if said.watches:
            logger.info("a reload follows each change of the Python files in %s", " and ".join(said.watches))
        if not said.changed:
            return
        more = len(said.changed) - SHOWN
        names = ", ".join(said.changed[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        logger.info("changed: %s", names)
        self._on_change()
