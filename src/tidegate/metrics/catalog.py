"""Every metric once: name, type, help, labels, unit, and the source of its values.

Names follow Prometheus' conventions: base units, `_total` on counters. Labels have closed sets of values: never a path,
a user or an address. `worker` is the slot, never the pid: a successor continues the series of its predecessor.

The source of a metric is one of
- `words()` of a field of the row (_core/counters.h): label values -> (field, place). With the label `worker` it is read
  slot by slot, without it from the sum over all slots;
- the name of a histogram of the row, or `ByLabel` of several, one for each value of a label;
- `derived.counted()` of a counter of the supervisor (_core/scoreboard.h), or another function of the snapshot; of a
  histogram of operations, `ByOutcome` of one;
- `FromSystem`: a function of a reading, from procfs.

What must not live here: how a value is read (collect), names of prometheus_client.
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
class ByLabel:
    """Histograms of the row: label value -> field."""

    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ByOutcome:
    """A histogram for each value of the label `result`, with `snapshot.OPERATION_BOUNDS`."""

    of: Callable[[Snapshot], Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class FromSystem:
    """Samples that are not in the scoreboard."""

    of: Callable[[procfs.Reading], Iterator[derived.Sample]]


Source = Words | str | ByLabel | ByOutcome | FromSystem | Callable[[Snapshot], Iterator[derived.Sample]]

PREFIX = "tidegate_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` has no prefix; `help` says what its value counts or measures."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    source: Source
    labels: tuple[str, ...] = ()
    unit: Literal["", "seconds", "bytes"] = ""

    @property
    def full_name(self) -> str:
        """The name with the prefix, as in queries: that of a counter ends in `_total`."""
        return PREFIX + self.name


def words(field: str, *names: str) -> Words:
    """Return the words of a field whose first names are these, each by the names that it has beyond them."""
    places = FIELDS[field].places
    return {rest[len(names) :]: (field, place) for rest, place in places.items() if rest[: len(names)] == names}


CATALOG: tuple[Metric, ...] = (
    # The daemon
    Metric("build_info", "gauge", "Always 1; the labels have the versions.", derived.build_info,
           labels=("version", "python", "uvloop")),
    Metric("start_time_seconds", "gauge", "Unix time at which the supervisor started.", derived.start_time,
           unit="seconds"),
    Metric("config_hash_info", "gauge",
           "Always 1; the label changes when a reload changes settings other than secrets.", derived.config_hash,
           labels=("hash",)),
    Metric("ready", "gauge", "1 while /readyz responds with 200, else 0.", derived.ready),
    Metric("draining", "gauge", "1 after the daemon was told to stop, else 0.", derived.draining),
    Metric("supervisor_tick_age_seconds", "gauge", "Time since the last turn of the supervisor's loop.",
           derived.tick_age, unit="seconds"),
    Metric("supervisor_log_messages_dropped_total", "counter",
           "Lines of the supervisor's log that were lost: they came faster than they could be written.",
           derived.supervisor_log_dropped),
    # Workers
    Metric("workers_desired", "gauge", "Workers that should be ready.", derived.desired),
    Metric("worker_stage", "gauge",
           "Live workers of the slot at each stage; backoff: it has none, and waits before the next is forked.",
           derived.stages, labels=("worker", "stage")),
    Metric("worker_spawns_total", "counter", "Workers forked.", derived.counted("spawns"), labels=("worker",)),
    Metric("worker_exits_total", "counter", "Workers that ended, by reason.", derived.counted("exits"),
           labels=("worker", "reason")),
    Metric("worker_start_time_seconds", "gauge", "Unix time at which the slot's newest worker started.",
           derived.worker_start_time, labels=("worker",), unit="seconds"),
    Metric("worker_generation", "gauge", "Generation of the slot's newest worker: each reload adds one.",
           derived.worker_generation, labels=("worker",)),
    Metric("heartbeat_age_seconds", "gauge",
           "Time since the event loop of the slot's worker last ran; of several, the longest.", derived.heartbeat_age,
           labels=("worker",), unit="seconds"),
    Metric("event_loop_lag_seconds", "histogram",
           "Delay of a timer of the event loop: long when a worker is saturated or blocked.", "event_loop_lag",
           labels=("worker",), unit="seconds"),
    Metric("gc_collections_total", "counter", "Garbage collections, by the oldest generation that was collected.",
           words("gc_collections"), labels=("worker", "generation")),
    Metric("gc_pause_seconds", "histogram",
           "Duration of a garbage collection, during which the worker does nothing else.", "gc_pause",
           labels=("worker",), unit="seconds"),
    Metric("log_messages_dropped_total", "counter",
           "Lines of the worker's log that were lost: they came faster than they could be written.",
           words("log_messages_dropped"), labels=("worker",)),
    # What is done to the daemon
    Metric("reloads_total", "counter",
           "Reloads that ended, by result; after a failure the old workers go on serving.", derived.counted("reloads"),
           labels=("result",)),
    Metric("upgrades_total", "counter", "Upgrades in place that ended, by result.", derived.counted("upgrades"),
           labels=("result",)),
    Metric("last_reload_success", "gauge",
           "0 if the last reload or upgrade failed; 1 if it succeeded, or there was none.",
           derived.last_reload_success),
    Metric("last_reload_timestamp_seconds", "gauge",
           "Unix time at which the last reload or upgrade ended, or at which the daemon started if there was none.",
           derived.last_reload_timestamp, unit="seconds"),
    Metric("reload_duration_seconds", "histogram",
           "Time from the beginning of a reload until the new workers serve alone, without the drain of the old ones.",
           ByOutcome(derived.reload_duration), labels=("result",), unit="seconds"),
    Metric("drain_duration_seconds", "histogram",
           "Time from the order to drain to the end of the worker; failure: it was killed, or crashed.",
           ByOutcome(derived.drain_duration), labels=("result",), unit="seconds"),
    # Processes
    Metric("process_cpu_seconds_total", "counter",
           "Processor time of the slot's workers with their child processes, of the supervisor, of the admin process.",
           FromSystem(procfs.sampled("cpu_seconds")), labels=("worker",), unit="seconds"),
    Metric("process_resident_memory_bytes", "gauge",
           "Resident memory of the slot's workers; memory that they share is counted for each.",
           FromSystem(procfs.sampled("resident_memory_bytes")), labels=("worker",), unit="bytes"),
    Metric("process_open_fds", "gauge", "Open file descriptors of the slot's worker; of several, the most.",
           FromSystem(procfs.sampled("open_fds")), labels=("worker",)),
    Metric("process_max_fds", "gauge", "Limit of open file descriptors of the slot's worker; of several, the lowest.",
           FromSystem(procfs.sampled("max_fds")), labels=("worker",)),
    # The kernel's queues
    Metric("accept_queue_length", "gauge",
           "Connections that wait to be accepted, in the queues of the slot or in those that all slots share.",
           derived.accept_queue_length, labels=("worker",)),
    Metric("accept_queue_limit", "gauge", "Connections that may wait to be accepted; the system drops more.",
           derived.accept_queue_limit, labels=("worker",)),
    Metric("listen_overflows_total", "counter",
           "Times that an accept queue was full, of all programs in the network namespace.",
           FromSystem(procfs.tcp_counter("ListenOverflows"))),
    Metric("listen_drops_total", "counter",
           "Connections that the system dropped before they were accepted, of all programs in the network namespace.",
           FromSystem(procfs.tcp_counter("ListenDrops"))),
    # Connections
    Metric("connections", "gauge", "Connections by state.",
           {(state,): (f"connections_{state}", 0) for state in ("handshaking", "open", "closing", "http")},
           labels=("worker", "state")),
    Metric("connections_max", "gauge",
           "Limit of connections: --max-connections, or less if the workers' limits of open files allow less.",
           derived.connections_max),
    Metric("connections_accepted_total", "counter", "Connections accepted by the listening sockets.",
           words("connections_accepted"), labels=("worker",)),
    Metric("handshakes_total", "counter", "Opening handshakes that ended, by result.", words("handshakes"),
           labels=("result",)),
    Metric("limit_rejections_total", "counter", "Connections rejected because a limit was reached, by limit.",
           words("limit_rejections"), labels=("limit",)),
    Metric("handshake_duration_seconds", "histogram", "Time from accepting a connection to the end of its handshake.",
           "handshake_duration", unit="seconds"),
    Metric("connection_duration_seconds", "histogram",
           "Time from the end of the handshake to the end of the connection.", "connection_duration", unit="seconds"),
    Metric("closes_total", "counter",
           "Open connections that ended, by close code and by the side that began; abort: without a close handshake.",
           {(code, initiator): word for (initiator, code), word in words("closes").items()},
           labels=("code", "initiator")),
    Metric("ping_rtt_seconds", "histogram", "Time from a ping to its pong, which the network and the client take.",
           "ping_rtt", unit="seconds"),
    Metric("pong_timeouts_total", "counter", "Connections failed because a pong did not come in time.",
           words("pong_timeouts")),
    # HTTP of ASGI applications
    Metric("http_requests_total", "counter", "HTTP requests that ended, by class of the status.",
           words("http_requests"), labels=("worker", "status")),
    Metric("http_request_duration_seconds", "histogram",
           "Time from the call of the ASGI application with a request to its return.", "http_request_duration",
           labels=("worker",), unit="seconds"),
    # Messages
    Metric("messages_received_total", "counter", "Messages received.", words("messages", "received"),
           labels=("worker", "opcode")),
    Metric("messages_sent_total", "counter", "Messages sent.", words("messages", "sent"), labels=("worker", "opcode")),
    Metric("received_bytes_total", "counter", "Payload bytes of messages received.", words("bytes", "received"),
           labels=("worker",), unit="bytes"),
    Metric("sent_bytes_total", "counter", "Payload bytes of messages sent.", words("bytes", "sent"),
           labels=("worker",), unit="bytes"),
    Metric("message_size_bytes", "histogram", "Payload of a message, before compression and after decompression.",
           ByLabel({direction: f"message_size_{direction}" for direction in DIRECTIONS}), labels=("direction",),
           unit="bytes"),
    Metric("handler_duration_seconds", "histogram",
           "Time from a message's arrival until its handler asks for the next.", "handler_duration", unit="seconds"),
    Metric("backpressure_pauses_total", "counter",
           "Pauses of reading because a handler is slow (max_queue), and of writing because a client is (write_limit).",
           words("pauses"), labels=("worker", "direction")),
    Metric("send_queue_connections", "gauge", "Connections of slow clients: more than write_limit waits to be sent.",
           words("send_queue_connections"), labels=("worker",)),
    Metric("send_queue_bytes", "gauge", "Bytes that wait to be sent to slow clients, measured each second.",
           words("send_queue_bytes"), labels=("worker",), unit="bytes"),
    Metric("send_queue_max_bytes", "gauge", "Bytes that wait to be sent to the slowest client, measured each second.",
           derived.send_queue_max, labels=("worker",), unit="bytes"),
    Metric("slow_consumers_total", "counter",
           "Clients for which more than broadcast_limit waited, by what was done: close, with code 1013.",
           words("slow_consumers"), labels=("action",)),
    # Channels
    Metric("bus_up", "gauge", "1 while messages of channels come to the slot's worker, else 0; of several, the least.",
           derived.bus_up, labels=("worker", "engine")),
    Metric("bus_state_changes_total", "counter",
           "Changes of the bus, as workers saw them; again: it is up, and what was on its way may have been lost.",
           words("bus_state_changes"), labels=("to",)),
    Metric("bus_published_total", "counter", "Messages that workers published, and that were stored or accepted.",
           words("bus_published"), labels=("worker",)),
    Metric("bus_publish_failures_total", "counter",
           "Messages that could not be published; uncertain: the bus did not answer, and may have stored it.",
           words("bus_publish_failures"), labels=("reason",)),
    Metric("bus_publish_seconds", "histogram",
           "Time until a message of a channel with history is stored, as its publisher waits for that.", "bus_publish",
           unit="seconds"),
    Metric("bus_received_total", "counter", "Messages of channels that came to workers.", words("bus_received"),
           labels=("worker",)),
    Metric("bus_delivered_total", "counter", "Messages of channels that workers gave to members.",
           words("bus_delivered"), labels=("worker",)),
    Metric("bus_duplicates_total", "counter", "Messages that came twice, and were given to members once.",
           words("bus_duplicates")),
    Metric("bus_gaps_total", "counter",
           "Times that a worker missed messages of a channel; repaired: history had them, and members did not notice;"
           " told: the members were told that messages are missing.", words("bus_gaps"), labels=("outcome",)),
    Metric("bus_resumes_total", "counter",
           "Joins, by what became of them; failed: history has not all of what was missed, and the client was told.",
           words("bus_resumes"), labels=("result",)),
    Metric("bus_resumed_messages_total", "counter", "Messages that members had missed, and got when they joined.",
           words("bus_resumed_messages")),
    Metric("bus_engine_reads_total", "counter", "Reads of history that workers asked for.", words("bus_reads"),
           labels=("outcome",)),
    Metric("bus_lag_seconds", "histogram",
           "Time from the publishing of a message, by the clock of who stored it, until a worker gives it to members.",
           "bus_lag", unit="seconds"),
    Metric("bus_fanout_seconds", "histogram",
           "Time in which a worker gives what has come at once to members, and does nothing else.", "bus_fanout",
           unit="seconds"),
    Metric("bus_probe_seconds", "histogram",
           "Time until a worker's own message came back, which it publishes on Redis and NATS when nothing has come for"
           " 2 s.", "bus_probe", unit="seconds"),
    Metric("bus_queue_bytes", "gauge",
           "Bytes that wait to be taken: engine, of workers by the bus; link, of the hub by workers.",
           {("engine",): ("bus_queue_bytes", 0), ("link",): ("hub_queue_bytes", 0)}, labels=("queue",), unit="bytes"),
    Metric("bus_dropped_total", "counter",
           "Messages that a full queue had no room for: link, for a busy worker, which reads them from history;"
           " subscription, for an iterator that is not read.", words("bus_dropped"), labels=("queue",)),
    Metric("bus_member_closes_total", "counter",
           "Members that were closed by channels; slow: they did not read; gap: they missed messages, and have no other"
           " way to know; asked: by close_members().", words("bus_closes"), labels=("reason",)),
    Metric("bus_members", "gauge", "Members of channels, once for each channel; at most 10 s old.",
           words("bus_members"), labels=("worker",)),
    Metric("bus_topics", "gauge", "Channels that the worker has, those without members for a few seconds included.",
           words("bus_topics"), labels=("worker",)),
    Metric("bus_subscriptions_pending", "gauge", "Channels for which the bus has not confirmed the subscription yet.",
           words("bus_subscriptions_pending"), labels=("worker",)),
    # The hub
    Metric("bus_hub_restarts_total", "counter", "Hubs that ended by themselves, or were ended because they hung.",
           derived.counted("hub_restarts")),
    Metric("bus_hub_links", "gauge", "Processes that are linked with the hub.", words("hub_links")),
    Metric("bus_hub_topics", "gauge", "Channels that the hub has: those that are open, and those with history.",
           words("hub_topics")),
    Metric("bus_hub_published_total", "counter", "Messages that the hub has taken.", words("hub_published")),
    Metric("bus_hub_delivered_total", "counter", "Messages that the hub has sent to workers.", words("hub_delivered")),
    Metric("bus_journal_stored_total", "counter", "Messages that were stored in the journal.", words("journal_stored")),
    Metric("bus_journal_messages", "gauge", "Messages that the journal keeps.", words("journal_messages")),
    Metric("bus_journal_bytes", "gauge", "Bytes of the messages that the journal keeps.", words("journal_bytes"),
           unit="bytes"),
    Metric("bus_journal_evicted_total", "counter",
           "Messages that the journal has lost before its channel's limits said so; space: --bus-memory is too little.",
           words("journal_evicted"), labels=("reason",)),
)  # fmt: skip
