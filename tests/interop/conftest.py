"""One daemon with two workers for all interop tests of a module.

What must not live here: what it serves (application.py), and what a client sees (test_*.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Daemon

APPLICATION = Path(__file__).with_name("application.py").read_text(encoding="utf-8")
TARGET = "application:app"
MAX_SIZE = 2**24


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """For tests that leave it as they found it."""
    with Daemon(APPLICATION, "--max-size", str(MAX_SIZE), target=TARGET, workers=2) as daemon:
        yield daemon


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """For tests that stop it or count what it counts."""
    with Daemon(APPLICATION, "--max-size", str(MAX_SIZE), target=TARGET, workers=2) as daemon:
        yield daemon
