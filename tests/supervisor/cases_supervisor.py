"""What children do to a supervisor, for test_supervisor.py: they say, end and stay as each case wants.

What must not live here: what is to come of it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

from tests.supervisor.staged import Given, Stage, fails, follow, obedient, once, replace
from tidegate.ipc.pipe import Report, StopMode
from tidegate.supervisor import pool
from tidegate.supervisor import supervisor as module
from tidegate.supervisor.sockets.listeners import Listeners


def sleeps(given: Given) -> int:
    time.sleep(1000)
    return 0


def all_ready(stage: Stage) -> None:
    stage.stop_when_complete()


def no_descriptors_of_processes(stage: Stage) -> None:
    del os.pidfd_open

    def worker(given: Given) -> int:
        return 9 if given.slot == 0 and once("died") else obedient(given)

    stage.worker = worker
    stage.stop_when_complete()


def report_byte_by_byte(stage: Stage) -> None:
    def worker(given: Given) -> int:
        for byte in b'{"stage":"starting"}\n{"stage":"ready"}\n':
            given.pipe.send(bytes([byte]))
            time.sleep(0.001)
        return follow(given.end())

    stage.worker = worker
    stage.stop_when_complete()


def no_reports(stage: Stage) -> None:
    def worker(given: Given) -> int:
        given.pipe.sendall(b'hello\n{"stage":"flying"}\n[]\n\n' + bytes(range(256)) + b"\n")
        given.pipe.sendall(b"x" * 300_000 + b"\n")
        given.pipe.sendall(b'{"stage":"ready","error":null,"exit":null,"more":1}\n')
        return follow(given.end())

    stage.worker = worker
    stage.stop_when_complete()


def dies_before_anything(stage: Stage) -> None:
    stage.worker = lambda _: os._exit(5)


def one_is_ready(stage: Stage) -> None:
    stage.worker = lambda given: 5 if given.slot else obedient(given)
    stage.stop_when(lambda: stage.main.pool.workers[1].backoff.failures >= 4)


def says_why_it_cannot_begin(stage: Stage, status: str) -> None:
    stage.worker = lambda given: fails(given, "no database", int(status))


def long_error(stage: Stage) -> None:
    stage.worker = lambda given: fails(given, "long" * 10_000 + " story", 3)


def forks_fail_for_a_while(stage: Stage) -> None:
    fork, failures = os.fork, iter(range(3))

    def failing() -> int:
        for _ in failures:
            raise BlockingIOError(11, "no process to be had")
        return fork()

    replace(os, "fork", failing)
    stage.stop_when_complete()


def forks_always_fail(stage: Stage) -> None:
    def failing() -> int:
        raise BlockingIOError(11, "no process to be had")

    replace(os, "fork", failing)


def stop_between_two_forks(stage: Stage) -> None:
    fork = os.fork

    def interrupted() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return fork()

    replace(os, "fork", interrupted)
    stage.worker = sleeps


def stop_before_anything_is_forked(stage: Stage) -> None:
    bind = Listeners.bind

    def no_fork() -> int:
        raise AssertionError("a child was forked")

    def binding(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        bind(*arguments)

    replace(os, "fork", no_fork)
    replace(Listeners, "bind", binding)


def killed_when_forked(stage: Stage) -> None:
    fork = os.fork

    def hurried() -> int:
        pid = fork()
        if pid:
            os.kill(pid, signal.SIGTERM)
        return pid

    replace(os, "fork", hurried)
    stage.worker = sleeps
    stage.stop_when(lambda: stage.main.pool.workers[0].backoff.failures >= 2)


def more_urgent_with_each_signal(stage: Stage) -> None:
    def worker(given: Given) -> int:
        """Its status says which orders came; after each but the last it has the next one sent."""
        end, heard = given.end(), []
        end.send(Report("ready"))
        while StopMode.ABORT not in heard:
            select.select([end], [], [])
            for command in end.receive():
                heard.append(command.stop)
                if command.stop != StopMode.ABORT:
                    os.kill(os.getppid(), signal.SIGTERM)
        return 100 * heard[0] + 10 * heard[1] + heard[2]

    stage.settings["workers"] = 1
    stage.worker = worker
    stage.stop_when_complete()


def hears_nothing(stage: Stage) -> None:
    def worker(given: Given) -> int:
        given.end().send(Report("ready"))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1000)

    stage.settings["graceful_timeout"] = 0.1
    replace(module, "LAST_WORDS", 0.1)
    stage.worker = worker
    stage.stop_when_complete()


def gone_but_stays(stage: Stage) -> None:
    def worker(given: Given) -> int:
        end = given.end()
        end.send(Report("ready"))
        if once("stayed"):
            end.send(Report("gone"))
            time.sleep(1000)
        return follow(end)

    def done() -> bool:
        (slot,) = stage.main.pool.workers
        return slot.backoff.failures == 1 and slot.ready

    stage.settings["workers"] = 1
    replace(pool, "LAST_WORDS", 0.1)
    stage.worker = worker
    stage.stop_when(done)


def drains_by_itself(stage: Stage) -> None:
    def worker(given: Given) -> int:
        end = given.end()
        end.send(Report("ready"))
        if once("drained"):
            end.send(Report("draining"))
        return follow(end)

    def done() -> bool:
        (slot,) = stage.main.pool.workers
        return len(slot.children) == 2 and slot.ready

    stage.settings["workers"] = 1
    stage.worker = worker
    stage.stop_when(done)


def fault_of_its_own(stage: Stage) -> None:
    def fault() -> None:
        raise RuntimeError("a fault")

    replace(module.Supervisor, "_tick", lambda self: self.loop.call_later(0.2, fault))


def storm_of_signals(stage: Stage) -> None:
    turns = 0

    def storm() -> bool:
        nonlocal turns
        turns += 1
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGTTOU):
            os.kill(os.getpid(), number)
        return turns == 50

    stage.stop_when(storm)


def counts_of_the_scoreboard(stage: Stage) -> None:
    """The first ends with a status, the second by a signal when it is ready, the third stays."""

    def worker(given: Given) -> int:
        number = len(os.listdir())
        open(f"life-{number}", "x").close()
        given.row.accepted()
        if number == 1:
            return 7
        if number == 2:
            given.end().send(Report("ready"))
            os.kill(os.getpid(), 9)
        return obedient(given)

    def done() -> bool:
        main = stage.main
        snapshot = main.pool.scoreboard.read()
        (slot,) = snapshot.slots
        if not main.pool.workers[0].ready or slot.spawns < 3:
            return False
        assert snapshot.ready
        assert snapshot.desired == 1
        assert not snapshot.draining
        assert {reason: n for reason, n in slot.exits.items() if n} == {"boot_failed": 1, "oom_suspect": 1}
        assert [worker.stage for worker in slot.workers] == ["ready"]
        assert slot.workers[0].pid == main.pool.workers[0].current.pid
        assert snapshot.counts.words("connections_accepted") == (3,)
        assert time.monotonic() - snapshot.ticked_at < 5
        return True

    stage.settings["workers"] = 1
    stage.worker = worker
    stage.stop_when(done)
