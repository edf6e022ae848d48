"""Brokers of an engine whose server ends, stalls or is cut off, and what tests of that do with them.

What must not live here: tests, what holds for every engine (contract.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.bus.contract import POLICIES, Cuttable, Peer, payloads
from tests.support.patience import PATIENCE
from tests.support.redis_server import Relay
from tidegate.bus.base import Broker, Publication
from tidegate.bus.policies import Policies
from tidegate.channels import Position
from tidegate.exceptions import BusDown

Make = Callable[[str, Policies], Broker]
"""Makes an engine's broker, for a URL."""


class Peers:
    """Brokers, which are closed together."""

    def __init__(self, broker: Make) -> None:
        self.broker = broker
        self.all: list[Peer] = []

    def make(self, url: str) -> Peer:
        peer = Peer(self.broker(url, Policies(POLICIES)))
        self.all.append(peer)
        return peer

    async def start(self, url: str) -> Peer:
        peer = self.make(url)
        await peer.start()
        return peer

    async def close(self) -> None:
        await asyncio.gather(*(peer.broker.close() for peer in self.all))


async def publish(peer: Peer, channel: str, first: int, last: int) -> list[Position]:
    """Publish numbers one after the other, each until it is stored."""
    positions = []
    for number in range(first, last + 1):
        while True:
            publication = Publication(channel, str(number).encode(), key=str(number))
            (result,) = await peer.broker.publish([publication], PATIENCE)
            if isinstance(result, Position):
                break
            assert isinstance(result, BusDown), result
            await asyncio.sleep(0.02)
        positions.append(result)
    return positions


async def stored(peer: Peer, channel: str, after: Position | None = None) -> list[bytes]:
    """What a channel has after a place, from which nothing is missing."""
    part = await peer.broker.read(channel, after)
    assert part.complete
    return payloads(part.messages)


def cuttable_by(relay: Relay, make: Callable[[Policies], Broker]) -> Cuttable:
    """Brokers whose links lead through a relay, which cuts them and refuses new ones."""

    def cut() -> None:
        relay.refuses = True
        relay.cut()

    def mend() -> None:
        relay.refuses = False

    return Cuttable(make, cut, mend)
