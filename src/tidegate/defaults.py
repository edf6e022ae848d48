"""Defaults of serve(), of connect() where they are the same, and of the daemon's settings of these names.

What must not live here: defaults of one of them alone, limits that are no argument (http11.py, client.py).
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "BROADCAST_LIMIT",
    "CLOSE_TIMEOUT",
    "COMPRESSION",
    "MAX_QUEUE",
    "MAX_SIZE",
    "OPEN_TIMEOUT",
    "PING_INTERVAL",
    "PING_TIMEOUT",
    "WRITE_LIMIT",
]

COMPRESSION: Final = "deflate"

# Seconds.
OPEN_TIMEOUT: Final = 10.0
PING_INTERVAL: Final = 20.0
PING_TIMEOUT: Final = 20.0
CLOSE_TIMEOUT: Final = 10.0

# Bytes, but for the queue of frames.
MAX_SIZE: Final = 2**20
MAX_QUEUE: Final = 16
WRITE_LIMIT: Final = 2**15
BROADCAST_LIMIT: Final = 2**24
