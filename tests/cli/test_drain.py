"""`tidegate drain`: what it asks for.

What must not live here: what all such commands have in common (test_control.py), real connections (tests/process).
"""

from __future__ import annotations

from tests.cli.asked import ACCEPTED, Asked, run


def test_what_it_asks_for() -> None:
    with Asked(ACCEPTED, {"done": False, "text": "3 connections are left after 30 s"}) as asked:
        assert run("drain", "--control", asked.path) == 1
    assert asked.requests == [{"command": "drain"}]
