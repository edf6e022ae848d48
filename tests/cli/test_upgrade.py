"""`tidegate upgrade`: what it asks for.

What must not live here: what all such commands have in common (test_control.py), a real upgrade (tests/process).
"""

from __future__ import annotations

from tests.cli.asked import ACCEPTED, Asked, run


def test_what_it_asks_for() -> None:
    with Asked(ACCEPTED, {"done": True}) as asked:
        assert run("upgrade", "--control", asked.path) == 0
    assert asked.requests == [{"command": "upgrade"}]
