"""`tidegate scale`: what it asks for, and which numbers it takes.

What must not live here: what all such commands have in common (test_control.py), real workers (tests/process).
"""

from __future__ import annotations

import pytest

from tests.cli.asked import ACCEPTED, Asked, run, words


def test_what_it_asks_for() -> None:
    with Asked(ACCEPTED, {"done": True}) as asked:
        assert run("scale", "12", "--control", asked.path) == 0
    assert asked.requests == [{"command": "scale", "workers": 12}]


@pytest.mark.parametrize("number", ["0", "257", "two", "1.5", ""])
def test_what_is_no_number_of_workers(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scale", number) == 2
    assert words(capsys)[1] == (
        f"tidegate scale: WORKERS {number!r} is not allowed: give a whole number from 1 to 256\n"
    )


def test_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scale") == 2
    assert words(capsys)[1] == "tidegate scale: WORKERS is missing: give a whole number from 1 to 256\n"
