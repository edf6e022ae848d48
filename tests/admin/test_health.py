"""Alive and ready: every turn of a daemon's life, and the line that says why."""

import time

import pytest

from tidegate._core.counters import BusState
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.health import LIVE_SECONDS, alive, ready, state
from tidegate.metrics.derived import BUS_PATIENCE


def test_a_daemons_life(board: Scoreboard) -> None:
    assert ready(board.read()) == (False, "starting: 1 of 2 workers ready")
    board.stage(1, "ready")
    assert ready(board.read()) == (False, "starting: 2 of 2 workers ready")  # the supervisor has the last word
    board.ready = True
    assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")
    board.draining = True
    assert ready(board.read()) == (False, "draining: 2 of 2 workers ready")


def test_a_crash_of_one_worker_leaves_the_daemon_ready(board: Scoreboard) -> None:
    board.ready = True
    board.retire(1, "crash")
    assert ready(board.read()) == (True, "ready: 1 of 2 workers ready")


def test_without_any_ready_worker_it_is_down(board: Scoreboard) -> None:
    board.ready = True
    board.retire(0, "crash")
    assert ready(board.read()) == (False, "down: 0 of 2 workers ready")
    board.draining = True
    assert state(board.read()) == "draining"


def test_a_handover_counts_a_slot_once(board: Scoreboard) -> None:
    board.ready = True
    board.stage(1, "ready")
    successors = [board.assign(slot, generation=2) for slot in range(2)]
    assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")
    for row in successors:
        board.stage(row, "ready")
    assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")
    for row in range(2):
        board.stage(row, "draining")
    assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")


def test_before_anything() -> None:
    assert ready(Scoreboard.create().read()) == (False, "starting: 0 of 0 workers ready")


def test_alive_while_the_supervisor_ticks(board: Scoreboard) -> None:
    yes, why = alive(board.read())
    assert yes
    assert why.startswith("alive: the supervisor's loop ran ")
    board.tick(time.monotonic() - LIVE_SECONDS - 1)
    yes, why = alive(board.read())
    assert not yes
    assert why.startswith("stuck: the supervisor's loop has not run for ")
    assert why.endswith(f"and {LIVE_SECONDS:g} s is the limit")


@pytest.mark.parametrize("required", [True, False])
def test_a_worker_that_lacks_the_bus_it_needs_makes_the_daemon_unready(board: Scoreboard, required: bool) -> None:
    """After some seconds, and with the reason; until it has it again, or ends."""
    board.ready = True
    board.stage(1, "ready")
    row = board.row(1)
    lost = BusState("redis", False, required, time.monotonic(), "connection refused")
    row.bus = lost
    assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")
    row.bus = lost._replace(changed_at=time.monotonic() - BUS_PATIENCE - 0.1)
    if not required:
        assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")
        return
    assert ready(board.read()) == (False, "down: 2 of 2 workers ready, but worker 1 has no bus: connection refused")
    board.stage(1, "draining")
    assert ready(board.read())[0]
    board.stage(1, "ready")
    row.bus = lost._replace(up=True, reason="")
    assert ready(board.read()) == (True, "ready: 2 of 2 workers ready")
