"""Exit statuses: apart where a script or systemd acts on them. The guides' tables are compared in tests/deploy.

What must not live here: which end has which (tests/process/test_exits.py).
"""

from __future__ import annotations

import signal

from tidegate.ipc import exit_status


def test_the_statuses_of_a_daemon_differ() -> None:
    """systemd tries again after some of them, and not after others."""
    statuses = (
        exit_status.STOPPED,
        exit_status.UNEXPECTED,
        exit_status.USAGE,
        exit_status.NOT_LOADED,
        exit_status.NOT_BOUND,
    )
    assert statuses == (0, 1, 2, 3, 4)


def test_the_statuses_of_a_command_differ_from_a_daemons() -> None:
    """`tidegate check` may end with either."""
    assert exit_status.DONE == exit_status.STOPPED
    assert exit_status.FAILED == exit_status.UNEXPECTED
    assert {exit_status.NOT_RUNNING, exit_status.TIMED_OUT}.isdisjoint(range(5))
    assert exit_status.INTERRUPTED == 128 + signal.SIGINT


def test_a_hanging_process_shows_where_within_its_last_words() -> None:
    assert 0 < exit_status.DUMP_GRACE < exit_status.LAST_WORDS
