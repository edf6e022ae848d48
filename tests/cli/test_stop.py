"""`tidegate stop`: what it asks for, and that it waits for the end of the process.

What must not live here: what all such commands have in common (test_control.py), a daemon that ends (tests/process).
"""

from __future__ import annotations

import pytest

from tests.cli.asked import ACCEPTED, Asked, run, words

STOPPED = {"done": True, "text": "stopped with status 0"}


@pytest.mark.parametrize(("options", "how"), [([], "drain"), (["--now"], "close"), (["--cut"], "cut")])
def test_what_it_asks_for(options: list[str], how: str) -> None:
    with Asked(ACCEPTED) as asked:
        assert run("stop", "--control", asked.path, "--no-wait", *options) == 0
    assert asked.requests == [{"command": "stop", "how": how}]


def test_both(capsys: pytest.CaptureFixture[str]) -> None:
    """--now and --cut exclude each other."""
    assert run("stop", "--now", "--cut") == 2
    assert "--now and --cut exclude each other: give one of them" in words(capsys)[1]


def test_the_process_must_have_ended() -> None:
    """Here it is that of the tests."""
    with Asked(ACCEPTED, STOPPED) as asked:
        assert run("stop", "--control", asked.path, "--timeout", "0.2") == 6


def test_a_daemon_that_ends_with_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(ACCEPTED, {"done": False, "text": "stopped with status 1"}) as asked:
        assert run("stop", "--control", asked.path) == 1
    assert words(capsys)[1] == "tidegate stop: stopped with status 1\n"
