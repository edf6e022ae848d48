"""What every test module may use: the daemon fixtures, and the order that runs quick tests before slow ones.

What must not live here: helpers that are imported by name (tests/harness.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.harness import ECHO, Daemon

# How long an example takes says more about the machine than about the code.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")


@pytest.fixture(scope="module")
def echo_daemon() -> Iterator[Daemon]:
    """An echo server with two workers, shared by a module's tests: none of them may stop or break it."""
    with Daemon(ECHO, workers=2) as daemon:
        yield daemon


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests last, so that a plain mistake shows in seconds. Otherwise the order is the files' own."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
