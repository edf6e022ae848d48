"""State of a TCP connection that only the kernel knows.

What must not live here: conclusions from it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys

__all__ = ["unacknowledged"]

_UNACKED = struct.Struct("=24xI")  # tcpi_unacked of struct tcp_info in linux/tcp.h


def unacknowledged(transport: asyncio.BaseTransport) -> bool:
    """Return whether segments that were sent wait for their acknowledgment, which a host that is up sends at once.

    Those that wait for room at the other side are not sent. False on Unix sockets, and where the system does not tell.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6) or sys.platform != "linux":
        return False
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as same:  # uvloop's sockets have no getsockopt()
            (count,) = _UNACKED.unpack(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size))
    except OSError:  # it is closed, or there is no descriptor left
        return False
    return bool(count)
