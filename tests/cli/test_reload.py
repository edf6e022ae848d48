"""`tidegate reload`: what it asks for.

What must not live here: what all such commands have in common (test_control.py), a real reload (tests/process).
"""

from __future__ import annotations

import pytest

from tests.cli.asked import ACCEPTED, Asked, run


@pytest.mark.parametrize(("options", "force"), [([], False), (["--force"], True)])
def test_what_it_asks_for(options: list[str], force: bool) -> None:
    with Asked(ACCEPTED, {"done": True}) as asked:
        assert run("reload", "--control", asked.path, *options) == 0
    assert asked.requests == [{"command": "reload", "force": force}]
