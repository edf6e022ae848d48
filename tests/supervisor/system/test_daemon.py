"""What the manager is told of the workers and when, and what is asked of the process first of all.

What must not live here: a whole daemon (tests/process/test_service.py), the protocol itself (test_sd_notify.py).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate._core.scoreboard import Scoreboard
from tidegate.config.bind import Systemd
from tidegate.config.schema import Config
from tidegate.supervisor.sockets.listeners import Listeners
from tidegate.supervisor.system.daemon import Service, ServiceError
from tidegate.supervisor.system.sd_notify import Notify
from tidegate.supervisor.worker_handle import Generation, Handle, Slot

CONFIG = Config(application="application:handler", workers=2)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        yield manager


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard.create()
    board.desired = 2
    yield board
    board.close()


@pytest.fixture
def workers(board: Scoreboard) -> list[Handle]:
    """Two that are ready, with a heartbeat of this moment."""
    generation = Generation(1, CONFIG)
    handles = []
    for index in range(2):
        handle = Handle(Slot(index, generation), generation, board.assign(index))
        handle.stage = "ready"
        assert handle.row is not None
        board.row(handle.row).tick(time.monotonic(), 0.0)
        handles.append(handle)
    return handles


def service(manager: socket.socket, watchdog: float | None = None, config: Config = CONFIG) -> Service:
    service = Service(config)
    service.notify = Notify(manager.getsockname(), watchdog)
    return service


def told(manager: socket.socket) -> list[str]:
    datagrams = []
    try:
        while True:
            datagrams.append(manager.recv(65536).decode())
    except BlockingIOError:
        return datagrams


def test_live_counts(manager: socket.socket, board: Scoreboard, workers: list[Handle]) -> None:
    it = service(manager)
    it.tick(board, workers)
    row = board.row(workers[0].row or 0)
    row.accepted()
    row.handshake("ok", 0.0)
    row.opened()
    row.accepted()
    row.http_opened()
    it.tick(board, workers)  # that can wait for a moment, unlike what follows
    workers[1].stage = "draining"
    it.tick(board, workers)
    it.tick(board, workers)
    assert told(manager) == [
        "STATUS=2 of 2 workers ready, 0 connections",
        "STATUS=1 of 2 workers ready, 2 connections",
    ]
    it.notify.close()


def test_two_workers_of_a_slot_are_one(manager: socket.socket, board: Scoreboard, workers: list[Handle]) -> None:
    """As during a hand-over."""
    successor = Handle(workers[0].slot, Generation(2, CONFIG), board.assign(0))
    successor.stage = "ready"
    it = service(manager)
    it.tick(board, [*workers, successor])
    assert told(manager) == ["STATUS=2 of 2 workers ready, 0 connections"]
    it.notify.close()


def test_the_watchdog_hears_nothing_while_a_worker_hangs_for_too_long(
    manager: socket.socket, board: Scoreboard, workers: list[Handle]
) -> None:
    it = service(manager, watchdog=0.2)
    limit = (CONFIG.worker_timeout or 0.0) + 6.0
    rows = [board.row(handle.row or 0) for handle in workers]

    def watchdog(*ages: float) -> bool:
        time.sleep(0.1)  # half of the watchdog's time is over
        for row, age in zip(rows, ages, strict=True):
            row.tick(time.monotonic() - age, 0.0)
        it.tick(board, workers)
        return "WATCHDOG=1" in told(manager)

    assert watchdog(0, 0)
    assert not watchdog(limit, 0)
    workers[0].stage = "draining"  # a matter of the drain's own limits
    assert watchdog(limit, 0)
    workers[0].stage = "ready"
    assert not watchdog(limit, 0)
    assert watchdog(0, 0)
    it.notify.close()


def test_ticks_keep_up_with_a_short_watchdog(manager: socket.socket) -> None:
    for watchdog, interval in ((None, 0.5), (60, 0.5), (0.2, 0.1)):
        it = service(manager, watchdog)
        assert it.interval(0.5) == interval
        it.notify.close()


def test_a_reload_that_is_overtaken_by_the_end_says_no_more(manager: socket.socket) -> None:
    it = service(manager)
    it.reloading(10)
    it.stopping(20, "SIGTERM")
    it.reloaded(False, 2, 2)
    assert [datagram.partition("\n")[0] for datagram in told(manager)] == ["RELOADING=1", "STOPPING=1"]
    it.notify.close()


def test_a_pid_file_that_cannot_be_written(tmp_path: Path) -> None:
    config = Config(application="a:b", pidfile=str(tmp_path / "nowhere" / "pid"))
    with pytest.raises(ServiceError, match="no such file or directory") as caught:
        Service(config).bound(Listeners())
    assert caught.value.status == 2


def test_what_was_in_the_environment_is_kept_for_a_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NOTIFY_SOCKET", "@nobody"), ("LISTEN_FDS", "1"), ("LISTEN_PID", "1")):
        monkeypatch.setenv(name, value)
    it = Service(Config(application="a:b", bind=(Systemd(),)))
    it.bound(Listeners())
    assert it.environment == {"NOTIFY_SOCKET": "@nobody", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    assert not it.environment.keys() & os.environ.keys()
    it.close()
