"""What /live tells: numbers of one reading, and rates and quantiles between two."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import msgspec
import pytest

from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.live import EVENTS, HISTORY, Live, Pressure, Sampler


@pytest.fixture
def watcher(board: Scoreboard) -> Sampler:
    return Sampler(board)


def test_the_message_is_json_and_back(watcher: Sampler) -> None:
    live = watcher.sample(time.time())
    assert msgspec.json.decode(msgspec.json.encode(live), type=Live) == live


def test_numbers_are_those_of_the_scoreboard(board: Scoreboard, watcher: Sampler) -> None:
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
    row.accepted()
    row.http_opened()
    live = watcher.sample(time.time())
    assert live.state == "ready"
    assert (live.workers_desired, live.workers_ready) == (2, 1)
    assert (live.connections.open, live.connections.http, live.point.connections) == (3, 1, 4)
    assert live.totals.connections_accepted == 7
    assert live.closes == {"1000": 1, "1006": 1}
    assert live.closes_by == {"local": 0, "remote": 1, "abort": 1}
    assert live.handshakes == {"ok": 5, "forbidden": 1}
    assert live.rates.connections_accepted == 0  # there is nothing to compare with
    assert live.rss is not None
    assert [(worker.slot, worker.pid, worker.stage, worker.connections) for worker in live.workers] == [
        (0, 1000, "ready", 4),
        (1, 1001, "starting", 0),
    ]


def test_rates_lie_between_two_readings(board: Scoreboard, watcher: Sampler) -> None:
    watcher.sample(time.time())
    row = board.row(0)
    for _ in range(10):
        row.accepted()
        row.handshake("ok", 0.0002)
        row.opened()
        row.closing()
        row.closed(1001, "local", 1.0)
    row.tick(time.monotonic(), 0.002)
    row.tick(time.monotonic(), 0.004)
    live = watcher.sample(time.time())
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


def test_where_it_presses(board: Scoreboard, watcher: Sampler) -> None:
    assert watcher.sample(time.time()).pressure == Pressure()
    row = board.row(0)
    row.inc("pong_timeouts")
    row.inc("limit_rejections", "rate")
    row.inc("limit_rejections", "address")
    row.inc("log_messages_dropped", by=7)
    row.inc("slow_consumers", "close")
    row.send_queues(1, 1000, 1000)
    board.log_messages_dropped = 2
    board.accept_queue(0, 3, 4096)
    board.accept_queue(None, 1, 128)
    assert watcher.sample(time.time()).pressure == Pressure(
        accept_queue_length=4,
        send_queue_bytes=1000,
        slow_consumers=1,
        pong_timeouts=1,
        limit_rejections=2,
        log_messages_dropped=9,
    )


def test_quantiles_forget(board: Scoreboard, watcher: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.admin.live.WINDOW", 0)
    watcher.sample(time.time())
    board.row(0).observe("ping_rtt", 0.3)
    assert watcher.sample(time.time()).latency.ping.p99 is not None
    assert watcher.sample(time.time()).latency.ping.p99 is None


def test_what_is_remembered_has_bounds(board: Scoreboard, watcher: Sampler) -> None:
    for i in range(HISTORY + 5):
        board.desired = i % 2
        watcher.sample(float(i))
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
    watcher = Sampler(board)
    worker = watcher.sample(time.time()).workers[0]
    assert (worker.cpu, worker.age is not None) == (None, True)
    while not (worker := watcher.sample(time.time()).workers[0]).cpu:
        time.sleep(0.05)
    assert worker.rss


def test_while_nothing_can_be_read(board: Scoreboard, watcher: Sampler) -> None:
    watcher.sample(time.time())
    os.pwrite(board.fd, b"\x01", 5 * 8)  # the sequence: a supervisor that died as it wrote
    with pytest.raises(TimeoutError):
        watcher.sample(time.time())
