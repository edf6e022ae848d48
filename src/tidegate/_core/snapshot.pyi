from collections.abc import Mapping
from typing import Final, final

from .counters import Field, Row

STAGES: Final[tuple[str, ...]]
DAEMON_COUNTERS: Final[Mapping[str, Field]]
SLOT_COUNTERS: Final[Mapping[str, Field]]
EXIT_REASONS: Final[tuple[str, ...]]
OUTCOMES: Final[tuple[str, ...]]
OPERATION_BOUNDS: Final[tuple[float, ...]]
OPERATION_TICKS: Final[float]

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
    counters: Final[dict[str, dict[str, int]]]
    backoff_until: Final[float]
    cpu_seconds: Final[float]
    accept_queue: Final[tuple[int, int]]
    counts: Final[Row]
    workers: Final[tuple[Worker, ...]]
    @property
    def spawns(self) -> int: ...
    @property
    def exits(self) -> dict[str, int]: ...

@final
class Snapshot:
    pid: Final[int]
    started_at: Final[float]
    ticked_at: Final[float]
    taken_at: Final[float]
    desired: Final[int]
    ready: Final[bool]
    draining: Final[bool]
    log_messages_dropped: Final[int]
    config_hash: Final[int]
    counters: Final[dict[str, dict[str, int]]]
    last_reload: Final[str | None]
    last_reload_at: Final[float]
    reload_duration: Final[dict[str, tuple[int, ...]]]
    drain_duration: Final[dict[str, tuple[int, ...]]]
    admin_cpu_seconds: Final[float]
    accept_queue: Final[tuple[int, int]]
    hub_pid: Final[int]
    hub_started_at: Final[float]
    bus_url: Final[str]
    hub: Final[Row]
    counts: Final[Row]
    slots: Final[tuple[Slot, ...]]
    @property
    def reloads(self) -> dict[str, int]: ...
    @property
    def upgrades(self) -> dict[str, int]: ...
