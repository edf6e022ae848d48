"""What /live tells: numbers of one reading, rates and quantiles between two, and events."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import msgspec
import pytest

from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import EXIT_REASONS
from tidegate.admin.live import _ENDED, EVENTS, HISTORY, Live, Pressure, Watcher, quantile


@pytest.fixture
def watcher(board: Scoreboard) -> Watcher:
    return Watcher(board)


def texts(live: Live) -> list[str]:
    return [event.text for event in live.events]


def test_the_message_is_json_and_back(watcher: Watcher) -> None:
    live = watcher.look(time.time())
    assert msgspec.json.decode(msgspec.json.encode(live), type=Live) == live


def test_numbers_are_those_of_the_scoreboard(board: Scoreboard, watcher: Watcher) -> None:
    board.ready = True
    row = board.row(0)
    for _ in range(5):
        row.accepted()
        row.handshake("ok", 0.001)
        row.opened()
    row.accepted()
    row.handshake("forbidden", 0.001)
    row.closing()
    row.closed(1000, "remote", 1.0)
    row.closed(1006, "abort", 1.0, "open")
    live = watcher.look(time.time())
    assert live.state == "ready"
    assert (live.workers_desired, live.workers_ready) == (2, 1)
    assert (live.connections.open, live.point.connections) == (3, 3)
    assert live.totals.connections_accepted == 6
    assert live.closes == {"1000": 1, "1006": 1}
    assert live.closes_by == {"local": 0, "remote": 1, "abort": 1}
    assert live.handshakes == {"ok": 5, "forbidden": 1}
    assert live.rates.connections_accepted == 0  # there is nothing to compare with
    assert live.rss is not None
    assert [(worker.slot, worker.pid, worker.stage, worker.connections) for worker in live.workers] == [
        (0, 1000, "ready", 3),
        (1, 1001, "starting", 0),
    ]


def test_rates_lie_between_two_readings(board: Scoreboard, watcher: Watcher) -> None:
    watcher.look(time.time())
    row = board.row(0)
    for _ in range(10):
        row.accepted()
        row.handshake("ok", 0.0002)
        row.opened()
        row.closing()
        row.closed(1001, "local", 1.0)
    row.tick(time.monotonic(), 0.002)
    row.tick(time.monotonic(), 0.004)
    live = watcher.look(time.time())
    assert live.interval > 0
    assert live.rates.connections_accepted == pytest.approx(10 / live.interval)
    assert live.point.closes == {"1001": pytest.approx(10 / live.interval)}
    first, second = live.workers
    assert first.rates == live.rates
    assert second.rates.connections_accepted == 0
    assert first.lag == pytest.approx(0.003)
    assert second.lag is None
    assert live.latency.handshake.p50 == pytest.approx(0.000175)  # in the middle of 100 us to 250 us
    assert live.latency.handler.p50 is None


def test_where_it_presses(board: Scoreboard, watcher: Watcher) -> None:
    assert watcher.look(time.time()).pressure == Pressure()
    row = board.row(0)
    row.pong_timeout()
    row.limit_rejection("rate")
    row.limit_rejection("address")
    row.log_dropped(7)
    row.slow_consumer("close")
    row.send_queues(1, 1000, 1000)
    board.log_messages_dropped = 2
    board.accept_queue(0, 3, 4096)
    board.accept_queue(None, 1, 128)
    assert watcher.look(time.time()).pressure == Pressure(
        accept_queue_length=4,
        send_queue_bytes=1000,
        slow_consumers=1,
        pong_timeouts=1,
        limit_rejections=2,
        log_messages_dropped=9,
    )


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.5),  # even from 0 to 1
        ([0, 10, 0, 0], 1.0, 2.0),
        ([5, 5, 0, 0], 0.5, 1.0),
        ([5, 0, 5, 0], 0.9, 3.6),
        ([0, 0, 0, 7], 0.5, 4),  # above the last bound: that is all that is known
        ([0, 0, 5, 0], 0.0, 2.0),
    ],
)
def test_quantile(counts: list[int], q: float, expected: float | None) -> None:
    found = quantile(q, (1, 2, 4), [*counts, 0, 0])
    assert found == (expected if expected is None else pytest.approx(expected))


def test_quantiles_forget(board: Scoreboard, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.admin.live.WINDOW", 0)
    watcher.look(time.time())
    board.row(0).ping_rtt(0.3)
    assert watcher.look(time.time()).latency.ping.p99 is not None
    assert watcher.look(time.time()).latency.ping.p99 is None


def test_the_first_reading_tells_what_can_still_be_known(board: Scoreboard, watcher: Watcher) -> None:
    board.reloaded(True, 1.0)
    live = watcher.look(time.time())
    assert texts(live) == [
        f"tidegate started (pid {os.getpid()})",
        "worker 0 started (pid 1000, generation 1)",
        "worker 1 started (pid 1001, generation 1)",
        "reload done",
    ]
    assert [event.time for event in live.events] == sorted(event.time for event in live.events)
    assert texts(watcher.look(time.time())) == []
    assert [event.text for event in watcher.events] == texts(live)


def test_a_reload(board: Scoreboard, watcher: Watcher) -> None:
    watcher.look(time.time())
    successor = board.assign(0, generation=2)
    board.spawn(successor, 2000)
    board.stage(successor, "ready")
    board.stage(0, "draining")
    assert texts(watcher.look(time.time())) == [
        "worker 0 started (pid 2000, generation 2)",
        "worker 0 drains (pid 1000)",
        "worker 0 is ready (pid 2000)",
    ]
    board.retire(0, "reload")
    board.reloaded(True, 1.0)
    assert sorted(texts(watcher.look(time.time()))) == ["reload done", "worker 0 ended, as its successor serves"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("reload", "reload failed: the old workers go on serving"), ("upgrade", "upgrade failed: the old workers")],
)
def test_a_failure_is_a_warning(board: Scoreboard, watcher: Watcher, name: str, text: str) -> None:
    watcher.look(time.time())
    board.reloaded(False, 1.0) if name == "reload" else board.upgraded(False)
    (event,) = watcher.look(time.time()).events
    assert event.text.startswith(text)
    assert event.level == "warning"


def test_a_crash_and_a_slot_that_waits(board: Scoreboard, watcher: Watcher) -> None:
    board.ready = True
    watcher.look(time.time())
    board.retire(0, "crash")
    board.backoff(0, time.monotonic() + 100)
    live = watcher.look(time.time())
    assert [(event.text, event.level) for event in live.events] == [
        ("worker 0 crashed", "warning"),
        ("down: no worker is ready", "warning"),
    ]
    assert [(worker.slot, worker.pid, worker.stage) for worker in live.workers] == [
        (0, None, "backoff"),
        (1, 1001, "starting"),
    ]


def test_scale_and_drain(board: Scoreboard, watcher: Watcher) -> None:
    watcher.look(time.time())
    board.desired = 3
    board.draining = True
    assert texts(watcher.look(time.time())) == [
        "workers wanted: 3, not 2",
        "draining: connections are closed one by one",
    ]


def test_what_many_do_at_once_is_one_event(board: Scoreboard) -> None:
    for slot in range(2, 7):
        board.spawn(board.assign(slot, generation=1), 1000 + slot)
    watcher = Watcher(board)
    assert texts(watcher.look(time.time())) == [
        f"tidegate started (pid {os.getpid()})",
        "workers 0-6 started (generation 1)",
    ]
    for row in (1, 2, 3, 5):
        board.stage(row, "ready")
    assert texts(watcher.look(time.time())) == ["workers 1-3, 5 are ready"]
    for row in (2, 4, 6):
        board.retire(row, "crash")
    assert texts(watcher.look(time.time())) == ["worker 2 crashed", "worker 4 crashed", "worker 6 crashed"]


def test_every_end_has_words() -> None:
    assert set(_ENDED) == set(EXIT_REASONS)


def test_what_is_remembered_has_bounds(board: Scoreboard, watcher: Watcher) -> None:
    for i in range(HISTORY + 5):
        board.desired = i % 2
        watcher.look(float(i))
    assert len(watcher.points) == HISTORY
    assert watcher.points[-1].time == HISTORY + 4
    assert len(watcher.events) == EVENTS


@pytest.fixture
def busy() -> Iterator[int]:
    with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) as process:
        yield process.pid
        process.kill()


def test_what_the_system_tells_of_a_worker(board: Scoreboard, busy: int) -> None:
    board.spawn(0, busy)
    watcher = Watcher(board)
    worker = watcher.look(time.time()).workers[0]
    assert (worker.cpu, worker.age is not None) == (None, True)
    while not (worker := watcher.look(time.time()).workers[0]).cpu:
        time.sleep(0.05)
    assert worker.rss


def test_while_nothing_can_be_read(board: Scoreboard, watcher: Watcher) -> None:
    watcher.look(time.time())
    os.pwrite(board.fd, b"\x01", 5 * 8)  # the sequence: a supervisor that died as it wrote
    with pytest.raises(TimeoutError):
        watcher.look(time.time())
