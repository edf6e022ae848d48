"""Tests of the core that need an event loop run on both: asyncio's, and uvloop.

What must not live here: anything but hooks and fixtures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio runs each coroutine test on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
