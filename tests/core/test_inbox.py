"""Frames that wait: how many, in how much memory, and when the parser goes on.

What must not live here: limits of one message that its header shows (test_channel_limits.py).
"""

from __future__ import annotations

import itertools
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.recorder import MASK, Recorder, binary, control, more, text
from tests.support.wire import CONT, PING, TEXT, frame
from tidegate._core.deflate import Deflate
from tidegate.closing import FAILURES
from tidegate.frames import CloseCode
from tidegate.protocol import State

# How many frames a message may have


def pieces_of(channel: Recorder) -> list[bytes]:
    """The frames that wait, joined or not."""
    return [payload for payload, _, _ in channel.take_frames()]


@pytest.mark.parametrize("high", [16, None])
def test_any_number_of_small_fragments_is_one_message(high: int | None) -> None:
    channel = Recorder(high=high, low=None if high is None else 4)
    awaitable = channel.recv()
    awaitable.send(None)
    channel.feed(text("a", fin=False))
    for _ in range(100):
        channel.feed((more(b"b", fin=False) + more(b"", fin=False)) * 1000)
    channel.feed(more("é".encode()))
    channel.turn()
    assert not channel.failures
    awaitable.close()
    assert channel.take_all() == ["a" + "b" * 100_000 + "é"]


def test_small_fragments_take_little_more_than_their_size() -> None:
    channel = Recorder()
    awaitable = channel.recv()
    awaitable.send(None)
    channel.feed(binary(b"a" * 20, fin=False) * 1)
    many = more(b"b", fin=False) * 2**16
    tracemalloc.start()
    try:
        for _ in range(8):
            channel.data_received(many)
            channel.turn()
        assert tracemalloc.get_traced_memory()[0] < 2**19 + 2**16
    finally:
        tracemalloc.stop()
    awaitable.close()


def test_the_size_of_a_message_bounds_its_fragments() -> None:
    channel = Recorder(max_size=1000)
    awaitable = channel.recv()
    awaitable.send(None)
    channel.feed(binary(b"a", fin=False) + more(b"b", fin=False) * 999)
    assert not channel.failures
    channel.feed(more(b"c", fin=False))
    assert channel.failures == [(7, (1, 0, 1000))]
    awaitable.close()


def test_the_first_fragments_are_given_as_they_came() -> None:
    channel = Recorder(high=None, low=None)
    channel.feed(binary(b"0", fin=False) + more(b"1", fin=False) * 15 + more(b"2", fin=False) * 7 + more(b"3"))
    assert pieces_of(channel) == [b"0", *[b"1"] * 15, b"2" * 7, b"3"]


def test_fragments_are_joined_up_to_16_kib_and_large_ones_are_not() -> None:
    channel = Recorder(high=None, low=None)
    head = binary(b"0", fin=False) + more(b"1", fin=False) * 15
    channel.feed(head + more(b"2" * 4096, fin=False) * 5 + more(b"3" * 4097, fin=False) + more(b"4", fin=False) * 2)
    assert pieces_of(channel)[16:] == [b"2" * 4096 * 4, b"2" * 4096, b"3" * 4097, b"44"]
    channel.feed(more(b"5", fin=False) + more(b"6"))
    assert pieces_of(channel) == [b"5", b"6"]


def test_invalid_text_in_joined_fragments_is_told_with_its_place() -> None:
    channel = Recorder(high=None, low=None)
    channel.feed(text("a", fin=False) + more(b"b", fin=False) * 30 + more(b"\xff"))
    ((what, detail),) = channel.failures
    assert FAILURES[what][0] == CloseCode.INVALID_DATA
    assert detail == b"a" + b"b" * 30 + b"\xff"


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
    channel.turn()
    assert transport.calls == ["pause"]
    for _ in range(2):
        channel.take()
        channel.turn()
        assert transport.calls == ["pause"]
    channel.take()
    channel.turn()
    assert transport.calls == ["pause", "resume"]
    assert channel.take_all() == ["0", "4", "5"]
    channel.feed(text("0") * 5)
    assert transport.calls == ["pause", "resume", "pause"]


def test_parsing_stops_at_high_whatever_one_read_has() -> None:
    """What waits is `max_queue` messages, and the rest of a read as it came."""
    channel = Recorder(high=4, low=1)
    compressed = zlib.compress(bytes(2**20), 9, -15)
    channel._use_deflate(Deflate(True, True, 15, 15))
    tracemalloc.start()
    try:
        channel.feed(binary(compressed, rsv=4) * 100)
        channel.turn()
        assert 4 * 2**20 <= tracemalloc.get_traced_memory()[0] < 5 * 2**20
    finally:
        tracemalloc.stop()
    assert channel.take_all() == [bytes(2**20)] * 100


def test_pings_are_answered_while_messages_have_no_room() -> None:
    channel = Recorder(high=2, low=0)
    channel.feed(text("x") * 2 + control(PING, b"1"))
    assert channel.controls == [(PING, b"1")]
    channel.feed(text("x") + control(PING, b"2"))
    assert channel.controls == [(PING, b"1")]  # it is behind a message that waits
    assert channel.take_all() == ["x"] * 3
    assert channel.controls == [(PING, b"1"), (PING, b"2")]


@pytest.mark.parametrize("place", range(1, 7))
def test_a_header_in_pieces_waits_for_room(place: int) -> None:
    channel = Recorder(high=1, low=0)
    wire = text("second")
    channel.feed(text("first") + wire[:place])
    channel.feed(wire[place:])
    channel.turn()
    assert channel.transport_.calls == ["pause"]
    assert channel.take_all() == ["first", "second"]
    assert channel.transport_.calls == ["pause", "resume"]


def test_max_queue_none_never_pauses() -> None:
    channel = Recorder(high=None, low=None)
    channel.feed(text("x") * 10_000)
    channel.turn()
    assert len(channel.take_all()) == 10_000
    assert channel.transport_.calls in ([], ["pause", "resume"])  # the turn's budget may end


def test_max_queue_zero_holds_one_message() -> None:
    channel = Recorder(high=0, low=0)
    channel.feed(text("a"))
    assert channel.transport_.calls == []
    channel.feed(text("b"))
    assert channel.transport_.calls == ["pause"]
    assert channel.take() == "a"
    channel.turn()
    assert channel.transport_.calls == ["pause", "resume"]
    assert channel.take() == "b"


def test_a_message_of_more_frames_than_fit_is_received() -> None:
    """Else its reader would wait for frames that are not read."""
    channel = Recorder(high=4, low=1)
    channel.feed(text("a", fin=False) + more(b"a", fin=False) * 9)
    assert channel.transport_.calls == ["pause"]
    awaitable = channel.recv()
    awaitable.send(None)
    channel.turn()
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
    assert channel.take_all() == ["x"]


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
