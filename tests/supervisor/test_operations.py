"""What is done on request, with workers of a few lines: the order of things, and what becomes of failures.

What must not live here: who asks for what (cases_operations.py), real workers and clients (tests/process/:
test_reload.py, test_scale.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.supervisor import cases_operations as cases
from tests.supervisor.staged import supervise


def test_a_reload(tmp_path: Path) -> None:
    log = supervise(cases.reload, tmp_path)
    assert "reload True generation 2 serves with 2 workers" in log
    assert log.index("generation 2 serves") < log.index("generation 1 has ended")


@pytest.mark.parametrize(("workers", "told"), [("3", "3 workers"), ("1", "1 worker")])
def test_a_reload_reads_the_settings_again(tmp_path: Path, workers: str, told: str) -> None:
    log = supervise(cases.reload_with_another_number_of_workers, tmp_path, workers)
    assert f"generation 2 serves with {told}\n" in log


def test_a_number_of_workers_that_an_operator_chose_outlives_a_reload(tmp_path: Path) -> None:
    log = supervise(cases.scale_and_reload, tmp_path)
    assert "generation 2 serves with 4 workers" in log


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    log = supervise(cases.settings_that_cannot_be, tmp_path)
    assert "reload False --drain 'x' is not allowed: give seconds" in log
    assert log.count("is ready after") == 2


def test_settings_that_a_reload_cannot_change(tmp_path: Path) -> None:
    log = supervise(cases.settings_that_a_reload_cannot_change, tmp_path)
    assert "reload False" in log
    assert "--bind" in log
    assert log.count("is ready after") == 2


def test_the_second_successor_fails(tmp_path: Path) -> None:
    """Then the first goes, too, without ever having had a client."""
    log = supervise(cases.second_successor_fails, tmp_path)
    assert "reload False worker 1" in log
    assert "no database" in log
    assert log.count("is ready after") == 3


def test_without_anybody_who_can_be_forked(tmp_path: Path) -> None:
    log = supervise(cases.no_forks_once_complete, tmp_path)
    assert "reload False worker 0 could not be forked: no process to be had" in log
    assert "scale False worker 2 could not be forked" in log


def test_one_at_a_time_in_the_order_asked_for(tmp_path: Path) -> None:
    log = supervise(cases.one_at_a_time, tmp_path)
    told = [line for line in log.splitlines() if line.startswith(("scale ", "reload "))]
    assert told == [
        "scale True 3 workers",
        "reload True generation 2 serves with 3 workers",
        "reload True generation 2 serves with 3 workers",  # one for both
        "scale True 1 worker",
    ]


def test_by_force(tmp_path: Path) -> None:
    """What is under way is given up for it."""
    log = supervise(cases.by_force, tmp_path)
    assert "first False reload was requested, with force" in log
    assert "second True generation 2 serves" in log


def test_stopping_ends_what_is_under_way(tmp_path: Path) -> None:
    log = supervise(cases.stopped_meanwhile, tmp_path)
    assert "reload False the daemon is stopping" in log
    assert "scale False the daemon is stopping" in log


def test_nothing_is_begun_when_the_daemon_stops(tmp_path: Path) -> None:
    log = supervise(cases.asked_when_it_stops, tmp_path)
    assert "late False the daemon is stopping" in log


def test_numbers_of_workers_that_cannot_be(tmp_path: Path) -> None:
    log = supervise(cases.numbers_of_workers_that_cannot_be, tmp_path)
    assert "scale False 0 workers are not possible: give a number from 1 to 256" in log
    assert "scale False 257 workers are not possible" in log


def test_recycling(tmp_path: Path) -> None:
    """One slot gets a new worker; to recycle a worker that has gone already succeeds at once."""
    log = supervise(cases.recycling, tmp_path)
    assert "recycle True worker 1" in log
    assert "again True" in log  # it had been, by then
    assert "{'recycle_age': 1}" in log
    assert log.count("is ready after") == 3
