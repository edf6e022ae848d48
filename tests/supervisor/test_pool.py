"""Slots that come and go, and who is forked for them: a pool with children of a few lines.

What must not live here: signals and the daemon's end (test_supervisor.py), operations (test_operations.py).
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.supervisor.staged import supervise


def stage(tmp_path: Path, program: str) -> str:
    return supervise(tmp_path, "worker = obedient\n" + textwrap.dedent(program))


def test_slots_are_added_under_the_least_number_that_is_free(tmp_path: Path) -> None:
    """A slot that is retired keeps its number until nobody waits in its queue."""
    program = """
    settings["workers"] = 3

    def done():
        if not main.complete:
            return False
        first = main.pool.workers[0]
        main.pool._queues.care = lambda workers, retired: []  # somebody waits there
        main.pool.retire([first])
        assert [slot.index for slot in main.pool.workers] == [1, 2]
        assert main.pool.scoreboard.desired == 2
        assert main.pool.retired == [first]
        assert first.current.ordered is Level.DRAIN
        added = main.pool.add_slot()
        assert (added.index, added.generation) == (3, main.pool.generation)
        assert main.pool.scoreboard.desired == 3
        main.pool._queues.care = lambda workers, retired: list(retired)
        main.pool.tend_queues()
        assert main.pool.retired == []
        assert main.pool.add_slot().index == 0
        for handle in first.children:  # nobody asks for its end any more
            handle.kill(signal.SIGKILL)
        return True

    stop_when(done)
    """
    stage(tmp_path, program)


def test_nothing_is_forked_for_a_daemon_that_ends(tmp_path: Path) -> None:
    program = """
    def done():
        if not main.complete:
            return False
        slot = main.pool.add_slot()
        main.pool.level = Level.DRAIN
        main.pool.fill(slot)
        main.pool.level = Level.NONE
        return not slot.children

    stop_when(done)
    """
    assert stage(tmp_path, program).count("is ready after") == 2


def test_who_works_and_what_there_is(tmp_path: Path) -> None:
    """Without an admin address there is no admin process, though its slot is there."""
    program = """
    def done():
        pool = main.pool
        if not main.complete:
            return False
        assert pool.ready == 2 and pool.served
        assert list(pool.slots()) == pool.workers
        assert list(pool.children()) == pool.working() == [slot.current for slot in pool.workers]
        assert pool.admin.children == []
        assert pool.connections() == 0
        return True

    stop_when(done)
    """
    stage(tmp_path, program)
