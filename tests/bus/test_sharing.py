"""Tests of tidegate.bus.sharing: the bus of an event loop."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.bus.bus import Bus
from tidegate.bus.members import MemberTable
from tidegate.bus.sharing import Share, current, share
from tidegate.channels import Channel, ChannelLimits
from tidegate.exceptions import BusDown, BusError

CHANNELS = {"h:": Channel(history=5)}


async def enter(bus: str | Bus, channels: dict[str, Channel] | None = None) -> Share:
    found = share(bus, channels, MemberTable)
    await found.enter()
    return found


async def test_the_same_url_is_one_bus_until_the_last_has_left() -> None:
    one = await enter("memory://", CHANNELS)
    two = await enter("memory://", CHANNELS)
    assert one is two
    assert current() is one.bus
    await one.leave()
    assert current() is one.bus
    await two.leave()
    assert one.bus.state.kind == "down"
    with pytest.raises(BusError, match=r"there is no bus here: give serve\(\) channels="):
        current()


async def test_who_enters_while_it_starts_waits_for_it() -> None:
    first = share("memory://", None, MemberTable)
    entering = asyncio.create_task(first.enter())
    await asyncio.sleep(0)
    second = share("memory://", None, MemberTable)
    assert second is first
    await second.enter()
    assert second.bus.state.kind == "up"
    await entering
    await first.leave()
    await second.leave()


async def test_channels_are_declared_in_one_place() -> None:
    one = await enter("memory://", CHANNELS)
    with pytest.raises(ValueError, match="channels differ from those of the bus"):
        share("memory://", {"h:": Channel(history=6)}, MemberTable)
    assert share("memory://", None, MemberTable) is one
    await one.leave()


async def test_limits_are_given_in_one_place() -> None:
    limits = ChannelLimits(message=5)
    first = share("memory://", None, MemberTable, limits)
    await first.enter()
    assert first.bus.message_limit == 5
    assert share("memory://", None, MemberTable) is share("memory://", None, MemberTable, limits) is first
    with pytest.raises(ValueError, match="channel_limits differ from those of the bus"):
        share("memory://", None, MemberTable, ChannelLimits())
    await first.leave()


async def test_several_buses_have_to_be_named() -> None:
    one, two = await enter("memory://one"), await enter("memory://two")
    with pytest.raises(BusError, match="this event loop has several buses"):
        current()
    await two.leave()
    assert current() is one.bus
    await one.leave()


async def test_a_bus_that_was_there_before_stays() -> None:
    async with Bus("memory://", channels=CHANNELS) as bus:
        one = await enter(bus)
        assert share(bus, CHANNELS, MemberTable) is one
        assert current() is bus
        await one.leave()
        assert bus.state.kind == "up"
        await bus.publish("h:1", "x")


async def test_a_start_that_fails_is_no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: Bus, required: bool) -> None:
        raise BusDown("connection refused")

    monkeypatch.setattr(Bus, "start", refuse)
    with pytest.raises(BusDown):
        await enter("memory://")
    with pytest.raises(BusError, match="there is no bus here"):
        current()


def test_without_an_event_loop_there_is_none() -> None:
    with pytest.raises(BusError, match="there is no bus here"):
        current()
