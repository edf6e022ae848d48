"""What holds for all of these tests.

What must not live here: anything but fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.recorder import long_turns


@pytest.fixture(autouse=True)
def _long_turns() -> Iterator[None]:
    """Each conversation goes the same way each time."""
    with long_turns():
        yield
