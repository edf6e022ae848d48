"""What every engine promises (bus/base.py), as tests: an engine's test module has a subclass of `Contract`.

    class TestContract(Contract):
        @pytest.fixture
        async def connect(self) -> AsyncIterator[Connect]: ...

The fixture gives a function that starts one more broker of the same engine, and closes them all at the end. Engines
with a link that can be lost, which are all but memory://, have a subclass of `LinkContract`. What must not live here:
what only one engine promises; topics (test_topic.py), which are above engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import pytest
from msgspec import structs

from tests.bus.desk import Listener
from tests.support.patience import PATIENCE
from tidegate.bus import bus as bus_module
from tidegate.bus import presence as presence_module
from tidegate.bus.base import SLICE_BYTES, SLICE_MESSAGES, Broker, Presence, Publication, State
from tidegate.bus.bus import Bus
from tidegate.bus.policies import Policies
from tidegate.channels import LISTED, UNLISTED, Channel, Identity, Message, Position
from tidegate.exceptions import BusDown, BusError

__all__ = ["POLICIES", "Connect", "Contract", "Cuttable", "LinkContract", "Peer", "peers"]

POLICIES: Mapping[str, Channel] = {
    "h:": Channel(history=20),
    "many:": Channel(history=3000, history_bytes=2**24),
    "bytes:": Channel(history=100, history_bytes=1000),
    "short:": Channel(history=20, keep=0.2),
    "latest:": Channel(history=1, recover="latest"),
}


class Peer:
    """A broker, and what it delivers and tells.

    Attributes:
        messages: in order.
        states: in order.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.messages: list[Message] = []
        self.states: list[State] = []
        self._changed = asyncio.Event()
        self._delivering = False

    async def start(self) -> None:
        await self.broker.start(self.deliver, self.tell)

    def tell(self, state: State) -> None:
        self.states.append(state)
        self._changed.set()

    def deliver(self, messages: Sequence[Message]) -> None:
        assert not self._delivering
        self._delivering = True
        self.messages += messages
        self._changed.set()
        self._delivering = False

    async def until(self, count: int) -> list[Message]:
        """Wait for that many messages."""
        async with asyncio.timeout(PATIENCE):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages

    async def told(self, *kinds: str) -> State:
        """Wait until the last states that were told are of these kinds, and return the last one."""
        async with asyncio.timeout(PATIENCE):
            while [state.kind for state in self.states[-len(kinds) :]] != list(kinds):
                self._changed.clear()
                await self._changed.wait()
        return self.states[-1]

    async def payloads(self, count: int) -> list[bytes]:
        """Wait for that many messages, and return what is in them."""
        return [message.payload for message in await self.until(count)]

    async def publish(self, channel: str, *payloads: bytes, wait: float = 5.0) -> list[Position | BusError | None]:
        """Publish, and return what became of it."""
        return list(await self.broker.publish([Publication(channel, payload) for payload in payloads], wait))

    async def place(self, channel: str) -> Position:
        """The channel's position."""
        (position,) = await self.broker.tops([channel])
        assert position is not None
        return position


class Connect(Protocol):
    """Starts one more broker, whose application declares these channels."""

    def __call__(self, channels: Mapping[str, Channel] = POLICIES) -> Awaitable[Peer]: ...


@asynccontextmanager
async def peers(make: Callable[[Policies], Broker]) -> AsyncIterator[Connect]:
    """Give a function that starts one more broker, and close them all at the end."""
    started: list[Peer] = []

    async def connect(channels: Mapping[str, Channel] = POLICIES) -> Peer:
        peer = Peer(make(Policies(channels)))
        await peer.start()
        started.append(peer)
        return peer

    try:
        yield connect
    finally:
        for peer in started:
            await peer.broker.close()


def payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]


def numbers(first: int, last: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, last + 1)]


class Contract:
    """What every engine promises."""

    # State.

    async def test_it_is_up_once_it_is_started(self, connect: Connect) -> None:
        peer = await connect()
        assert [state.kind for state in peer.states] == ["up"]

    async def test_after_its_end_it_is_down(self, connect: Connect) -> None:
        peer = await connect()
        await peer.broker.close()
        await peer.broker.close()
        with pytest.raises(BusDown):
            await peer.broker.subscribe(["h:1"])
        with pytest.raises(BusDown):
            await peer.broker.read("h:1", None)
        with pytest.raises(BusDown):
            await peer.broker.tops(["h:1"])
        await peer.broker.unsubscribe(["h:1"])

    # Subscriptions.

    async def test_what_is_published_after_the_confirmation_comes(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        for channel in ("h:1", "plain"):
            await one.broker.subscribe([channel])
            await two.publish(channel, b"hello")
        assert await one.payloads(2) == [b"hello", b"hello"]
        assert [message.channel for message in one.messages] == ["h:1", "plain"]

    async def test_one_gets_what_it_publishes_itself(self, connect: Connect) -> None:
        one = await connect()
        await one.broker.subscribe(["h:1", "plain"])
        await one.publish("h:1", b"a")
        await one.publish("plain", b"b")
        assert sorted(await one.payloads(2)) == [b"a", b"b"]

    async def test_only_what_is_subscribed_comes(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await one.broker.subscribe(["h:1"])
        await two.publish("h:2", b"other")
        await two.publish("h:1", b"mine")
        assert await one.payloads(1) == [b"mine"]

    async def test_subscribing_twice_is_subscribing_once(self, connect: Connect) -> None:
        one = await connect()
        await one.broker.subscribe(["h:1"])
        await one.broker.subscribe(["h:1"])
        await one.publish("h:1", b"a", b"b")
        assert await one.payloads(2) == [b"a", b"b"]

    async def test_nothing_comes_after_unsubscribing(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await one.broker.subscribe(["h:1", "h:2"])
        await one.broker.unsubscribe(["h:1", "h:9"])
        await two.publish("h:1", b"a")
        await two.publish("h:2", b"b")
        assert await one.payloads(1) == [b"b"]

    async def test_what_is_on_its_way_does_not_come_after_unsubscribing(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await one.broker.subscribe(["plain", "h:2"])
        await two.publish("plain", b"a")
        await one.broker.unsubscribe(["plain"])
        before = payloads(one.messages)
        await two.publish("h:2", b"b")
        async with asyncio.timeout(PATIENCE):
            while b"b" not in payloads(one.messages):
                await one.until(len(one.messages) + 1)
        assert payloads(one.messages) == [*before, b"b"]

    async def test_a_subscription_tells_the_top(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        published = await two.publish("h:1", b"a", b"b")
        assert await one.broker.subscribe(["h:1", "plain"]) == [published[-1], None]

    async def test_a_channel_keeps_the_epoch_that_it_began_with(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        (top,) = await one.broker.subscribe(["h:1"])
        assert top is not None
        (position,) = await two.publish("h:1", b"a")
        assert isinstance(position, Position)
        assert position.epoch == top.epoch
        assert position.offset > top.offset
        (message,) = await one.until(1)
        assert message.position == position
        assert one.broker.follows(top, message)
        assert str(Position.parse(str(position))) == str(position)

    async def test_many_subscriptions_at_once(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        channels = [f"h:{number}" for number in range(1000)]
        tops = await one.broker.subscribe(channels)
        assert len(tops) == 1000
        await two.broker.publish([Publication(channel, b"") for channel in channels], 5.0)
        assert {message.channel for message in await one.until(1000)} == set(channels)

    # Publishing.

    async def test_what_is_published_comes_as_it_was(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await one.broker.subscribe(["h:ü", "plain ☂"])
        sent = [
            Publication("h:ü", "grün".encode(), text=True, sender="w.1", json=True, exclude=True),
            Publication("h:ü", b"\xff\x00" * 1000, sender="w.2"),
            Publication("h:ü", b""),
            Publication("plain ☂", b"{}", text=True, json=True),
        ]
        await two.broker.publish(sent, 5.0)
        got = await one.until(4)
        for message, publication in zip(sorted(got, key=lambda one: one.channel), sent, strict=True):
            for name in ("channel", "payload", "text", "sender", "json", "exclude"):
                assert getattr(message, name) == getattr(publication, name)
        assert got[0].time == pytest.approx(got[-1].time, abs=PATIENCE)
        assert got[0].time > 1.7e9

    async def test_publishing_with_history_tells_the_positions(self, connect: Connect) -> None:
        one = await connect()
        await one.broker.subscribe(["h:1"])
        positions = await one.publish("h:1", b"a", b"b", b"c")
        assert positions == [message.position for message in await one.until(3)]
        assert positions[-1] == await one.place("h:1")
        assert await one.publish("plain", b"a", b"b") == [None, None]

    async def test_one_order_for_all(self, connect: Connect) -> None:
        """However many publish, with history all see one order, in which each publisher's is kept."""
        all_of_them = [await connect() for _ in range(3)]
        for peer in all_of_them:
            await peer.broker.subscribe(["many:1"])

        async def publish(peer: Peer, name: str) -> None:
            for number in range(50):
                await peer.publish("many:1", f"{name}{number}".encode())

        await asyncio.gather(*(publish(peer, name) for peer, name in zip(all_of_them, "abc", strict=True)))
        for peer in all_of_them:
            messages = await peer.until(150)
            place = Position(messages[0].position.epoch, 0) if messages[0].position else None
            for message in messages:
                assert place is not None
                assert peer.broker.follows(place, message)
                place = message.position
            for name in "abc":
                mine = [one for one in payloads(messages) if one.startswith(name.encode())]
                assert mine == [f"{name}{number}".encode() for number in range(50)]
        assert payloads(all_of_them[0].messages) == payloads(all_of_them[1].messages)

    async def test_a_key_is_published_once(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await one.broker.subscribe(["h:1"])
        first = await one.broker.publish([Publication("h:1", b"a", key="k")], 5.0)
        others = [("h:1", b"b", "k"), ("h:1", b"c", "other"), ("h:2", b"d", "k")]
        again = await two.broker.publish([Publication(name, what, key=key) for name, what, key in others], 5.0)
        assert again[0] == first[0]
        assert again[1] != first[0]
        assert await one.payloads(2) == [b"a", b"c"]
        assert payloads((await one.broker.read("h:2", None)).messages) == [b"d"]

    async def test_a_flood_without_waiting_is_busy_or_published(self, connect: Connect) -> None:
        one = await connect()
        await one.broker.subscribe(["plain"])
        results: list[object] = []
        for _ in range(40):
            results += await one.publish("plain", bytes(2**19), wait=0.0)
        published = results.count(None)
        assert published
        assert all(result is None or isinstance(result, BusError) for result in results)
        await one.until(published)

    async def test_what_is_read_and_what_comes_is_everything(self, connect: Connect) -> None:
        """Who subscribes in the midst of publishing reads up to the top, and is given what is above it."""
        one, two = await connect(), await connect()
        start = await two.place("many:1")

        async def publish() -> None:
            for number in range(1, 101):
                await two.publish("many:1", str(number).encode())

        publishing = asyncio.create_task(publish())
        for _ in range(5):
            del one.messages[:]
            (top,) = await one.broker.subscribe(["many:1"])
            assert top is not None
            part = await one.broker.read("many:1", start)
            assert part.complete
            known = [message for message in part.messages if message.position and message.position <= top]
            await one.until(1 if not publishing.done() else 0)
            came = [message for message in one.messages if message.position and message.position > top]
            expected = numbers(1, len(known) + len(came))
            assert payloads([*known, *came]) == expected
            await one.broker.unsubscribe(["many:1"])
        await publishing

    # Reading.

    async def test_reading_after_a_place(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        positions = await two.publish("h:1", *numbers(1, 5))
        second = positions[1]
        assert isinstance(second, Position)
        part = await one.broker.read("h:1", second)
        assert (payloads(part.messages), part.top, part.complete) == (numbers(3, 5), positions[-1], True)
        assert [message.position for message in part.messages] == positions[2:]
        part = await one.broker.read("h:1", second, 2)
        assert (payloads(part.messages), part.top, part.complete) == (numbers(3, 4), positions[-1], True)
        part = await one.broker.read("h:1", part.top)
        assert (list(part.messages), part.top, part.complete) == ([], positions[-1], True)

    async def test_what_is_read_is_what_came(self, connect: Connect) -> None:
        one = await connect()
        (top,) = await one.broker.subscribe(["h:1"])
        publication = Publication("h:1", b"{}", text=True, sender="w.1", json=True, exclude=True)
        await one.broker.publish([publication], 5.0)
        part = await one.broker.read("h:1", top)
        # Of two places between which there is nothing, either is before the message.
        read, came = (
            [structs.replace(message, previous=None) for message in messages]
            for messages in (part.messages, await one.until(1))
        )
        assert read == came

    async def test_a_place_that_is_trimmed_is_incomplete(self, connect: Connect) -> None:
        one = await connect()
        start = await one.place("h:1")
        positions = [start, *await one.publish("h:1", *numbers(1, 25))]
        for after, complete in ((0, False), (4, False), (5, True), (6, True)):
            place = positions[after]
            assert isinstance(place, Position)
            part = await one.broker.read("h:1", place)
            assert (payloads(part.messages), part.complete) == (numbers(max(6, after + 1), 25), complete)

    async def test_a_place_that_is_unknown_is_incomplete(self, connect: Connect) -> None:
        one = await connect()
        await one.publish("h:1", *numbers(1, 5))
        top = await one.place("h:1")
        for place in (Position("other", 1), Position("other", 10**9), Position(top.epoch, top.offset + 1)):
            part = await one.broker.read("h:1", place)
            assert (list(part.messages), part.top, part.complete) == ([], top, False)

    async def test_reading_never_changes_the_epoch(self, connect: Connect) -> None:
        one = await connect()
        await one.publish("h:1", b"a")
        top = await one.place("h:1")
        await one.broker.read("h:1", Position(top.epoch, top.offset + 100))
        assert await one.place("h:1") == top

    async def test_reading_the_newest(self, connect: Connect) -> None:
        one = await connect()
        positions = await one.publish("h:1", *numbers(1, 25))
        part = await one.broker.read("h:1", None, 3)
        assert (payloads(part.messages), part.top) == (numbers(23, 25), positions[-1])
        before = part.messages[0].position
        assert payloads((await one.broker.read("h:1", None, 3, before)).messages) == numbers(20, 22)
        oldest = positions[6]
        assert isinstance(oldest, Position)
        assert payloads((await one.broker.read("h:1", None, 3, oldest)).messages) == numbers(6, 6)
        other = await one.broker.read("h:1", None, 3, Position("other", 5))
        assert (list(other.messages), other.complete) == ([], False)

    async def test_reading_an_empty_channel(self, connect: Connect) -> None:
        one = await connect()
        top = await one.place("h:1")
        assert await one.broker.read("h:1", top) == ([], top, True)
        assert list((await one.broker.read("h:1", None)).messages) == []

    async def test_a_read_is_limited_by_number(self, connect: Connect) -> None:
        one = await connect()
        start = await one.place("many:1")
        await one.publish("many:1", *numbers(1, SLICE_MESSAGES + 10))
        part = await one.broker.read("many:1", start, 10**9)
        assert payloads(part.messages) == numbers(1, SLICE_MESSAGES)
        assert part.complete

    async def test_a_read_is_limited_by_bytes_and_gives_one_at_least(self, connect: Connect) -> None:
        one = await connect()
        start = await one.place("many:1")
        await one.publish("many:1", *(bytes(400_000) for _ in range(4)))
        assert len((await one.broker.read("many:1", start)).messages) == 2
        assert len((await one.broker.read("many:1", None)).messages) == 2
        await one.publish("many:1", bytes(SLICE_BYTES))
        assert len((await one.broker.read("many:1", None)).messages) == 1

    # Limits of history.

    async def test_history_is_limited_by_bytes_and_keeps_the_last_message(self, connect: Connect) -> None:
        one = await connect()
        await one.publish("bytes:1", *(bytes(300) for _ in range(10)))
        assert len((await one.broker.read("bytes:1", None)).messages) == 3
        await one.publish("bytes:1", bytes(5000))
        assert [len(message.payload) for message in (await one.broker.read("bytes:1", None)).messages] == [5000]

    async def test_history_is_limited_by_age(self, connect: Connect) -> None:
        one = await connect()
        start = await one.place("short:1")
        (position,) = await one.publish("short:1", b"a")
        assert isinstance(position, Position)
        async with asyncio.timeout(PATIENCE):
            while (await one.broker.read("short:1", None)).messages:
                await asyncio.sleep(0.05)
        assert await one.broker.read("short:1", position) == ([], position, True)
        part = await one.broker.read("short:1", start)
        assert (list(part.messages), part.top, part.complete) == ([], position, False)
        (after,) = await one.publish("short:1", b"b")
        assert isinstance(after, Position)
        assert after.epoch == position.epoch
        assert after.offset > position.offset

    async def test_the_latest_message(self, connect: Connect) -> None:
        one = await connect()
        await one.publish("latest:1", b"a", b"b", b"c")
        part = await one.broker.read("latest:1", None, 1)
        assert payloads(part.messages) == [b"c"]

    async def test_positions_of_many(self, connect: Connect) -> None:
        one = await connect()
        channels = [f"h:{number}" for number in range(600)]
        await one.broker.publish([Publication(channel, b"") for channel in channels], 5.0)
        tops = await one.broker.tops([*channels, "plain"])
        assert tops[-1] is None
        assert all(top is not None and top.offset > 0 for top in tops[:-1])

    # Presence.

    async def test_who_is_in_a_channel(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await one.broker.beat({"h:1": Presence(3), "h:2": Presence(1, {"ada": b"{}"})})
        await two.broker.beat({"h:1": Presence(2), "h:2": Presence(1, {"bob": b"1"})})
        assert await one.broker.present("h:1") == Presence(5)
        assert await two.broker.present("h:2") == Presence(2, {"ada": b"{}", "bob": b"1"})
        assert await one.broker.present("h:3") == Presence(0)
        await one.broker.beat({})
        assert await two.broker.present("h:1") == Presence(2)
        await two.broker.beat({})
        assert await one.broker.present("h:1") == Presence(0)

    async def test_names_outlive_the_end_of_who_told_them_and_connections_do_not(self, connect: Connect) -> None:
        """So those who connect again to another process are there all the time."""
        one, two = await connect(), await connect()
        await two.broker.beat(
            {"h:1": Presence(7, {"ada": b"{}"}), "h:2": Presence(3), "h:3": Presence(0, {"bob": b"1"})}
        )
        assert await one.broker.present("h:3") == Presence(0, {"bob": b"1"})
        await two.broker.close()
        async with asyncio.timeout(PATIENCE):
            while (await one.broker.present("h:2")).connections:
                await asyncio.sleep(0.01)  # another process may hear of the end a little later
        assert await one.broker.present("h:1") == Presence(0, {"ada": b"{}"})
        assert await one.broker.present("h:2") == Presence(0)
        assert await one.broker.present("h:3") == Presence(0, {"bob": b"1"})
        await one.broker.beat({"h:1": Presence(1, {"ada": b'{"back":true}'})})
        assert await one.broker.present("h:1") == Presence(1, {"ada": b'{"back":true}'})

    async def test_who_says_that_nobody_is_there_leaves_no_names(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        await two.broker.beat({"h:1": Presence(7, {"ada": b"{}"})})
        await two.broker.beat({})
        await two.broker.close()
        assert await one.broker.present("h:1") == Presence(0)

    async def test_many_names(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        names = {f"ü {number}": b'{"a":"%d"}' % number for number in range(LISTED)}
        long = {"a" * 128: b'"%s"' % (b"b" * 1022)}
        await one.broker.beat({"h:1": Presence(LISTED, names), "h:2": Presence(1, long)})
        assert await two.broker.present("h:1") == Presence(LISTED, names)
        assert await two.broker.present("h:2") == Presence(1, long)
        await two.broker.beat({"h:1": Presence(1, {UNLISTED: b"null"})})
        present = await two.broker.present("h:1")
        assert present.connections == LISTED + 1
        assert UNLISTED in (present.members or {})


class Cuttable(NamedTuple):
    """A way to the engine that can be cut.

    Attributes:
        make: makes a broker that goes this way, not yet started.
        cut: ends its link, and lets no other one come.
        mend: lets links come again.
    """

    make: Callable[[Policies], Broker]
    cut: Callable[[], None]
    mend: Callable[[], None]


class LinkContract(Contract):
    """What engines promise whose links can be lost.

    The fixture `cuttable` gives a `Cuttable` to the engine that `connect` leads to, too.
    """

    @pytest.fixture
    async def one(self, cuttable: Cuttable) -> AsyncIterator[Peer]:
        """A peer whose link can be cut."""
        peer = Peer(cuttable.make(Policies(POLICIES)))
        await peer.start()
        yield peer
        cuttable.mend()
        await peer.broker.close()

    @pytest.mark.parametrize("again", [False, True])
    async def test_what_another_policy_threw_away_is_not_forgotten(self, connect: Connect, again: bool) -> None:
        """How much is stored tells whether anything is missing, but not when more was to be stored later."""
        long, short = {"h:": Channel(history=20)}, {"h:": Channel(history=3)}
        peer = await connect(long if again else short)
        positions = await peer.publish("h:1", *numbers(0, 9))
        if again:
            other = await connect(short)
            await other.publish("h:1", b"10")
            await other.broker.close()
        await peer.broker.close()
        peer = await connect(long)
        stored = payloads((await peer.broker.read("h:1", None)).messages)
        assert stored == numbers(0, 10 if again else 9)[-len(stored) :]
        for number, position in enumerate(positions):
            assert isinstance(position, Position)
            part = await peer.broker.read("h:1", position)
            assert not part.complete or payloads(part.messages) == numbers(number + 1, 10 if again else 9)
            assert part.complete or len(stored) < 10 - number

    async def test_a_lost_link_is_told_and_made_again(self, connect: Connect, one: Peer, cuttable: Cuttable) -> None:
        two = await connect()
        top, _ = await one.broker.subscribe(["h:1", "plain"])
        for number in range(1, 3):
            cuttable.cut()
            await one.told("down")
            with pytest.raises(BusDown):
                await one.broker.tops(["h:1"])
            with pytest.raises(BusDown):
                await one.broker.subscribe(["h:2"])
            assert isinstance((await one.publish("plain", b"nowhere"))[0], BusDown)
            await two.publish("h:1", str(number).encode())
            await two.publish("plain", b"missed")
            cuttable.mend()
            await one.told("down", "again")
            assert payloads((await one.broker.read("h:1", top)).messages) == numbers(1, number)
        generations = [state.generation for state in one.states if state.kind != "down"]
        assert generations == sorted(set(generations))
        # What was subscribed is, what was not is not, and comes again.
        await two.publish("h:2", b"other")
        await two.publish("plain", b"plain")
        await two.publish("h:1", b"3")
        assert sorted(await one.payloads(2)) == [b"3", b"plain"]

    async def test_bytes_that_wait_are_counted(self, one: Peer) -> None:
        publishing = asyncio.create_task(one.publish("h:1", bytes(1000)))
        await asyncio.sleep(0)
        assert one.broker.queued >= 1000
        await publishing
        assert one.broker.queued == 0

    async def test_what_was_unsubscribed_without_a_link_does_not_come(
        self, connect: Connect, one: Peer, cuttable: Cuttable
    ) -> None:
        two = await connect()
        await one.broker.subscribe(["h:1", "h:2"])
        cuttable.cut()
        await one.told("down")
        await one.broker.unsubscribe(["h:1"])
        cuttable.mend()
        await one.told("down", "again")
        await two.publish("h:1", b"a")
        await two.publish("h:2", b"b")
        assert await one.payloads(1) == [b"b"]

    async def test_what_is_published_without_a_link_is_stored_once_or_refused(
        self, connect: Connect, one: Peer, cuttable: Cuttable
    ) -> None:
        two = await connect()
        start = await two.place("h:1")
        cuttable.cut()
        await one.told("down")
        publishing = asyncio.create_task(one.publish("h:1", b"a", wait=PATIENCE))
        await asyncio.sleep(0)
        cuttable.mend()
        (result,) = await publishing
        stored = payloads((await two.broker.read("h:1", start)).messages)
        assert stored == ([b"a"] if isinstance(result, Position) else [])

    async def test_members_have_what_is_stored_and_are_told_of_what_is_not(
        self, connect: Connect, cuttable: Cuttable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        two = await connect()
        monkeypatch.setattr(bus_module, "connect", lambda url, policies: cuttable.make(policies))
        async with (
            asyncio.timeout(PATIENCE),
            Bus("memory://", channels=POLICIES) as bus,
            bus.subscribe("h:1") as stored,
            bus.subscribe("plain") as plain,
        ):
            cuttable.cut()
            while bus.state.kind != "down":
                await asyncio.sleep(0.01)
            await two.publish("h:1", b"a", b"b")
            await two.publish("plain", b"missed")
            cuttable.mend()
            gap = await anext(plain)
            assert gap.gap is not None
            assert (gap.channel, gap.gap.after, gap.gap.position, gap.gap.reason) == ("plain", None, None, "link")
            await two.publish("plain", b"c")
            assert (await anext(plain)).data == b"c"
            assert [(await anext(stored)).data for _ in range(2)] == [b"a", b"b"]

    @pytest.mark.slow  # some engines take their time before they know who is there
    async def test_members_hear_who_comes_and_goes_and_not_who_moves(
        self, cuttable: Cuttable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bus_module, "connect", lambda url, policies: cuttable.make(policies))
        for name in ("SLACK", "SOON", "PACE", "SETTLE"):
            monkeypatch.setattr(presence_module, name, 0.01)
        channels = {"chat:": Channel(presence=True, presence_grace=0)}
        async with Bus("memory://", channels=channels) as bus:
            ada = await Listener(bus, Identity("ada", {"color": "red"})).join("chat:1")
            await bus.presence("chat:1")  # from here on she is told
            cuttable.cut()
            async with asyncio.timeout(PATIENCE):
                while bus.state.kind != "down":
                    await asyncio.sleep(0.01)
                cuttable.mend()
                while bus.state.kind == "down":
                    await asyncio.sleep(0.01)
            async with Bus("memory://", channels=channels) as other:
                bob = await Listener(other, Identity("bob")).join("chat:1")
                await ada.until(("in", "bob"))
                async with asyncio.timeout(PATIENCE):
                    while await other.presence("chat:1") != {"ada": {"color": "red"}, "bob": None}:
                        await asyncio.sleep(0.01)
                other.leave(bob, "chat:1", returns=True)
            await Listener(bus, Identity("bob")).join("chat:1")
            eve = await Listener(bus, Identity("eve")).join("chat:1")
            bus.leave(eve, "chat:1", removed=True)
            await ada.until(("in", "bob"), ("in", "eve"), ("out", "eve"))

    async def test_it_is_closed_without_a_link(self, one: Peer, cuttable: Cuttable) -> None:
        await one.broker.subscribe(["h:1"])
        cuttable.cut()
        await one.told("down")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(one.broker.close(), one.broker.close())
        with pytest.raises(BusDown):
            await one.broker.tops(["h:1"])
        assert one.states[-1].kind == "down"
