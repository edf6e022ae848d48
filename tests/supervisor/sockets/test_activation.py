"""Which descriptors systemd has passed, and to whom.

What must not live here: serving on them (tests/process/test_service.py).
"""

from __future__ import annotations

import os

import pytest

from tidegate.supervisor.sockets.activation import Passed, forget, passed, stored


def variables(count: str = "2", **others: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, **others}


def test_descriptors_and_their_names() -> None:
    assert passed(variables()) == [Passed(3, "unknown"), Passed(4, "unknown")]
    assert passed(variables(LISTEN_FDNAMES="web:local")) == [Passed(3, "web"), Passed(4, "local")]
    assert passed(variables(LISTEN_FDNAMES="web:web")) == [Passed(3, "web"), Passed(4, "web")]


def test_the_journal_that_systemd_has_kept_is_no_socket() -> None:
    kept = variables(LISTEN_FDNAMES="web:tidegate-journal")
    assert passed(kept) == [Passed(3, "web")]
    assert stored(kept) == 4
    assert stored(variables(LISTEN_FDNAMES="web:web")) is None
    assert stored({}) is None
    alone = variables("1", LISTEN_FDNAMES="tidegate-journal")
    assert stored(alone) == 3
    with pytest.raises(OSError, match="no socket, only what it has kept for the daemon"):
        passed(alone)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "LISTEN_FDS is not set"),
        (variables("0"), "'0', which is not a number of sockets"),
        (variables("-1"), "not a number of sockets"),
        (variables("many"), "not a number of sockets"),
        (variables("999999999999"), "not a number of sockets"),
        (variables(LISTEN_FDNAMES="one"), "1 names for 2 sockets"),
        ({"LISTEN_FDS": "1"}, "LISTEN_PID is not set"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "are for process 1, this is [0-9]+"),
    ],
)
def test_why_there_are_none(environment: dict[str, str], words: str) -> None:
    with pytest.raises(OSError, match=words):
        passed(environment)


def test_what_is_started_later_has_no_part_in_it() -> None:
    environment = {**variables("4000"), "HOME": "/"}
    taken = forget(environment)
    assert environment == {"HOME": "/"}
    assert taken == variables("4000")
    assert forget(environment) == {}
