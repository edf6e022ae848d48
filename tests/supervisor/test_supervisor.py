"""The supervisor's decisions, with children that are a few lines of Python, who tell and end as a case wants it.

Each case runs a supervisor in a process of its own, for signals and children belong to a whole process.
What must not live here: what the children do (cases_supervisor.py), real workers (tests/process).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.supervisor import cases_supervisor as cases
from tests.supervisor.staged import supervise


def test_all_ready_and_stopped(tmp_path: Path) -> None:
    log = supervise(cases.all_ready, tmp_path)
    for words in ("started", "worker 0 (pid", "worker 1 (pid", "listening on unix:socket", "ready: 2 of 2", "SIGTERM"):
        assert words in log
    assert log.count("exited with status 0") == 2
    assert "stopped with status 0" in log


def test_without_descriptors_of_processes(tmp_path: Path) -> None:
    """As on macOS: SIGCHLD says that somebody has ended."""
    log = supervise(cases.no_descriptors_of_processes, tmp_path)
    assert "exited with status 9: a replacement starts" in log


def test_a_report_may_come_byte_by_byte(tmp_path: Path) -> None:
    supervise(cases.report_byte_by_byte, tmp_path)


def test_what_is_no_report_is_left_out(tmp_path: Path) -> None:
    supervise(cases.no_reports, tmp_path)


def test_a_worker_that_dies_before_anything(tmp_path: Path) -> None:
    log = supervise(cases.dies_before_anything, tmp_path, status=1)
    assert log.count("exited with status 5") >= 6
    assert "no worker has become ready in 3 attempts" in log


def test_one_worker_that_is_ready_keeps_the_daemon_up(tmp_path: Path) -> None:
    log = supervise(cases.one_is_ready, tmp_path)
    assert log.count("exited with status 5") >= 4


@pytest.mark.parametrize("status", [3, 4])
def test_a_worker_that_says_why_it_cannot_begin(tmp_path: Path, status: int) -> None:
    log = supervise(cases.says_why_it_cannot_begin, tmp_path, str(status), status=status)
    assert log.count("no database") == 1
    assert log.count("exited with status") + log.count("SIGTERM") <= 2


def test_a_long_error_arrives_whole(tmp_path: Path) -> None:
    assert "long story" in supervise(cases.long_error, tmp_path, status=3)


def test_forks_that_fail_for_a_while(tmp_path: Path) -> None:
    log = supervise(cases.forks_fail_for_a_while, tmp_path)
    assert log.count("no process to be had") == 3


def test_forks_that_always_fail(tmp_path: Path) -> None:
    assert "no worker has become ready" in supervise(cases.forks_always_fail, tmp_path, status=1)


def test_a_stop_between_two_forks(tmp_path: Path) -> None:
    """The signal comes while the first worker is being forked; nobody is ever ready."""
    log = supervise(cases.stop_between_two_forks, tmp_path)
    assert "is ready" not in log


def test_a_stop_before_anything_is_forked(tmp_path: Path) -> None:
    log = supervise(cases.stop_before_anything_is_forked, tmp_path)
    assert "SIGINT: stopping" in log


def test_a_child_is_told_to_end_the_moment_it_is_forked(tmp_path: Path) -> None:
    """Its signals still wait then: it must not lose the order, nor hand it to its parent."""
    log = supervise(cases.killed_when_forked, tmp_path)
    assert log.count("was killed by signal 15 (SIGTERM)") >= 2


def test_each_signal_makes_the_stop_more_urgent(tmp_path: Path) -> None:
    """The worker's status tells the commands that it has received; each makes it wait for the next."""
    log = supervise(cases.more_urgent_with_each_signal, tmp_path)
    assert "exited with status 123" in log


def test_a_worker_that_hears_nothing_is_killed_in_the_end(tmp_path: Path) -> None:
    log = supervise(cases.hears_nothing, tmp_path)
    assert log.count("has not ended in time: it is killed") == 2


def test_a_worker_that_is_gone_but_stays(tmp_path: Path) -> None:
    log = supervise(cases.gone_but_stays, tmp_path)
    assert "was killed by signal 9 (SIGKILL)" in log


def test_a_worker_that_drains_by_itself_has_a_successor_meanwhile(tmp_path: Path) -> None:
    log = supervise(cases.drains_by_itself, tmp_path)
    assert "drains without a command: a replacement starts at once" in log
    assert log.count("exited with status 0") == 2


def test_a_fault_of_its_own_leaves_nobody_behind(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Traceback"):  # which this log has, and should
        supervise(cases.fault_of_its_own, tmp_path, status=1)


def test_a_storm_of_signals(tmp_path: Path) -> None:
    log = supervise(cases.storm_of_signals, tmp_path)
    assert "SIGHUP" in log


def test_counts_of_the_scoreboard(tmp_path: Path) -> None:
    supervise(cases.counts_of_the_scoreboard, tmp_path)
