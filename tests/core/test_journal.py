"""The journal: what is stored is there for the next process, once, in order, whatever becomes of the one that wrote it.

What must not live here: who is told of a message (test_switch.py), the hub's process (tests/hub/).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidegate._core import journal as native
from tidegate._core.journal import Journal, JournalError, make_memory
from tidegate._core.topic import Topic, usage
from tidegate.bus.link import Decoder, Flag, Frame, pack_message

SMALL = 1 << 17
RECORD = 64  # bytes before a payload


def copy(fd: int) -> int:
    """A file in memory with the same bytes."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    number = make_memory(len(data))
    os.pwrite(number, data, 0)
    return number


def opened(journal: Journal, name: str, history: int = 1000, keep: float = 0, history_bytes: int = 0) -> Topic:
    """A channel, with its policy."""
    topic = journal.topic(name)
    journal.set_policy(topic, history, int(keep * 1e6), history_bytes)
    return topic


def frames(
    topic: Topic, after: int = 0, messages: int = 2**32 - 1, size: int = 2**40, backward: bool = False
) -> list[Frame]:
    """Messages of a channel."""
    return list(Decoder().feed(topic.read(7, after, messages, size, backward)))


def texts(topic: Topic, *args: Any, **kwargs: Any) -> dict[int, bytes]:
    """Offset -> payload of the messages of a channel."""
    return {frame.offset: frame.payload for frame in frames(topic, *args, **kwargs)}


@pytest.fixture
def file() -> Iterator[int]:
    """A file in memory, of zeros; a journal that attaches to a copy of its descriptor leaves it open."""
    fd = make_memory(SMALL)
    yield fd
    os.close(fd)


def attach(fd: int, anew: bool = False) -> Journal:
    return Journal.attach(os.dup(fd), anew)


def test_a_message_comes_back_as_it_was_stored(file: int) -> None:
    journal = attach(file)
    who = journal.publisher(77)
    topic = opened(journal, "chat:1")
    assert journal.append(topic, b"Hello", Flag.TEXT, who, 900, 1234567) == 1
    frame = Frame(33, Flag.TEXT | Flag.STORED, 7, 77, 1, 1234567, 900, b"Hello")
    assert frames(topic) == [frame]
    again = opened(attach(file), "chat:1")
    assert (again.epoch, again.top, again.first, again.size) == (topic.epoch, 1, 1, 5)
    assert frames(again) == [frame]


def test_reads() -> None:
    """After an offset the oldest, before one the newest, in order; at most so many and so many bytes, but for one."""
    journal = Journal.attach(make_memory(SMALL))
    topic = opened(journal, "c", history=8)
    for n in range(1, 11):
        journal.append(topic, b"%03d" % n)
    assert list(texts(topic)) == [*range(3, 11)]
    assert list(texts(topic, 5)) == [6, 7, 8, 9, 10]
    assert list(texts(topic, 5, 2)) == [6, 7]
    assert list(texts(topic, 5, 9, 43 * 3)) == [6, 7, 8]
    assert list(texts(topic, 5, 9, 1)) == [6]
    assert list(texts(topic, 5, 0)) == []
    assert [list(texts(topic, after)) for after in (10, 11, 2**64 - 1)] == [[], [], []]
    assert list(texts(topic, 0, 3, backward=True)) == [8, 9, 10]
    assert list(texts(topic, 8, 3, backward=True)) == [5, 6, 7]
    assert list(texts(topic, 99, 3, backward=True)) == [8, 9, 10]
    assert list(texts(topic, 4, 3, backward=True)) == [3]
    assert list(texts(topic, 1, 3, backward=True)) == []
    assert list(texts(topic, 0, 9, 43 * 2, backward=True)) == [9, 10]
    assert list(texts(topic, 0, 9, 1, backward=True)) == [10]
    assert list(texts(opened(journal, "empty"))) == []


def test_what_channels_keep_is_counted() -> None:
    journal = Journal.attach(make_memory(SMALL))
    topics = [opened(journal, name, history=2) for name in "abc"]
    for n in range(1, 4):
        journal.append(topics[0], b"%03d" % n)
    journal.append(topics[1], b"Hello")
    assert usage(topics) == (3, 3 + 3 + 5 + 3 * RECORD)
    assert usage([]) == (0, 0)


def test_trimming_by_number_bytes_and_age() -> None:
    journal = Journal.attach(make_memory(SMALL))
    by_bytes = opened(journal, "b", history_bytes=10)
    by_age = opened(journal, "a", keep=10)
    for n in range(1, 6):
        journal.append(by_bytes, b"%04d" % n)
        journal.append(by_age, b"old", time=n)
    assert list(texts(by_bytes)) == [4, 5]
    assert (by_age.count, by_age.top, by_age.first) == (0, 5, 6)
    journal.append(by_bytes, bytes(50))
    assert list(texts(by_bytes)) == [6]  # the newest, whatever its size
    journal.append(by_age, b"new")
    assert list(texts(by_age)) == [6]
    journal.set_policy(by_bytes, 0, 0, 0)
    assert (by_bytes.epoch, by_bytes.top, by_bytes.count) == (0, 0, 0)


def test_sweeping_forgets_what_is_old_and_channels_that_nobody_needs() -> None:
    journal = Journal.attach(make_memory(SMALL))
    old, new, used, idle = (opened(journal, name, keep=1e9) for name in ("old", "new", "used", "idle"))
    journal.append(old, b"")
    journal.append(new, b"")
    used.users = 1
    journal.set_policy(old, 1000, 1, 0)
    journal.sweep(2)
    assert {topic.name for topic in journal.topics.values()} == {"new", "used", "idle"}
    journal.sweep(100)
    assert {topic.name for topic in journal.topics.values()} == {"new", "used"}
    again = journal.topic("old")
    assert (again.epoch, again.top) == (old.epoch, 1)
    assert journal.topic("idle").epoch == idle.epoch


def test_where_a_channel_stands_outlives_its_messages(file: int) -> None:
    journal = attach(file)
    quiet, loud, off = opened(journal, "quiet"), opened(journal, "loud"), opened(journal, "off")
    for n in range(3):
        journal.append(quiet, b"%d" % n)
        journal.append(off, b"")
    journal.set_policy(off, 0, 0, 0)
    for _ in range(300):
        journal.append(loud, bytes(1000))
    assert (quiet.top, quiet.first) == (3, 4)
    assert journal.evicted > 3
    again = attach(file)
    assert "channels" in again.found
    found = opened(again, "quiet")
    assert (found.epoch, found.top, found.first) == (quiet.epoch, 3, 4)
    assert texts(opened(again, "loud")) == texts(loud)
    assert again.append(found, b"next") == 4


def test_a_channel_without_history_for_a_while_has_another_epoch(file: int) -> None:
    journal = attach(file)
    topic = opened(journal, "c")
    epoch = topic.epoch
    journal.append(topic, b"before")
    journal.set_policy(topic, 0, 0, 0)
    assert opened(attach(file), "c").count == 0
    journal.set_policy(topic, 10, 0, 0)
    assert topic.epoch not in (0, epoch)
    assert journal.append(topic, b"after") == 1
    assert texts(opened(attach(file), "c")) == {1: b"after"}


def test_the_same_sequence_is_stored_once(file: int) -> None:
    journal = attach(file)
    topic, who = opened(journal, "c", history=2), journal.publisher(5)
    assert [journal.append(topic, b"m", 0, who, sequence) for sequence in (10, 11, 11, 12, 10)] == [1, 2, 2, 3, 0]
    assert journal.stored == 3
    again = attach(file)
    topic, who = opened(again, "c"), again.publisher(5)
    assert who.last == 12
    assert [again.append(topic, b"m", 0, who, sequence) for sequence in (11, 12, 13)] == [2, 3, 4]
    assert again.append(topic, b"m", 0, again.publisher(6), 12) == 5


def test_publishers_are_forgotten_but_not_those_that_are_linked() -> None:
    journal = Journal.attach(make_memory(SMALL))
    topic = opened(journal, "c")
    linked, gone = journal.publisher(1), journal.publisher(2)
    linked.links = 1
    journal.append(topic, b"", 0, linked, 9)
    journal.append(topic, b"", 0, gone, 9)
    for n in range(10, 10 + native.PUBLISHERS):
        journal.publisher(n)
    assert journal.publisher(1) is linked
    assert journal.publisher(2).last == 0


def test_the_same_key_is_stored_once(file: int) -> None:
    journal = attach(file)
    topic, other = opened(journal, "c"), opened(journal, "other")
    flags, keyed = pack_message(b"one", b"key")
    _, again = pack_message(b"two", b"key")
    assert journal.append(topic, keyed, flags) == 1
    assert journal.append(topic, again, flags, sequence=5) == 1
    assert journal.append(other, again, flags) == 1
    assert journal.append(topic, b"", flags) == 2  # garbage is an empty key
    assert journal.append(topic, b"\xff" + b"cut", flags) == 3
    journal = attach(file)
    topic = opened(journal, "c")
    assert journal.append(topic, again, flags) == 1
    assert journal.append(opened(journal, "new"), again, flags, time=1) == 1
    assert journal.append(opened(journal, "new"), again, flags) == 1  # the clock of who stores counts


def test_old_keys_do_not_count(file: int) -> None:
    journal = attach(file)
    flags, keyed = pack_message(b"one", b"key")
    journal.append(opened(journal, "c"), keyed, flags, time=1)
    journal = attach(file)
    assert journal.append(opened(journal, "c"), keyed, flags) == 2


def test_keys_are_bounded() -> None:
    journal = Journal.attach(make_memory(SMALL))
    topic = opened(journal, "c")
    first = pack_message(b"", b"first")
    journal.append(topic, first[1], first[0])
    for n in range(native.KEYS):
        flags, keyed = pack_message(b"", b"%d" % n)
        journal.append(topic, keyed, flags)
    assert journal.append(topic, first[1], first[0]) == native.KEYS + 2


def test_a_message_that_has_no_room_is_refused() -> None:
    journal = Journal.attach(make_memory(SMALL))
    topic = opened(journal, "c")
    with pytest.raises(JournalError, match="a message of 50000 bytes has no room in a journal of 131072"):
        journal.append(topic, bytes(50_000))
    assert journal.append(topic, b"") == 1


def test_one_process_writes(file: int) -> None:
    """Another one is refused until that ends."""
    here, there = os.pipe()
    back, answer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            journal = attach(file)
            os.write(there, b"attached")
            os.read(back, 1)
            del journal
        os._exit(0)
    assert os.read(here, 8) == b"attached"
    with pytest.raises(BlockingIOError):
        attach(file)
    os.write(answer, b"x")
    os.waitpid(child, 0)
    attach(file)
    for number in (here, there, back, answer):
        os.close(number)


def damaged(file: int, at: int, data: bytes) -> int:
    number = copy(file)
    os.pwrite(number, data, at)
    return number


def test_a_file_that_is_no_journal_is_refused_and_made_one_only_if_asked(file: int) -> None:
    journal = attach(file)
    epoch = opened(journal, "c").epoch
    journal.append(journal.topic("c"), b"Hello")
    for at, data, message in (
        (0, b"X", "this is no journal: it starts with other bytes"),
        (8, b"\x09", "the journal has format 9, and this tidegate reads 1"),
        (24, b"\xff", "the head of the journal is damaged"),
        (56, bytes(8), "the system ended before all of the journal was on disk"),
    ):
        wrong = damaged(file, at, data)
        with pytest.raises(JournalError, match=message):
            attach(wrong)
        anew = attach(wrong, anew=True)
        topic = opened(anew, "c")
        assert topic.epoch not in (0, epoch)
        assert texts(topic) == {}
        assert anew.append(topic, b"") == 1
    larger = make_memory(2 * SMALL)
    os.pwrite(larger, os.pread(file, SMALL, 0), 0)
    with pytest.raises(JournalError, match="the journal should have 131072 bytes, and has 262144"):
        attach(larger)
    with pytest.raises(JournalError, match="a journal has 71680 to 17179869184 bytes, not 71679"):
        attach(make_memory(71679))
    attach(make_memory(71680))
    with pytest.raises(TypeError, match=r"Journal.attach\(\)"):
        Journal()


def test_a_closed_journal_is_whole_for_another_run_of_the_system(file: int) -> None:
    journal = attach(file)
    journal.append(opened(journal, "c"), b"Hello")
    journal.close()
    journal.close()
    assert journal.fd == -1
    os.pwrite(file, struct.pack("<Q", 1234), 56)  # another run
    assert texts(opened(attach(file), "c")) == {1: b"Hello"}


def test_names_with_the_same_number_are_told_apart() -> None:
    journal = Journal.attach(make_memory(SMALL))
    topic = journal.topic("a")
    topic.name = "b"  # as if
    with pytest.raises(JournalError, match="channel 'a' has the same number as 'b'"):
        journal.topic("a")


def test_a_record_that_the_table_does_not_know_of_counts(file: int) -> None:
    """As after a kill between the two."""
    journal = attach(file)
    topic = opened(journal, "c")
    table = os.pread(file, 4096, 4096)
    journal.append(topic, b"Hello")
    assert os.pread(file, 4096, 4096) != table
    os.pwrite(file, table, 4096)
    assert texts(opened(attach(file), "c")) == {1: b"Hello"}
    assert os.pread(file, 4096, 4096)[16:24] == os.pread(file, 4096, 4096)[16:24]
    assert attach(file).topic("c").top == 1


def test_a_record_that_cannot_be_one_ends_its_segment() -> None:
    """Whatever its checksum: it has no offset."""
    number = make_memory(71680)
    journal = attach(number)
    topic = opened(journal, "c")
    journal.append(topic, b"one")
    topic_bytes = os.pread(number, 64 + 8, 71680 - 16 * 4096 + 64)
    head = bytearray(topic_bytes[:64])
    head[56:64] = (int.from_bytes(head[56:64], "little") + 72).to_bytes(8, "little")
    head[32:40] = bytes(8)
    payload = b"one"
    head[:4] = crc32c(bytes(head[4:]) + payload).to_bytes(4, "little")
    os.pwrite(number, bytes(head) + payload, 71680 - 16 * 4096 + 64 + 72)
    assert texts(opened(attach(number), "c")) == {1: b"one"}


def crc32c(data: bytes) -> int:
    """The sum of RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_channels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "TOPICS", 2)
    journal = Journal.attach(make_memory(SMALL))
    for name in ("a", "b", "a"):
        journal.topic(name)
    with pytest.raises(JournalError, match="there are 2 channels already"):
        journal.topic("c")


def test_a_fault_that_is_not_due_changes_nothing(file: int) -> None:
    journal = attach(file)
    topic = opened(journal, "c")
    journal.fault = 1000
    journal.append(topic, b"Hello")
    assert journal.fault == 1000 - RECORD - 5
    assert texts(opened(attach(file), "c")) == {1: b"Hello"}


def test_more_channels_than_the_table_has_room_for(file: int) -> None:
    """Those that were used longest ago begin a new epoch in the next process; the present one knows better."""
    journal = attach(file)
    topics = [opened(journal, f"c{n}") for n in range(400)]
    for _ in range(2):
        for topic in topics:
            journal.append(topic, b"m")
    assert all(topic.top == 2 for topic in topics)
    again = attach(file)
    for topic in topics:
        assert texts(opened(again, topic.name or "")) == {1: b"m", 2: b"m"}


def test_memory_is_not_inheritable_and_has_one_size() -> None:
    fd = make_memory(SMALL)
    assert not os.get_inheritable(fd)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    os.close(fd)


class Model(RuleBasedStateMachine):
    """A journal beside a list of messages for each channel; at any time, it is another process's."""

    NAMES = ("a", "b", "c")

    @initialize(size=st.sampled_from([73728, SMALL]))
    def begin(self, size: int) -> None:
        self.file = make_memory(size)
        self.sent: dict[str, list[bytes]] = {name: [] for name in self.NAMES}
        self.journal = attach(self.file)
        self.topics = {name: opened(self.journal, name, 50) for name in self.NAMES}
        self.epochs = {name: topic.epoch for name, topic in self.topics.items()}
        self.last = 0
        self.sequence = 0

    @rule(name=st.sampled_from(NAMES), size=st.integers(0, 3000), fill=st.integers(0, 255), times=st.integers(1, 20))
    def publish(self, name: str, size: int, fill: int, times: int) -> None:
        for _ in range(times):
            data = bytes((fill,)) * size
            self.sequence += 1
            who = self.journal.publisher(1)
            assert self.journal.append(self.topics[name], data, 0, who, self.sequence) == len(self.sent[name]) + 1
            self.sent[name].append(data)
            self.last = self.topics[name].top

    @precondition(lambda self: self.last)
    @rule(name=st.sampled_from(NAMES))
    def repeat(self, name: str) -> None:
        self.journal.append(self.topics[name], b"again", 0, self.journal.publisher(1), self.sequence)

    @rule()
    def attach_again(self) -> None:
        del self.journal
        self.journal = attach(self.file)
        self.topics = {name: opened(self.journal, name, 50) for name in self.NAMES}

    @invariant()
    def the_newest_are_there(self) -> None:
        for name, topic in self.topics.items():
            sent = self.sent[name]
            assert (topic.epoch, topic.top) == (self.epochs[name], len(sent))
            kept = texts(topic)
            assert list(kept) == [*range(topic.first, topic.top + 1)]
            assert list(kept.values()) == sent[topic.first - 1 :]
            assert topic.size == sum(map(len, kept.values()))

    def teardown(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def check_after_damage(file: int, sent: dict[str, list[bytes]]) -> None:
    """What is left of each channel has no hole and no wrong content, and the channel goes on."""
    try:
        journal = attach(file)
    except JournalError:
        return
    for name, messages in sent.items():
        topic = opened(journal, name)
        kept = texts(topic)
        assert list(kept) == [*range(topic.first, topic.top + 1)]
        assert all(messages[offset - 1] == data for offset, data in kept.items())
        before = topic.top
        assert journal.append(topic, b"next") == before + 1
        assert texts(topic)[before + 1] == b"next"


SENT = {"a": [b"a%d" % n for n in range(12)], "b": [b"b" * n for n in range(12)]}


@pytest.fixture(scope="module")
def written() -> Iterator[tuple[int, list[int]]]:
    """A file with messages of two channels; offsets in it at which something is written."""
    fd = make_memory(73728)
    journal = attach(fd)
    for pair in zip(*SENT.values(), strict=True):
        for name, data in zip(SENT, pair, strict=True):
            journal.append(opened(journal, name), data, 0, journal.publisher(1), journal.stored + 1)
    del journal
    data = os.pread(fd, 73728, 0)
    used = [at for at in range(0, len(data), 8) if any(data[at : at + 8])]
    yield fd, used
    os.close(fd)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_any_damage_leaves_no_hole_and_no_wrong_content(written: tuple[int, list[int]], data: st.DataObject) -> None:
    file, used = written
    number = copy(file)
    try:
        for at in data.draw(st.lists(st.sampled_from(used), min_size=1, max_size=3)):
            os.pwrite(number, data.draw(st.binary(min_size=1, max_size=100)), at + data.draw(st.integers(0, 7)))
        check_after_damage(number, SENT)
    finally:
        os.close(number)


def test_an_end_that_is_cut_at_any_byte_loses_only_what_is_behind_it(
    written: tuple[int, list[int]],
) -> None:
    """As a process leaves it that is killed there: the bytes behind are those of before, zeros here."""
    file, used = written
    end = used[-1] + 8
    for cut in range(end - 2 * RECORD - 24, end + 1):
        number = damaged(file, cut, bytes(end - cut))
        whole = {name: opened(attach(file), name).top for name in SENT}
        journal = attach(number)
        for name, messages in SENT.items():
            kept = texts(opened(journal, name))
            assert len(kept) in (len(messages), len(messages) - 1, 0)
            assert opened(journal, name).top == whole[name]  # the table knows
        check_after_damage(number, SENT)
        os.close(number)


@given(garbage=st.binary(min_size=1, max_size=4096), at=st.integers(0, 73727))
@settings(max_examples=100, deadline=None)
def test_garbage_is_no_journal_or_an_empty_one(garbage: bytes, at: int) -> None:
    number = make_memory(73728)
    os.pwrite(number, garbage[: 73728 - at], at)
    with contextlib.suppress(JournalError):
        journal = attach(number)
        assert journal.topics == {}
        assert journal.append(opened(journal, "c"), b"") == 1
    os.close(number)


def publish_until_killed(file: int, fault: int, told: int) -> None:
    """In a child: go on where the last one was killed, and tell each offset that is acknowledged."""
    journal = attach(file)
    topic, who = opened(journal, "c"), journal.publisher(9)
    journal.fault = fault
    for sequence in range(1, 31):
        offset = journal.append(topic, b"message %d" % sequence, 0, who, sequence)
        os.write(told, bytes((offset,)))
    os._exit(0)


@pytest.mark.parametrize(
    ("first", "step"), [(0, 29), (7, 31), *(pytest.param(first, 8, marks=pytest.mark.slow) for first in range(8))]
)
def test_killed_at_any_byte_nothing_acknowledged_is_lost_and_nothing_is_doubled(first: int, step: int) -> None:
    """A publisher that repeats what was not acknowledged, as workers do, beside writers that are killed."""
    file = make_memory(73728)
    expected = {n: b"message %d" % n for n in range(1, 31)}
    killed = 0
    for fault in [*range(first, 330, step), -1]:
        here, there = os.pipe()
        child = os.fork()
        if not child:
            try:
                publish_until_killed(file, fault, there)
            finally:
                os._exit(1)
        os.close(there)
        acknowledged = b""
        while data := os.read(here, 100):
            acknowledged += data
        os.close(here)
        _, status = os.waitpid(child, 0)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
        killed += status != 0
        kept = texts(opened(attach(file), "c"))
        assert kept.items() <= expected.items()
        assert list(acknowledged) == [*range(1, len(acknowledged) + 1)]
        assert {*acknowledged} <= kept.keys()
        assert list(kept) == [*range(1, len(kept) + 1)]
    assert killed > 2
    assert kept == expected
    os.close(file)
