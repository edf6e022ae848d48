"""The engine local:// with a hub in another process: verbs, what a link's end leaves, what a hub's death leaves.

What must not live here: links' frames (test_link.py), the hub's requests (tests/hub/).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.bus.contract import Connect, Cuttable, peers
from tests.bus.contract import LinkContract as EngineContract
from tests.hub.processes import Hubs
from tests.support.patience import PATIENCE
from tidegate.bus.base import Presence, Publication, State
from tidegate.bus.link import VERSION, Decoder, Frame, Kind, Top, Welcome, encode, pack_json
from tidegate.bus.links import Links, provide
from tidegate.bus.local import LocalBroker
from tidegate.bus.policies import Policies
from tidegate.channels import Channel, Message, Position
from tidegate.exceptions import BusBusy, BusDown, BusError
from tidegate.hub import main

CHANNELS = {"h:": Channel(history=100_000, history_bytes=1 << 23), "one:": Channel(history=1), "": Channel()}


class TestContract(EngineContract):
    @pytest.fixture
    async def connect(self, hubs: Hubs) -> AsyncIterator[Connect]:
        async with peers(lambda policies: LocalBroker("local://", policies, hubs.connect)) as connect:
            yield connect

    @pytest.fixture
    def cuttable(self, hubs: Hubs) -> Iterator[Cuttable]:
        links: list[socket.socket] = []
        is_cut = False

        async def connect() -> socket.socket:
            if is_cut:
                raise OSError("it is cut")
            link = hubs.link()
            links.append(link.dup())
            return link

        def cut() -> None:
            nonlocal is_cut
            is_cut = True
            links[-1].shutdown(socket.SHUT_RDWR)

        def mend() -> None:
            nonlocal is_cut
            is_cut = False

        yield Cuttable(lambda policies: LocalBroker("local://", policies, connect), cut, mend)
        for link in links:
            link.close()


class Worker:
    """A broker, and what it has been given."""

    def __init__(self, broker: LocalBroker) -> None:
        self.broker = broker
        self.messages: list[Message] = []
        self.states: list[State] = []
        self.changed = asyncio.Event()

    def deliver(self, messages: Sequence[Message]) -> None:
        self.messages += messages
        self.changed.set()

    def tell(self, state: State) -> None:
        self.states.append(state)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Return once a condition holds, which is looked at after each delivery and each change of the state."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def publish(self, channel: str, *payloads: bytes, wait: float = PATIENCE) -> list[Position | BusError | None]:
        return list(await self.broker.publish([Publication(channel, payload) for payload in payloads], wait))

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


class Workers:
    def __init__(self, hubs: Hubs) -> None:
        self.hubs = hubs
        self.all: list[Worker] = []

    async def start(self, channels: dict[str, Channel] = CHANNELS) -> Worker:
        worker = Worker(LocalBroker("local://", Policies(channels), self.hubs.connect))
        self.all.append(worker)
        await worker.broker.start(worker.deliver, worker.tell)
        return worker


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    hubs = Hubs()
    hubs.start()
    yield hubs
    hubs.close()


@pytest.fixture
async def workers(hubs: Hubs) -> AsyncIterator[Workers]:
    workers = Workers(hubs)
    yield workers
    for worker in workers.all:
        await worker.broker.close()


async def test_a_message_goes_to_all_in_one_order(workers: Workers) -> None:
    one, two = await workers.start(), await workers.start()
    (top,) = await one.broker.subscribe(["h:1"])
    assert await two.broker.subscribe(["h:1", "plain"]) == [top, None]
    assert top is not None
    assert top.offset == 0
    assert await one.publish("h:1", b"1", b"2") == [Position(top.epoch, 1), Position(top.epoch, 2)]
    assert await two.publish("h:1", b"3") == [Position(top.epoch, 3)]
    for worker in (one, two):
        await worker.until(lambda worker=worker: len(worker.messages) == 3)  # type: ignore[misc]
        assert worker.payloads == [b"1", b"2", b"3"]
        assert [message.position for message in worker.messages] == [Position(top.epoch, n) for n in (1, 2, 3)]
    assert one.states == [State("up", 1)]


async def test_a_message_is_what_was_published(workers: Workers) -> None:
    one = await workers.start()
    await one.broker.subscribe(["h:1", "plain"])
    published = [
        Publication("h:1", b"text", text=True),
        Publication("h:1", b"{}", text=True, sender="w1.7", json=True, exclude=True),
        Publication("h:1", b"\xff", key="k" * 100),
        Publication("plain", b"", sender="x"),
    ]
    results = await one.broker.publish(published, PATIENCE)
    await one.until(lambda: len(one.messages) == 4)
    assert [message.position for message in one.messages] == results
    assert results[3] is None
    for message, publication in zip(one.messages, published, strict=True):
        for name in ("channel", "payload", "text", "sender", "json", "exclude"):
            assert getattr(message, name) == getattr(publication, name), name
        assert message.time > 1_700_000_000
    # One with the same key is the same message.
    assert await one.broker.publish([Publication("h:1", b"again", key="k" * 100)], PATIENCE) == [results[2]]
    top = results[2]
    assert isinstance(top, Position)
    part = await one.broker.read("h:1", Position(top.epoch, 0))
    assert list(part.messages) == one.messages[:3]


async def test_reads(workers: Workers) -> None:
    """What is stored after a place or before it, subscribed or not, and whether anything is missing."""
    one = await workers.start()
    results = await one.publish("h:1", *(b"%d" % n for n in range(1, 11)))
    epoch = results[0].epoch  # type: ignore[union-attr]
    await one.publish("one:1", b"1", b"2", b"3")
    (last,) = await one.broker.tops(["one:1"])
    assert last is not None

    async def read(after: Position | None, limit: int = 1000, before: Position | None = None) -> tuple[list[int], bool]:
        part = await one.broker.read("h:1", after, limit, before)
        assert part.top == Position(epoch, 10)
        return [message.position.offset for message in part.messages if message.position], part.complete

    assert await read(Position(epoch, 0)) == ([*range(1, 11)], True)
    assert await read(Position(epoch, 7)) == ([8, 9, 10], True)
    assert await read(Position(epoch, 7), 2) == ([8, 9], True)
    assert await read(Position(epoch, 10)) == ([], True)
    assert await read(Position(epoch, 11)) == ([], False)
    assert await read(Position("AAAAAAAA", 7)) == ([], False)
    assert await read(None, 3) == ([8, 9, 10], False)
    assert await read(None) == ([*range(1, 11)], True)
    assert await read(None, 3, Position(epoch, 8)) == ([5, 6, 7], False)
    assert await read(None, 3, Position(epoch, 3)) == ([1, 2], True)
    assert await read(None, 3, Position(epoch, 1)) == ([], True)
    assert await read(None, 3, Position("AAAAAAAA", 8)) == ([], False)
    for offset, complete in ((0, False), (1, False), (2, True), (3, True)):
        assert (await one.broker.read("one:1", Position(last.epoch, offset))).complete is complete
    with pytest.raises(BusError, match="plain: the channel has no history"):
        await one.broker.read("plain", None)


async def test_unsubscribing(workers: Workers) -> None:
    """Nothing is delivered after it."""
    one, two = await workers.start(), await workers.start()
    await one.broker.subscribe(["h:1", "plain"])
    await one.broker.subscribe(["h:1"])
    await one.broker.unsubscribe(["h:1", "never subscribed"])
    await two.publish("h:1", b"unheard")
    await two.publish("plain", b"heard")
    await one.until(lambda: one.messages)
    assert one.payloads == [b"heard"]
    assert (await one.broker.subscribe(["h:1"]))[0].offset == 1  # type: ignore[union-attr]


async def test_who_is_where(workers: Workers) -> None:
    one, two = await workers.start(), await workers.start()
    many = {f"c{n}": Presence(1) for n in range(5000)}
    await one.broker.beat({**many, "h:1": Presence(2, {"ann": b'{"a":1}', "bob": b"{}"})})
    await two.broker.beat({"h:1": Presence(1, {"ann": b'{"a":1}'}), "c7": Presence(4), "big": Presence(5, {})})
    await one.broker.tops(["h:1"])  # the hub has read what came before
    await two.broker.tops(["h:1"])
    assert await one.broker.present("h:1") == Presence(3, {"ann": b'{"a":1}', "bob": b"{}"})
    assert await one.broker.present("c7") == Presence(5)
    assert await one.broker.present("c4999") == Presence(1)
    assert await one.broker.present("nobody") == Presence(0)
    assert await two.broker.present("big") == Presence(5, {})


async def test_after_the_death_of_the_hub_all_is_as_before(workers: Workers, hubs: Hubs) -> None:
    one, two = await workers.start(), await workers.start()
    (top,) = await one.broker.subscribe(["h:1"])
    await one.broker.subscribe(["plain"])
    await one.broker.beat({"h:1": Presence(3)})
    await two.publish("h:1", b"before")
    assert top is not None
    hubs.end(signal.SIGKILL)
    for worker in (one, two):
        await worker.until(lambda worker=worker: worker.states[-1].kind == "down")  # type: ignore[misc]
    for verb in (
        one.broker.subscribe(["h:2"]),
        one.broker.tops(["h:1"]),
        one.broker.read("h:1", None),
        one.broker.present("h:1"),
        one.broker.beat({}),
    ):
        with pytest.raises(BusDown):
            await verb
    await one.broker.unsubscribe(["plain"])
    (down,) = await two.publish("plain", b"nobody hears")
    assert isinstance(down, BusDown)
    assert not down.uncertain
    kept = asyncio.create_task(two.publish("h:1", b"meanwhile"))
    await asyncio.sleep(0)  # it has begun
    (uncertain,) = await two.publish("h:1", b"uncertain", wait=0.01)
    assert isinstance(uncertain, BusDown)
    assert uncertain.uncertain
    hubs.start()
    assert await kept == [Position(top.epoch, 2)]
    await one.until(lambda: one.states[-1].kind == "again")
    part = await one.broker.read("h:1", top)
    assert [message.payload for message in part.messages] == [b"before", b"meanwhile", b"uncertain"]
    assert part.complete
    # What was stored before this link was up is read, not given; the rest is given.
    await two.publish("h:1", b"after")
    await one.until(lambda: b"after" in one.payloads)
    assert set(one.payloads) <= {b"before", b"meanwhile", b"uncertain", b"after"}
    await two.publish("plain", b"not subscribed any more")
    assert await two.broker.tops(["h:1"]) == [Position(top.epoch, 4)]
    assert await two.broker.present("h:1") == Presence(3)
    assert [state.kind for state in one.states] == ["up", "down", "again"]
    assert [state.generation for state in one.states] == [1, 1, 2]
    assert one.payloads[-1] == b"after"


@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=pytest.mark.slow)])
async def test_a_lost_answer_is_no_message_lost_or_doubled(workers: Workers, hubs: Hubs, rounds: int) -> None:
    """The hub is killed at bytes of records that a seed decides, and publishers go on."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    one, two = await workers.start(), await workers.start()
    (top,) = await one.broker.subscribe(["h:1"])
    assert top is not None
    number = 0
    for _ in range(rounds):
        hubs.end(signal.SIGKILL)
        hubs.start(fault=chance.randrange(2000))
        tasks = []
        while not hubs.ended():
            number += 1
            tasks.append(asyncio.create_task(two.publish("h:1", b"%d" % number)))
            await asyncio.wait(tasks, timeout=0.002)
        hubs.wait()
        hubs.start()
        positions = [(await task)[0] for task in tasks]
        assert all(isinstance(position, Position) for position in positions), positions
        assert [position.offset for position in positions] == [*range(number - len(tasks) + 1, number + 1)]  # type: ignore[union-attr]
    await one.until(lambda: one.states[-1].kind == "again")
    first = await one.broker.read("h:1", top)
    stored = list(first.messages)
    while stored[-1].position != first.top:
        stored += (await one.broker.read("h:1", stored[-1].position)).messages
    assert [message.payload for message in stored] == [b"%d" % n for n in range(1, number + 1)]
    assert first.complete
    # What came live is in order and once, too; what a dead hub had stored and not sent, a reader reads.
    offsets = [message.position.offset for message in one.messages if message.position]
    assert offsets == sorted(set(offsets))


async def test_a_hub_that_is_stopped_fills_the_queue_and_nothing_else(workers: Workers, hubs: Hubs) -> None:
    one = await workers.start()
    os.kill(hubs.pid, signal.SIGSTOP)
    message = bytes(1 << 19)
    results: list[Position | BusError | None] = []
    while not results or not isinstance(results[-1], BusBusy):
        results += await one.publish("h:1", message, wait=0.01)
    uncertain = results[:-1]
    assert len(uncertain) == 16
    assert all(isinstance(result, BusDown) and result.uncertain for result in uncertain)
    plain: list[Position | BusError | None] = [None]
    while plain[-1] is None:
        plain = await one.publish("plain", message, wait=0.01)
    assert isinstance(plain[-1], BusBusy)
    waiting = asyncio.create_task(one.publish("h:1", b"at last"))
    os.kill(hubs.pid, signal.SIGCONT)
    ((position,)) = await waiting
    assert isinstance(position, Position)
    assert position.offset == 17


async def test_a_worker_that_does_not_read_is_told_that_it_has_lost_messages(workers: Workers, hubs: Hubs) -> None:
    """It is another process's socket that is not read: here, a link whose loop does not run."""
    slow = Worker(LocalBroker("local://", Policies(CHANNELS), hubs.connect))
    one = await workers.start()
    await slow.broker.start(slow.deliver, slow.tell)
    await slow.broker.subscribe(["plain"])
    link = slow.broker._link
    assert link is not None
    assert link._transport is not None
    link._transport.pause_reading()
    for _ in range(60):
        await one.publish("plain", bytes(1 << 19))
        await one.broker.tops(["plain"])
    link._transport.resume_reading()
    await slow.until(lambda: slow.states[-1].kind == "again")
    assert len(slow.messages) < 60
    assert slow.states[-1].generation == 2
    await slow.broker.close()


async def test_another_process_publishes_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "TICK", 0.01)
    monkeypatch.setattr(main, "GREETING", 0.02)
    path = str(tmp_path / "hub")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    hubs = Hubs(listener=listener)
    hubs.start()
    outside = Worker(LocalBroker(f"local://{path}", Policies()))
    with pytest.raises(BusDown, match="no worker has said yet which channels there are"):
        await outside.broker.start(outside.deliver, outside.tell)
    inside = await Workers(hubs).start()
    await outside.broker.start(outside.deliver, outside.tell)
    await inside.broker.subscribe(["h:1", "plain"])
    ((position,), plain) = await outside.publish("h:1", b"1"), await outside.publish("plain", b"2")
    assert isinstance(position, Position)
    assert plain == [None]
    await inside.until(lambda: len(inside.messages) == 2)
    for worker in (inside, outside):
        await worker.broker.close()
    hubs.close()
    listener.close()
    with pytest.raises(BusDown):
        await outside.broker.start(outside.deliver, outside.tell)


async def test_closing_waits_for_what_is_not_acknowledged(workers: Workers, hubs: Hubs) -> None:
    one, two = await workers.start(), await workers.start()
    os.kill(hubs.pid, signal.SIGSTOP)
    task = asyncio.create_task(one.publish("h:1", *[b"%d" % n for n in range(100)]))
    plain = await one.publish("plain", b"")
    closing = asyncio.create_task(one.broker.close())
    await asyncio.wait([closing], timeout=0.01)
    assert not closing.done()
    os.kill(hubs.pid, signal.SIGCONT)
    await closing
    await one.broker.close()
    assert plain == [None]
    assert all(isinstance(result, Position) for result in await task)
    assert (await two.broker.tops(["h:1"]))[0].offset == 100  # type: ignore[union-attr]
    with pytest.raises(BusDown):
        await one.broker.tops(["h:1"])


async def test_numbers_of_channels_are_taken_back(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.bus.link_state.IDLE_CHANNELS", 10)
    one, two = await workers.start(), await workers.start()
    await two.broker.subscribe(["plain:7", "h:99"])
    for n in range(100):
        await one.publish(f"plain:{n}", b"%d" % n)
        await one.publish(f"h:{n}", b"%d" % n)
    await two.until(lambda: len(two.messages) == 2)
    assert two.payloads == [b"7", b"99"]
    assert len(list(one.broker._numbers)) == 10
    assert max(channel.number for channel in one.broker._numbers) <= 11


class Ends:
    """Links whose other end is a test, which says what a hub would."""

    def __init__(self) -> None:
        self.all: list[socket.socket] = []

    async def connect(self) -> socket.socket:
        here, there = socket.socketpair()
        here.setblocking(False)
        self.all.append(here)
        return there

    async def say(self, *frames: Frame) -> None:
        await asyncio.get_running_loop().sock_sendall(self.all[-1], b"".join(map(encode, frames)))

    async def hear(self, kind: Kind) -> Frame:
        """Return the next frame of that kind."""
        decoder = Decoder()
        async with asyncio.timeout(PATIENCE):
            while True:
                frames = decoder.feed(await asyncio.get_running_loop().sock_recv(self.all[-1], 1 << 16))
                if found := [frame for frame in frames if frame.kind == kind]:
                    return found[0]

    async def subscribe(self, *messages: bytes) -> None:
        """Greet the link, and confirm its first subscription; these messages come with that."""
        await self.hear(Kind.HELLO)
        await self.say(Frame(Kind.WELCOME, payload=pack_json(Welcome(VERSION))))
        asked = await self.hear(Kind.SUBSCRIBE)
        top = Frame(Kind.TOP, sequence=asked.sequence, payload=Top(0, 0, 0).pack())
        await self.say(top, *(Frame(Kind.MESSAGE, payload=payload) for payload in messages))


async def test_what_is_missing_is_told_before_what_comes_after_it() -> None:
    """After the end of a link, and where the hub has dropped what was not read."""
    ends = Ends()
    broker = LocalBroker("local://", Policies(CHANNELS), ends.connect)
    came: list[str | bytes] = []

    async def until(last: str | bytes, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while came.count(last) < times:
                await asyncio.sleep(0)

    async def start() -> None:
        await broker.start(
            lambda messages: came.extend(message.payload for message in messages), lambda state: came.append(state.kind)
        )
        await broker.subscribe(["plain"])

    starting = asyncio.create_task(start())
    while not ends.all:
        await asyncio.sleep(0)
    await ends.subscribe(b"1")
    await starting
    await ends.say(Frame(Kind.MESSAGE, payload=b"2"), Frame(Kind.LOST, offset=1), Frame(Kind.MESSAGE, payload=b"4"))
    await until(b"4")
    ends.all[0].close()
    while len(ends.all) < 2:
        await asyncio.sleep(0)
    await ends.subscribe(b"6")
    await until("again", 2)
    await ends.say(Frame(Kind.MESSAGE, payload=b"7"))
    await until(b"7")
    assert came == ["up", b"1", b"2", "again", b"4", "down", "again", b"7"]
    ends.all[-1].close()
    await broker.close()


async def test_a_worker_asks_for_another_link_though_the_hub_lives(hubs: Hubs) -> None:
    """Nobody else would know: the hub's end is all that the supervisor sees."""
    links = Links("worker 0", lambda: links.offer(hubs.link()))
    provide(links)
    try:
        broker = LocalBroker("local://", Policies(CHANNELS))
        worker = Worker(broker)
        await broker.start(worker.deliver, worker.tell)
        assert broker._link is not None
        broker._link.abort()
        await worker.until(lambda: [state.kind for state in worker.states] == ["up", "down", "again"])
        await broker.close()
    finally:
        provide(None)


async def test_a_worker_is_given_its_links(hubs: Hubs) -> None:
    """One after the other; what nobody has taken is closed."""
    asked: list[bool] = []
    links = Links("worker 0", lambda: asked.append(True))
    broker = LocalBroker("local://", Policies(CHANNELS))
    with pytest.raises(BusError, match="local:// is the bus of an application that tidegate serves"):
        await broker.start(lambda messages: None, lambda state: None)
    provide(links)
    try:
        worker = Worker(broker)
        starting = asyncio.create_task(broker.start(worker.deliver, worker.tell))
        await asyncio.sleep(0)
        assert asked == [True]
        second = LocalBroker("local://", Policies(CHANNELS))
        with pytest.raises(BusError, match="this worker has one bus on local:// already"):
            await second.start(lambda messages: None, lambda state: None)
        unused = hubs.link()
        links.offer(unused)
        links.offer(hubs.link())
        assert unused.fileno() == -1
        await starting
        hubs.end(signal.SIGKILL)
        await worker.until(lambda: worker.states[-1].kind == "down")
        hubs.start()
        links.offer(hubs.link())
        await worker.until(lambda: worker.states[-1].kind == "again")
        await broker.close()
        left = hubs.link()
        links.offer(left)
        links.close()
        assert left.fileno() == -1
    finally:
        provide(None)
