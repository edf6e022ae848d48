"""Alive and ready: every turn of a daemon's life, and the line that says why."""

import time

from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.health import LIVE_SECONDS, alive, ready, state


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
