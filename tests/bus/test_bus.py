"""Tests of tidegate.bus.bus: `Bus` over memory://, with a real event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.bus.desk import Member
from tests.support.patience import PATIENCE
from tidegate.bus import bus as module
from tidegate.bus.base import Presence, State
from tidegate.bus.bus import Bus
from tidegate.channels import Channel, ChannelLimits, Gap, Message, Position
from tidegate.exceptions import BusBusy, BusDown, BusError, InvalidChannel, MessageTooBig

CHANNELS = {"h:": Channel(history=100), "latest:": Channel(history=1, recover="latest")}


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with Bus("memory://", channels=CHANNELS) as bus:
        yield bus


class Reader(Member):
    """A member whose messages can be waited for."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus.name_sender())
        self.changed = asyncio.Event()
        self.messages: list[Message] = []

    def deliver(self, message: Message) -> bool:
        self.messages.append(message)
        self.changed.set()
        return super().deliver(message)

    def close(self, code: int, reason: str) -> None:
        super().close(code, reason)
        self.changed.set()

    async def until(self, count: int) -> list[Any]:
        async with asyncio.timeout(PATIENCE):
            while len(self.got) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.got


# Publishing and joining.


async def test_what_is_published_gets_to_members(bus: Bus) -> None:
    reader = Reader(bus)
    joined = (await bus.join(reader, {"h:1": None, "plain": None}))["h:1"]
    position = await bus.publish("h:1", "hello")
    assert await bus.publish("plain", b"\xff") is None
    await reader.until(2)
    assert sorted((message.channel, message.data) for message in reader.messages) == [
        ("h:1", "hello"),
        ("plain", b"\xff"),
    ]
    assert position is not None
    assert joined.position is not None
    assert position == (joined.position.epoch, joined.position.offset + 1)


@pytest.mark.parametrize(
    ("message", "options", "payload", "text", "json"),
    [
        ("grün", {}, "grün".encode(), True, False),
        (b"\xff", {}, b"\xff", False, False),
        (bytearray(b"a"), {}, b"a", False, False),
        (memoryview(b"ab"), {}, b"ab", False, False),
        ({"a": [1, None]}, {}, b'{"a":[1,null]}', True, True),
        (7, {}, b"7", True, True),
        ('{"a": 1}', {"json": True}, b'{"a": 1}', True, True),
        (b'"a"', {"json": True}, b'"a"', True, True),
    ],
)
async def test_kinds_of_messages(
    bus: Bus, message: Any, options: dict[str, Any], payload: bytes, text: bool, json: bool
) -> None:
    reader = Reader(bus)
    await bus.join(reader, {"h:1": None})
    await bus.publish("h:1", message, **options)
    await reader.until(1)
    got = reader.messages[0]
    assert (got.payload, got.text, got.json) == (payload, text, json)


async def test_wrong_arguments_are_told_at_once(bus: Bus) -> None:
    with pytest.raises(InvalidChannel):
        await bus.publish("", "x")
    with pytest.raises(InvalidChannel, match="'tg:' is reserved"):
        await bus.publish("tg:control", "x")
    with pytest.raises(MessageTooBig, match="h:1: message of 1048577 bytes exceeds the bus's limit of 1048576 bytes"):
        await bus.publish("h:1", bytes(2**20 + 1))
    with pytest.raises(ValueError, match="json=True, and the message isn't JSON"):
        await bus.publish("h:1", "nonsense", json=True)
    with pytest.raises(TypeError):
        await bus.publish("h:1", object())
    with pytest.raises(ValueError, match="wait must be a number of seconds, not -1"):
        await bus.publish("h:1", "x", wait=-1)
    with pytest.raises(ValueError, match="key must have 1 to 128 bytes"):
        await bus.publish("h:1", "x", key="")
    with pytest.raises(TypeError, match="exclude must be a connection that has joined a channel, or another member"):
        await bus.publish("h:1", "x", exclude=5)
    with pytest.raises(InvalidChannel):
        await bus.join(Reader(bus), {"h:1": None, " ": None})
    with pytest.raises(InvalidChannel):
        bus.subscribe("tg:control")


async def test_a_wrong_join_among_many_joins_nothing(bus: Bus) -> None:
    reader = Reader(bus)
    with pytest.raises(InvalidChannel):
        await bus.join(reader, {"h:1": None, "h:2": None, " ": None})
    assert (bus._topics.members("h:1"), bus._topics.members("h:2")) == (0, 0)


async def test_a_join_that_is_cancelled_joins_nothing(bus: Bus) -> None:
    reader = Reader(bus)
    task = asyncio.create_task(bus.join(reader, {"h:1": None}))
    while not bus._topics.members("h:1"):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bus._topics.members("h:1") == 0


async def test_exclude(bus: Bus) -> None:
    """Who is excluded does not get it, others do."""
    one, two = Reader(bus), Reader(bus)
    for reader in (one, two):
        await bus.join(reader, {"h:1": None})
    await bus.publish("h:1", "a", exclude=one)
    await bus.publish("h:1", "b")
    await two.until(2)
    assert [message.data for message in one.messages] == ["b"]
    assert two.messages[0].sender == one.sender


async def test_a_key_makes_publishing_again_harmless(bus: Bus) -> None:
    assert await bus.publish("h:1", "a", key="k") == await bus.publish("h:1", "a", key="k")
    assert len(await bus.history("h:1")) == 1


async def test_what_fails_in_the_engine_is_raised(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(batch: Any, wait: float) -> list[BusError]:
        return [BusBusy(batch[0].channel, wait)]

    monkeypatch.setattr(bus._broker, "publish", busy)
    with pytest.raises(BusBusy, match=r"h:1: the queue to the bus was full for 0\.5 seconds"):
        await bus.publish("h:1", "x", wait=0.5)


async def test_a_member_resumes(bus: Bus) -> None:
    positions = [await bus.publish("h:1", str(number)) for number in range(5)]
    reader = Reader(bus)
    joined = (await bus.join(reader, {"h:1": str(positions[1])}))["h:1"]
    assert (joined.resumed, joined.missed) == ("full", 3)
    await reader.until(3)
    assert [message.data for message in reader.messages] == ["2", "3", "4"]


async def test_a_member_that_drained_is_given_the_rest(bus: Bus) -> None:
    start = await bus.publish("h:1", "0")
    for number in range(1, 4):
        await bus.publish("h:1", str(number))
    reader = Reader(bus)
    reader.room = False
    await bus.join(reader, {"h:1": start})
    assert len(reader.got) == 1
    reader.room = True
    bus.drained(reader, "h:1")
    assert [message.data for message in reader.messages] == ["1", "2", "3"]


async def test_leaving(bus: Bus) -> None:
    """What comes after it is not given any more, and leaving twice does nothing."""
    reader = Reader(bus)
    await bus.join(reader, {"plain": None})
    bus.leave(reader, "plain")
    bus.leave(reader, "plain")
    await bus.publish("plain", "x")
    await asyncio.sleep(0)
    assert reader.got == []


# History.


async def test_history_is_read_in_pages(bus: Bus) -> None:
    for number in range(5):
        await bus.publish("h:1", str(number))
    page = await bus.history("h:1", limit=3)
    assert [message.data for message in page] == ["4", "3", "2"]
    rest = await bus.history("h:1", limit=3, before=str(page[-1].position))
    assert [message.data for message in rest] == ["1", "0"]
    assert await bus.history("h:1", before=rest[-1].position) == []


async def test_a_page_that_is_not_known_is_empty(bus: Bus) -> None:
    await bus.publish("h:1", "x")
    assert await bus.history("h:1", before="nonsense") == []
    assert await bus.history("h:1", before=Position("other", 5)) == []


async def test_wrong_questions_of_history(bus: Bus) -> None:
    with pytest.raises(BusError, match=r"plain has no history: declare a Channel\(history=...\) for its prefix"):
        await bus.history("plain")
    with pytest.raises(ValueError, match="limit must be 1 to 1000 messages, not 0"):
        await bus.history("h:1", limit=0)


# Members.


async def test_members_are_counted_over_all_processes(bus: Bus) -> None:
    assert await bus.members("h:1") == 0
    readers = [Reader(bus) for _ in range(3)]
    for reader in readers:
        await bus.join(reader, {"h:1": None})
    assert await bus.members("h:1") == 3
    async with Bus("memory://", channels=CHANNELS) as other:
        await other.join(Reader(other), {"h:1": None})
        async with asyncio.timeout(PATIENCE):
            while await bus.members("h:1") != 4 or await other.members("h:1") != 4:
                await asyncio.sleep(0.01)
    assert await bus.members("h:1") == 3
    bus.leave(readers[0], "h:1")
    assert await bus.members("h:1") == 2


async def test_members_are_closed_in_all_processes(bus: Bus) -> None:
    async with Bus("memory://", channels=CHANNELS) as other:
        here, there, elsewhere = Reader(bus), Reader(other), Reader(bus)
        await bus.join(here, {"h:1": None})
        await other.join(there, {"h:1": None})
        await bus.join(elsewhere, {"h:2": None})
        await other.close_members("h:1", 4001, "signed out")
        assert await here.until(1) == [(4001, "signed out")]
        assert await there.until(1) == [(4001, "signed out")]
        assert elsewhere.got == []
        with pytest.raises(ValueError, match="code must be a close code"):
            await bus.close_members("h:1", 5)
        with pytest.raises(ValueError, match="reason must have at most 123 bytes"):
            await bus.close_members("h:1", 4001, "x" * 124)


async def test_members_are_closed_though_the_link_was_lost(bus: Bus) -> None:
    reader = Reader(bus)
    await bus.join(reader, {"user:42": None})
    bus._told(State("down", reason="cut"))
    bus._broker._store.subscribers["tg:control"].clear()  # type: ignore[attr-defined, union-attr]
    await bus.close_members("user:42", 4001)
    bus._told(State("again", 2))
    assert (4001, "") in await reader.until(2)


async def test_a_message_is_given_whatever_its_size() -> None:
    """The bound of what is given at once is for several of them."""
    limits = ChannelLimits(message=2**21)
    async with Bus("memory://", channels={"h:": Channel(history=10, history_bytes=2**24)}, limits=limits) as bus:
        async with bus.subscribe("h:1") as messages:
            await bus.publish("h:1", b"small")
            position = await bus.publish("h:1", bytes(2**21))
            assert position is not None
            async with asyncio.timeout(PATIENCE):
                assert [len((await anext(messages)).data) for _ in range(2)] == [5, 2**21]  # type: ignore[union-attr]
        for missed, resumed in ((1, "full"), (2, "failed")):
            async with bus.subscribe("h:1", Position(position.epoch, 2 - missed)) as messages:
                assert messages.joined.resumed == resumed
        with pytest.raises(MessageTooBig, match="of 2097153 bytes exceeds the bus's limit of 2097152 bytes"):
            await bus.publish("h:1", bytes(2**21 + 1))


# Its life.


async def test_before_the_start_and_after_the_end() -> None:
    bus = Bus("memory://")
    with pytest.raises(BusError, match="the bus is not started: use it within `async with`"):
        await bus.publish("a", "x")
    await bus.close()
    await bus.start()
    with pytest.raises(BusError, match="the bus was started before"):
        await bus.start()
    await bus.close()
    await bus.close()
    with pytest.raises(BusError, match="the bus is closed"):
        await bus.publish("a", "x")
    bus.leave(Reader(bus), "a")
    bus.drained(Reader(bus), "a")


def test_a_wrong_bus_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="there is no bus kafka://"):
        Bus("kafka://")
    with pytest.raises(TypeError, match="channels must be a dict of prefixes and Channels"):
        Bus("memory://", channels=5)  # type: ignore[arg-type]


async def test_closing_waits_for_what_is_being_published(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus("memory://", channels=CHANNELS)
    await bus.start()
    go = asyncio.Event()
    publish = bus._broker.publish

    async def slow(batch: Any, wait: float) -> Any:
        await go.wait()
        return await publish(batch, wait)

    monkeypatch.setattr(bus._broker, "publish", slow)
    publishing = asyncio.create_task(bus.publish("h:1", "x"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(bus.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    assert await publishing is not None
    await closing


async def test_joins_that_wait_end_with_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus("memory://", channels=CHANNELS)
    await bus.start()

    async def never(channels: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(bus._broker, "subscribe", never)
    joining = asyncio.create_task(bus.join(Reader(bus), {"h:1": None}))
    while not bus._topics.members("h:1"):
        await asyncio.sleep(0)
    await bus.close()
    with pytest.raises(BusError, match="the bus is closed"):
        await joining


async def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus("memory://")

    async def refuse(deliver: Any, tell: Any) -> None:
        raise BusDown("connection refused")

    monkeypatch.setattr(bus._broker, "start", refuse)
    with pytest.raises(BusDown, match="connection refused"):
        await bus.start()
    assert bus._tasks == set()


async def test_an_engine_that_is_not_there_yet_is_used_as_soon_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    bus = Bus("memory://", channels={"h:": Channel(history=5)})
    start = bus._broker.start
    errors = [BusDown("refused"), BusDown("refused"), BusError("wrong password"), OSError("cut")]

    async def refuse(deliver: Any, tell: Any) -> None:
        if errors:
            raise errors.pop(0)
        await start(deliver, tell)

    monkeypatch.setattr(bus._broker, "start", refuse)
    with caplog.at_level(logging.INFO, "tidegate.bus"):
        await bus.start(required=False)
        assert bus.state.kind == "down"
        assert bus.state.reason == "refused"
        async with asyncio.timeout(PATIENCE):
            joined = await bus.join(Reader(bus), {"h:1": None})  # it waits for it
    assert joined["h:1"].resumed == "new"
    *lines, up = [record.getMessage() for record in caplog.records]
    assert up.startswith("the bus is up again after ")
    assert lines == [
        "the bus is down: refused; publishes wait or fail until it is up again",
        "wrong password; it is used as soon as it is there",
        "cut; it is used as soon as it is there",
    ]
    await bus.close()


async def test_a_bus_that_waits_for_its_engine_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus("memory://")

    async def refuse(deliver: Any, tell: Any) -> None:
        raise BusDown("refused")

    monkeypatch.setattr(bus._broker, "start", refuse)
    await bus.start(required=False)
    with pytest.raises(BusDown, match="the bus is down: refused"):
        await bus.join(Reader(bus), {"h:1": None})
    await bus.close()
    assert bus._tasks == set()


async def test_verbs_that_fail_or_raise_are_answers(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(channels: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr(bus._broker, "subscribe", fail)
    with pytest.raises(BusDown, match="a request failed: RuntimeError"):
        await bus.join(Reader(bus), {"h:1": None})


async def test_the_state_is_logged_and_losses_are_repaired(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader(bus)
    await bus.join(reader, {"h:1": None, "plain": None})
    with caplog.at_level(logging.INFO, "tidegate.bus"):
        bus._told(State("down", reason="cut"))
        bus._broker._store.subscribers["h:1"].clear()  # type: ignore[attr-defined, union-attr]
        await bus.publish("h:1", "lost")
        bus._told(State("again", 2))
    await reader.until(2)
    assert Gap("plain", None, None, "link") in reader.got
    assert [message.data for message in reader.messages] == ["lost"]
    assert [record.getMessage() for record in caplog.records] == [
        "the bus is down: cut; publishes wait or fail until it is up again",
        "the bus is up again after 0.00 s; what was missed is read from the history, if any",
    ]


async def test_presence_that_cannot_be_told_is_told_later(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.Event()
    beats = []

    async def beat(snapshot: dict[str, Presence]) -> None:
        beats.append(snapshot)
        if len(beats) == 1:
            raise BusDown("cut")
        told.set()

    monkeypatch.setattr(bus._broker, "beat", beat)
    await bus.join(Reader(bus), {"h:1": None})
    async with asyncio.timeout(PATIENCE):
        await told.wait()
    assert beats[-1]["h:1"] == Presence(1)
