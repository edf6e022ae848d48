"""What a pool is asked in the supervisor's process, and its answers, for test_pool.py.

They are asserted here, where the pool is. What must not live here: tests.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable

from tests.supervisor.staged import Stage, replace
from tidegate.ipc.pipe import Command, Pipe, Report, StopMode
from tidegate.supervisor import supervisor
from tidegate.supervisor.pool import WorkerPool


def asked(stage: Stage, done: Callable[[WorkerPool], bool]) -> None:
    """Ask the pool when all workers are ready; stop when `done`, which may assert, says so."""
    stage.stop_when(lambda: stage.main.complete and done(stage.main.pool))


def least_free_number(stage: Stage) -> None:
    def done(pool: WorkerPool) -> bool:
        first = pool.workers[0]
        assert first.current is not None
        replace(pool._queues, "tend", lambda workers, retired: [])  # somebody waits there
        pool.retire([first])
        assert [slot.index for slot in pool.workers] == [1, 2]
        assert pool.scoreboard.desired == 2
        assert pool.retired == [first]
        assert first.current.stop_mode is StopMode.GRACEFUL
        added = pool.add_slot()
        assert (added.index, added.generation) == (3, pool.generation)
        assert pool.scoreboard.desired == 3
        replace(pool._queues, "tend", lambda workers, retired: list(retired))
        pool.tend_queues()
        assert pool.retired == []
        assert pool.add_slot().index == 0
        for handle in first.children:  # nobody asks for its end any more
            handle.kill(signal.SIGKILL)
        return True

    stage.settings["workers"] = 3
    asked(stage, done)


def nothing_is_forked_at_the_end(stage: Stage) -> None:
    def done(pool: WorkerPool) -> bool:
        slot = pool.add_slot()
        pool.stop_mode = StopMode.GRACEFUL
        pool.fill(slot)
        pool.stop_mode = StopMode.NONE
        return not slot.children

    asked(stage, done)


def who_works(stage: Stage) -> None:
    def done(pool: WorkerPool) -> bool:
        assert pool.ready == 2
        assert pool.served
        assert list(pool.slots()) == pool.workers
        assert list(pool.children()) == pool.working() == [slot.current for slot in pool.workers]
        assert pool.admin.children == []
        assert pool.connections() == 0
        return True

    asked(stage, done)


def a_hub_that_failed_before_an_upgrade(stage: Stage) -> None:
    """Nobody is in its slot, and the timer that would have filled it was of the program before.

    Its journal's file is mended before.
    """

    def done(pool: WorkerPool) -> bool:
        slot = pool.hub.slot
        if pool.hub.journal is None:
            pool.hub.journal = os.memfd_create("journal")
            replace(pool, "_hub_main", lambda *_: 0)
            slot.retry = pool.loop.call_later(1000, lambda: None)
            pool.renew_hub()
        assert os.fstat(pool.hub.journal).st_size == pool.config.bus_memory
        assert slot.retry is None
        assert slot.current is not None
        slot.current.kill(signal.SIGKILL)
        return True

    asked(stage, done)


def a_hub_that_writes_its_journal(stage: Stage, hurry: str) -> None:
    """It takes longer than another helper may, and less than what is left of the graceful timeout."""

    def hub(journal: int, pipe: socket.socket, *_: object) -> int:
        end = Pipe(pipe, Command)
        end.send(Report("ready"))
        while not any(command.stop for command in end.receive()):
            select.select([end], [], [])
        if hurry:
            os.kill(os.getppid(), signal.SIGQUIT)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            time.sleep(1000)
        time.sleep(0.5)
        os.close(os.open("written", os.O_CREAT))
        return 0

    def done(pool: WorkerPool) -> bool:
        if pool.hub.journal is None:
            pool.hub.journal = os.memfd_create("journal")
            replace(pool, "_hub_main", hub)
            pool.renew_hub()
        assert pool.hub.slot.current is not None
        return pool.hub.slot.current.stage == "ready"

    replace(supervisor, "HELPER_GRACE", 0.1)
    replace(supervisor, "ABORT_GRACE", 0.1)
    stage.settings["graceful_timeout"] = 60.0
    asked(stage, done)
