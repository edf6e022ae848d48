"""Every metric once: name, type, help, labels, unit, and where its values come from.

Names as Prometheus asks: base units, `_total` on counters, closed sets of label values. Paths, users and addresses
never are labels. `worker` is the slot, never the pid: a successor continues its predecessor's series.

The source of a metric is one of
- a table from label values to a word of the row: (field of the scoreboard, index in it). With the label `worker` it is
  read slot by slot, without it from the sum over all slots;
- the name of a histogram in the row, whose bucket bounds are `counters.BOUNDS`, since native code observes into it;
  or `Several` of them, one for each value of a label;
- a function of the snapshot, from derived; of histograms of what was done to the daemon, `ByOutcome` of one;
- `Told` by the system: a function of a reading, from procfs.

What must not live here: how a value is read (collect), what prometheus_client calls things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from .._core.counters import DIRECTIONS, FIELDS
from .._core.snapshot import Snapshot
from . import derived, procfs

Words = Mapping[tuple[str, ...], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Several:
    """Histograms of the row: label value -> field."""

    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ByOutcome:
    """Histograms by the label `result`, with `snapshot.OPERATION_BOUNDS`."""

    of: Callable[[Snapshot], Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Told:
    """What is not in the scoreboard."""

    of: Callable[[procfs.Reading], Iterator[derived.Sample]]


Source = Words | str | Several | ByOutcome | Told | Callable[[Snapshot], Iterator[derived.Sample]]

PREFIX = "tidegate_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` lacks the prefix; `help` says what one more of it means."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    source: Source
    labels: tuple[str, ...] = ()
    unit: Literal["", "seconds", "bytes"] = ""

    @property
    def full_name(self) -> str:
        """The name with the prefix, as in queries: a counter's ends in `_total`."""
        return PREFIX + self.name


def words(field: str, *names: str) -> Words:
    """Return the words of a field whose first names are these, each by the names that it has beyond them."""
    places = FIELDS[field].places
    return {rest[len(names) :]: (field, place) for rest, place in places.items() if rest[: len(names)] == names}


CATALOG: tuple[Metric, ...] = (
    # The daemon
    Metric("build_info", "gauge", "Always 1; the versions are its labels.", derived.build_info,
           labels=("version", "python", "uvloop")),
    Metric("start_time_seconds", "gauge", "When the supervisor started, in Unix time.", derived.start_time,
           unit="seconds"),
    Metric("config_hash_info", "gauge",
           "Always 1; the label is another one after a reload with other settings. Secrets are no part of it.",
           derived.config_hash, labels=("hash",)),
    Metric("ready", "gauge", "1 while /readyz answers 200.", derived.ready),
    Metric("draining", "gauge", "1 once the daemon was told to stop.", derived.draining),
    Metric("supervisor_tick_age_seconds", "gauge", "Time since the supervisor's loop last ran.", derived.tick_age,
           unit="seconds"),
    Metric("supervisor_log_messages_dropped_total", "counter",
           "Lines of the supervisor's log that were lost: they came faster than they could be written.",
           derived.supervisor_log_dropped),
    # Workers
    Metric("workers_desired", "gauge", "Workers that should be ready.", derived.desired),
    Metric("worker_stage", "gauge",
           "Live workers of the slot at each stage; backoff: the slot waits before it gets another one.",
           derived.stages, labels=("worker", "stage")),
    Metric("worker_spawns_total", "counter", "Workers forked.", derived.spawns, labels=("worker",)),
    Metric("worker_exits_total", "counter", "Workers that ended, by reason.", derived.exits,
           labels=("worker", "reason")),
    Metric("worker_start_time_seconds", "gauge", "When the slot's newest worker started, in Unix time.",
           derived.worker_start_time, labels=("worker",), unit="seconds"),
    Metric("worker_generation", "gauge", "Generation of the slot's newest worker: one more with each reload.",
           derived.worker_generation, labels=("worker",)),
    Metric("heartbeat_age_seconds", "gauge", "Time since the worker's event loop last ran: the slot's oldest.",
           derived.heartbeat_age, labels=("worker",), unit="seconds"),
    Metric("event_loop_lag_seconds", "histogram",
           "How much later than planned the event loop ran a timer: high when a worker is saturated or blocked.",
           "event_loop_lag", labels=("worker",), unit="seconds"),
    Metric("gc_collections_total", "counter", "Collections of Python's garbage collector, by the oldest generation.",
           words("gc_collections"), labels=("worker", "generation")),
    Metric("gc_pause_seconds", "histogram", "Time that a collection took, in which the worker did nothing else.",
           "gc_pause", labels=("worker",), unit="seconds"),
    Metric("log_messages_dropped_total", "counter",
           "Lines of the worker's log that were lost: they came faster than they could be written.",
           words("log_messages_dropped"), labels=("worker",)),
    # What is done to the daemon
    Metric("reloads_total", "counter", "Reloads that ended, by result; a failure left the old workers serving.",
           derived.reloads, labels=("result",)),
    Metric("upgrades_total", "counter", "Upgrades in place that ended, by result.", derived.upgrades,
           labels=("result",)),
    Metric("last_reload_success", "gauge", "0 if the last reload or upgrade failed; 1 also when there was none yet.",
           derived.last_reload_success),
    Metric("last_reload_timestamp_seconds", "gauge",
           "When the last reload or upgrade ended, or failing that the daemon started, in Unix time.",
           derived.last_reload_timestamp, unit="seconds"),
    Metric("reload_duration_seconds", "histogram",
           "From the beginning of a reload until the new workers served alone, without the drain of the old ones.",
           ByOutcome(derived.reload_duration), labels=("result",), unit="seconds"),
    Metric("drain_duration_seconds", "histogram",
           "From the order to drain to the end of the worker; failure: it was killed, or crashed.",
           ByOutcome(derived.drain_duration), labels=("result",), unit="seconds"),
    # Processes
    Metric("process_cpu_seconds_total", "counter",
           "Processor time of the slot's workers, with programs that they ran, and of supervisor and admin process.",
           Told(procfs.sampled("cpu_seconds")), labels=("worker",), unit="seconds"),
    Metric("process_resident_memory_bytes", "gauge", "Memory that the slot's workers take, with what they share.",
           Told(procfs.sampled("resident_memory_bytes")), labels=("worker",), unit="bytes"),
    Metric("process_open_fds", "gauge", "Open file descriptors of that worker of the slot that has most.",
           Told(procfs.sampled("open_fds")), labels=("worker",)),
    Metric("process_max_fds", "gauge", "Limit of open file descriptors of each of the slot's workers.",
           Told(procfs.sampled("max_fds")), labels=("worker",)),
    # The kernel's queues
    Metric("accept_queue_length", "gauge",
           "Connections that wait to be accepted, in the queues of the slot or in those that all share.",
           derived.accept_queue_length, labels=("worker",)),
    Metric("accept_queue_limit", "gauge", "Connections that may wait to be accepted; the system drops more.",
           derived.accept_queue_limit, labels=("worker",)),
    Metric("listen_overflows_total", "counter",
           "Times that a queue of connections was full, of all programs in the network namespace.",
           Told(procfs.tcp_counter("ListenOverflows"))),
    Metric("listen_drops_total", "counter",
           "Connections that the system dropped before they were accepted, of all programs in the network namespace.",
           Told(procfs.tcp_counter("ListenDrops"))),
    # Connections
    Metric("connections", "gauge", "Connections by state.",
           {(state,): (f"connections_{state}", 0) for state in ("handshaking", "open", "closing")},
           labels=("worker", "state")),
    Metric("connections_max", "gauge",
           "Connections that there may be: --max-connections, or fewer where the workers' limits of open files say so.",
           derived.connections_max),
    Metric("connections_accepted_total", "counter", "Connections accepted by the listening sockets.",
           words("connections_accepted"), labels=("worker",)),
    Metric("handshakes_total", "counter", "Opening handshakes that ended, by result.",
           words("handshakes"), labels=("result",)),
    Metric("limit_rejections_total", "counter", "Connections turned away because a limit was reached.",
           words("limit_rejections"), labels=("limit",)),
    Metric("handshake_duration_seconds", "histogram", "From accepting a connection to the end of its handshake.",
           "handshake_duration", unit="seconds"),
    Metric("connection_duration_seconds", "histogram", "From the end of the handshake to the end of the connection.",
           "connection_duration", unit="seconds"),
    Metric("closes_total", "counter",
           "Open connections that ended, by close code and by who began; abort: without a close handshake.",
           {(code, initiator): word for (initiator, code), word in words("closes").items()},
           labels=("code", "initiator")),
    Metric("ping_rtt_seconds", "histogram", "From a ping to its pong: what the network and clients take.", "ping_rtt",
           unit="seconds"),
    Metric("pong_timeouts_total", "counter", "Connections failed because no pong came.", words("pong_timeouts")),
    # Messages
    Metric("messages_received_total", "counter", "Messages received.", words("messages", "received"),
           labels=("worker", "opcode")),
    Metric("messages_sent_total", "counter", "Messages sent.", words("messages", "sent"),
           labels=("worker", "opcode")),
    Metric("received_bytes_total", "counter", "Payload bytes of messages received.", words("bytes", "received"),
           labels=("worker",), unit="bytes"),
    Metric("sent_bytes_total", "counter", "Payload bytes of messages sent.", words("bytes", "sent"),
           labels=("worker",), unit="bytes"),
    Metric("message_size_bytes", "histogram", "Payload of a message, before compression and after decompression.",
           Several({direction: f"message_size_{direction}" for direction in DIRECTIONS}), labels=("direction",),
           unit="bytes"),
    Metric("handler_duration_seconds", "histogram", "From a message's arrival to its handler asking for the next.",
           "handler_duration", unit="seconds"),
    Metric("backpressure_pauses_total", "counter",
           "Pauses of reading because a handler was slow (max_queue), of writing because a client was (write_limit).",
           words("pauses"), labels=("worker", "direction")),
    Metric("send_queue_connections", "gauge", "Connections whose client is slow: more than write_limit waits for it.",
           words("send_queue_connections"), labels=("worker",)),
    Metric("send_queue_bytes", "gauge", "Bytes that wait for those slow clients, as of the last second.",
           words("send_queue_bytes"), labels=("worker",), unit="bytes"),
    Metric("send_queue_max_bytes", "gauge", "Bytes that wait for the slowest of them, as of the last second.",
           derived.send_queue_max, labels=("worker",), unit="bytes"),
    Metric("slow_consumers_total", "counter",
           "Clients for whom more than broadcast_limit waited, by what was done: close, with code 1013.",
           words("slow_consumers"), labels=("action",)),
)  # fmt: skip
