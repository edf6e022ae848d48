"""`Bus` on an engine that loses, repeats and reorders, and fails reads: readers get everything in order.

The engine is memory:// with a bad link. What must not live here: every interleaving (test_topics_machine.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from tests.support.patience import PATIENCE
from tidegate.bus.base import SLICE_MESSAGES, Broker, Deliver, Slice, State, Tell
from tidegate.bus.bus import Bus
from tidegate.bus.memory import MemoryBroker
from tidegate.channels import Channel, Gap, Message, Position
from tidegate.exceptions import BusDown

CHANNELS = {"h:": Channel(history=5000, history_bytes=2**24)}
MESSAGES = 400


class BadBroker(MemoryBroker):
    """memory:// with a bad link.

    Attributes:
        bad: whether it is.
    """

    gapless = False
    bad = True

    def __init__(self, chance: random.Random) -> None:
        bus = Bus("memory://", channels=CHANNELS)
        super().__init__("memory://", bus.policies)
        self.chance = chance

    async def start(self, deliver: Deliver, tell: Tell) -> None:
        def deliver_badly(messages: Sequence[Message]) -> None:
            if self.bad:
                messages = [
                    message for message in messages for _ in range(self.chance.choices((0, 1, 2), (10, 80, 10))[0])
                ]
                if self.chance.random() < 0.2:
                    self.chance.shuffle(messages)
            deliver(messages)

        self.tell = tell
        await super().start(deliver_badly, tell)

    async def read(
        self, channel: str, after: Position | None, limit: int = SLICE_MESSAGES, before: Position | None = None
    ) -> Slice:
        if self.bad and self.chance.random() < 0.1:
            raise BusDown("no answer")
        part = await super().read(channel, after, limit, before)
        await asyncio.sleep(self.chance.choice((0, 0, 0.001)))  # it comes late
        return part

    def cut(self) -> None:
        """Lose the link, and have another one."""
        self._queue = []
        self.tell(State("down", reason="cut"))
        self.tell(State("again"))


def make(broker: Broker) -> Bus:
    """A bus on a broker of the test's own."""
    bus = Bus("memory://", channels=CHANNELS)
    bus._broker = broker
    bus._topics._gapless = False
    return bus


async def read_all(bus: Bus, chance: random.Random) -> list[str]:
    """Read everything, leaving and coming back at times, as clients do."""
    got: list[str] = []
    since: Position | str | None = None
    while len(got) < MESSAGES:
        async with bus.subscribe("h:1", since) as messages:
            if messages.joined.resumed == "failed":
                assert messages.joined.retry_after is not None  # it may be tried again, and is
                continue
            assert messages.joined.resumed == ("new" if since is None else "full")
            since = since or messages.joined.position
            async for message in messages:
                assert not isinstance(message, Gap), message
                got.append(str(message.data))
                since = message.position
                if len(got) == MESSAGES or chance.random() < 0.01:
                    break
    return got


@pytest.mark.parametrize("seed", range(5))
async def test_readers_get_everything_in_order(seed: int) -> None:
    chance = random.Random(seed)
    brokers = [BadBroker(chance), BadBroker(chance)]
    async with make(brokers[0]) as one, make(brokers[1]) as two:
        async with asyncio.timeout(PATIENCE):
            readers = [asyncio.create_task(read_all(bus, chance)) for bus in (one, two) for _ in range(10)]
            while one.counts.resumes["new"] + two.counts.resumes["new"] < len(readers):
                await asyncio.sleep(0)
            for number in range(MESSAGES):
                await chance.choice((one, two)).publish("h:1", str(number))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                if chance.random() < 0.02:
                    chance.choice(brokers).cut()
            for broker in brokers:
                broker.bad = False
                broker.cut()
            for reader in readers:
                assert await reader == [str(number) for number in range(MESSAGES)]
        assert (one.counts.told, two.counts.told) == (0, 0)
        assert one.counts.repaired
        assert one.counts.duplicates
