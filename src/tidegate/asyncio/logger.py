"""The extra of `websocket.logger` in each record: the connection, by a weak reference.

What must not live here: what is logged, and how lines look.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any

__all__ = ["ConnectionExtra"]


class ConnectionExtra(MutableMapping[str, Any]):
    """The extra of a connection's logger: the connection as `websocket`, and what the application adds.

    It refers to the connection weakly: the connection has the logger, and would wait for the garbage collector.

    Args:
        connection: whose logger it is; None in its place once it is freed.
    """

    __slots__ = ("_added", "_connection")

    def __init__(self, connection: Any) -> None:
        self._connection = weakref.ref(connection)
        self._added: dict[str, Any] = {}

    def _values(self) -> dict[str, Any]:
        return {"websocket": self._connection(), **self._added}

    def __getitem__(self, key: str) -> Any:
        return self._values()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._added[key] = value

    def __delitem__(self, key: str) -> None:
        del self._added[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return repr(self._values())
