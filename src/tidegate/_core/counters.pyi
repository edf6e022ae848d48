from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, final

HandshakeResult: TypeAlias = str
"""One of `HANDSHAKE_RESULTS`."""
HANDSHAKE_RESULTS: Final[tuple[str, ...]]
"""How a handshake ended: "ok", the reason of an error response, or "timeout", "disconnected" when there was none.
"rejected": a hook answered (also with a page). "error": a hook raised. "unavailable": the server was closing.
"limited": one of `LIMITS` was reached. "bad_proxy_header": what a proxy should have said first, it did not.
"tls_failed": the TLS handshake before it did."""
RESULT_OF_STATUS: Final[dict[int, str]]
"""The result by the status of our own answer; a status that a hook chose is "rejected"."""
CLOSE_CODES: Final[tuple[str, ...]]
""""1000" to "1015", then "3xxx", "4xxx" and "other"."""
INITIATORS: Final[tuple[str, ...]]
"""Who ended a connection: "local" or "remote" sent the first close frame; "abort": the connection was lost or cut."""
DIRECTIONS: Final[tuple[str, ...]]
OPCODES: Final[tuple[str, ...]]
LIMITS: Final[tuple[str, ...]]
"""Limits of connections: of the whole "daemon", of the worker's "descriptors", of one client's "address" at a time, and
of its "rate", handshakes a second."""
SLOW_ACTIONS: Final[tuple[str, ...]]
"""What was done about a client that did not read: "close", with code 1013."""
GC_GENERATIONS: Final[tuple[str, ...]]
"""Of Python's garbage collector."""

class Field(NamedTuple):
    offset: int
    size: int
    kind: Literal["counter", "histogram", "gauge"]
    names: tuple[tuple[str, ...], ...]
    """Of a counter's words: a closed set for each dimension."""
    places: Mapping[tuple[str, ...], int]
    """Names -> where the word is in the field; (): the only one."""
    bounds: tuple[float, ...]
    """Of a histogram: the finite upper bounds of its first buckets; the next bucket is +Inf, the last word the sum."""
    ticks: float
    """Of a histogram: what its sum counts, per second; of one that is in bytes: per byte."""

FIELDS: Final[Mapping[str, Field]]
BOUNDS: Final[dict[str, tuple[float, ...]]]

@final
class Row:
    index: Final[int]
    """Which one of its scoreboard it is; -1: a private one."""

    def inc(self, counter: str, *names: str, by: int = 1) -> None: ...
    def observe(self, histogram: str, value: float) -> None: ...
    def accepted(self) -> None: ...
    def handshake(self, result: HandshakeResult, seconds: float) -> None: ...
    def opened(self) -> None: ...
    def closing(self) -> None: ...
    def closed(
        self, code: int, initiator: str, seconds: float, state: Literal["open", "closing"] = "closing"
    ) -> None: ...
    @property
    def connections_of_all(self) -> int: ...
    def tick(self, now: float, lag: float) -> None: ...
    @property
    def heartbeat(self) -> float: ...
    def send_queues(self, connections: int, total: int, largest: int) -> None: ...
    @property
    def send_queue_max_bytes(self) -> int: ...
    @property
    def connections_max(self) -> tuple[int, int | None]: ...
    @connections_max.setter
    def connections_max(self, limits: tuple[int, int | None]) -> None: ...
    def words(self, name: str) -> tuple[int, ...]: ...

def current() -> Row: ...
def use(row: Row) -> Row: ...
