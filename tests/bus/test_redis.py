"""The engine redis:// over a real redis-server: the contract of engines, and what is its own.

What must not live here: failures of servers and networks (test_redis_failures.py).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.bus.contract import Connect, peers
from tests.bus.contract import Contract as EngineContract
from tests.support.redis_server import RedisServer
from tidegate.bus.redis import RedisBroker

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(server: RedisServer) -> str:
    """The URL of a bus that nobody has used."""
    return f"{server.url}?bus=test{next(_numbers)}"


class TestContract(EngineContract):
    @pytest.fixture
    async def connect(self, url: str) -> AsyncIterator[Connect]:
        async with peers(lambda policies: RedisBroker(url, policies)) as connect:
            yield connect
