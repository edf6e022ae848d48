"""The daemon's log: one line per event, from each of its processes, into one file or to standard error.

    begin          in the supervisor: open the log; `try_file` checks beforehand that this can be done
    set_role       in a child: another name, and a thread that writes, so that the event loop never waits for the log
    reopen         after the file has been moved
    chown          before the process switches to another user
    show_stacks    in a child: on a signal, and when it crashes in native code
    catch_up       in the supervisor, now and then: write what could not be written at once

The modules:

    loggers       the daemon's loggers, which an application's configuration leaves alone
    formatters    what a line looks like
    writers       from loggers to the output, without waiting
    stream        where lines go: a file, standard error
    files         opening a file of the settings, following no link of another user's
    stacks        the stacks of a process that hangs

The application logs as every Python program does: what it sends to the root logger is written here, unless it
configures something else. Whatever it configures, the daemon's own lines are written here (loggers.py).

What must not live here: what is logged, and the metrics.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from typing import Final

from .formatters import ACCESS, FORMATS
from .loggers import TOP, adopt
from .stacks import STACKS, show_stacks_on
from .stream import STANDARD_ERROR, Output
from .writers import Handler, Patient

__all__ = [
    "STACKS",
    "STANDARD_ERROR",
    "begin",
    "catch_up",
    "chown",
    "fileno",
    "flush",
    "lost",
    "reopen",
    "set_role",
    "show_stacks",
    "try_file",
]

OFF: Final = logging.CRITICAL + 1
"""The level of a logger that says nothing."""

_handler: Handler | None = None


def begin(role: str, level: str, *, format: str = "text", file: str = STANDARD_ERROR, access: bool = False) -> None:
    """Open the log, and send the lines of every logger there. Called again, change only what is different.

    Parameters:
        role: this process, in every line.
        level: the least level that is logged: debug, info, warning or error.
        format: text or json.
        file: a path, or "-" for standard error.
        access: whether each handshake and each close is logged.

    Raises:
        OSError: the file cannot be opened.
    """
    global _handler
    catch_up()
    path = None if file == STANDARD_ERROR else os.path.abspath(file)
    if _handler is None or _handler.output.path != path:
        before, _handler = _handler, Handler(Output(file), FORMATS[format]())
        if before is not None:
            before.flush()  # and not closed: a thread may still write to it
    if _handler not in logging.getLogger().handlers:
        logging.basicConfig(handlers=[_handler], force=True)
    adopt(_handler)
    set_role(role, level, format=format, access=access, thread=False)


def try_file(file: str) -> None:
    """Open a file as `begin()` does, and close it.

    Raises:
        OSError: it cannot be opened.
    """
    Output(file).close()


def set_role(
    role: str,
    level: str | None = None,
    *,
    format: str | None = None,
    access: bool | None = None,
    count: Callable[[int], object] | None = None,
    thread: bool = True,
) -> None:
    """Name this process in every line from now on, in a child right after the fork.

    Parameters:
        role: this process.
        level, format, access: as for `begin()`, where they are others now.
        count: called with the number of lines that were lost, whenever some are.
        thread: whether a thread writes.
    """
    if level is not None:
        for top in ("", TOP):  # an application may set the level of the root logger
            logging.getLogger(top).setLevel(level.upper())
    if access is not None:
        logging.getLogger(ACCESS).setLevel(logging.INFO if access else OFF)
    if _handler is None:
        return
    if format is not None and not isinstance(_handler.lines, FORMATS[format]):
        _handler.lines = FORMATS[format]()
    _handler.lines.role = role
    if thread:
        _handler.thread(count)


def reopen() -> None:
    """Reopen the log's file, which has been moved. If that fails, the former one stays open."""
    if _handler is None:
        return
    try:
        _handler.output.reopen()
    except OSError as error:
        logging.getLogger("tidegate.log").error(
            "the log file could not be reopened, and the log stays in the former file: %s", error
        )


def chown(user: int, group: int) -> None:
    """Give the log's file, where it is one, to the user that the process switches to, who has to reopen it.

    Raises:
        OSError: this process may not.
    """
    if _handler is not None:
        _handler.output.chown(user, group)


def catch_up() -> None:
    """Write what could not be written at once, as much as goes without waiting."""
    if _handler is not None and isinstance(_handler.delivery, Patient):
        _handler.delivery.push()


def lost() -> int:
    """Return how many lines this process has lost."""
    return 0 if _handler is None else _handler.delivery.lost


def fileno() -> int:
    """Return the log's descriptor, for what cannot use a logger, such as faulthandler. It never changes."""
    return 2 if _handler is None else _handler.output.fileno()


def show_stacks() -> None:
    """Write the stacks of all threads to the log on the signal `STACKS` and on SIGABRT, whatever this process does."""
    show_stacks_on(fileno())


def flush() -> None:
    """Give unwritten lines a moment to be written, before a process ends without the usual cleanup."""
    if _handler is not None:
        _handler.flush()


def _forked() -> None:
    if _handler is not None:
        _handler.forked()


os.register_at_fork(after_in_child=_forked)
# The standard library would do so too, unless an application has removed our handler.

atexit.register(flush)
