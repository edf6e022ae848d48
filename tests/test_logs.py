"""The doors of the log: who begins it, who becomes another, who opens it anew.

What must not live here: lines, outputs and queues (tests/logs), what the daemon logs (tests/process).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import cases_logs as cases
from tests.support import programs


def run(case: Callable[..., None], *arguments: str, cwd: Path | None = None) -> list[str]:
    """What a case writes to standard error, by line."""
    done = programs.run(case, *arguments, python=("-X", "dev"), cwd=cwd)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr.splitlines()


def lines(level: str) -> list[str]:
    return run(cases.two_roles, level)


def test_a_line_has_time_role_level_and_message() -> None:
    first, second, *trace = lines("info")
    time, rest = first.split(" ", 1)
    assert len(time) == len("2026-11-21T03:32:15.123Z")
    assert time[10] + time[-1] == "TZ"
    assert rest == "supervisor INFO listening on somewhere"
    assert second.split(" ", 1)[1] == "worker 3 ERROR failed"
    assert trace[0] == "    Traceback (most recent call last):"


def test_levels() -> None:
    """The level decides which lines the log has."""
    assert len([line for line in lines("debug") if " DEBUG quiet" in line]) == 1
    assert not any("quiet" in line for line in lines("info"))
    assert " ERROR failed" in lines("error")[0]


def test_the_access_log_is_off_unless_it_is_asked_for() -> None:
    assert not any("handshake" in line for line in lines("debug"))
    assert [line.split(" ", 1)[1] for line in run(cases.access_log)] == ["supervisor INFO one", "worker 0 INFO three"]


def test_formats_and_files(tmp_path: Path) -> None:
    assert run(cases.formats_and_files, cwd=tmp_path) == []
    (one,) = map(json.loads, (tmp_path / "log.1").read_text().splitlines())
    assert (one["role"], one["message"]) == ("supervisor", "one")
    two, four = (tmp_path / "log").read_text().splitlines()
    assert json.loads(two)["message"] == "two"
    assert four.endswith(" worker 0 ERROR four")
    assert (tmp_path / "other").read_text().endswith(" supervisor INFO five\n")


def test_a_file_that_cannot_be_opened_anew_is_said_in_the_one_before(tmp_path: Path) -> None:
    assert run(cases.no_file_to_open_anew, cwd=tmp_path) == []
    assert (
        "ERROR the log file could not be reopened, and the log stays in the former file: "
        in (tmp_path / "b" / "log").read_text()
    )


def test_the_file_may_be_given_to_another_user_and_standard_error_is_not(tmp_path: Path) -> None:
    assert run(cases.given_to_another_user, cwd=tmp_path) == []


def test_an_application_that_arranges_its_own_logging_gets_its_way(tmp_path: Path) -> None:
    # The queue and theirs are written side by side.
    assert sorted(line.rpartition("worker 0 ")[2] for line in run(cases.arranged_by_the_application)) == [
        "INFO one",
        "INFO two",
        "mine three",
    ]


def test_what_is_in_the_queue_is_written_at_the_end() -> None:
    assert [int(line.rpartition(" ")[2]) for line in run(cases.long_queue)] == list(range(5000))


@pytest.mark.parametrize("role", [(), ("worker 0",)], ids=["supervisor", "worker"])
def test_the_end_does_not_wait_for_a_reader_who_does_not_read(role: tuple[str, ...]) -> None:
    assert run(cases.no_reader, *role) == []
