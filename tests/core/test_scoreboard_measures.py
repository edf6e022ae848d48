"""What a worker measures of itself, and the supervisor of its settings: entries of the scoreboard."""

import pytest

from tidegate._core.counters import Row
from tidegate._core.scoreboard import Scoreboard


def test_collections_by_generation() -> None:
    row = Row()
    for generation in ("0", "0", "1", "2"):
        row.inc("gc_collections", generation)
        row.observe("gc_pause", 0.003)
    assert row.words("gc_collections") == (2, 1, 1)
    assert sum(row.words("gc_pause")[:-1]) == 4
    assert row.words("gc_pause")[-1] == 4 * 3_000_000


def test_slow_consumers() -> None:
    row = Row()
    row.inc("slow_consumers", "close")
    assert row.words("slow_consumers")[0] == 1


def test_send_queues_end_with_their_worker() -> None:
    board = Scoreboard.create()
    rows = [board.assign(0), board.assign(0)]
    for i in rows:
        board.row(i).send_queues(2, 100 * (i + 1), 60 + i)
    snapshot = board.read()
    assert snapshot.counts.words("send_queue_connections") == (4,)
    assert snapshot.counts.words("send_queue_bytes") == (300,)
    assert [worker.counts.send_queue_max_bytes for worker in snapshot.slots[0].workers] == [60, 61]
    assert snapshot.slots[0].counts.send_queue_max_bytes == 0  # the fullest is no sum
    for i in rows:
        board.retire(i, "stopped")
    assert board.read().counts.words("send_queue_bytes") == (0,)


def test_the_most_connections() -> None:
    row = Row()
    assert row.connections_max == (0, None)
    row.connections_max = 1000, 50
    assert row.connections_max == (1000, 50)
    row.connections_max = 1000, None
    assert row.connections_max == (1000, None)
    with pytest.raises(TypeError):
        row.connections_max = 1000  # type: ignore[assignment]


def test_a_row_knows_its_place() -> None:
    board = Scoreboard.create()
    assert Row().index == -1
    assert [board.row(i).index for i in (0, 7)] == [0, 7]


def test_the_hash_of_the_settings() -> None:
    board = Scoreboard.create()
    assert board.config_hash == board.read().config_hash == 0
    board.config_hash = 2**64 - 1
    assert board.config_hash == board.read().config_hash == 2**64 - 1
