from typing import Final, final

from .counters import Row

STAGES: Final[tuple[str, ...]]
EXIT_REASONS: Final[tuple[str, ...]]
"""Why a worker ended: as asked ("stopped", "reload", "recycle_..."), or by itself: "crash" (an exit status), "signal",
"oom_suspect" (a SIGKILL that was not ours), "hung" (we killed it for its heartbeat), "boot_failed" (never ready)."""
OUTCOMES: Final[tuple[str, ...]]
"""Of what was done to the daemon: "success", then "failure"."""
OPERATION_BOUNDS: Final[tuple[float, ...]]
"""The bounds of the durations of reloads and drains, in seconds."""
OPERATION_TICKS: Final[float]
"""What their sums count, per second."""

@final
class Worker:
    row: Final[int]
    slot: Final[int]
    pid: Final[int]
    generation: Final[int]
    stage: Final[str]
    started_at: Final[float]
    counts: Final[Row]

@final
class Slot:
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
