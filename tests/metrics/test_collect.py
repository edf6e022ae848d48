"""From the scoreboard to families: each value under the labels that it belongs to."""

import math
import random

import pytest
from prometheus_client.registry import CollectorRegistry

from tidegate._core.counters import BOUNDS, Row
from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import EXIT_REASONS
from tidegate.metrics.catalog import CATALOG
from tidegate.metrics.collect import ScoreboardCollector, families, histogram
from tidegate.metrics.procfs import Observer


def values(board: Scoreboard) -> dict[str, float]:
    """Every sample as it reads in a query."""
    return {
        sample.name
        + "{"
        + ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        + "}": sample.value
        for family in families(Observer(board).read())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ("tidegate_ready{}", 1),
        ("tidegate_draining{}", 0),
        ("tidegate_workers_desired{}", 2),
        ("tidegate_worker_stage{stage=draining,worker=0}", 1),
        ("tidegate_worker_stage{stage=ready,worker=0}", 1),
        ("tidegate_worker_stage{stage=ready,worker=1}", 1),
        ("tidegate_worker_stage{stage=starting,worker=1}", 0),
        ("tidegate_worker_spawns_total{worker=0}", 3),
        ("tidegate_worker_spawns_total{worker=1}", 1),
        ("tidegate_worker_exits_total{reason=crash,worker=0}", 1),
        ("tidegate_worker_exits_total{reason=crash,worker=1}", 0),
        ("tidegate_worker_generation{worker=0}", 2),
        ("tidegate_connections{state=open,worker=0}", 2),
        ("tidegate_connections{state=open,worker=1}", 1),
        ("tidegate_connections{state=closing,worker=0}", 0),
        ("tidegate_connections{state=handshaking,worker=0}", 2),
        ("tidegate_connections_accepted_total{worker=0}", 11),
        ("tidegate_connections_accepted_total{worker=1}", 5),
        ("tidegate_handshakes_total{result=ok}", 10),
        ("tidegate_handshakes_total{result=forbidden}", 3),
        ("tidegate_handshakes_total{result=timeout}", 0),
        ("tidegate_closes_total{code=1001,initiator=local}", 3),
        ("tidegate_closes_total{code=4xxx,initiator=remote}", 3),
        ("tidegate_closes_total{code=1006,initiator=abort}", 0),
        ("tidegate_pong_timeouts_total{}", 3),
        ("tidegate_handshake_duration_seconds_count{}", 13),
        ("tidegate_handshake_duration_seconds_bucket{le=0.0001}", 3),
        ("tidegate_handshake_duration_seconds_bucket{le=0.001}", 3),
        ("tidegate_handshake_duration_seconds_bucket{le=0.0025}", 12),
        ("tidegate_handshake_duration_seconds_bucket{le=+Inf}", 13),
        ("tidegate_handshake_duration_seconds_sum{}", 0.5 + 9 * 0.002 + 3 * 0.0001),
        ("tidegate_connection_duration_seconds_bucket{le=60.0}", 3),
        ("tidegate_connection_duration_seconds_bucket{le=86400.0}", 3),
        ("tidegate_connection_duration_seconds_bucket{le=+Inf}", 6),
        ("tidegate_connection_duration_seconds_sum{}", 3 * 100_012),
        ("tidegate_ping_rtt_seconds_sum{}", 0.09),
        ("tidegate_event_loop_lag_seconds_count{worker=0}", 2),
        ("tidegate_event_loop_lag_seconds_count{worker=1}", 1),
        ("tidegate_handler_duration_seconds_count{}", 0),
        ("tidegate_messages_received_total{opcode=text,worker=1}", 0),
        ("tidegate_backpressure_pauses_total{direction=writing,worker=1}", 0),
    ],
)
def test_values(board: Scoreboard, sample: str, value: float) -> None:
    """A sample's value comes from the scoreboard."""
    assert values(board)[sample] == pytest.approx(value, rel=1e-12)


def test_before_the_first_worker() -> None:
    """Whatever has no worker label is there from the start, as 0, so that rates see the first increase."""
    found = values(Scoreboard.create())
    assert found["tidegate_closes_total{code=1006,initiator=abort}"] == 0
    assert found["tidegate_handshakes_total{result=ok}"] == 0
    assert found["tidegate_ready{}"] == 0
    own = [sample for sample in found if "worker=" in sample and not sample.startswith("tidegate_process_")]
    assert own == []


def test_all_reasons_of_exits_are_there_with_the_first_worker(board: Scoreboard) -> None:
    found = values(board)
    assert all(f"tidegate_worker_exits_total{{reason={reason},worker=1}}" in found for reason in EXIT_REASONS)


def test_counters_do_not_shrink_when_a_worker_ends(board: Scoreboard) -> None:
    def counters() -> dict[str, float]:
        return {
            name: value
            for name, value in values(board).items()
            if name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket"))
        }

    before = counters()
    for worker in [worker for slot in board.read().slots for worker in slot.workers]:
        board.retire(worker.row, "stopped")
        after = counters()
        assert before.keys() == after.keys()
        assert not [name for name in before if after[name] < before[name]]
    assert values(board)["tidegate_connections{state=open,worker=0}"] == 0


def test_a_histogram_is_cumulative() -> None:
    row = Row()
    chance = random.Random(2)
    for _ in range(500):
        row.observe("ping_rtt", chance.random() ** 4 * 20)
    buckets, total = histogram(row, "ping_rtt")
    assert [float(bound) for bound, _ in buckets] == [*BOUNDS["ping_rtt"], math.inf]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == 500
    assert total == row.words("ping_rtt")[-1] / 1e9


def test_a_registry_knows_the_names_without_a_read(board: Scoreboard) -> None:
    registry = CollectorRegistry()
    registry.register(ScoreboardCollector(board))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(ScoreboardCollector(board))
    assert len(list(registry.collect())) == len(CATALOG)
