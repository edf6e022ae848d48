"""What a peer may claim: sizes, numbers of fragments, memory, and frames that wait (max_queue)."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.recorder import (
    BINARY,
    CONT,
    MASK,
    PING,
    TEXT,
    Recorder,
    binary,
    control,
    more,
    text,
)
from tests.rawclient import frame
from tidegate._core.wire import build_header
from tidegate.closing import FAILURES
from tidegate.frames import CloseCode
from tidegate.protocol import State

# How large a message may be


@pytest.mark.parametrize(
    ("limits", "frames", "sizes"),
    [
        ({"max_size": 10}, [binary(b"x" * 11)], (11, 10, 0)),
        ({"max_size": 0}, [binary(b"x")], (1, 0, 0)),
        ({"max_size": 10}, [binary(b"x" * 6, fin=False), more(b"x" * 5)], (5, 4, 6)),
        ({"max_size": 10}, [binary(b"x" * 10, fin=False), more(b"", fin=False), more(b"x")], (1, 0, 10)),
        ({"max_size": 10, "max_fragment": 5}, [binary(b"x" * 6)], (6, 5, 0)),
        ({"max_size": 10, "max_fragment": 5}, [binary(b"x" * 5, fin=False), more(b"x" * 6)], (6, 5, 5)),
        ({"max_size": 6, "max_fragment": 5}, [binary(b"x" * 5, fin=False), more(b"xx")], (2, 1, 5)),
        ({"max_size": None, "max_fragment": 5}, [binary(b"x" * 5, fin=False), more(b"x" * 6)], (6, 5, 5)),
    ],
)
def test_too_big(limits: dict[str, int | None], frames: list[bytes], sizes: tuple[int, int, int]) -> None:
    channel = Recorder(**limits)  # type: ignore[arg-type]
    *before, last = frames
    channel.feed(*before)
    assert not channel.failures
    channel.feed(last[:6])  # its header is enough
    assert channel.failures == [(7, sizes)]
    assert FAILURES[7][0] == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize(
    ("limits", "wire"),
    [
        ({"max_size": 10}, binary(b"x" * 10)),
        ({"max_size": 0}, binary(b"")),
        ({"max_size": 10}, binary(b"x" * 6, fin=False) + control(PING, b"y" * 100) + more(b"x" * 4)),
        ({"max_size": 10, "max_fragment": 5}, binary(b"x" * 5, fin=False) + more(b"x" * 5)),
        ({"max_size": None}, binary(b"x" * 2**21)),
        ({"max_size": None, "max_fragment": 5}, binary(b"x" * 5, fin=False) + more(b"x" * 5, fin=False) + more(b"x")),
    ],
)
def test_as_big_as_allowed(limits: dict[str, int | None], wire: bytes) -> None:
    channel = Recorder(**limits)  # type: ignore[arg-type]
    channel.feed(wire * 2)
    assert not channel.failures
    assert len(channel.take_all()) == 2


@pytest.mark.parametrize("length", [2**63, 2**63 + 1, 2**64 - 1])
@pytest.mark.parametrize("max_size", [None, 2**20])
def test_a_length_that_no_frame_may_have(length: int, max_size: int | None) -> None:
    """The most significant bit of the length must be 0 (RFC 6455 5.2)."""
    channel = Recorder(max_size=max_size)
    channel.feed(struct.pack("!BBQ", 0x82, 0xFF, length) + MASK)
    assert len(channel.failures) == 1
    channel = Recorder(max_size=max_size)
    channel.feed(text("a", fin=False), struct.pack("!BBQ", 0x80, 0xFF, length) + MASK)
    assert len(channel.failures) == 1


def test_a_huge_length_claims_no_memory() -> None:
    tracemalloc.start()
    try:
        channel = Recorder(max_size=None)
        channel.feed(build_header(0x82, 2**62, MASK) + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_64_mib_in_reads_of_a_kib(opcode: int) -> None:
    """Linear in time, and in memory about twice its size at most, when the last piece is moved and decoded."""
    size = 1 << 26
    chunk = bytes(range(97, 113)) * 64
    masked = frame(chunk, mask=MASK)[8:]
    channel = Recorder(max_size=None)
    tracemalloc.start()
    try:
        channel.feed(build_header(0x80 | opcode, size, MASK))
        for _ in range(size // 1024):
            channel.data_received(masked)
        assert tracemalloc.get_traced_memory()[1] < 1.6 * size
        message = channel.take(False)
        del channel
        assert tracemalloc.get_traced_memory()[1] < 2.1 * size
    finally:
        tracemalloc.stop()
    assert len(message) == size
    assert message[:1024] == message[-1024:] == chunk


def test_the_bytes_of_a_large_message_are_moved_a_few_times_only() -> None:
    """Linear in time, by what it does and not by a clock: the address of the payload changes as often as it doubles."""
    size = 1 << 24
    channel = Recorder(max_size=None)
    channel.feed(build_header(0x82, size, MASK))
    moves, last = 0, None
    tracemalloc.start()
    try:
        for _ in range(size // 4096):
            channel.data_received(bytes(4096))
            now = tracemalloc.get_traced_memory()[0] >> 16
            moves += now != last
            last = now
    finally:
        tracemalloc.stop()
    assert moves < 20
    assert len(channel.take()) == size


# How many frames a message may have


def test_too_many_fragments() -> None:
    channel = Recorder(high=None, low=None)
    channel.feed(text("a", fin=False) + more(b"", fin=False) * 4094)
    assert not channel.failures
    channel.feed(more(b"", fin=False))
    ((what, limit),) = channel.failures
    code, explain = FAILURES[what]
    assert code == CloseCode.MESSAGE_TOO_BIG
    assert str(explain(limit)) == "fragmented message exceeds limit of 4096 frames"


def test_fragments_that_are_taken_do_not_count() -> None:
    channel = Recorder()
    channel.feed(text("a", fin=False))
    for _ in range(1000):
        channel.feed(more(b"b", fin=False) * 10)
        channel.take_frames()
    assert not channel.failures


# Read flow control (max_queue)


def test_reading_pauses_above_high_and_resumes_at_low() -> None:
    channel = Recorder(high=4, low=1)
    transport = channel.transport_
    channel.feed(text("0") * 4)
    assert transport.calls == []
    channel.feed(text("4"))
    assert transport.calls == ["pause"]
    channel.feed(text("5"))  # what was on its way
    assert transport.calls == ["pause"]
    for _ in range(4):
        channel.take()
    assert transport.calls == ["pause"]
    channel.take()
    assert transport.calls == ["pause", "resume"]
    channel.take()
    channel.feed(text("0") * 5)
    assert transport.calls == ["pause", "resume", "pause"]


def test_max_queue_none_never_pauses() -> None:
    channel = Recorder(high=None, low=None)
    channel.feed(text("x") * 10_000)
    assert channel.transport_.calls == []
    assert len(channel.take_all()) == 10_000


def test_max_queue_zero_holds_one_message() -> None:
    channel = Recorder(high=0, low=0)
    channel.feed(text("a"))
    assert channel.transport_.calls == ["pause"]
    assert channel.take() == "a"
    assert channel.transport_.calls == ["pause", "resume"]


def test_a_message_of_more_frames_than_fit_is_received() -> None:
    """Else its reader would wait for frames that are not read."""
    channel = Recorder(high=4, low=1)
    channel.feed(text("a", fin=False) + more(b"a", fin=False) * 9)
    assert channel.transport_.calls == ["pause"]
    awaitable = channel.recv()
    awaitable.send(None)
    assert channel.transport_.calls == ["pause", "resume"]
    channel.feed(more(b"a", fin=False) * 9)
    assert channel.transport_.calls == ["pause", "resume"]  # while somebody waits
    awaitable.close()
    channel.feed(more(b"a", fin=False))
    assert channel.transport_.calls == ["pause", "resume", "pause"]
    assert channel.take_all() == []
    channel.feed(more(b"!"))
    assert channel.take_all() == ["a" * 20 + "!"]


def test_discarding_resumes_reading_so_that_the_end_is_seen() -> None:
    channel = Recorder(high=1, low=0)
    channel.feed(text("x") * 3)
    channel._discard()
    assert channel.transport_.calls == ["pause", "resume"]
    channel.feed(text("y"))
    assert channel.take_all() == ["x"] * 3


def test_nothing_is_asked_of_a_transport_that_is_gone() -> None:
    channel = Recorder(high=1, low=0)
    channel.feed(text("x") * 3)
    channel.lose()
    assert channel.take_all() == ["x"] * 3
    assert channel.transport_.calls == ["pause"]


def test_while_closing_what_nobody_takes_is_dropped() -> None:
    """Reading goes on to the peer's close frame, and memory stays bounded; what is kept has no gaps."""
    channel = Recorder(high=4, low=1)
    channel._state = State.CLOSING
    sent = [str(i) for i in range(10)]
    for message in sent:
        channel.feed(text(message))
    assert channel.transport_.calls == []
    kept = channel.take_all()
    assert kept == sent[: len(kept)]
    assert 4 <= len(kept) <= 5


def test_while_closing_no_half_message_is_kept() -> None:
    channel = Recorder(high=2, low=1)
    channel._state = State.CLOSING
    channel.feed(text("0") * 2 + text("a", fin=False) + more(b"b", fin=False))
    assert channel.take_all() == ["0", "0"]
    channel.feed(more(b"c"))  # its beginning was dropped, or all of it is there
    assert channel.take_all() in ([], ["abc"])
    channel.feed(text("next"))
    assert channel.take_all() in ([], ["next"])


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 4), max_size=60),
    st.sampled_from([0, 1, 2, 5]),
)
def test_while_closing_messages_are_whole(fragments: list[int], takes: list[int], high: int) -> None:
    channel = Recorder(high=high, low=0)
    channel._state = State.CLOSING
    wire: list[bytes] = []
    expected = []
    for i, count in enumerate(fragments):
        parts = [f"{i}.{part};" for part in range(count)]
        expected.append("".join(parts))
        for part, payload in enumerate(parts):
            wire.append(
                frame(payload.encode(), CONT if part else TEXT, mask=MASK, fin=part == count - 1),
            )
    got: list[Any] = []
    for piece, take in itertools.zip_longest(wire, takes, fillvalue=None):
        if piece is not None:
            channel.feed(piece)
        for _ in range(take or 0):
            awaitable = channel.recv()
            try:
                awaitable.send(None)
            except StopIteration as stop:
                got.append(stop.value)
            else:
                awaitable.close()
    got += channel.take_all()
    assert got == expected[: len(got)]


def test_the_queue_wraps_and_grows() -> None:
    channel = Recorder(high=None, low=None)
    sent, taken = 0, 0
    for burst in (1, 3, 2, 7, 40, 5, 200, 1, 90):
        for _ in range(burst):
            channel.feed(text(str(sent)))
            sent += 1
        for _ in range(burst // 2):
            assert channel.take() == str(taken)
            taken += 1
    assert channel.take_all() == [str(i) for i in range(taken, sent)]
    channel.feed(text("small again"))
    assert channel.take_all() == ["small again"]
