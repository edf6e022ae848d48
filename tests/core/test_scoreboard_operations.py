"""The scoreboard: what the supervisor enters of its own work, and of workers that have ended."""

import time

import pytest

from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import DAEMON_COUNTERS, OPERATION_BOUNDS, OPERATION_TICKS, OUTCOMES, SLOT_COUNTERS


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(rows=8, slots=4)


def test_processor_time_of_ended_workers_is_their_slots(board: Scoreboard) -> None:
    for _ in range(3):
        board.retire(board.assign(1), "reload", 0.25)
    board.retire(board.assign(0))
    board.retire_admin(1.5)
    assert [slot.cpu_seconds for slot in board.read().slots] == [0, 0.75]
    assert board.read().admin_cpu_seconds == 1.5


def test_accept_queues(board: Scoreboard) -> None:
    board.assign(1)
    board.accept_queue(1, 3, 4096)
    board.accept_queue(None, 5, 128)
    snapshot = board.read()
    assert [slot.accept_queue for slot in snapshot.slots] == [(0, 0), (3, 4096)]
    assert snapshot.accept_queue == (5, 128)


def test_reloads_and_upgrades(board: Scoreboard) -> None:
    assert (board.read().last_reload, board.read().last_reload_at) == (None, 0)
    before = time.time()
    board.reloaded(True, 0.2)
    board.reloaded(True, 400)
    board.reloaded(False, 3)
    snapshot = board.read()
    assert (snapshot.reloads, snapshot.upgrades) == ({"success": 2, "failure": 1}, dict.fromkeys(OUTCOMES, 0))
    assert snapshot.last_reload == "failure"
    assert before <= snapshot.last_reload_at <= time.time()
    *buckets, total = snapshot.reload_duration["success"]
    assert [i for i, count in enumerate(buckets) if count] == [1, len(OPERATION_BOUNDS)]
    assert total == 400.2 * OPERATION_TICKS
    assert sum(snapshot.reload_duration["failure"][:-1]) == 1
    board.upgraded(False)
    board.upgraded(True)
    snapshot = board.read()
    assert (snapshot.reloads["success"], snapshot.upgrades) == (2, {"success": 1, "failure": 1})
    assert snapshot.last_reload == "success"


@pytest.mark.parametrize("name", [*DAEMON_COUNTERS, *SLOT_COUNTERS])
def test_each_word_of_a_counter_is_counted_by_its_names(board: Scoreboard, name: str) -> None:
    """And nothing else is: neither another word nor another slot."""
    board.assign(3)
    for names in {**DAEMON_COUNTERS, **SLOT_COUNTERS}[name].places:
        before = board.read()
        if name in DAEMON_COUNTERS:
            board.inc(name, *names, by=3)
        else:
            board.inc_slot(1, name, *names)
            board.inc_slot(1, name, *names, by=2)
        after = board.read()
        label = " ".join(names)
        if name in DAEMON_COUNTERS:
            assert after.counters == {**before.counters, name: {**before.counters[name], label: 3}}
        else:
            counted = before.slots[1].counters
            assert after.slots[1].counters == {**counted, name: {**counted[name], label: 3}}
            assert after.counters == before.counters
        others = [[slot.counters for slot in read.slots if slot.index != 1] for read in (before, after)]
        assert others[0] == others[1]


def test_drains(board: Scoreboard) -> None:
    """The durations of drains are counted by their outcome."""
    board.drained(True, 0.05)
    board.drained(False, 35)
    found = board.read().drain_duration
    assert {outcome: [i for i, count in enumerate(words[:-1]) if count] for outcome, words in found.items()} == {
        "success": [0],
        "failure": [7],
    }


def test_the_bus_and_its_hub(board: Scoreboard) -> None:
    board.bus("local://")
    board.hub(4711, 1000.5)
    board.hub_row().set("hub_topics", 3)
    assert board.hub_row().index == -1
    snapshot = board.read()
    assert (snapshot.bus_url, snapshot.hub_pid, snapshot.hub_started_at) == ("local://", 4711, 1000.5)
    assert snapshot.hub.words("hub_topics") == (3,)
    board.hub_row().set("hub_topics", 4)  # the next hub's, in the same row
    assert board.read().hub.words("hub_topics") == (4,)
