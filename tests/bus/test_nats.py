"""The engine nats:// with a server of its own: the contract of engines, and what is its own.

What must not live here: what a server's end leaves (test_nats_faults.py).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.bus.contract import Connect, peers
from tests.bus.contract import Contract as EngineContract
from tests.support.nats_server import NatsServer, nats_server
from tidegate.bus.nats import NatsBroker

BUSES = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def url(server: NatsServer) -> str:
    """The URL of a bus that no other test has."""
    return f"{server.url}/b{next(BUSES)}"


class TestContract(EngineContract):
    @pytest.fixture
    async def connect(self, url: str) -> AsyncIterator[Connect]:
        async with peers(lambda policies: NatsBroker(url, policies)) as connect:
            yield connect
