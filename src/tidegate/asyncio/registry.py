"""The connections of one server: which there are, how far they are, and whether handshakes are rejected.

Connections and transports that are being set up enter and leave it; the server reads it. What must not live here: what
limits allow (admission.py), what a connection does (server_connection.py), listening (server.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from .admission import Admission, ClientRecord

__all__ = ["ConnectionRegistry"]

_Connection = TypeVar("_Connection")


class ConnectionRegistry(Generic[_Connection]):
    """Sets of connections, which enter and leave them by themselves.

    Args:
        on_lost: called whenever a connection is gone.
        admission: limits connections; None lets all in.

    Attributes:
        all: the connections whose transport is not closed.
        handshaking: those of them whose opening handshake is in progress.
        open: those of them that are open.
        http: those of them that speak HTTP to an ASGI application.
        rejecting: opening handshakes are answered with 503.
        admission: as given.
    """

    __slots__ = ("_on_lost", "admission", "all", "handshaking", "http", "open", "rejecting")

    def __init__(self, on_lost: Callable[[], None], admission: Admission | None = None) -> None:
        self._on_lost = on_lost
        self.admission = admission
        self.all: set[_Connection] = set()
        self.handshaking: set[_Connection] = set()
        self.open: set[_Connection] = set()
        self.http: set[Any] = set()
        self.rejecting = False

    def lost(self, connection: _Connection, record: ClientRecord | None, orphans_hook: bool = False) -> None:
        """Forget a connection that is closed; a hook of it that goes on is counted in its place."""
        self.all.discard(connection)
        if self.admission is not None:
            self.admission.orphaned_hooks += orphans_hook
            if record is not None and not orphans_hook:
                self.admission.release(record)
        self._on_lost()

    def hook_ended(self, record: ClientRecord | None) -> None:
        """Count an orphaned hook no more."""
        if self.admission is not None:
            self.admission.orphaned_hooks -= 1
            if record is not None:
                self.admission.release(record)
