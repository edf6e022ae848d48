"""What holds for all of these tests.

What must not live here: anything but fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tidegate._core import turns


@pytest.fixture(autouse=True)
def _long_turns() -> Iterator[None]:
    """What a connection does in a turn must not depend on the clock: each conversation goes the same way each time."""
    before = turns.seconds()
    turns.set_seconds(1e9)
    yield
    turns.set_seconds(before)
