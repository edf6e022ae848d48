"""The bus and the hub in /status and /live: of all workers, and by the hub's own row."""

import time

import msgspec
import pytest

from tidegate._core.counters import BusState
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.bus import bus_status
from tidegate.admin.live import Sampler
from tidegate.admin.status import status


def busy(board: Scoreboard) -> None:
    """Have two workers on a bus, on which something has happened."""
    now = time.monotonic()
    board.bus("local://")
    for number in range(2):
        row = board.row(number)
        row.bus = BusState("local", True, False, now - 60, "")
        row.begin_window(now - 10)
        row.set("bus_members", 20)
        row.set("bus_topics", 3)
        row.inc("bus_published", by=500)
        row.inc("bus_gaps", "repaired", by=2)
        row.inc("bus_resumes", "failed")
        for _ in range(100):
            row.observe("bus_lag", 0.002)
    board.row(0).inc("bus_publish_failures", "busy", by=3)
    board.row(0).inc("bus_closes", "slow", by=4)


def test_without_channels_there_is_no_bus(board: Scoreboard) -> None:
    assert bus_status(board.read(), time.time()) is None
    assert status(board.read(), time.time()).bus is None


def test_the_bus_of_all_workers(board: Scoreboard) -> None:
    busy(board)
    found = bus_status(board.read(), time.time())
    assert found is not None
    assert (found.url, found.engine, found.up, found.reason) == ("local://", "local", True, "")
    assert (found.members, found.topics, found.published, found.repaired, found.told) == (40, 6, 1000, 4, 0)
    assert (found.publish_failures, found.resumes["failed"], found.closes["slow"]) == (3, 2, 4)
    assert 50 < found.published_per_second <= 100  # 1000 in ten seconds, or a little more
    assert found.lag_p99 == pytest.approx(0.002485)
    assert found.hub is None
    assert not found.required


def test_a_worker_without_bus_says_why(board: Scoreboard) -> None:
    busy(board)
    board.row(1).bus = BusState("local", False, True, time.monotonic(), "the hub has ended")
    found = bus_status(board.read(), time.time())
    assert found is not None
    assert (found.up, found.reason, found.required) == (False, "the hub has ended", True)


def test_the_hub(board: Scoreboard) -> None:
    busy(board)
    now = time.time()
    board.hub(4711, now - 90)
    board.inc("hub_restarts")
    row = board.hub_row()
    row.set("hub_links", 2)
    row.set("hub_topics", 5)
    row.set("journal_messages", 200)
    row.set("journal_bytes", 12_345)
    row.inc("journal_stored", by=900)
    row.inc("journal_evicted", "space", by=7)
    found = status(board.read(), now).bus
    assert found is not None
    assert found.hub is not None
    assert msgspec.structs.asdict(found.hub) == {
        "pid": 4711,
        "uptime": pytest.approx(90),
        "restarts": 1,
        "links": 2,
        "topics": 5,
        "queue_bytes": 0,
        "journal_messages": 200,
        "journal_bytes": 12_345,
        "stored": 900,
        "evicted": 7,
    }
    board.hub(0, 0.0)
    found = bus_status(board.read(), now)
    assert found is not None
    assert found.hub is not None
    assert (found.hub.pid, found.hub.uptime, found.hub.restarts) == (None, 0.0, 1)


def test_live_has_the_rate_of_this_second(board: Scoreboard) -> None:
    busy(board)
    watcher = Sampler(board)
    watcher.sample(time.time())
    started = time.monotonic()
    board.row(0).inc("bus_published", by=100)
    time.sleep(0.01)
    live = watcher.sample(time.time())
    assert live.bus is not None
    assert 100 / (time.monotonic() - started + 1) < live.bus.published_per_second <= 100 / 0.01
    assert live.bus.lag_p99 is None  # since the watcher began
