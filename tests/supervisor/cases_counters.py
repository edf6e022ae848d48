"""Reloads, drains and queues whose counts a supervisor enters in its scoreboard, for test_counters.py.

The counts are asserted here, in the supervisor's process, for nobody else can read them so early. What must not live
here: tests.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.supervisor.staged import Given, Stage, leave, replace, serve
from tidegate._core.snapshot import Snapshot
from tidegate.config.bind import Fd, Tcp, Unix
from tidegate.supervisor import pool
from tidegate.supervisor import supervisor as module


def busy(given: Given) -> int:
    """Take a fifth of a second, then do as it is told; but slot 1 does not end."""
    end = given.end()
    for sock in given.sockets:
        sock.listen(7)
    while time.process_time() < 0.2:
        pass
    if not serve(end):
        return 0
    if given.slot == 1:
        time.sleep(20)
    return leave(end)


def counted(stage: Stage, done: Callable[[Snapshot], bool]) -> None:
    """Stop when the daemon is complete and `done`, which may assert, says so of what is counted."""

    def condition() -> bool:
        return stage.main.complete and done(stage.main.pool.scoreboard.read())

    replace(module, "TICK", 0.05)
    replace(module, "LAST_WORDS", 0.5)
    replace(pool, "LAST_WORDS", 0.5)
    stage.settings.update(settle=0.0, graceful_timeout=0.0, drain=0.0)
    stage.worker = busy
    stage.stop_when(condition)


def totals(words: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """How many observations there are of each outcome."""
    return {outcome: sum(found[:-1]) for outcome, found in words.items()}


def reload_and_its_drains(stage: Stage) -> None:
    asked: list[str] = []

    def done(snapshot: Snapshot) -> bool:
        if not asked:
            asked.append("reload")
            stage.main.operations.request("reload")
        if totals(snapshot.drain_duration) != {"success": 1, "failure": 1}:
            return False
        assert snapshot.reloads == {"success": 1, "failure": 0}
        assert totals(snapshot.reload_duration) == snapshot.reloads
        assert snapshot.last_reload == "success"
        assert abs(time.time() - snapshot.last_reload_at) < 60
        assert all(0.2 <= slot.cpu_seconds < 5 for slot in snapshot.slots)
        return True

    counted(stage, done)


def reload_that_fails(stage: Stage) -> None:
    asked: list[str] = []

    def done(snapshot: Snapshot) -> bool:
        if not asked:
            asked.append("reload")
            stage.main.operations.request("reload")
        if not any(snapshot.reloads.values()):
            return False
        assert snapshot.reloads == {"success": 0, "failure": 1}
        assert snapshot.last_reload == "failure"
        assert totals(snapshot.drain_duration) == {"success": 0, "failure": 0}
        return True

    counted(stage, done)
    stage.worker = lambda given: 1 if asked else busy(given)


def upgrade(stage: Stage) -> None:
    def done(_: Snapshot) -> bool:
        stage.main._on_operation_end("upgrade", True, 3.0)
        stage.main._on_operation_end("scale", True, 3.0)
        snapshot = stage.main.pool.scoreboard.read()
        assert snapshot.upgrades == {"success": 1, "failure": 0}
        assert snapshot.reloads == {"success": 0, "failure": 0}
        assert snapshot.last_reload == "success"
        return True

    counted(stage, done)


def lost_lines(stage: Stage) -> None:
    def done(_: Snapshot) -> bool:
        main = stage.main
        main.pool.scoreboard.log_messages_dropped = 5
        replace(module.logs, "lost", lambda: 2)
        main.counters = main.counters.__class__(main.pool, main.multiproc_dir)
        for _again in range(2):
            main.counters.update()
            assert main.pool.scoreboard.read().log_messages_dropped == 7
        return True

    counted(stage, done)


def queues(stage: Stage) -> None:
    """Three clients wait in a queue that all share, four in one of each of two addresses with a queue for each slot."""
    shared = socket.create_server(("127.0.0.1", 0), backlog=5)
    place = shared.getsockname()
    clients: list[socket.socket] = []

    def done(snapshot: Snapshot) -> bool:
        main = stage.main
        if not clients:
            clients.extend(socket.create_connection(place) for _ in range(3))
            for listener in main.pool.listeners._listeners[:2]:
                clients.extend(socket.create_connection(("127.0.0.1", listener.port)) for _ in range(4))
            snapshot = main.pool.scoreboard.read()
        if sum(slot.accept_queue[0] for slot in snapshot.slots) + snapshot.accept_queue[0] < len(clients):
            return False
        assert [slot.accept_queue[1] for slot in snapshot.slots] == [14, 14]
        assert snapshot.accept_queue == (3, 7)
        main.pool.retire([main.pool.workers[-1]])
        main.pool.retired.pop().current.kill(signal.SIGKILL)
        main.counters.update()
        assert main.pool.scoreboard.read().slots[1].accept_queue == (0, 0)
        main.pool.retired.append(main.pool.workers[0].__class__(1, main.pool.generation))
        return True

    addresses = (Tcp("127.0.0.1", 0), Tcp("127.0.0.1", 0), Unix("socket"), Fd(shared.detach()))
    stage.settings.update(bind=addresses, backlog=7)
    counted(stage, done)
