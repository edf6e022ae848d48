"""The scoreboard: what every worker counts, in memory that the supervisor makes and everybody can read.

Three words: a `Row` is what one process counts, with one writer and no lock. A `Scoreboard` is the shared file, with a
row for each worker process, the supervisor's facts, and for each slot the sum of what its ended workers counted. A
`Snapshot` is one consistent read of it: a sum over a snapshot never is below the same sum of an earlier one.

What must not live here: names, help and labels of metrics (metrics/catalog), who is hung or ready (supervisor, admin).
"""

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
STAGES: Final[tuple[str, ...]]
EXIT_REASONS: Final[tuple[str, ...]]
"""Why a worker ended: as asked ("stopped", "reload", "recycle_..."), or by itself: "crash" (an exit status), "signal",
"oom_suspect" (a SIGKILL that was not ours), "hung" (we killed it for its heartbeat), "boot_failed" (never ready)."""
OUTCOMES: Final[tuple[str, ...]]
"""Of what was done to the daemon: "success", then "failure"."""

ROWS: Final[int]
SLOTS: Final[int]

class Field(NamedTuple):
    """Where a value lies in a row: offset and size in 64-bit words."""

    offset: int
    size: int
    kind: Literal["counter", "histogram", "gauge"]
    bounds: tuple[float, ...]
    """Of a histogram: the finite upper bounds of its first buckets; the next bucket is +Inf, the last word the sum."""
    ticks: float
    """Of a histogram: what its sum counts, per second; of one that is in bytes: per byte."""

FIELDS: Final[Mapping[str, Field]]
BOUNDS: Final[dict[str, tuple[float, ...]]]
OPERATION_BOUNDS: Final[tuple[float, ...]]
"""The bounds of the durations of reloads and drains, in seconds."""
OPERATION_TICKS: Final[float]
"""What their sums count, per second."""

@final
class Row:
    """What one process counts. `Row()` is a private one, in ordinary memory.

    Native code counts messages, bytes, pauses and handler durations straight into it; the methods are for what is rarer
    than a message. Counts are never checked against each other: who calls `accepted()` must call `handshake()` once.
    """

    index: Final[int]
    """Which one of its scoreboard it is; -1: a private one."""

    def accepted(self) -> None:
        """A TCP connection was accepted: it is handshaking from now."""

    def handshake(self, result: HandshakeResult, seconds: float) -> None:
        """The handshake ended, `seconds` after `accepted()`. With "ok", call `opened()` as well."""

    def opened(self) -> None:
        """The connection is open."""

    def closing(self) -> None:
        """The connection went from open to closing: a close frame was sent or received."""

    def closed(self, code: int, initiator: str, seconds: float, state: Literal["open", "closing"] = "closing") -> None:
        """The connection ended, `seconds` after `opened()`, while it was in `state`.

        `code` is the close code (1006 without a close frame); `initiator` one of `INITIATORS`.
        """

    def ping_rtt(self, seconds: float) -> None:
        """A pong came, `seconds` after its ping."""

    def pong_timeout(self) -> None:
        """A connection was failed for a pong that did not come."""

    def limit_rejection(self, limit: str) -> None:
        """A connection was turned away because one of `LIMITS` was reached."""

    def slow_consumer(self, action: str) -> None:
        """A client read too slowly, and one of `SLOW_ACTIONS` was done about it."""

    @property
    def connections_of_all(self) -> int:
        """Connections of all workers of the daemon now, whatever their state; of this row alone, if it is private."""

    def log_dropped(self, lines: int) -> None:
        """Lines of the process's log were lost: they came faster than they could be written."""

    def tick(self, now: float, lag: float) -> None:
        """The event loop is alive at `now` (`time.monotonic()`), `lag` seconds later than planned."""

    @property
    def heartbeat(self) -> float:
        """`time.monotonic()` of the last `tick()`; 0.0 before the first one."""

    def collected(self, generation: int, seconds: float) -> None:
        """The garbage collector has looked at this generation, and for so long nothing else was done."""

    def send_queues(self, connections: int, total: int, largest: int) -> None:
        """So many connections have more than their write limit to be sent: this much together, the fullest this much,
        in bytes."""

    @property
    def send_queue_max_bytes(self) -> int: ...
    @property
    def connections_max(self) -> tuple[int, int | None]:
        """How many connections this process can have, and how many all of the daemon may; None: no such limit."""

    @connections_max.setter
    def connections_max(self, limits: tuple[int, int | None]) -> None: ...
    def words(self, name: str) -> tuple[int, ...]:
        """The words of the field `name` of `FIELDS`, in its order; see the closed sets above.

        Of "closes": `TG_CLOSE_CODES` words for each initiator. Of "messages": for each direction text, binary.
        Of a histogram: each bucket (not cumulative), +Inf after the last bound, zeros, the sum in ticks as the last.
        """

def current() -> Row:
    """The row that connections of this process write to; a private one unless `use()` was called."""

def use(row: Row) -> Row:
    """Make connections that are made from now on write to `row`; returns the row used before.

    A child that is forked later starts with a private row again.
    """

@final
class Worker:
    """A live worker in a `Snapshot`. `pid` is 0 before its fork; `started_at` is Unix time."""

    row: Final[int]
    slot: Final[int]
    pid: Final[int]
    generation: Final[int]
    stage: Final[str]
    started_at: Final[float]
    counts: Final[Row]

@final
class Slot:
    """A slot in a `Snapshot`: `counts` are those of its live and of its ended workers; gauges of the live ones only."""

    index: Final[int]
    spawns: Final[int]
    exits: Final[dict[str, int]]
    backoff_until: Final[float]
    """`time.monotonic()` at which a successor is forked; 0.0: the slot does not back off."""
    cpu_seconds: Final[float]
    """Processor time that its ended workers took."""
    accept_queue: Final[tuple[int, int]]
    """How many connections wait in the queues of its own sockets, and how many may; (0, 0): it has none."""
    counts: Final[Row]
    workers: Final[tuple[Worker, ...]]

@final
class Snapshot:
    """One consistent read of a `Scoreboard`. `counts` is the sum over `slots`; times as in `Scoreboard`."""

    pid: Final[int]
    started_at: Final[float]
    ticked_at: Final[float]
    taken_at: Final[float]
    """`time.monotonic()` of the read."""
    desired: Final[int]
    ready: Final[bool]
    draining: Final[bool]
    log_messages_dropped: Final[int]
    config_hash: Final[int]
    reloads: Final[dict[str, int]]
    upgrades: Final[dict[str, int]]
    """How many, by outcome."""
    last_reload: Final[str | None]
    """The outcome of the last reload or upgrade; None: there was none."""
    last_reload_at: Final[float]
    """Unix time of its end; 0.0: there was none."""
    reload_duration: Final[dict[str, tuple[int, ...]]]
    drain_duration: Final[dict[str, tuple[int, ...]]]
    """Histograms by outcome, each as `Row.words()` of one: see `OPERATION_BOUNDS`."""
    admin_cpu_seconds: Final[float]
    """Processor time that ended admin processes took."""
    accept_queue: Final[tuple[int, int]]
    """As in `Slot`, of the sockets that all slots share."""
    counts: Final[Row]
    slots: Final[tuple[Slot, ...]]
    """All slots that ever had a worker, in order."""

@final
class Scoreboard:
    """The shared memory file. Made before the forks, inherited by every child; the supervisor is its only owner.

    Every method but `row()`, `read()` and `close()` is the supervisor's alone. One that is handed a row or a slot that
    is not there raises ValueError. `Scoreboard()` raises TypeError: it is made by `create()` or `attach()`.
    """

    @staticmethod
    def create(rows: int = ..., slots: int = ...) -> Scoreboard:
        """Make one, for `slots` workers at once and `rows` worker processes (two generations, and those that drain).

        Memory is used only for rows and slots that had a worker. Where there are no memory files it is anonymous
        shared memory, which only forked children see, and `fd` is -1.
        """

    @staticmethod
    def attach(fd: int) -> Scoreboard:
        """Map the scoreboard behind `fd` and own the descriptor. ValueError, if it is none or of another layout."""

    @property
    def fd(self) -> int:
        """The memory file, close-on-exec; -1 if there is none, or after `close()`."""

    @property
    def rows(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def connections(self) -> int:
        """Connections of all live workers now, whatever their state. Any process may ask, as often as it likes."""

    def close(self) -> None:
        """Close the file descriptor. The memory goes with the last row and the scoreboard itself."""

    def row(self, i: int) -> Row:
        """The row with index `i`, for its worker: `use(scoreboard.row(i))`."""

    @property
    def pid(self) -> int:
        """The supervisor, who made this."""

    @property
    def started_at(self) -> float:
        """Unix time."""

    @property
    def ticked_at(self) -> float:
        """`time.monotonic()` of the supervisor's last `tick()`."""

    def tick(self, now: float) -> None:
        """The supervisor's loop is alive at `now` (`time.monotonic()`). To be called at least once a second."""

    @property
    def desired(self) -> int:
        """How many workers should be ready."""

    @desired.setter
    def desired(self, workers: int) -> None: ...
    @property
    def ready(self) -> bool:
        """Every desired worker has been ready. It stays, when one crashes: the others still serve."""

    @ready.setter
    def ready(self, value: bool) -> None: ...
    @property
    def draining(self) -> bool:
        """The daemon was told to stop."""

    @draining.setter
    def draining(self, value: bool) -> None: ...
    @property
    def log_messages_dropped(self) -> int:
        """How many lines of its own log the supervisor has lost."""

    @log_messages_dropped.setter
    def log_messages_dropped(self, lines: int) -> None: ...
    @property
    def config_hash(self) -> int:
        """A number that differs where the settings of the present generation do; 0: not told."""

    @config_hash.setter
    def config_hash(self, value: int) -> None: ...
    def assign(self, slot: int, generation: int = 0, pid: int = 0) -> int:
        """Take a free row for a worker about to be forked; its index. Its stage is "starting".

        RuntimeError, if every row is assigned.
        """

    def spawn(self, row: int, pid: int) -> None:
        """The worker was forked: count it, and say who it is."""

    def stage(self, row: int, stage: str) -> None:
        """The worker said that it is at `stage`, one of `STAGES`."""

    def retire(self, row: int, reason: str | None = None, cpu_seconds: float = 0.0) -> None:
        """The worker has ended and was waited for: its counts become its slot's, its row is free again.

        `reason` is one of `EXIT_REASONS`; None counts no exit (when the fork failed). `cpu_seconds` is the processor
        time that it took.
        """

    def retire_admin(self, cpu_seconds: float) -> None:
        """An admin process has ended that took this processor time."""

    def drained(self, done: bool, seconds: float) -> None:
        """A worker has ended so long after the order to drain; not `done`: it was killed, or crashed."""

    def reloaded(self, done: bool, seconds: float) -> None:
        """A reload has ended after so long, or failed."""

    def upgraded(self, done: bool) -> None:
        """An upgrade, which also reloads, has ended or failed."""

    def accept_queue(self, slot: int | None, length: int, limit: int) -> None:
        """Of so many connections that may wait in the queues of the slot's own sockets, so many do; None: in those
        that all slots share."""

    def backoff(self, slot: int, until: float) -> None:
        """No worker is forked for `slot` before `until` (`time.monotonic()`); 0: at any time."""

    def read(self, timeout: float = 0.25) -> Snapshot:
        """One consistent read, tried again while the supervisor writes.

        TimeoutError, if it writes for longer than `timeout` seconds: it was stopped or killed in the middle.
        """
