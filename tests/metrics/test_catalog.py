"""The catalog: names, labels and units as Prometheus asks, and nothing counted that is not shown."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial

import pytest

from tidegate._core.counters import BOUNDS, FIELDS, OPCODES
from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import DAEMON_COUNTERS, SLOT_COUNTERS
from tidegate.metrics.catalog import CATALOG, ByLabel, ByOutcome, Metric

BY_NAME = {metric.full_name: metric for metric in CATALOG}

# What the first version promised: removing or relabelling one breaks dashboards and alerts.
PROMISED = {
    "tidegate_accept_queue_length": {"worker"},
    "tidegate_accept_queue_limit": {"worker"},
    "tidegate_backpressure_pauses_total": {"worker", "direction"},
    "tidegate_build_info": {"version", "python", "uvloop"},
    "tidegate_bus_delivered_total": {"worker"},
    "tidegate_bus_dropped_total": {"queue"},
    "tidegate_bus_duplicates_total": set(),
    "tidegate_bus_engine_reads_total": {"outcome"},
    "tidegate_bus_fanout_seconds": set(),
    "tidegate_bus_gaps_total": {"outcome"},
    "tidegate_bus_hub_delivered_total": set(),
    "tidegate_bus_hub_links": set(),
    "tidegate_bus_hub_published_total": set(),
    "tidegate_bus_hub_restarts_total": set(),
    "tidegate_bus_hub_topics": set(),
    "tidegate_bus_journal_bytes": set(),
    "tidegate_bus_journal_evicted_total": {"reason"},
    "tidegate_bus_journal_messages": set(),
    "tidegate_bus_journal_stored_total": set(),
    "tidegate_bus_lag_seconds": set(),
    "tidegate_bus_member_closes_total": {"reason"},
    "tidegate_bus_members": {"worker"},
    "tidegate_bus_probe_seconds": set(),
    "tidegate_bus_publish_failures_total": {"reason"},
    "tidegate_bus_publish_seconds": set(),
    "tidegate_bus_published_total": {"worker"},
    "tidegate_bus_queue_bytes": {"queue"},
    "tidegate_bus_received_total": {"worker"},
    "tidegate_bus_resumed_messages_total": set(),
    "tidegate_bus_resumes_total": {"result"},
    "tidegate_bus_state_changes_total": {"to"},
    "tidegate_bus_subscriptions_pending": {"worker"},
    "tidegate_bus_topics": {"worker"},
    "tidegate_bus_up": {"worker", "engine"},
    "tidegate_closes_total": {"code", "initiator"},
    "tidegate_config_hash_info": {"hash"},
    "tidegate_connection_duration_seconds": set(),
    "tidegate_connections": {"worker", "state"},
    "tidegate_connections_accepted_total": {"worker"},
    "tidegate_connections_max": set(),
    "tidegate_draining": set(),
    "tidegate_drain_duration_seconds": {"result"},
    "tidegate_event_loop_lag_seconds": {"worker"},
    "tidegate_gc_collections_total": {"worker", "generation"},
    "tidegate_gc_pause_seconds": {"worker"},
    "tidegate_handler_duration_seconds": set(),
    "tidegate_handshake_duration_seconds": set(),
    "tidegate_handshakes_total": {"result"},
    "tidegate_heartbeat_age_seconds": {"worker"},
    "tidegate_http_request_duration_seconds": {"worker"},
    "tidegate_http_requests_total": {"worker", "status"},
    "tidegate_last_reload_success": set(),
    "tidegate_last_reload_timestamp_seconds": set(),
    "tidegate_limit_rejections_total": {"limit"},
    "tidegate_listen_drops_total": set(),
    "tidegate_listen_overflows_total": set(),
    "tidegate_log_messages_dropped_total": {"worker"},
    "tidegate_message_size_bytes": {"direction"},
    "tidegate_messages_received_total": {"worker", "opcode"},
    "tidegate_messages_sent_total": {"worker", "opcode"},
    "tidegate_ping_rtt_seconds": set(),
    "tidegate_pong_timeouts_total": set(),
    "tidegate_process_cpu_seconds_total": {"worker"},
    "tidegate_process_max_fds": {"worker"},
    "tidegate_process_open_fds": {"worker"},
    "tidegate_process_resident_memory_bytes": {"worker"},
    "tidegate_ready": set(),
    "tidegate_received_bytes_total": {"worker"},
    "tidegate_reload_duration_seconds": {"result"},
    "tidegate_reloads_total": {"result"},
    "tidegate_send_queue_bytes": {"worker"},
    "tidegate_send_queue_connections": {"worker"},
    "tidegate_send_queue_max_bytes": {"worker"},
    "tidegate_sent_bytes_total": {"worker"},
    "tidegate_slow_consumers_total": {"action"},
    "tidegate_start_time_seconds": set(),
    "tidegate_supervisor_log_messages_dropped_total": set(),
    "tidegate_supervisor_tick_age_seconds": set(),
    "tidegate_upgrades_total": {"result"},
    "tidegate_worker_exits_total": {"worker", "reason"},
    "tidegate_worker_generation": {"worker"},
    "tidegate_worker_spawns_total": {"worker"},
    "tidegate_worker_stage": {"worker", "stage"},
    "tidegate_worker_start_time_seconds": {"worker"},
    "tidegate_workers_desired": set(),
}


def test_names_and_labels_are_the_promised_ones() -> None:
    assert {name: set(metric.labels) for name, metric in BY_NAME.items()} == PROMISED


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(CATALOG)


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_a_metric_follows_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    stem = metric.name.removesuffix("_total")
    assert stem.endswith(f"_{metric.unit}") if metric.unit else not stem.endswith(("_seconds", "_bytes"))
    assert re.fullmatch(r"[A-Z0-9].*\.", metric.help)
    assert "\n" not in metric.help
    assert len(set(metric.labels)) == len(metric.labels)
    assert not {"le", "quantile", "pid", "path", "user", "address", "job", "instance"} & set(metric.labels)
    assert metric.labels[:1] == ("worker",) or "worker" not in metric.labels


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_a_source_fits_its_type(metric: Metric) -> None:
    if isinstance(metric.source, str):
        assert metric.type == "histogram"
        assert metric.source in BOUNDS
    elif isinstance(metric.source, ByLabel):
        assert metric.type == "histogram"
        assert len(metric.labels) == 1 + ("worker" in metric.labels)
        assert set(metric.source.fields.values()) <= set(BOUNDS)
    elif isinstance(metric.source, ByOutcome):
        assert (metric.type, metric.labels) == ("histogram", ("result",))
    else:
        assert metric.type != "histogram"
    if isinstance(metric.source, Mapping):
        kind = {"counter": "counter", "gauge": "gauge"}[metric.type]
        own = [label for label in metric.labels if label != "worker"]
        for names, (field, index) in metric.source.items():
            assert FIELDS[field].kind == kind
            assert 0 <= index < FIELDS[field].size
            assert len(names) == len(own)


def test_every_word_that_is_counted_is_shown_once() -> None:
    shown: Counter[tuple[str, int]] = Counter()
    for metric in CATALOG:
        if isinstance(metric.source, str | ByLabel):
            names = [metric.source] if isinstance(metric.source, str) else metric.source.fields.values()
            shown.update((name, i) for name in names for i in range(FIELDS[name].size))
        elif isinstance(metric.source, Mapping):
            shown.update(metric.source.values())
    assert set(shown.values()) == {1}
    assert set(shown) == {
        (name, i) for name, field in FIELDS.items() for i in (field.places.values() or range(field.size))
    }


@pytest.mark.parametrize("name", [*DAEMON_COUNTERS, *SLOT_COUNTERS])
def test_each_counter_of_the_supervisor_is_shown_once(name: str) -> None:
    """Each of its words has a sample: of the daemon, or of each slot."""
    sources = [metric for metric in CATALOG if isinstance(metric.source, partial) and metric.source.args == (name,)]
    (metric,) = sources
    assert metric.type == "counter"
    board = Scoreboard.create(rows=2, slots=2)
    board.assign(1)
    field = {**DAEMON_COUNTERS, **SLOT_COUNTERS}[name]
    for number, names in enumerate(field.places):
        if name in DAEMON_COUNTERS:
            board.inc(name, *names, by=number + 1)
        else:
            board.inc_slot(1, name, *names, by=number + 1)
    assert callable(metric.source)
    found = dict(metric.source(board.read()))
    assert all(len(labels) == len(metric.labels) for labels in found)
    of_slot = () if name in DAEMON_COUNTERS else ("1",)
    assert {labels: found[*of_slot, *labels] for labels in field.places} == {
        labels: number + 1 for number, labels in enumerate(field.places)
    }


def test_the_tables_name_the_words_that_native_code_writes() -> None:
    closes = BY_NAME["tidegate_closes_total"].source
    assert isinstance(closes, Mapping)
    assert closes["1001", "remote"] == ("closes", 21)
    sent = BY_NAME["tidegate_messages_sent_total"].source
    assert sent == {(opcode,): ("messages", 2 + i) for i, opcode in enumerate(OPCODES)}
