"""Sockets that systemd has opened, and passed on as file descriptors from 3 up.

    Passed      one of them: its descriptor, and the name that its unit gave it
    passed      those of this process, by LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES
    forget      take the variables out of the environment: what is started later has no part in it

What must not live here: binding, what is served on them (sockets/listeners.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

__all__ = ["Passed", "forget", "passed"]

FIRST = 3  # the descriptor after standard input, output and error
MOST = 4096  # descriptors that anybody passes on; more is no count but a mistake
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Passed(NamedTuple):
    """A passed descriptor.

    Attributes:
        number: the file descriptor.
        name: FileDescriptorName= of its unit; by default that is the unit's own name, such as ``tidegate.socket``.
    """

    number: int
    name: str


def passed(environment: Mapping[str, str] = os.environ) -> list[Passed]:
    """The descriptors that were passed to this very process, in the order of the unit's ListenStream= lines.

    Raises:
        OSError: none were, or not to us; why, in words.
    """
    if "LISTEN_FDS" not in environment:
        raise OSError("systemd has passed no socket: LISTEN_FDS is not set, as a .socket unit sets it")
    pid, text = environment.get("LISTEN_PID", ""), environment["LISTEN_FDS"]
    if pid != str(os.getpid()):
        # A shell or another wrapper was started with them, and has started us: the descriptors may be closed by now.
        raise OSError(f"the passed sockets are for process {pid or '(LISTEN_PID is not set)'}, this is {os.getpid()}")
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST):
        raise OSError(f"LISTEN_FDS is {text!r}, which is not a number of sockets")
    names = environment.get("LISTEN_FDNAMES", "").split(":") if environment.get("LISTEN_FDNAMES") else []
    if names and len(names) != int(text):
        raise OSError(f"LISTEN_FDNAMES has {len(names)} names for {text} sockets")
    names = names or ["unknown"] * int(text)  # as systemd's own library calls them
    return [Passed(FIRST + index, name) for index, name in enumerate(names)]


def forget(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take the variables out of the environment; what they were. Of the descriptors no program inherits any."""
    try:
        for number, _ in passed(environment):
            try:
                os.set_inheritable(number, False)
            except OSError:  # it is not there; whoever takes it says so
                continue
    except OSError:
        pass
    return {name: environment.pop(name) for name in VARIABLES if name in environment}
