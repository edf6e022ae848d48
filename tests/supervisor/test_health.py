"""Who hangs and who has lived long enough, with workers of a few lines: who is judged, and what becomes of them.

What must not live here: what the workers do (cases_health.py), real workers and clients (tests/process/test_health.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.supervisor import cases_health as cases
from tests.supervisor.staged import supervise

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

# Who hangs.


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    log = supervise(cases.one_hangs, tmp_path)
    assert log.count("its event loop has not turned") == 1
    assert log.count("in blocked") == 2  # after half of the time, and at the end
    assert "Fatal Python error: Aborted" in log
    assert log.index("its stacks follow") < log.index("in blocked") < log.index("has hung for")
    assert "because it hung: a replacement starts at once" in log
    assert log.count("is ready after") == 3
    assert "worker 0 (pid" in log
    assert "worker 0 hangs" not in log


def test_one_that_goes_on_in_time_is_left_alone(tmp_path: Path) -> None:
    log = supervise(cases.one_goes_on_in_time, tmp_path)
    assert log.count("its stacks follow") == 1
    assert log.count("in nap") == 1
    assert "responds again after" in log
    assert "is aborted" not in log
    assert log.count("is ready after") == 2


def test_one_that_does_not_end_by_sigabrt_is_killed(tmp_path: Path) -> None:
    log = supervise(cases.one_does_not_end_by_sigabrt, tmp_path)
    assert "signal 9 (SIGKILL), because it hung" in log
    assert "out-of-memory killer" not in log


def test_nobody_is_judged_while_it_boots(tmp_path: Path) -> None:
    log = supervise(cases.one_boots_for_long, tmp_path)
    assert "hang" not in log


@pytest.mark.slow
def test_nobody_is_judged_who_ends(tmp_path: Path) -> None:
    """An order to end has limits of its own."""
    log = supervise(cases.one_takes_long_to_end, tmp_path)
    assert "hang" not in log


def test_nobody_is_judged_without_a_heartbeat(tmp_path: Path) -> None:
    log = supervise(cases.no_heartbeats, tmp_path)
    assert "hang" not in log


def test_without_a_timeout_nobody_is_judged(tmp_path: Path) -> None:
    log = supervise(cases.no_timeout, tmp_path)
    assert "hang" not in log
    assert log.count("is ready after") == 2


@pytest.mark.slow
def test_what_the_supervisor_slept_through_is_nobodys_silence(tmp_path: Path) -> None:
    """All of them stand still for three times the timeout, as when the machine sleeps."""
    log = supervise(cases.all_sleep, tmp_path)
    assert "aborted" not in log
    assert log.count("is ready after") == 2


# Who has lived long enough.


def test_a_lifetime(tmp_path: Path) -> None:
    """Both are recycled, one after the other, each when its successor serves."""
    log = supervise(cases.lifetime, tmp_path)
    assert log.count("is to be recycled: it has served for 1 s") >= 2
    assert log.count("has taken over") >= 2
    first, second = (index for index in range(len(log)) if log.startswith("is to be recycled", index))
    assert first < log.index("has taken over") < second


def test_connections_served(tmp_path: Path) -> None:
    """Only those whose handshake went well count."""
    log = supervise(cases.connections_served, tmp_path)
    assert "worker 0" not in "".join(line for line in log.splitlines() if "is to be recycled" in line)
    assert log.count("it has served 20 connections") >= 2
    # The first was so soon that the second had to wait.
    assert "the next one serves for 1 s at least; is the limit too low?" in log
    assert "the next one serves for 2 s at least; is the limit too low?" in log


def test_memory(tmp_path: Path) -> None:
    """A worker that uses too much memory several times in a row is recycled, once."""
    log = supervise(cases.memory, tmp_path)
    assert log.count("is to be recycled: it takes 3") == 1
    assert log.count("has taken over") == 1


def test_recycling_that_fails_is_not_tried_again_at_once(tmp_path: Path) -> None:
    log = supervise(cases.recycling_fails, tmp_path)
    assert (tmp_path / "failures").read_text() == "xx"
    assert log.count("is to be recycled") == 2
    assert log.count("is ready after") == 1
    assert log.count("failed: worker 0") == 2


def test_nobody_is_recycled_while_something_else_is_under_way(tmp_path: Path) -> None:
    log = supervise(cases.something_else_is_under_way, tmp_path)
    assert "is to be recycled" not in log


@pytest.mark.parametrize("workers", [2, 4, 8, 32])
def test_the_limits_of_the_slots_are_far_apart(workers: int) -> None:
    from typing import Any, cast

    from tidegate.supervisor.health import HealthMonitor

    watch = HealthMonitor(cast("Any", None), cast("Any", None))
    shares = sorted(watch._share(slot) for slot in range(workers))
    assert shares[0] >= 0.9
    assert shares[-1] <= 1.1
    around = [b - a for a, b in zip(shares, [*shares[1:], shares[0] + 0.2], strict=True)]
    assert min(around) > 0.2 / workers / 3
