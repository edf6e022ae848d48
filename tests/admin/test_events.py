"""Events of /live: what happened, in words, alone or together.

What must not live here: numbers (test_live.py).
"""

from __future__ import annotations

import os
import time

import pytest

from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import EXIT_REASONS
from tidegate.admin.events import ENDED
from tidegate.admin.live import Live, Sampler


@pytest.fixture
def watcher(board: Scoreboard) -> Sampler:
    return Sampler(board)


def texts(live: Live) -> list[str]:
    return [event.text for event in live.events]


def test_the_first_reading_tells_what_can_still_be_known(board: Scoreboard, watcher: Sampler) -> None:
    board.reloaded(True, 1.0)
    live = watcher.sample(time.time())
    assert texts(live) == [
        f"tidegate started (pid {os.getpid()})",
        "worker 0 started (pid 1000, generation 1)",
        "worker 1 started (pid 1001, generation 1)",
        "reload done",
    ]
    assert [event.time for event in live.events] == sorted(event.time for event in live.events)
    assert texts(watcher.sample(time.time())) == []
    assert [event.text for event in watcher.events] == texts(live)


def test_a_reload(board: Scoreboard, watcher: Sampler) -> None:
    watcher.sample(time.time())
    successor = board.assign(0, generation=2)
    board.spawn(successor, 2000)
    board.stage(successor, "ready")
    board.stage(0, "draining")
    assert texts(watcher.sample(time.time())) == [
        "worker 0 started (pid 2000, generation 2)",
        "worker 0 drains (pid 1000)",
        "worker 0 is ready (pid 2000)",
    ]
    board.retire(0, "reload")
    board.reloaded(True, 1.0)
    assert sorted(texts(watcher.sample(time.time()))) == ["reload done", "worker 0 ended, as its successor serves"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("reload", "reload failed: the old workers go on serving"), ("upgrade", "upgrade failed: the old workers")],
)
def test_a_failure_is_a_warning(board: Scoreboard, watcher: Sampler, name: str, text: str) -> None:
    watcher.sample(time.time())
    board.reloaded(False, 1.0) if name == "reload" else board.upgraded(False)
    (event,) = watcher.sample(time.time()).events
    assert event.text.startswith(text)
    assert event.level == "warning"


def test_a_crash_and_a_slot_that_waits(board: Scoreboard, watcher: Sampler) -> None:
    board.ready = True
    watcher.sample(time.time())
    board.retire(0, "crash")
    board.backoff(0, time.monotonic() + 100)
    live = watcher.sample(time.time())
    assert [(event.text, event.level) for event in live.events] == [
        ("worker 0 crashed", "warning"),
        ("down: no worker is ready", "warning"),
    ]
    assert [(worker.slot, worker.pid, worker.stage) for worker in live.workers] == [
        (0, None, "backoff"),
        (1, 1001, "starting"),
    ]


def test_scale_and_drain(board: Scoreboard, watcher: Sampler) -> None:
    watcher.sample(time.time())
    board.desired = 3
    board.draining = True
    assert texts(watcher.sample(time.time())) == [
        "workers wanted: 3, not 2",
        "draining: connections are closed one by one",
    ]


def test_what_many_do_at_once_is_one_event(board: Scoreboard) -> None:
    for slot in range(2, 7):
        board.spawn(board.assign(slot, generation=1), 1000 + slot)
    watcher = Sampler(board)
    assert texts(watcher.sample(time.time())) == [
        f"tidegate started (pid {os.getpid()})",
        "workers 0-6 started (generation 1)",
    ]
    for row in (1, 2, 3, 5):
        board.stage(row, "ready")
    assert texts(watcher.sample(time.time())) == ["workers 1-3, 5 are ready"]
    for row in (2, 4, 6):
        board.retire(row, "crash")
    assert texts(watcher.sample(time.time())) == ["worker 2 crashed", "worker 4 crashed", "worker 6 crashed"]


def test_every_end_has_words() -> None:
    assert set(ENDED) == set(EXIT_REASONS)
