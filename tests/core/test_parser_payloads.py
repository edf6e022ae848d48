"""Memory of large payloads is used again, and never while anybody has it.

What must not live here: payloads themselves (test_channel, test_stream_channel).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.recorder import Recorder, binary, text

LARGE = 1 << 17
LARGEST = 1 << 20


def receive(channel: Recorder, payload: bytes, make: Any = binary) -> Any:
    """The message, which comes in two reads."""
    data = make(payload)
    channel.feed(data[:100], data[100:])
    return channel.take()


@pytest.fixture
def channel() -> Recorder:
    """With nothing to be used again: what is there belongs to messages of a size that is not used here."""
    channel = Recorder(max_size=None)
    kept = [receive(channel, bytes(LARGEST)) for _ in range(8)]
    del kept
    return channel


def test_the_next_of_the_size_has_the_same_memory(channel: Recorder) -> None:
    first = receive(channel, b"a" * LARGE)
    place, hashed = id(first), hash(first)
    del first
    second = receive(channel, b"b" * LARGE)
    assert id(second) == place
    assert second == b"b" * LARGE
    assert hash(second) == hash(b"b" * LARGE) != hashed


def test_it_may_be_shorter_and_grow_again(channel: Recorder) -> None:
    first = receive(channel, b"a" * 3 * LARGE)
    place = id(first)
    del first
    second = receive(channel, b"b" * 2 * LARGE)
    assert (id(second), second) == (place, b"b" * 2 * LARGE)
    del second
    third = receive(channel, b"c" * 3 * LARGE)
    assert (id(third), third) == (place, b"c" * 3 * LARGE)
    del third
    assert id(receive(channel, b"d" * LARGE)) != place  # which would waste more than half


@pytest.mark.parametrize("keep", [lambda message: message, memoryview, lambda message: [message]])
def test_what_somebody_has_stays_as_it_is(channel: Recorder, keep: Any) -> None:
    first = keep(receive(channel, b"a" * LARGE))
    others = [receive(channel, b"%c" % (98 + i) * LARGE) for i in range(20)]
    assert bytes(first if isinstance(first, (bytes, memoryview)) else first[0]) == b"a" * LARGE
    assert others == [b"%c" % (98 + i) * LARGE for i in range(20)]


def test_payloads_of_texts(channel: Recorder) -> None:
    for letter in "aä":
        message = letter * LARGE
        assert receive(channel, message.encode(), lambda payload: text(payload.decode())) == message


def test_larger_ones(channel: Recorder) -> None:
    """They are allocated as they arrive, and not kept."""
    for letter in b"ab":
        assert receive(channel, bytes([letter]) * (LARGEST + 1)) == bytes([letter]) * (LARGEST + 1)
        assert receive(channel, bytes([letter]) * LARGEST) == bytes([letter]) * LARGEST


def test_one_that_is_given_up_is_gone(channel: Recorder) -> None:
    channel.feed(binary(b"x" * LARGE)[:1000])
    channel.lose()
    del channel
    assert receive(Recorder(max_size=None), b"y" * LARGE) == b"y" * LARGE
