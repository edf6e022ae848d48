"""Every metric once: name, type, help, labels, unit, and where its values come from.

Names as Prometheus asks: base units, `_total` on counters, closed sets of label values. Paths, users and addresses
never are labels. `worker` is the slot, never the pid: a successor continues its predecessor's series.

The source of a metric is one of
- a table from label values to a word of the row: (field of the scoreboard, index in it). With the label `worker` it is
  read slot by slot, without it from the sum over all slots;
- the name of a histogram in the row, whose bucket bounds are `scoreboard.BOUNDS`, since native code observes into it;
- a function of the snapshot, from facts.

What must not live here: how a value is read (collect), what prometheus_client calls things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .._core.scoreboard import CLOSE_CODES, FIELDS, HANDSHAKE_RESULTS, INITIATORS, LIMITS, OPCODES, Snapshot
from . import facts

Words = Mapping[tuple[str, ...], tuple[str, int]]
Source = Words | str | Callable[[Snapshot], Iterator[facts.Sample]]

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


def words(field: str, names: Sequence[str] = (), start: int = 0) -> Words:
    """The words of a field from `start`, one for each name of a closed set; or the one word that it has there."""
    if not names:
        return {(): (field, start)}
    return {(name,): (field, start + i) for i, name in enumerate(names)}


def closes() -> Words:
    """The closes, whose words are those of an initiator after those of another."""
    stride = FIELDS["closes"].size // len(INITIATORS)
    return {
        (code, initiator): ("closes", stride * i + j)
        for i, initiator in enumerate(INITIATORS)
        for j, code in enumerate(CLOSE_CODES)
    }


CATALOG: tuple[Metric, ...] = (
    # The daemon
    Metric("build_info", "gauge", "Always 1; the versions are its labels.", facts.build_info,
           labels=("version", "python", "uvloop")),
    Metric("start_time_seconds", "gauge", "When the supervisor started, in Unix time.", facts.start_time,
           unit="seconds"),
    Metric("ready", "gauge", "1 while /readyz answers 200.", facts.ready),
    Metric("draining", "gauge", "1 once the daemon was told to stop.", facts.draining),
    Metric("supervisor_tick_age_seconds", "gauge", "Time since the supervisor's loop last ran.", facts.tick_age,
           unit="seconds"),
    Metric("supervisor_log_messages_dropped_total", "counter",
           "Lines of the supervisor's log that were lost: they came faster than they could be written.",
           facts.supervisor_log_dropped),
    # Workers
    Metric("workers_desired", "gauge", "Workers that should be ready.", facts.desired),
    Metric("worker_stage", "gauge",
           "Live workers of the slot at each stage; backoff: the slot waits before it gets another one.", facts.stages,
           labels=("worker", "stage")),
    Metric("worker_spawns_total", "counter", "Workers forked.", facts.spawns, labels=("worker",)),
    Metric("worker_exits_total", "counter", "Workers that ended, by reason.", facts.exits, labels=("worker", "reason")),
    Metric("worker_start_time_seconds", "gauge", "When the slot's newest worker started, in Unix time.",
           facts.worker_start_time, labels=("worker",), unit="seconds"),
    Metric("worker_generation", "gauge", "Generation of the slot's newest worker: one more with each reload.",
           facts.worker_generation, labels=("worker",)),
    Metric("heartbeat_age_seconds", "gauge", "Time since the worker's event loop last ran: the slot's oldest.",
           facts.heartbeat_age, labels=("worker",), unit="seconds"),
    Metric("event_loop_lag_seconds", "histogram",
           "How much later than planned the event loop ran a timer: high when a worker is saturated or blocked.",
           "event_loop_lag", labels=("worker",), unit="seconds"),
    Metric("log_messages_dropped_total", "counter",
           "Lines of the worker's log that were lost: they came faster than they could be written.",
           words("log_messages_dropped"), labels=("worker",)),
    # Connections
    Metric("connections", "gauge", "Connections by state.",
           {(state,): (f"connections_{state}", 0) for state in ("handshaking", "open", "closing")},
           labels=("worker", "state")),
    Metric("connections_accepted_total", "counter", "Connections accepted by the listening sockets.",
           words("connections_accepted"), labels=("worker",)),
    Metric("handshakes_total", "counter", "Opening handshakes that ended, by result.",
           words("handshakes", HANDSHAKE_RESULTS), labels=("result",)),
    Metric("limit_rejections_total", "counter", "Connections turned away because a limit was reached.",
           words("limit_rejections", LIMITS), labels=("limit",)),
    Metric("handshake_duration_seconds", "histogram", "From accepting a connection to the end of its handshake.",
           "handshake_duration", unit="seconds"),
    Metric("connection_duration_seconds", "histogram", "From the end of the handshake to the end of the connection.",
           "connection_duration", unit="seconds"),
    Metric("closes_total", "counter",
           "Open connections that ended, by close code and by who began; abort: without a close handshake.", closes(),
           labels=("code", "initiator")),
    Metric("ping_rtt_seconds", "histogram", "From a ping to its pong: what the network and clients take.", "ping_rtt",
           unit="seconds"),
    Metric("pong_timeouts_total", "counter", "Connections failed because no pong came.", words("pong_timeouts")),
    # Messages
    Metric("messages_received_total", "counter", "Messages received.", words("messages", OPCODES),
           labels=("worker", "opcode")),
    Metric("messages_sent_total", "counter", "Messages sent.", words("messages", OPCODES, start=len(OPCODES)),
           labels=("worker", "opcode")),
    Metric("received_bytes_total", "counter", "Payload bytes of messages received.", words("bytes"),
           labels=("worker",), unit="bytes"),
    Metric("sent_bytes_total", "counter", "Payload bytes of messages sent.", words("bytes", start=1),
           labels=("worker",), unit="bytes"),
    Metric("handler_duration_seconds", "histogram", "From a message's arrival to its handler asking for the next.",
           "handler_duration", unit="seconds"),
    Metric("backpressure_pauses_total", "counter",
           "Pauses of reading because a handler was slow (max_queue), of writing because a client was (write_limit).",
           words("pauses", ("reading", "writing")), labels=("worker", "direction")),
)  # fmt: skip
