"""What the supervisor enters in the scoreboard: its operations, drains, queues, and the time of those that have ended.

What is counted is asserted where it is done (cases_counters.py). What must not live here: real workers and clients
(tests/process/test_process_metrics.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.supervisor import cases_counters as cases
from tests.supervisor.staged import supervise


def test_a_reload_and_its_drains(tmp_path: Path) -> None:
    """One worker ends as it is told to, and one must be killed."""
    supervise(cases.reload_and_its_drains, tmp_path)


def test_a_reload_that_fails(tmp_path: Path) -> None:
    """What ends with it was never ready: that is no drain."""
    supervise(cases.reload_that_fails, tmp_path)


def test_an_upgrade_counts_as_that_alone(tmp_path: Path) -> None:
    supervise(cases.upgrade, tmp_path)


def test_lines_that_the_program_before_an_upgrade_has_lost_are_kept(tmp_path: Path) -> None:
    supervise(cases.lost_lines, tmp_path)


def test_queues(tmp_path: Path) -> None:
    """Each slot's own, of all addresses; and, as (None), those that all share, if the system tells of them."""
    supervise(cases.queues, tmp_path)
