"""The two enumerations that all parts of a connection use (RFC 6455 sections 4 and 7).

The native channel knows their numbers; `_core/writer.pxd` repeats them and a test holds them together. What must not
live here: I/O, or the rules of one chapter (`server`, `client`, `closing`, `keepalive`).
"""

from __future__ import annotations

import enum

__all__ = ["Side", "State"]


class Side(enum.IntEnum):
    """The side of a connection: a server does not mask what it sends, a client does (RFC 6455 5.3)."""

    SERVER, CLIENT = range(2)


class State(enum.IntEnum):
    """State of a connection (RFC 6455 4.1, 4.2, 7.1.3, 7.1.4)."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


CONNECTING = State.CONNECTING
OPEN = State.OPEN
CLOSING = State.CLOSING
CLOSED = State.CLOSED
STATES = tuple(State)
