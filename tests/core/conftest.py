"""Tests of the core that need an event loop run on both: asyncio's, and uvloop.

What must not live here: anything but hooks and fixtures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.core.recorder import long_turns


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio runs each coroutine test on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _long_turns(request: pytest.FixtureRequest) -> Iterator[None]:
    """But for the tests of turns themselves, none ends in the middle of a test."""
    with contextlib.nullcontext() if request.path.stem == "test_turns" else long_turns():
        yield


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop, for tests that run one themselves."""
    made: Callable[[], asyncio.AbstractEventLoop] = request.param
    return made
