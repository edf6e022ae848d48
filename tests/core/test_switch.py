"""The switch: what is published on one link comes out of others, stored first; nobody's silence or noise hurts others.

Both ends are in this process, and turns are taken one by one. What must not live here: what other frames ask for, and
the process (tests/hub/).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.patience import PATIENCE
from tidegate._core.hub_link import Link
from tidegate._core.journal import Journal, make_memory
from tidegate._core.switch import Switch
from tidegate._core.topic import Topic
from tidegate.bus.link import HEAD, PAYLOAD_LIMIT, Decoder, Flag, Frame, Kind, acknowledgements, encode, pack_message

QUEUE = 16 << 20


class Peer:
    """The other end of a link."""

    def __init__(self, bench: Bench, publisher: int) -> None:
        self.socket, there = socket.socketpair()
        self.socket.setblocking(False)
        self.link = bench.switch.add(there.detach(), "data")
        self.publisher = publisher
        self.link.greet(bench.journal.publisher(publisher))
        self.decoder = Decoder()
        self.ended = False

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(map(encode, frames)))

    def publish(self, channel: int, payload: bytes, sequence: int = 0, flags: int = 0) -> None:
        self.send(Frame(Kind.PUBLISH, flags, channel, sequence=sequence, payload=payload))

    def receive(self, most: int = 1 << 30) -> list[Frame]:
        """The frames that have come, of so many bytes at most."""
        found: list[Frame] = []
        try:
            while most > 0 and not self.ended:
                data = self.socket.recv(min(most, 1 << 18))
                most -= len(data)
                self.ended = not data
                found += self.decoder.feed(data)
        except (BlockingIOError, ConnectionResetError):
            pass
        return found


class Bench:
    """A switch, whose turns a test takes, and its peers."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.journal = Journal.attach(make_memory(size))
        self.frames: list[tuple[int, ...]] = []
        self.endings: list[tuple[str, str | None]] = []
        self.switch = Switch(self.journal, self.on_frame, self.on_end)
        self.peers: list[Peer] = []

    def on_frame(
        self, link: Link, kind: int, flags: int, channel: int, offset: int, sequence: int, payload: bytes
    ) -> None:
        if kind == Kind.COUNT:
            raise ValueError("no counting here")
        if kind == Kind.READ:
            link.send(Kind.EXCERPT, sequence=sequence, payload=payload * offset)
        self.frames.append((kind, flags, channel, offset, sequence, len(payload)))

    def on_end(self, link: Link) -> None:
        self.endings.append((link.data, link.ended))

    def topic(self, name: str, history: int = 0) -> Topic:
        topic = self.journal.topic(name)
        self.journal.set_policy(topic, history, 0, 0)
        return topic

    def peer(self, **channels: int) -> Peer:
        """A peer that is subscribed to these channels, by these numbers; those with h_ have history."""
        peer = Peer(self, 100 + len(self.peers))
        self.peers.append(peer)
        for name, number in channels.items():
            peer.link.open(number, self.topic(name, 1000 * name.startswith("h_")))
            peer.link.subscribe(number)
        return peer

    def turns(self, number: int = 4) -> None:
        for _ in range(number):
            assert self.switch.turn(0) == []


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.switch.close()
    for peer in bench.peers:
        peer.socket.close()


def test_a_message_without_history_goes_to_the_others(bench: Bench) -> None:
    one, two, three = bench.peer(c=1), bench.peer(c=70), bench.peer(other=1)
    one.publish(1, b"Hello", flags=Flag.TEXT)
    one.publish(1, b"echo", flags=Flag.ECHO | Flag.STORED)
    bench.turns()
    head = Frame(Kind.MESSAGE, 0, 70, one.publisher)
    found = two.receive()
    assert [frame._replace(time=0) for frame in found] == [
        head._replace(flags=Flag.TEXT, payload=b"Hello"),
        head._replace(payload=b"echo"),
    ]
    assert found[0].time > 1_700_000_000_000_000
    assert [(frame.channel, frame.payload) for frame in one.receive()] == [(1, b"echo")]
    assert three.receive() == []
    assert (bench.switch.published, bench.switch.delivered, bench.journal.stored) == (2, 3, 0)


def test_a_message_with_history_is_stored_acknowledged_and_goes_to_all(bench: Bench) -> None:
    one, two = bench.peer(h_c=1), bench.peer(h_c=2)
    one.publish(1, b"one", 41, Flag.TEXT)
    one.publish(1, b"two", 42)
    one.publish(1, b"three")
    bench.turns()
    messages = [(b"one", 1, 41), (b"two", 2, 42), (b"three", 3, 0)]
    for peer in (one, two):
        frames = peer.receive()
        found = [frame for frame in frames if frame.kind == Kind.MESSAGE]
        assert [(frame.payload, frame.offset, frame.sequence) for frame in found] == messages
        assert [frame.flags for frame in found] == [Flag.TEXT | Flag.STORED, Flag.STORED, Flag.STORED]
        stored = [each for frame in frames if frame.kind == Kind.STORED for each in acknowledgements(frame.payload)]
        epoch = bench.topic("h_c", 1000).epoch
        assert stored == ([(41, epoch, 1), (42, epoch, 2)] if peer is one else [])
        assert sum(frame.kind == Kind.STORED for frame in frames) == len(stored) // 2  # one for the turn
    assert bench.topic("h_c", 1000).count == 3


def test_what_is_published_again_is_acknowledged_again_and_sent_to_nobody(bench: Bench) -> None:
    one, two = bench.peer(h_c=1), bench.peer(h_c=2)
    flags, keyed = pack_message(b"keyed", b"key")
    for _ in range(2):
        one.publish(1, b"one", 41)
        one.publish(1, keyed, 0, flags)
    bench.turns()
    assert [frame.offset for frame in two.receive()] == [1, 2]
    acknowledged = [frame for frame in one.receive() if frame.kind == Kind.STORED]
    assert [each.offset for frame in acknowledged for each in acknowledgements(frame.payload)] == [1, 1]


def test_an_acknowledgement_without_history_has_no_place(bench: Bench) -> None:
    one = bench.peer(c=1)
    one.publish(1, b"", 5)
    bench.turns()
    (frame,) = one.receive()
    assert list(acknowledgements(frame.payload)) == [(5, 0, 0)]


def test_what_cannot_be_published_is_refused(bench: Bench) -> None:
    one = bench.peer(h_c=1)
    bench.switch.message_limit = 2 << 20
    one.publish(2, b"", 1)
    one.publish(1_000_000, b"", 2)
    one.publish(2, b"nobody wants to hear of")
    bench.turns()
    one.publish(1, bytes(100_000), 3)
    bench.turns()
    bench.switch.message_limit = 10
    one.publish(1, bytes(11), 4)
    bench.turns()
    assert [(frame.kind, frame.sequence, frame.payload.decode()) for frame in one.receive()] == [
        (Kind.REFUSED, 1, "channel number 2 is not open"),
        (Kind.REFUSED, 2, "channel number 1000000 is not open"),
        (Kind.REFUSED, 3, "a message of 100000 bytes has no room in the journal"),
        (Kind.REFUSED, 4, "a message has at most 10 bytes, not 11"),
    ]
    assert bench.switch.published == 0


def test_nobody_publishes_before_a_greeting(bench: Bench) -> None:
    here, there = socket.socketpair()
    link = bench.switch.add(there.detach())
    link.open(1, bench.topic("c"))
    here.sendall(encode(Frame(Kind.PUBLISH, channel=1, sequence=9)))
    bench.turns()
    (frame,) = Decoder().feed(here.recv(1000))
    assert (frame.kind, frame.sequence) == (Kind.REFUSED, 9)
    here.close()


def test_a_switch_that_is_dropped_leaves_no_socket_open() -> None:
    here, there = socket.socketpair()
    journal = Journal.attach(make_memory(1 << 20))
    switch = Switch(journal, lambda link, frame: None, lambda link: None)
    switch.add(there.detach())
    del switch
    gc.collect()
    assert here.recv(1) == b""
    here.close()


def test_other_frames_are_given_to_python_in_order(bench: Bench) -> None:
    one = bench.peer(c=1)
    one.send(Frame(Kind.OPEN, 1, 2, offset=3, sequence=4, payload=b"12345"), Frame(99))
    one.publish(1, b"")
    one.send(Frame(Kind.SHUT))
    bench.turns()
    assert bench.frames == [(Kind.OPEN, 1, 2, 3, 4, 5), (99, 0, 0, 0, 0, 0), (Kind.SHUT, 0, 0, 0, 0, 0)]


def test_frames_come_in_any_pieces(bench: Bench) -> None:
    one, two = bench.peer(c=1), bench.peer(c=1)
    data = b"".join(encode(Frame(Kind.PUBLISH, channel=1, payload=b"%d" % n)) for n in range(10))
    for at in range(0, len(data), 7):
        one.socket.sendall(data[at : at + 7])
        bench.turns(1)
    assert [frame.payload for frame in two.receive()] == [b"%d" % n for n in range(10)]


def test_a_large_message_is_gathered(bench: Bench) -> None:
    one, two = bench.peer(c=1), bench.peer(c=1)
    data = encode(Frame(Kind.PUBLISH, channel=1, payload=b"x" * (1 << 20))) * 3
    found: list[Frame] = []
    while data:
        data = data[one.socket.send(data) :]
        bench.turns(2)
        found += two.receive()
    bench.turns(50)
    found += two.receive()
    while len(found) < 3:
        bench.turns(2)
        found += two.receive()
    assert [len(frame.payload) for frame in found] == [1 << 20] * 3


def test_channels_are_opened_shut_and_numbered(bench: Bench) -> None:
    one, two, three = (bench.peer(c=1) for _ in range(3))
    topic, other = bench.topic("c"), bench.topic("other")
    assert (topic.users, topic.subscribed) == (3, 3)
    assert one.link.topic(1) is topic
    assert one.link.topic(2) is None
    one.link.open(1, topic)  # again
    one.link.subscribe(1)
    with pytest.raises(ValueError, match="channel number 1 is in use"):
        one.link.open(1, other)
    with pytest.raises(ValueError, match="must be less than 1048576, not 1048576"):
        one.link.open(1 << 20, other)
    with pytest.raises(ValueError, match="channel number 5 is not open"):
        one.link.subscribe(5)
    one.link.open((1 << 20) - 1, other)
    one.link.shut(77)
    one.link.unsubscribe(77)
    two.link.unsubscribe(1)
    two.link.unsubscribe(1)
    one.publish(1, b"to three alone")
    bench.turns()
    assert (two.receive(), len(three.receive()), topic.subscribed) == ([], 1, 2)
    one.link.shut(1)
    three.link.shut(1)
    assert (topic.users, topic.subscribed, other.users) == (1, 0, 1)


def test_a_link_that_is_closed_gives_back_what_it_had(bench: Bench) -> None:
    one, two = bench.peer(c=1, h_c=2), bench.peer(c=1)
    fd = one.link.fd
    publisher = one.link.publisher
    one.publish(1, b"last words")
    one.socket.close()
    bench.turns()
    assert bench.endings == [("data", "")]
    assert (bench.topic("c").users, bench.topic("c").subscribed, bench.topic("h_c", 1000).users) == (1, 1, 0)
    assert publisher is not None
    assert publisher.links == 0
    assert (one.link.fd, one.link.publisher) == (-1, None)
    assert fd not in bench.switch.links
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert [frame.payload for frame in two.receive()] == [b"last words"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (struct.pack("<I", PAYLOAD_LIMIT + 1) + bytes(HEAD.size), "at most 4194304 bytes, and this one says 4194305"),
        (encode(Frame(Kind.COUNT)) + encode(Frame(Kind.OPEN)), "no counting here"),
    ],
)
def test_a_link_that_makes_no_sense_is_told_why_and_ended(bench: Bench, data: bytes, why: str) -> None:
    one = bench.peer(c=1)
    one.socket.sendall(data)
    bench.turns()
    (frame,) = one.receive()
    assert frame.kind == Kind.TROUBLE
    assert why in frame.payload.decode()
    assert one.ended
    assert bench.frames == []
    assert bench.endings == [("data", frame.payload.decode())]


def test_who_does_not_read_loses_messages_and_is_told_how_many(bench: Bench) -> None:
    """Frames stay whole, answers are not lost, and others get all."""
    one, slow, fast = bench.peer(c=1), bench.peer(c=1), bench.peer(c=1)
    got = 0
    sent = 0
    payload = bytes(100_000)
    for round_ in range(500):
        one.publish(1, payload)
        sent += 1
        if round_ % 100 == 50:
            slow.send(Frame(Kind.READ, offset=1, sequence=round_, payload=b"answer"))
        bench.turns(2)
        got += len(fast.receive())
        assert slow.link.waiting <= QUEUE
    assert got == sent
    assert slow.link.lost > 100
    frames = slow.receive()
    while slow.link.waiting:
        bench.turns(1)
        frames += slow.receive()
    kinds = [frame.kind for frame in frames]
    assert kinds.count(Kind.EXCERPT) == 5
    assert kinds.count(Kind.MESSAGE) + sum(frame.offset for frame in frames if frame.kind == Kind.LOST) == sent
    assert all(len(frame.payload) == 100_000 for frame in frames if frame.kind == Kind.MESSAGE)
    assert slow.link.lost == sent - kinds.count(Kind.MESSAGE)
    assert kinds.count(Kind.LOST) <= 5
    assert fast.link.lost == 0


def test_who_does_not_read_answers_is_not_read_either(bench: Bench) -> None:
    """Until it does; then what it had asked is answered, in order."""
    one = bench.peer(c=1)
    one.link.open(2, bench.topic("h_c", 10))
    ask = b"".join(encode(Frame(Kind.READ, offset=200, sequence=n, payload=bytes(10_000))) for n in range(1, 41))
    ask += encode(Frame(Kind.PUBLISH, channel=2, sequence=41))
    while ask:
        try:
            ask = ask[one.socket.send(ask) :]
        except BlockingIOError:
            break
        bench.turns(2)
    bench.turns(10)
    assert QUEUE < one.link.waiting < QUEUE + PAYLOAD_LIMIT
    assert len(bench.frames) < 20
    answers = []
    while len(answers) < 41:
        if ask:
            ask = ask[one.socket.send(ask) :]
        bench.turns(1)
        answers += one.receive()
    assert [frame.sequence for frame in answers if frame.kind == Kind.EXCERPT] == [*range(1, 41)]
    assert [each.sequence for each in acknowledgements(answers[-1].payload)] == [41]


def test_who_does_not_read_acknowledgements_is_not_read_either(bench: Bench) -> None:
    """Until it does; then each message is acknowledged."""
    one = bench.peer(c=1)
    one.link.open(2, bench.topic("h_c", 10))
    batch = encode(Frame(Kind.PUBLISH, channel=2, sequence=1)) * 5000
    batches, rest, turns = 0, b"", 0
    while turns < 3:
        batches, rest = (batches, rest) if rest else (batches + 1, batch)
        try:
            rest, turns = rest[one.socket.send(rest) :], 0
        except BlockingIOError:
            turns += 1
        bench.turns(2)
    assert QUEUE < one.link.waiting < QUEUE + PAYLOAD_LIMIT
    acknowledged = 0
    while acknowledged < batches * 5000:
        with contextlib.suppress(BlockingIOError):
            rest = rest[one.socket.send(rest) :] if rest else rest
        bench.turns(1)
        acknowledged += sum(len(list(acknowledgements(frame.payload))) for frame in one.receive())


def test_what_had_waited_for_room_is_acknowledged_when_messages_are_dropped(bench: Bench) -> None:
    """Messages and an answer fill the queue of one who does not read; the next message empties it."""
    one, slow = bench.peer(c=1), bench.peer(c=1)
    slow.link.open(2, bench.topic("h_c", 10))
    while slow.link.waiting < QUEUE - 20_000:
        one.send(*[Frame(Kind.PUBLISH, channel=1, payload=bytes(1000))] * 10)
        bench.turns(1)
    slow.send(Frame(Kind.READ, offset=50, payload=bytes(1000)), Frame(Kind.PUBLISH, channel=2, sequence=1))
    bench.turns()
    assert slow.link.waiting > QUEUE
    slow.receive()
    one.send(*[Frame(Kind.PUBLISH, channel=1, payload=bytes(1000))] * 30)
    bench.turns()
    frames = slow.receive()
    assert {Kind.LOST, Kind.EXCERPT} < {frame.kind for frame in frames}
    assert frames[-1].kind == Kind.STORED


def test_many_who_publish_at_once_have_each_their_order(bench: Bench) -> None:
    peers = [bench.peer(h_c=number) for number in range(1, 6)]
    for n in range(200):
        for number, peer in enumerate(peers, 1):
            peer.publish(number, b"%d" % n, n + 1)
        if n % 7 == 0:
            bench.turns(1)
    bench.turns()
    found = [
        [(frame.offset, frame.publisher, frame.payload) for frame in peer.receive() if frame.offset] for peer in peers
    ]
    assert all(each == found[0] for each in found)
    assert [offset for offset, _, _ in found[0]] == [*range(1, 1001)]
    for peer in peers:
        assert [data for _, who, data in found[0] if who == peer.publisher] == [b"%d" % n for n in range(200)]


def test_news_of_a_channel_go_to_who_is_subscribed(bench: Bench) -> None:
    one, two, three = bench.peer(c=1), bench.peer(c=2), bench.peer(other=1)
    bench.switch.announce(bench.topic("c"), Kind.TOP, b"news")
    bench.turns(1)
    found = [peer.receive() for peer in (one, two, three)]
    assert found == [[Frame(Kind.TOP, channel=1, payload=b"news")], [Frame(Kind.TOP, channel=2, payload=b"news")], []]


def test_a_link_whose_socket_fails_ends(bench: Bench) -> None:
    """It is closed with something unread, or before something is sent."""
    one, two = bench.peer(), bench.peer()
    one.link.send(Kind.DONE)
    bench.switch.touch(one.link)
    bench.turns(1)
    one.socket.close()
    bench.turns()
    two.socket.close()
    two.link.send(Kind.DONE)
    bench.switch.touch(two.link)
    bench.switch.close()
    bench.turns(1)
    assert bench.endings == [("data", ""), ("data", "")]


def test_a_signal_ends_a_turn() -> None:
    """Its handler has run then."""
    bench = Bench()
    ran: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: ran.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        while not ran:
            assert bench.switch.turn(PATIENCE) == []
    finally:
        signal.signal(signal.SIGALRM, before)
    assert bench.switch.journal is bench.journal
    assert bench.switch.message_limit == 1 << 20


def test_other_descriptors_are_watched(bench: Bench) -> None:
    here, there = os.pipe()
    bench.switch.watch(here)
    os.write(there, b"x")
    assert bench.switch.turn(10) == [here]
    bench.switch.unwatch(here)
    assert bench.switch.turn(0) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        bench.switch.watch(12345)
    os.close(here)
    os.close(there)


def test_what_is_sent_outside_of_a_frame_leaves_with_the_next_turn(bench: Bench) -> None:
    one = bench.peer()
    one.link.send(Kind.DONE, sequence=3)
    with pytest.raises(ValueError, match="at most 4194304 bytes"):
        one.link.send(Kind.DONE, payload=bytes(PAYLOAD_LIMIT + 1))
    bench.switch.touch(one.link)
    bench.turns(1)
    assert one.receive() == [Frame(Kind.DONE, sequence=3)]


@given(
    data=st.lists(
        st.binary(max_size=120)
        | st.builds(
            lambda kind, flags, channel, payload: encode(Frame(kind, flags, channel, payload=payload)),
            st.integers(0, 255), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=60),
        ),
        max_size=12,
    )
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_garbage_ends_its_own_link_at_most(data: list[bytes]) -> None:
    bench = Bench()
    bad, one, two = (bench.peer(c=1, h_c=2) for _ in range(3))
    for piece in data:
        if not bad.ended:
            try:
                bad.socket.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        bench.turns(1)
    two.receive()
    one.publish(2, b"all the same", 1)
    bench.turns()
    assert b"all the same" in [frame.payload for frame in two.receive()]
    bench.switch.close()
    for peer in bench.peers:
        peer.socket.close()
