"""Every scenario shows the same of `websockets` and of tidegate; where it does not, DIFFERENCES says why.

A difference that is there no more, or that is in other subjects than it was, fails as well.
"""

from __future__ import annotations

import pytest

from tests.differential.differences import DIFFERENCES
from tests.differential.library import SCENARIOS, Library, observe
from tests.differential.scenarios import MODULES

THEIRS, OURS = Library("websockets"), Library("tidegate")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_same(name: str) -> None:
    """A scenario gives the same with both libraries, but for the differences that are listed."""
    theirs = await observe(THEIRS, SCENARIOS[name])
    ours = await observe(OURS, SCENARIOS[name])
    subjects, reason = DIFFERENCES.get(name, (set(), ""))
    assert ours, "a scenario that records nothing compares nothing"
    same = {subject: seen for subject, seen in ours.items() if subject not in subjects}
    assert same == {subject: seen for subject, seen in theirs.items() if subject not in subjects}
    for subject in subjects:
        assert ours.get(subject) != theirs.get(subject), f"accepted but there no more: {reason}"


def test_there_is_a_scenario_for_each_difference() -> None:
    assert set(DIFFERENCES) <= set(SCENARIOS)
    assert all(reason for _, reason in DIFFERENCES.values())


def test_there_are_scenarios_of_each_kind() -> None:
    made = {function.__module__ for function in SCENARIOS.values()}
    assert made == {module.__name__ for module in MODULES}
