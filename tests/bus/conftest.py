"""Engines whose links are ours run on both event loops: asyncio's, and uvloop, which workers have.

What must not live here: anything but hooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio runs a coroutine test on."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ("test_nats.py", "test_redis.py") and "TestContract" in item.nodeid:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
