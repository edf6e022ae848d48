"""Sockets that systemd has opened, and passed on as file descriptors from 3 up.

    Passed      one of them: its descriptor, and the name that its unit gave it
    passed      those of this process, by LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES
    stored      the journal of the daemon before this one, if systemd has kept it
    forget      take the variables out of the environment, so that no child takes the sockets for its own

What must not live here: binding, what is served on them (sockets/listeners.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

__all__ = ["JOURNAL", "Passed", "forget", "passed", "stored"]

FIRST = 3  # the descriptor after standard input, output and error
MOST = 4096  # descriptors; a greater number is a mistake
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


JOURNAL = "tidegate-journal"
"""The name by which systemd keeps the journal, in its store of file descriptors."""


class Passed(NamedTuple):
    """A passed descriptor.

    Attributes:
        number: the file descriptor.
        name: FileDescriptorName= of its unit; by default that is the unit's own name, such as ``tidegate.socket``.
    """

    number: int
    name: str


def passed(environment: Mapping[str, str] = os.environ) -> list[Passed]:
    """Return the sockets that were passed to this process, in the order of the unit's ListenStream= lines.

    Raises:
        OSError: none were passed, or not to this process; with the reason.
    """
    sockets = [found for found in _all(environment) if found.name != JOURNAL]
    if not sockets:
        raise OSError("systemd has passed no socket, only what it has kept for the daemon")
    return sockets


def stored(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the descriptor of the journal that systemd has kept since the daemon before this one; None: it has not."""
    try:
        return next((found.number for found in _all(environment) if found.name == JOURNAL), None)
    except OSError:
        return None


def _all(environment: Mapping[str, str]) -> list[Passed]:
    if "LISTEN_FDS" not in environment:
        raise OSError("systemd has passed no socket: LISTEN_FDS is not set, as a .socket unit sets it")
    pid, text = environment.get("LISTEN_PID", ""), environment["LISTEN_FDS"]
    if pid != str(os.getpid()):
        # A shell or another wrapper was started with them, and has started this: they may be closed by now.
        raise OSError(f"the passed sockets are for process {pid or '(LISTEN_PID is not set)'}, this is {os.getpid()}")
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST):
        raise OSError(f"LISTEN_FDS is {text!r}, which is not a number of sockets")
    names = environment.get("LISTEN_FDNAMES", "").split(":") if environment.get("LISTEN_FDNAMES") else []
    if names and len(names) != int(text):
        raise OSError(f"LISTEN_FDNAMES has {len(names)} names for {text} sockets")
    names = names or ["unknown"] * int(text)  # as systemd's own library calls them
    return [Passed(FIRST + index, name) for index, name in enumerate(names)]


def forget(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take the variables out of the environment and return them. No program inherits the descriptors."""
    try:
        for number, _ in _all(environment):
            try:
                os.set_inheritable(number, False)
            except OSError:  # it is not open; binding it will say so
                continue
    except OSError:
        pass
    return {name: environment.pop(name) for name in VARIABLES if name in environment}
