"""The connections and handlers of one server: which there are, how far they are, and whether new ones are refused.

Connections and what comes before them enter and leave it; the server asks it. What must not live here: what limits
allow (admission.py), what a connection does (server_connection.py), listening (server.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from .admission import Gate, Visit

__all__ = ["ConnectionRegistry"]

_Connection = TypeVar("_Connection")


class ConnectionRegistry(Generic[_Connection]):
    """Sets of connections, which they join and leave by themselves.

    Args:
        on_end: called whenever a connection is gone, or a handler has ended.
        gate: admits connections; None lets all in.

    Attributes:
        all: the connections whose transport is not closed.
        handshaking: those of them whose opening handshake is in progress.
        open: those of them that are open.
        refusing: opening handshakes are answered with 503.
        gate: as given.
        tasks: handlers, and hooks before them.
    """

    __slots__ = ("_on_end", "all", "gate", "handshaking", "open", "refusing", "tasks")

    def __init__(self, on_end: Callable[[], None], gate: Gate | None = None) -> None:
        self._on_end = on_end
        self.gate = gate
        self.all: set[_Connection] = set()
        self.handshaking: set[_Connection] = set()
        self.open: set[_Connection] = set()
        self.refusing = False
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, loop: asyncio.AbstractEventLoop, handling: Coroutine[Any, Any, None]) -> None:
        """Run what handles a connection as a task of the server."""
        task = loop.create_task(handling)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._on_end()

    def lost(self, connection: _Connection, visit: Visit | None, stays: bool = False) -> None:
        """Forget a connection that is closed; a hook that `stays` takes its place among those that are counted."""
        self.all.discard(connection)
        if self.gate is not None:
            self.gate.staying += stays
            if visit is not None and not stays:
                self.gate.gone(visit)
        self._on_end()

    def hook_ended(self, visit: Visit | None) -> None:
        """Count no more the hook that stayed when its connection was lost."""
        if self.gate is not None:
            self.gate.staying -= 1
            if visit is not None:
                self.gate.gone(visit)
