"""Tests of tidegate.bus.memory: the contract of engines, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.bus.contract import POLICIES, Connect, Peer, peers
from tests.bus.contract import Contract as EngineContract
from tests.bus.engine_machine import check_engine
from tidegate.bus import memory
from tidegate.bus.base import Publication
from tidegate.bus.memory import MemoryBroker
from tidegate.bus.policies import Policies
from tidegate.exceptions import BusBusy, BusDown


class TestContract(EngineContract):
    @pytest.fixture
    async def connect(self) -> AsyncIterator[Connect]:
        async with peers(lambda policies: MemoryBroker("memory://", policies)) as connect:
            yield connect


async def start(url: str = "memory://") -> Peer:
    peer = Peer(MemoryBroker(url, Policies(POLICIES)))
    await peer.start()
    return peer


async def test_names_are_stores_of_their_own() -> None:
    one, two = await start("memory://one"), await start("memory://two")
    await one.broker.subscribe(["plain"])
    await two.publish("plain", b"elsewhere")
    await one.publish("plain", b"here")
    assert await one.payloads(1) == [b"here"]
    await one.broker.close()
    await two.broker.close()


async def test_a_store_ends_with_its_last_broker() -> None:
    one, two = await start(), await start()
    await one.publish("h:1", b"a")
    first = await two.place("h:1")
    await one.broker.close()
    assert await two.place("h:1") == first
    await two.broker.close()
    assert memory._STORES[asyncio.get_running_loop()] == {}
    three = await start()
    assert (await three.place("h:1")).epoch != first.epoch
    await three.broker.close()


async def test_verbs_before_the_start_say_so() -> None:
    with pytest.raises(BusDown, match="the bus is down: it is not started, or closed"):
        await MemoryBroker("memory://", Policies()).publish([Publication("a", b"")], 1.0)


async def test_what_is_on_its_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "QUEUE_BYTES", 1000)
    one = await start()
    await one.broker.subscribe(["plain"])
    results = [(await one.publish("plain", bytes(500), wait=0.0))[0] for _ in range(5)]
    assert results[:2] == [None, None]
    assert isinstance(results[2], BusBusy)
    for _ in range(20):
        assert await one.publish("plain", bytes(500)) == [None]
        assert one.broker._queued <= 2000  # type: ignore[attr-defined]
    await one.broker.close()


async def test_channels_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REMEMBERED", 10)
    one = await start()
    await one.broker.subscribe(["short:kept"])
    kept = await one.place("short:kept")
    now = 0.0
    monkeypatch.setattr(memory.time, "monotonic", lambda: now)
    for number in range(200):
        now += 1.0
        await one.publish(f"short:{number}", b"")
    store = one.broker._open  # type: ignore[attr-defined]
    assert len(store._channels) <= 12
    assert await one.place("short:kept") == kept
    await one.broker.close()


async def test_keys_are_remembered_for_minutes_and_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    one = await start()
    now = 1000.0
    monkeypatch.setattr(memory.time, "monotonic", lambda: now)

    async def publish(key: str) -> object:
        return (await one.broker.publish([Publication("h:1", b"", key=key)], 1.0))[0]

    first = await publish("a")
    now += memory.KEY_SECONDS - 1
    assert await publish("a") == first
    now += 2
    assert await publish("a") != first
    for number in range(memory.KEYS + 50):
        await publish(str(number))
    assert len(one.broker._open.channel("h:1").keys) <= memory.KEYS + 1  # type: ignore[attr-defined]
    await one.broker.close()


def test_any_order_of_verbs() -> None:
    check_engine(lambda: peers(lambda policies: MemoryBroker("memory://", policies)), 15)
