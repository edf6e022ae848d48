"""Tests of tidegate.bus.attendance: several buses over memory://, each with members that have names.

What must not live here: what is told and read when (test_presence.py), engines (contract.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.bus.desk import Listener
from tests.support.patience import PATIENCE
from tidegate.bus import presence as presence_module
from tidegate.bus.base import Presence
from tidegate.bus.bus import Bus
from tidegate.bus.memory import MemoryBroker
from tidegate.channels import LISTED, Channel, Identity
from tidegate.exceptions import BusDown, BusError, TooManyMembers

CHANNELS = {"c:": Channel(presence=True, presence_grace=0), "long:": Channel(presence=True, presence_grace=60.0)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has gone is gone, and who has come is told, without delay."""
    for name in ("SLACK", "SOON", "PACE"):
        monkeypatch.setattr(presence_module, name, 0.01)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.01)


async def until_listed(bus: Bus, channel: str, members: dict[str, Any]) -> None:
    async def listed() -> bool:
        return await bus.presence(channel) == members

    await until(listed)


@pytest.fixture
async def buses() -> AsyncIterator[list[Bus]]:
    """Two processes, as it were: each with its own engine object, and one store."""
    async with Bus("memory://presence", channels=CHANNELS) as one, Bus("memory://presence", channels=CHANNELS) as two:
        yield [one, two]


async def test_members_hear_who_comes_and_goes_in_other_processes(buses: list[Bus]) -> None:
    ada = await Listener(buses[0], Identity("ada", {"color": "red"})).join("c:1")
    assert await buses[0].presence("c:1") == {"ada": {"color": "red"}}
    bob = await Listener(buses[1], Identity("bob")).join("c:1")
    again = await Listener(buses[1], Identity("bob")).join("c:1")
    eve = await Listener(buses[1], Identity("eve")).join("c:1")
    await ada.until(("in", "bob"), ("in", "eve"))
    await until_listed(buses[1], "c:1", {"ada": {"color": "red"}, "bob": None, "eve": None})
    bob.bus.leave(bob, "c:1")
    eve.bus.leave(eve, "c:1")
    await ada.until(("in", "bob"), ("in", "eve"), ("out", "eve"))
    again.bus.leave(again, "c:1")
    await ada.until(("in", "bob"), ("in", "eve"), ("out", "eve"), ("out", "bob"))
    assert await buses[0].presence("c:1") == {"ada": {"color": "red"}}


async def test_who_moves_to_another_process_was_there_all_the_time(buses: list[Bus]) -> None:
    ada = await Listener(buses[0], Identity("ada")).join("long:1")
    await buses[0].presence("long:1")  # from here on she is told
    bob = await Listener(buses[1], Identity("bob")).join("long:1")
    await ada.until(("in", "bob"))
    buses[1].leave(bob, "long:1", returns=True)
    await buses[1].close()
    assert await buses[0].presence("long:1") == {"ada": None, "bob": None}
    await Listener(buses[0], Identity("bob")).join("long:1")
    eve = await Listener(buses[0], Identity("eve")).join("long:1")
    buses[0].leave(eve, "long:1", removed=True)
    await ada.until(("in", "bob"), ("in", "eve"), ("out", "eve"))


async def test_those_who_have_no_name_are_counted(buses: list[Bus]) -> None:
    await Listener(buses[0]).join("c:1")
    await Listener(buses[1]).join("c:1")

    async def both() -> bool:
        return await buses[0].members("c:1") == await buses[1].members("c:1") == 2

    await until(both)
    assert await buses[0].presence("c:1") == {}


async def test_another_program_reads_who_is_there(buses: list[Bus]) -> None:
    await Listener(buses[0], Identity("ada")).join("c:1")
    await until_listed(buses[1], "c:1", {"ada": None})


async def test_members_are_removed_by_name_in_all_processes(buses: list[Bus]) -> None:
    ada = await Listener(buses[0], Identity("ada")).join("long:1")
    await buses[0].presence("long:1")  # from here on she is told
    for bus in buses:
        await Listener(bus, Identity("bob")).join("long:1")
    await ada.until(("in", "bob"))
    await buses[0].leave_members("long:1", "bob")
    await ada.until(("in", "bob"), ("out", "bob"))
    await buses[0].leave_members("long:1")

    async def removed() -> bool:
        return not any(bus._topics.members("long:1") for bus in buses)

    await until(removed)
    await until_listed(buses[0], "long:1", {})


async def test_a_channel_without_presence_says_so(buses: list[Bus]) -> None:
    words = r"^plain: there is no presence: declare a Channel\(presence=True\) for the prefix$"
    with pytest.raises(BusError, match=words):
        await buses[0].presence("plain")
    with pytest.raises(BusError, match=words):
        await buses[0].leave_members("plain", "ada")
    with pytest.raises(ValueError, match="member must have 1 to 128 bytes"):
        await buses[0].leave_members("c:1", "")


async def test_more_members_than_are_listed(buses: list[Bus]) -> None:
    ada = await Listener(buses[0], Identity("ada")).join("c:1")
    assert await buses[0].presence("c:1") == {"ada": None}
    for number in range(LISTED):
        await Listener(buses[1], Identity(f"{number}")).join("c:1")
    await ada.until(("changed", ""))
    with pytest.raises(TooManyMembers) as told:
        await buses[0].presence("c:1")
    assert (told.value.count, told.value.limit) == (LISTED + 1, LISTED)


async def test_an_engine_that_has_lost_who_is_there_is_told_again(
    buses: list[Bus], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tidegate.bus")
    ada = await Listener(buses[0], Identity("ada")).join("c:1")
    await buses[0].presence("c:1")  # from here on she is told
    await Listener(buses[1], Identity("bob")).join("c:1")
    await ada.until(("in", "bob"))
    for bus in buses:
        assert isinstance(bus._broker, MemoryBroker)
        bus._broker._snapshot = {}
    await Listener(buses[0], Identity("eve")).join("c:1")  # which has it looked at
    await until(lambda: _told(buses[0], "ada"))
    assert "the bus has lost who is in which channel, and is told again" in caplog.text
    assert ada.events == [("in", "bob"), ("in", "eve")]


async def _told(bus: Bus, name: str) -> bool:
    return name in ((await bus._broker.present("c:1")).members or {})


async def test_an_engine_that_is_away_is_asked_again(buses: list[Bus], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "RETRY", 0.01)
    broker = buses[0]._broker
    real = broker.present
    failures = iter([BusDown("cut"), BusDown("cut")])

    async def present(channel: str) -> Presence:
        for failure in failures:
            raise failure
        return await real(channel)

    monkeypatch.setattr(broker, "present", present)
    await Listener(buses[0], Identity("ada")).join("c:1")
    assert await buses[0].presence("c:1") == {"ada": None}


async def test_a_failure_of_the_engine_ends_nothing(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidegate.bus.attendance.RETRY", 0.01)
    broker = buses[1]._broker
    real = broker.beat
    failures = iter([RuntimeError("x")])

    async def beat(snapshot: dict[str, Presence]) -> None:
        for failure in failures:
            raise failure
        await real(snapshot)

    monkeypatch.setattr(broker, "beat", beat)
    bob = await Listener(buses[1], Identity("bob")).join("c:1")

    async def failed() -> bool:
        return "who is in channels cannot be told or asked" in caplog.text

    await until(failed)
    await bob.join("c:1")  # there is news
    await until(lambda: _told(buses[1], "bob"))
    assert caplog.text.count("who is in channels cannot be told or asked") == 1


async def test_a_join_that_fails_leaves_no_name(buses: list[Bus], monkeypatch: pytest.MonkeyPatch) -> None:
    async def subscribe(channels: list[str]) -> None:
        raise BusDown("cut")

    monkeypatch.setattr(buses[0]._broker, "subscribe", subscribe)
    ada = Listener(buses[0], Identity("ada"))
    with pytest.raises(BusDown):
        await ada.join("c:1")
    assert buses[0]._present.name_of("c:1", ada) is None
