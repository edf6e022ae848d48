"""What a peer may claim: sizes, and the memory that they take (frames that wait: test_inbox.py)."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from tests.core.recorder import MASK, Recorder, binary, control, more, text
from tests.support.wire import BINARY, PING, TEXT, frame, header
from tidegate.closing import FAILURES
from tidegate.frames import CloseCode

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
        channel.feed(header(0x82, 2**62, MASK) + b"x" * 1000)
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
        channel.feed(header(0x80 | opcode, size, MASK))
        for _ in range(size // 1024):
            channel.data_received(masked)
            channel.turn()
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
    channel.feed(header(0x82, size, MASK))
    moves, last = 0, None
    tracemalloc.start()
    try:
        for _ in range(size // 4096):
            channel.data_received(bytes(4096))
            channel.turn()
            now = tracemalloc.get_traced_memory()[0] >> 16
            moves += now != last
            last = now
    finally:
        tracemalloc.stop()
    assert moves < 20
    assert len(channel.take()) == size
