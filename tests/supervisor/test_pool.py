"""Slots that come and go, and who is forked for them: a pool with children of a few lines.

What the pool answers is asserted where it is asked (cases_pool.py). What must not live here: signals and the daemon's
end (test_supervisor.py), operations (test_operations.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.supervisor import cases_pool as cases
from tests.supervisor.staged import supervise


def test_slots_are_added_under_the_least_number_that_is_free(tmp_path: Path) -> None:
    """A slot that is retired keeps its number until nobody waits in its queue."""
    supervise(cases.least_free_number, tmp_path)


def test_nothing_is_forked_for_a_daemon_that_ends(tmp_path: Path) -> None:
    assert supervise(cases.nothing_is_forked_at_the_end, tmp_path).count("is ready after") == 2


def test_who_works_and_what_there_is(tmp_path: Path) -> None:
    """Without an admin address there is no admin process, though its slot is there."""
    supervise(cases.who_works, tmp_path)


def test_a_slot_is_filled_by_what_renews_it_though_it_is_empty(tmp_path: Path) -> None:
    supervise(cases.a_hub_that_failed_before_an_upgrade, tmp_path)


def test_a_hub_has_the_time_to_write_its_journal(tmp_path: Path) -> None:
    supervise(cases.a_hub_that_writes_its_journal, tmp_path, "")
    assert (tmp_path / "written").exists()


def test_a_hub_is_killed_when_there_is_no_time(tmp_path: Path) -> None:
    supervise(cases.a_hub_that_writes_its_journal, tmp_path, "hurry")
    assert not (tmp_path / "written").exists()
