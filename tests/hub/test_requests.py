"""Requests of links: channels, policies, reads, positions and counts; both ends in this process, turn by turn.

What must not live here: publishes and buffers (tests/core/test_switch.py), the process (test_main.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate._core.journal import Journal, make_memory
from tidegate.bus.link import (
    VERSION,
    Count,
    Decoder,
    Excerpt,
    Flag,
    Frame,
    Hello,
    Kind,
    Policy,
    Search,
    Snapshot,
    Top,
    Welcome,
    encode,
    pack_json,
    pack_message,
    unpack_json,
)
from tidegate.hub import requests as module
from tidegate.hub.requests import Party, Requests

CHANNELS = {"h:": Policy(100, 600.0, 1 << 18), "h:none:": Policy(), "": Policy()}


class Peer:
    """A linked process."""

    def __init__(self, bench: Bench, hello: Hello | None, worker: bool = True) -> None:
        self.bench = bench
        self.socket, there = socket.socketpair()
        self.socket.setblocking(False)
        self.link = bench.requests.switch.add(there.detach(), Party(worker))
        self.decoder = Decoder()
        self.ended = False
        if hello is not None:
            self.send(Frame(Kind.HELLO, payload=pack_json(hello)))

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(map(encode, frames)))

    def ask(self, *frames: Frame) -> list[Frame]:
        """Send frames, take turns, and return what has come."""
        self.send(*frames)
        self.bench.turns()
        return self.receive()

    def receive(self) -> list[Frame]:
        found: list[Frame] = []
        try:
            while data := self.socket.recv(1 << 18):
                found += self.decoder.feed(data)
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True
        return found

    def leave(self) -> None:
        """End, and be missed."""
        self.close()
        self.bench.turns()

    def close(self) -> None:
        self.socket.close()


class Bench:
    def __init__(self, message_limit: int = 1 << 20) -> None:
        self.journal = Journal.attach(make_memory(1 << 20))
        self.requests = Requests(self.journal, message_limit)
        self.peers: list[Peer] = []

    def peer(self, publisher: int = 0, *, channels: dict[str, Policy] | None = CHANNELS, generation: int = 1) -> Peer:
        """A worker that has been welcomed."""
        hello = Hello(VERSION, publisher or 100 + len(self.peers), f"worker {len(self.peers)}", generation, channels)
        peer = Peer(self, hello)
        (welcome,) = peer.ask()
        assert unpack_json(welcome.payload, Welcome) == Welcome(VERSION, 1, 1 << 20)
        self.peers.append(peer)
        return peer

    def turns(self) -> None:
        """Take as many turns as anything may need."""
        for _ in range(4):
            self.requests.switch.turn(0)

    def close(self) -> None:
        self.requests.switch.close()
        for peer in self.peers:
            peer.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def opened(number: int, name: str) -> Frame:
    return Frame(Kind.OPEN, channel=number, payload=name.encode())


def test_subscribing_tells_where_the_channel_stands(bench: Bench) -> None:
    one = bench.peer()
    answers = one.ask(
        opened(1, "h:1"),
        opened(2, "plain"),
        Frame(Kind.SUBSCRIBE, channel=1, sequence=11),
        Frame(Kind.SUBSCRIBE, channel=2, sequence=12),
        Frame(Kind.SUBSCRIBE, channel=3, sequence=13),
    )
    topic = bench.journal.topic("h:1")
    assert [(each.kind, each.channel, each.sequence) for each in answers] == [
        (Kind.TOP, 1, 11),
        (Kind.TOP, 2, 12),
        (Kind.REFUSED, 3, 13),
    ]
    assert [Top.unpack(each.payload) for each in answers[:2]] == [Top(topic.epoch, 0, 1), Top(0, 0, 1)]
    assert topic.epoch
    assert topic.subscribed == 1
    answers = one.ask(
        Frame(Kind.PUBLISH, channel=1, sequence=5, payload=b"m"),
        Frame(Kind.UNSUBSCRIBE, channel=1, sequence=14),
        Frame(Kind.PUBLISH, channel=1, payload=b"n"),
        Frame(Kind.LOOK, channel=1, sequence=15),
        Frame(Kind.LOOK, channel=3, sequence=16),
        Frame(Kind.SHUT, channel=1),
    )
    kinds = [each.kind for each in answers if each.kind != Kind.STORED]
    assert kinds == [Kind.MESSAGE, Kind.DONE, Kind.TOP, Kind.REFUSED]
    assert [Top.unpack(each.payload) for each in answers if each.kind == Kind.TOP] == [Top(topic.epoch, 2, 1)]
    assert topic.users == 0


def test_reads(bench: Bench) -> None:
    """They tell where the channel stands, too, and are limited."""
    one = bench.peer()
    one.ask(opened(1, "h:1"), *[Frame(Kind.PUBLISH, channel=1, payload=b"%d" % n) for n in range(1, 11)])

    def read(offset: int, messages: int, size: int, flags: int = 0, channel: int = 1) -> list[Frame]:
        search = Search(messages, size).pack()
        return one.ask(Frame(Kind.READ, flags, channel, offset=offset, sequence=9, payload=search))

    (answer,) = read(4, 3, 1 << 30)
    assert (answer.kind, answer.channel, answer.sequence) == (Kind.EXCERPT, 1, 9)
    excerpt = Excerpt.unpack(answer.payload)
    assert excerpt.top == Top(bench.journal.topic("h:1").epoch, 10, 1)
    assert [(each.offset, each.payload) for each in excerpt.messages] == [(5, b"5"), (6, b"6"), (7, b"7")]
    (answer,) = read(0, 2, 1 << 30, Flag.BACKWARD)
    assert [each.offset for each in Excerpt.unpack(answer.payload).messages] == [9, 10]
    (answer,) = read(0, 2**32 - 1, 2**32 - 1)
    assert len(Excerpt.unpack(answer.payload).messages) == 10
    (answer,) = read(0, 1, 1, channel=2)
    assert answer.kind == Kind.REFUSED


def test_policies_are_what_workers_declare(bench: Bench) -> None:
    one = bench.peer(generation=2)
    one.ask(opened(1, "h:1"), opened(2, "h:none:1"), opened(3, "x:1"), Frame(Kind.SUBSCRIBE, channel=3, sequence=1))
    journal = bench.journal
    history = {name: journal.topic(name).history for name in ("h:1", "h:none:1", "x:1")}
    assert history == {"h:1": 100, "h:none:1": 0, "x:1": 0}
    assert (journal.topic("h:1").keep, journal.topic("h:1").history_bytes) == (600_000_000, 1 << 18)
    bench.peer(generation=3, channels={"x:": Policy(7)})
    assert journal.topic("x:1").history == 7
    (told,) = one.receive()
    assert (told.kind, told.channel, told.sequence) == (Kind.TOP, 3, 0)
    assert Top.unpack(told.payload) == Top(journal.topic("x:1").epoch, 0, 1)
    bench.peer(channels=None)
    assert journal.topic("x:1").history == 7


def test_nothing_is_thrown_away_as_long_as_a_generation_keeps_it(bench: Bench) -> None:
    """A reload may fail after its workers have linked, and is not over as long as the others drain."""
    old = bench.peer(generation=1)
    topic = bench.journal.topic("h:1")
    old.ask(opened(1, "h:1"))
    for _ in range(50):
        bench.journal.append(topic, b"m")
    epoch = topic.epoch
    for channels in ({}, {"h:": Policy(1)}):
        failing = bench.peer(generation=2, channels=channels)
        assert (topic.epoch, topic.count, topic.history) == (epoch, 50, 100)
        failing.leave()
        assert (topic.count, topic.history) == (50, 100)
    bench.peer(generation=3, channels={"h:": Policy(3)})
    old.leave()
    assert (topic.epoch, topic.count, topic.history) == (epoch, 3, 3)


def test_the_last_policies_hold_while_no_worker_is_linked(bench: Bench) -> None:
    worker = bench.peer(generation=1)
    topic = bench.journal.topic("h:1")
    worker.ask(opened(1, "h:1"))
    worker.leave()
    assert topic.history == 100
    bench.peer(generation=2, channels={"h:": Policy(4)})
    assert topic.history == 4


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Policy(), Policy(3, 5.0, 7), Policy(3, 5.0, 7)),
        (Policy(2, 60.0, 100), Policy(9, 5.0, 7), Policy(9, 60.0, 100)),
        (Policy(2, 0, 100), Policy(9, 5.0, 0), Policy(9, 0, 0)),
    ],
)
def test_of_two_policies_all_that_one_keeps_is_kept(bench: Bench, one: Policy, other: Policy, both: Policy) -> None:
    bench.peer(generation=1, channels={"c": one})
    bench.peer(generation=2, channels={"c": other}).ask(opened(1, "c"))
    topic = bench.journal.topic("c")
    assert (topic.history, topic.keep, topic.history_bytes) == (both.history, both.keep * 1e6, both.history_bytes)


def test_a_channel_found_in_the_journal_gets_its_policy_when_it_is_opened(bench: Bench) -> None:
    topic = bench.journal.topic("h:1")
    bench.journal.set_policy(topic, 1000, 0, 0)
    for _ in range(300):
        bench.journal.append(topic, b"m")
    one = bench.peer()
    one.ask(opened(1, "h:1"))
    assert (topic.history, topic.count) == (100, 100)


def test_other_processes_go_by_the_policies_of_workers(bench: Bench) -> None:
    """And wait for them, but not for ever."""
    outside = Hello(VERSION, 5, "tidegate publish", 99, {"h:": Policy()})
    early, eager, too_early = (
        Peer(bench, msgspec.structs.replace(outside, publisher=number), worker=False) for number in (6, 7, 8)
    )
    assert early.ask() == too_early.ask() == []
    answers = [(each.kind, each.payload) for each in eager.ask(Frame(Kind.HELLO, payload=pack_json(outside)))]
    assert answers == [(Kind.TROUBLE, b"the answer to the first frame must be waited for")]
    too_early.link.data.linked_at = 1.0
    bench.requests.end_ungreeted(2.0)
    answers = [(each.kind, each.payload) for each in too_early.ask()]
    assert answers == [(Kind.TROUBLE, b"no worker has said yet which channels there are; try again")]
    assert too_early.ended
    bench.peer()
    answers = early.ask(opened(1, "h:1"), Frame(Kind.PUBLISH, channel=1, sequence=1, payload=b"m"))
    assert [each.kind for each in answers] == [Kind.WELCOME, Kind.STORED]
    late = Peer(bench, outside, worker=False)
    answers = late.ask(opened(1, "h:1"), Frame(Kind.PUBLISH, channel=1, sequence=1, payload=b"m"))
    assert [each.kind for each in answers] == [Kind.WELCOME, Kind.STORED]
    assert bench.journal.topic("h:1").count == 2
    for peer in (early, eager, too_early, late):
        peer.close()


def test_key_and_sender_do_not_count_as_the_message() -> None:
    bench = Bench(message_limit=1000)
    peer = Peer(bench, Hello(VERSION, 5, "worker", 1, CHANNELS))
    (welcome,) = peer.ask()
    assert unpack_json(welcome.payload, Welcome).message_limit == 1000
    frames = [opened(1, "h:1")]
    for sequence, size in ((1, 1000), (2, 1000 + module.PREFIX)):
        flags, payload = pack_message(bytes(size), b"k" * 128, b"s" * 32)
        frames.append(Frame(Kind.PUBLISH, flags, 1, sequence=sequence, payload=payload))
    assert sorted(each.kind for each in peer.ask(*frames)) == [Kind.STORED, Kind.REFUSED]
    peer.close()
    bench.close()


def test_a_second_link_of_a_process_ends_the_first(bench: Bench) -> None:
    one = bench.peer(7)
    two = bench.peer(7)
    assert [each.kind for each in one.receive()] == [Kind.TROUBLE]
    assert one.ended
    answers = two.ask(opened(1, "h:1"), Frame(Kind.PUBLISH, channel=1, sequence=1))
    assert [each.kind for each in answers] == [Kind.STORED]
    assert bench.journal.publisher(7).links == 1


def test_who_is_where(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = bench.peer(), bench.peer(), bench.peer()

    def beat(peer: Peer, flags: int, channels: dict[str, Count]) -> None:
        assert peer.ask(Frame(Kind.BEAT, flags, payload=pack_json(Snapshot(channels)))) == []

    def count(name: str) -> Count:
        (answer,) = three.ask(Frame(Kind.COUNT, sequence=3, payload=name.encode()))
        assert (answer.kind, answer.sequence) == (Kind.COUNTED, 3)
        return unpack_json(answer.payload, Count)

    raw = msgspec.Raw(b'{"name":"Ann"}')
    beat(one, Flag.FIRST | Flag.LAST, {"a": Count(2), "b": Count(1, {"ann": raw})})
    beat(two, Flag.FIRST, {"a": Count(3)})
    assert count("a") == Count(2)
    beat(two, Flag.LAST, {"b": Count(1, {"bob": raw})})
    assert count("a") == Count(5)
    found = count("b")
    assert (found.connections, found.members and {*found.members}) == (2, {"ann", "bob"})
    assert count("c") == Count(0)
    beat(one, Flag.FIRST | Flag.LAST, {"c": Count(1)})
    assert (count("a"), count("c")) == (Count(3), Count(1))
    two.close()
    three.ask()
    assert count("a") == Count(0)
    monkeypatch.setattr(module, "LEASE", -1.0)
    assert count("c") == Count(0)


def test_names_outlive_their_link_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = bench.peer(), bench.peer()
    raw = msgspec.Raw(b"{}")

    def beat(peer: Peer, channels: dict[str, Count]) -> None:
        flags = Flag.FIRST | Flag.LAST
        assert peer.ask(Frame(Kind.BEAT, flags, payload=pack_json(Snapshot(channels)))) == []

    def names(name: str) -> set[str]:
        found = bench.requests.count(name)
        assert found.connections == 0
        return {*(found.members or {})}

    beat(one, {"a": Count(2, {"ann": raw}), "b": Count(1)})
    one.close()
    two.ask()
    assert (names("a"), names("b")) == ({"ann"}, set())
    monkeypatch.setattr(module, "NAMES_LEASE", -1.0)
    beat(two, {"a": Count(0, {"bob": raw})})
    two.close()
    bench.peer().ask()
    assert names("a") == {"ann"}


def test_so_many_names_of_processes_that_have_ended_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDED", 2)
    raw = msgspec.Raw(b"{}")
    last = bench.peer()
    for name in ("ann", "bob", "eve"):
        peer = bench.peer()
        peer.ask(Frame(Kind.BEAT, Flag.FIRST | Flag.LAST, payload=pack_json(Snapshot({"a": Count(1, {name: raw})}))))
        peer.close()
        last.ask()
    assert {*(bench.requests.count("a").members or {})} == {"bob", "eve"}
    many = {f"{number}": raw for number in range(999)}
    last.ask(Frame(Kind.BEAT, Flag.FIRST | Flag.LAST, payload=pack_json(Snapshot({"a": Count(999, many)}))))
    assert bench.requests.count("a") == Count(999, {"": msgspec.Raw(b"null")})


def test_a_snapshot_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_BYTES", 1000)
    one = bench.peer()
    frame = Frame(Kind.BEAT, payload=pack_json(Snapshot({"a" * 200: Count(1)})))
    assert one.ask(*[frame] * 4) == []
    (answer,) = one.ask(frame)
    assert answer.payload == b"a snapshot has at most 1000 bytes"


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Frame(Kind.OPEN, channel=1 << 20, payload=b"c"), "must be less than 1048576, not 1048576"),
        (Frame(Kind.OPEN, channel=9, payload=b"\xff"), "the name of a channel must be UTF-8"),
        (Frame(Kind.OPEN, channel=9), "the name of a channel must have 1 to 255 bytes, not 0"),
        (Frame(Kind.OPEN, channel=9, payload=b"x" * 256), "must have 1 to 255 bytes, not 256"),
        (Frame(Kind.OPEN, channel=1, payload=b"other"), "channel number 1 is in use"),
        (Frame(Kind.READ, channel=1, payload=b"xyz"), "a search has 8 bytes, not 3"),
        (Frame(Kind.BEAT, payload=b"{"), "a Snapshot cannot be read"),
        (Frame(Kind.COUNT, payload=b"\xff"), "the name of a channel must be UTF-8"),
    ],
)
def test_what_makes_no_sense_ends_the_link_and_says_why(bench: Bench, frame: Frame, why: str) -> None:
    one, other = bench.peer(), bench.peer()
    (answer,) = one.ask(opened(1, "h:1"), frame)
    assert answer.kind == Kind.TROUBLE
    assert why in answer.payload.decode()
    assert other.ask(Frame(Kind.UNSUBSCRIBE, channel=77, sequence=1)) == [Frame(Kind.DONE, channel=77, sequence=1)]


@pytest.mark.parametrize(
    ("payload", "kind", "why"),
    [
        (b"", Kind.OPEN, "the first frame must be HELLO (1), not kind 2"),
        (b'{"version":1}', Kind.HELLO, "a Hello cannot be read"),
        (b'{"version":1,"publisher":-1}', Kind.HELLO, "a Hello cannot be read"),
        (b'{"version":1,"publisher":1,"channels":{"a":{"history":-1}}}', Kind.HELLO, "a Hello cannot be read"),
        (b'{"version":1,"publisher":1,"channels":{"a":{"keep":1e99}}}', Kind.HELLO, "a Hello cannot be read"),
    ],
)
def test_a_link_begins_with_a_hello(bench: Bench, payload: bytes, kind: Kind, why: str) -> None:
    bench.peer()
    other = Peer(bench, None)
    (answer,) = other.ask(Frame(kind, payload=payload))
    assert why in answer.payload.decode()
    assert other.ended
    other.close()


def test_more_channels_than_there_may_be_are_not_opened(bench: Bench) -> None:
    one = bench.peer()
    bench.journal.topic("taken").name = "another"
    answers = one.ask(opened(1, "taken"), Frame(Kind.SUBSCRIBE, channel=1, sequence=1))
    assert [each.kind for each in answers] == [Kind.REFUSED]


FRAMES = st.builds(
    Frame,
    st.sampled_from([*Kind, 77]).map(int),
    st.integers(0, 255),
    st.integers(0, 4) | st.integers(0, 2**32 - 1),
    publisher=st.just(0),
    time=st.just(0),
    offset=st.integers(0, 20) | st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 5) | st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=20) | st.sampled_from([b"h:1", b"x", Search(9, 99).pack(), pack_json(Snapshot({}))]),
)


@given(st.lists(FRAMES | st.binary(max_size=50), max_size=20))
@settings(max_examples=300, deadline=None)
def test_nonsense_ends_its_own_link_at_most(frames: list[Frame | bytes]) -> None:
    bench = Bench()
    bad, good = bench.peer(), bench.peer()
    try:
        for frame in frames:
            bad.socket.sendall(encode(frame) if isinstance(frame, Frame) else frame)
    except BrokenPipeError:
        pass
    bad.ask()
    answers = good.ask(opened(1, "h:1"), Frame(Kind.PUBLISH, channel=1, sequence=1, payload=b"m"))
    assert answers[-1].kind == Kind.STORED
    bench.close()
