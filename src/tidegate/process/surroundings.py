"""Process-wide state that an application changes when the supervisor imports it.

    Surroundings    the state; `put_back` what has changed since then, and `apply` the change in a worker
    imported        the state before the import, if there was one

With --preload an application is imported once, in the supervisor, which must not end up in another directory, with
sockets that time out or with a signal handler of the application's. Its changes are meant for the workers.

What must not live here: importing it (worker/loader.py), the supervisor's signals (supervisor/signals.py).
"""

from __future__ import annotations

import contextlib
import locale
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Surroundings"]

_HERE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# Signals whose handlers in a worker are the worker's own.
_WORKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _handle(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # not of Python's
            with contextlib.suppress(OSError, ValueError):  # SIGKILL and SIGSTOP have none
                signal.signal(number, handler)


def _environ(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# How each is read, and how it is written. Of mappings, only what is different is written.
_PARTS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]] = {
    "umask": (_umask, os.umask),
    "timeout": (socket.getdefaulttimeout, socket.setdefaulttimeout),
    "recursion": (sys.getrecursionlimit, sys.setrecursionlimit),
    "locale": (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    "environment": (lambda: dict(os.environ), _environ),
    "handlers": (_handlers, _handle),
}


def _different(old: Any, new: Any) -> Any:
    """Return what of the new value differs from the old one; None for what is no longer there."""
    if not isinstance(old, dict):
        return new
    return {key: new.get(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


imported: Surroundings | None = None
"""The state of the process that has imported the application, if it was imported before the forks."""


class Surroundings:
    """The state of this process, as it is when this object is made."""

    def __init__(self) -> None:
        self._before = {name: read() for name, (read, _) in _PARTS.items()}
        self._directory = os.open(".", _HERE)
        self._moved: int | None = None  # the directory that the import has changed to
        self._changed: dict[str, Any] = {}

    def put_back(self) -> None:
        """Restore the state, and remember what was different."""
        for name, (read, write) in _PARTS.items():
            before, now = self._before[name], read()
            if before != now:
                self._changed[name] = _different(before, now)
                write(_different(now, before))
        here = os.open(".", _HERE)
        if os.path.samestat(os.fstat(here), os.fstat(self._directory)):
            os.close(here)
        else:
            os.fchdir(self._directory)
            self._moved = here
        os.close(self._directory)

    def apply(self) -> None:
        """Apply again what was different."""

        for name, value in self._changed.items():
            if name == "handlers":
                value = {number: handler for number, handler in value.items() if number not in _WORKERS}
            _PARTS[name][1](value)
        if self._moved is not None:
            os.fchdir(self._moved)
            os.close(self._moved)
            self._moved = None
