"""What tests in an event loop share: how they wait for a condition, and take an exception as a value.

What must not live here: waiting without a loop (harness.py), the limits of time (patience.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.patience import PATIENCE


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Let the event loop run until something is true; AssertionError naming `what` when it takes too long."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain: {what or condition}"
        await asyncio.sleep(0.001)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What comes out of it: the value, or the exception."""
    try:
        return await awaitable
    except Exception as exc:
        return exc
