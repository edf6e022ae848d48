"""Tests of tidegate.bus.subscription: iterators over channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.patience import PATIENCE
from tidegate.bus import subscription as module
from tidegate.bus.bus import Bus
from tidegate.bus.subscription import Subscription
from tidegate.channels import Channel, Gap, Message
from tidegate.exceptions import BusDown, BusError

CHANNELS = {
    "h:": Channel(history=100),
    "short:": Channel(history=2),
    "latest:": Channel(history=1, recover="latest"),
}


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with Bus("memory://", channels=CHANNELS) as bus:
        yield bus


async def take(messages: Subscription, count: int) -> list[str | bytes | Gap]:
    """The data of the next messages, and gaps."""
    got: list[str | bytes | Gap] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < count:
            item = await anext(messages)
            got.append(item.data if isinstance(item, Message) else item)
    return got


async def publish(bus: Bus, channel: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await bus.publish(channel, str(number))


async def test_messages_come_one_by_one(bus: Bus) -> None:
    async with bus.subscribe("h:1") as messages:
        assert messages.joined.resumed == "new"
        await publish(bus, "h:1", 1, 3)
        assert await take(messages, 3) == ["1", "2", "3"]


async def test_it_resumes(bus: Bus) -> None:
    position = await bus.publish("h:1", "0")
    await publish(bus, "h:1", 1, 3)
    async with bus.subscribe("h:1", position) as messages:
        assert (messages.joined.resumed, messages.joined.missed) == ("full", 3)
        assert await take(messages, 3) == ["1", "2", "3"]
    async with bus.subscribe("h:1", last=2) as messages:
        assert await take(messages, 2) == ["2", "3"]


async def test_two_at_once(bus: Bus) -> None:
    async with bus.subscribe("h:1") as one, bus.subscribe("h:1") as two:
        await bus.publish("h:1", "a", exclude=one)
        await bus.publish("h:1", "b")
        assert (await take(one, 1), await take(two, 2)) == (["b"], ["a", "b"])


async def test_it_leaves_at_the_end(bus: Bus) -> None:
    async with bus.subscribe("h:1") as messages:
        pass
    assert bus._topics.members("h:1") == 0
    assert bus._subscriptions == set()
    with pytest.raises(BusError, match="the subscription is over"):
        await anext(messages)


async def test_a_slow_reader_gets_everything_that_is_stored(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 10)
    async with bus.subscribe("h:1") as messages:
        await publish(bus, "h:1", 1, 90)
        await asyncio.sleep(0)
        assert len(messages._queue) == 10
        assert await take(messages, 90) == [str(number) for number in range(1, 91)]
        await publish(bus, "h:1", 91, 95)
        assert await take(messages, 5) == ["91", "92", "93", "94", "95"]


async def test_a_slow_reader_is_told_of_what_is_not(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 10)
    async with bus.subscribe("short:1") as messages:
        await publish(bus, "short:1", 1, 100)
        got = await take(messages, 11)
        assert got[:10] == [str(number) for number in range(1, 11)]
        gap = got[10]
        assert isinstance(gap, Gap)
        assert gap.reason == "slow"
        assert gap.after is not None
        assert gap.position is not None
        assert gap.position.offset == 100
        assert gap.after.offset == 10
        await publish(bus, "short:1", 101, 102)
        assert await take(messages, 2) == ["101", "102"]


async def test_without_history_a_slow_reader_is_told(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 3)
    async with bus.subscribe("plain") as messages:
        await publish(bus, "plain", 1, 10)
        await asyncio.sleep(0)
        assert await take(messages, 4) == ["1", "2", "3", Gap("plain", None, None, "slow")]
        await publish(bus, "plain", 11, 11)
        assert await take(messages, 1) == ["11"]


async def test_the_queue_is_bounded_in_bytes(bus: Bus) -> None:
    async with bus.subscribe("plain") as messages:
        for _ in range(10):
            await bus.publish("plain", bytes(300_000))
        await asyncio.sleep(0)
        assert messages._bytes <= module.QUEUE_BYTES
        assert len(messages._queue) == 3


async def test_a_slow_reader_of_the_latest_gets_the_newest(bus: Bus) -> None:
    async with bus.subscribe("latest:1") as messages:
        await publish(bus, "latest:1", 1, 50)
        await asyncio.sleep(0)
        assert await take(messages, 2) == ["1", "50"]


async def test_coming_back_waits_for_the_engine(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 2)
    join, failures = bus._topics.join, [BusDown("cut", 0.0), BusDown("cut", 0.0)]
    async with bus.subscribe("h:1") as messages:
        await publish(bus, "h:1", 1, 5)
        await asyncio.sleep(0)

        def fail(channel: str, member: object, done: module.Done, *arguments: object) -> None:
            if failures:
                done(failures.pop())
            else:
                join(channel, member, done, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(bus._topics, "join", fail)
        assert await take(messages, 5) == ["1", "2", "3", "4", "5"]
        assert failures == []


async def test_notices_of_the_channel_are_items(bus: Bus) -> None:
    async with bus.subscribe("plain") as messages:
        gap = Gap("plain", None, None, "link")
        messages.gap(gap)
        messages.gap(gap)
        assert await take(messages, 1) == [gap]
        assert not messages._queue


async def test_it_ends_with_the_bus() -> None:
    async with Bus("memory://") as bus:
        messages = await bus.subscribe("plain").__aenter__()
        waiting = asyncio.ensure_future(anext(messages))
        await bus.publish("plain", "last")
        assert (await waiting).gap is None
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
    with pytest.raises(BusError, match="the bus is closed"):
        await waiting


async def test_it_ends_when_the_members_are_closed(bus: Bus) -> None:
    async with bus.subscribe("plain") as messages:
        await bus.close_members("plain", 4001, "signed out")
        with pytest.raises(BusError, match="plain was closed to its members: signed out"):
            await take(messages, 1)


async def test_one_that_cannot_join_does_not_begin(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(channels: object) -> None:
        raise BusDown("cut")

    monkeypatch.setattr(bus._broker, "subscribe", fail)
    with pytest.raises(BusDown):
        async with bus.subscribe("h:1"):
            raise AssertionError
    assert bus._subscriptions == set()
