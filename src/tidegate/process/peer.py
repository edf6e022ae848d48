"""The process at the other end of a Unix socket, as the system knows it.

    credentials    its process id and user, when it connected or listened

What must not live here: what a peer may do (supervisor/control.py), the control socket itself.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

__all__ = ["Credentials", "credentials"]

_UCRED = struct.Struct("3i")  # unix(7)


class Credentials(NamedTuple):
    """Process id, user and group of a peer; each is -1 where the system does not tell."""

    pid: int
    uid: int
    gid: int


def credentials(sock: socket.socket) -> Credentials:
    """Return the credentials of the peer of a connected Unix socket (SO_PEERCRED)."""
    try:
        return Credentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
    except (AttributeError, OSError):  # another system than Linux, or no peer any more
        return Credentials(-1, -1, -1)
