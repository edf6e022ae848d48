"""The connections of one server: which there are, how far they are, and whether new ones are refused.

Connections and what comes before them enter and leave it; the server asks it. What must not live here: what limits
allow (admission.py), what a connection does (server_connection.py), listening (server.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from .admission import Gate, Visit

__all__ = ["ConnectionRegistry"]

_Connection = TypeVar("_Connection")


class ConnectionRegistry(Generic[_Connection]):
    """Sets of connections, which they join and leave by themselves.

    Args:
        on_lost: called whenever a connection is gone.
        gate: admits connections; None lets all in.

    Attributes:
        all: the connections whose transport is not closed.
        handshaking: those of them whose opening handshake is in progress.
        open: those of them that are open.
        refusing: opening handshakes are answered with 503.
        gate: as given.
    """

    __slots__ = ("_on_lost", "all", "gate", "handshaking", "open", "refusing")

    def __init__(self, on_lost: Callable[[], None], gate: Gate | None = None) -> None:
        self._on_lost = on_lost
        self.gate = gate
        self.all: set[_Connection] = set()
        self.handshaking: set[_Connection] = set()
        self.open: set[_Connection] = set()
        self.refusing = False

    def lost(self, connection: _Connection, visit: Visit | None, stays: bool = False) -> None:
        """Forget a connection that is closed; a hook that `stays` takes its place among those that are counted."""
        self.all.discard(connection)
        if self.gate is not None:
            self.gate.staying += stays
            if visit is not None and not stays:
                self.gate.gone(visit)
        self._on_lost()

    def hook_ended(self, visit: Visit | None) -> None:
        """Count no more the hook that stayed when its connection was lost."""
        if self.gate is not None:
            self.gate.staying -= 1
            if visit is not None:
                self.gate.gone(visit)
