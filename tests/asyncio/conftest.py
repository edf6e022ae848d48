"""Everything here runs on both event loops: asyncio's, and uvloop.

What must not live here: anything but hooks and fixtures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio runs each coroutine test on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What servers log, from INFO on."""
    with caplog.at_level(logging.INFO, "tidegate"):
        yield caplog
