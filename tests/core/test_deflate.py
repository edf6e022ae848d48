"""Compressed messages against zlib itself: contexts, windows, fragments, limits, final blocks, and the memory it takes.

What must not live here: negotiation and frames (tests/extensions/test_permessage_deflate.py).
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate._core.deflate import Deflate, TooLong, ZlibError

EMPTY_BLOCK = b"\x00\x00\xff\xff"
MIB = 1 << 20
ZEROS = 64 * MIB

# Text that compresses, bytes that do not, and nothing.
MESSAGES = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda text, times: text.encode() * times, st.text(max_size=20), st.integers(1, 400)),
)


class ZlibPeer:
    """The other side, made of zlib alone, as RFC 7692 7.2 has it."""

    def __init__(self, bits: int = 15, takeover: bool = True, **settings: int) -> None:
        self.bits, self.takeover, self.settings = bits, takeover, settings
        self.restart()

    def restart(self) -> None:
        self.decompressor = zlib.decompressobj(wbits=-self.bits)
        self.compressor = zlib.compressobj(wbits=-max(9, self.bits), **self.settings)

    def read(self, data: bytes) -> bytes:
        if not self.takeover:
            self.restart()
        out = self.decompressor.decompress(data + EMPTY_BLOCK)
        assert self.decompressor.unconsumed_tail == self.decompressor.unused_data == b""
        return out

    def write(self, data: bytes) -> bytes:
        if not self.takeover:
            self.restart()
        out = self.compressor.compress(data) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        assert out.endswith(EMPTY_BLOCK)
        return out[:-4]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut in one place more than there are cuts."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def bomb(size: int) -> bytes:
    """A message of so many zeros, a thousandth of it long."""
    return ZlibPeer(level=9).write(bytes(size))


def final(data: bytes) -> bytes:
    """A message in one final block, padded as RFC 7692 7.2.3.4 has it."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush() + b"\x00"


@contextmanager
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


# Messages


@given(
    st.lists(st.tuples(MESSAGES, st.lists(st.integers(0, 10_000), max_size=3)), max_size=6),
    st.booleans(),
    st.integers(9, 15),
    st.integers(1, 9),
)
@example([(b"", []), (b"", []), (b"a", [0, 1])], False, 15, 8)
def test_what_is_compressed_zlib_decompresses(
    messages: list[tuple[bytes, list[int]]], no_takeover: bool, bits: int, level: int
) -> None:
    deflate = Deflate(False, no_takeover, 15, bits, {"memLevel": level})
    peer = ZlibPeer(bits, not no_takeover)
    for message, cuts in messages:
        *first, last = pieces(message, cuts)
        data = b"".join([deflate.compress(piece, False) for piece in first])
        assert deflate.out_message == bool(first)
        data += deflate.compress(last)
        assert not deflate.out_message
        assert peer.read(data) == message


@given(
    st.lists(st.tuples(MESSAGES, st.lists(st.integers(0, 10_000), max_size=3)), max_size=6),
    st.booleans(),
    st.integers(9, 15),
)
def test_what_zlib_compresses_is_decompressed(
    messages: list[tuple[bytes, list[int]]], no_takeover: bool, bits: int
) -> None:
    deflate = Deflate(no_takeover, False, bits, 15)
    peer = ZlibPeer(bits, not no_takeover)
    for message, cuts in messages:
        *first, last = pieces(peer.write(message), cuts)
        out = b"".join([deflate.decompress(piece, False, -1) for piece in first])
        assert deflate.in_message == bool(first)
        out += deflate.decompress(last, True, len(message) - len(out))
        assert not deflate.in_message
        assert out == message


@given(st.lists(st.binary(max_size=250), max_size=5))
def test_the_smallest_window_is_decompressed(messages: list[bytes]) -> None:
    """zlib cannot compress with 256 bytes; what is shorter looks the same."""
    deflate = Deflate(True, True, 8, 9)
    peer = ZlibPeer(9, takeover=False)
    for message in messages:
        assert deflate.decompress(peer.write(message), True, 250) == message


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_bytes_will_do(make: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    deflate = Deflate(False, False, 15, 15)
    data = deflate.compress(make(b"tide"))
    assert type(data) is bytes
    out = deflate.decompress(make(data), True, 4)
    assert out == b"tide"
    assert type(out) is bytes


def test_an_empty_message_is_one_byte() -> None:
    """RFC 7692 7.2.3.6, however often."""
    deflate = Deflate(False, False, 15, 15)
    assert [deflate.compress(b"") for _ in range(3)] == [b"\x00"] * 3
    assert [deflate.decompress(b"\x00", True, 0) for _ in range(3)] == [b""] * 3


@pytest.mark.parametrize(
    "data",
    [
        "f248cdc9c90700",  # 7.2.3.1, one block
        "000500faff48656c6c6f00",  # 7.2.3.3, no compression
        "f348cdc9c9070000",  # 7.2.3.4, a final block
        "f248050000 00ffffcac9c90700",  # 7.2.3.5, two blocks
    ],
)
def test_examples_of_the_rfc(data: str) -> None:
    deflate = Deflate(False, False, 15, 15)
    for _ in range(3):
        assert deflate.decompress(bytes.fromhex(data), True, 5) == b"Hello"


# Letting go


@given(st.lists(st.one_of(st.none(), MESSAGES, st.lists(MESSAGES, min_size=1, max_size=3)), max_size=12), st.booleans())
def test_releasing_is_not_noticed_by_the_peer(steps: list[bytes | list[bytes] | None], no_takeover: bool) -> None:
    """None releases; a list is sent in fragments, between which nothing is released."""
    deflate = Deflate(False, no_takeover, 15, 12)
    peer = ZlibPeer(12)  # which goes on with its context in any case
    for step in steps:
        if step is None:
            deflate.release()
        elif isinstance(step, bytes):
            assert peer.read(deflate.compress(step)) == step
        else:
            data = b""
            for index, piece in enumerate(step):
                data += deflate.compress(piece, index == len(step) - 1)
                deflate.release()
            assert peer.read(data) == b"".join(step)


def test_windows_are_made_when_needed_and_let_go() -> None:
    data = ZlibPeer().write(b"tide" * 100)
    with traced():
        before = tracemalloc.get_traced_memory()[0]

        def taken() -> int:
            return tracemalloc.get_traced_memory()[0] - before

        deflate = Deflate(False, False, 15, 12, {"memLevel": 5})
        assert taken() < 1000
        deflate.compress(b"tide" * 100)
        assert taken() > 30_000
        deflate.release()
        assert taken() < 1000
        deflate.decompress(data, True, 1000)
        assert taken() > 30_000


def test_an_idle_compressor_is_let_go() -> None:
    """Not at the first look, when something was sent since the last, but at the second."""
    deflate, peer = Deflate(False, False, 15, 15), ZlibPeer()
    message = Random(1).randbytes(70_000)  # more than zlib keeps to itself until it is flushed
    assert peer.read(deflate.compress(message)) == message
    with_context = len(deflate.compress(message))
    assert with_context > 60_000  # beyond its window
    small = b"a text that is sent twice " * 3
    first = deflate.compress(small)
    peer.read(deflate.compress(b""))
    deflate.rest()
    assert len(deflate.compress(small)) < len(first)
    deflate.rest()
    deflate.rest()
    assert len(deflate.compress(small)) >= len(first)


def test_without_takeover_nothing_is_kept() -> None:
    data = ZlibPeer().write(b"tide" * 100)
    with traced():
        before = tracemalloc.get_traced_memory()[0]
        deflate = Deflate(True, True, 15, 15)
        deflate.compress(b"tide" * 100)
        deflate.decompress(data, True, 1000)
        assert tracemalloc.get_traced_memory()[0] - before < 1000


# Limits


@pytest.mark.parametrize("size", [0, 1, 100, 32 * 1024, 32 * 1024 + 1, MIB])
def test_a_limit_is_kept_to_the_byte(size: int) -> None:
    data = ZlibPeer().write(bytes(size))
    for limit in (size, size + 1, sys.maxsize, -1):
        assert len(Deflate(False, False, 15, 15).decompress(data, True, limit)) == size
    if size:
        with pytest.raises(TooLong):
            Deflate(False, False, 15, 15).decompress(data, True, size - 1)


@pytest.mark.parametrize("limit", [0, 1000, MIB])
@pytest.mark.parametrize("fin", [True, False])
def test_a_bomb_is_not_inflated(limit: int, fin: bool) -> None:
    data = bomb(ZEROS)
    assert len(data) * 1000 < ZEROS
    deflate = Deflate(False, False, 15, 15)
    with traced():
        with pytest.raises(TooLong) as caught:
            deflate.decompress(data, fin, limit)
        assert tracemalloc.get_traced_memory()[1] < 2 * limit + 4 * len(data) + 200_000
    assert caught.value.args == (limit + 1,)


def test_a_bomb_behind_final_blocks_is_not_inflated() -> None:
    data = final(bytes(MIB))[:-1] * 8 + bomb(ZEROS)
    with traced():
        with pytest.raises(TooLong):
            Deflate(False, False, 15, 15).decompress(data, True, 9 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB


# Final blocks


@given(st.lists(st.tuples(MESSAGES, st.booleans()), max_size=6), st.booleans())
def test_messages_of_final_blocks(messages: list[tuple[bytes, bool]], no_takeover: bool) -> None:
    """A peer may end its stream with any message; then it begins anew (RFC 7692 7.2.3.4)."""
    deflate = Deflate(no_takeover, False, 15, 15)
    peer = ZlibPeer(takeover=not no_takeover)
    for message, ends in messages:
        if ends:
            peer.restart()
        data = final(message) if ends else peer.write(message)
        assert deflate.decompress(data, True, len(message)) == message


@given(st.lists(MESSAGES, min_size=1, max_size=10), MESSAGES)
def test_blocks_after_a_final_one(streams: list[bytes], last: bytes) -> None:
    """RFC 7692 7.2.1: the next block follows, in the same message."""
    deflate = Deflate(False, False, 15, 15)
    message = b"".join(streams) + last
    data = b"".join([final(stream)[:-1] for stream in streams]) + ZlibPeer().write(last)
    for _ in range(2):
        assert deflate.decompress(data, True, len(message)) == message
    with pytest.raises(TooLong):
        deflate.decompress(data + EMPTY_BLOCK + final(b"one more"), True, len(message))


def test_a_final_block_without_its_padding() -> None:
    """Not what the RFC asks for; it can be understood all the same."""
    deflate = Deflate(False, False, 15, 15)
    for message in (b"one", b"two"):
        assert deflate.decompress(final(message)[:-1], True, 3) == message


def test_a_final_block_ends_a_fragment() -> None:
    deflate = Deflate(False, False, 15, 15)
    assert deflate.decompress(final(b"one")[:-1], False, 9) == b"one"
    assert deflate.in_message
    assert deflate.decompress(final(b"two")[:-1], False, 9) == b"two"
    assert deflate.decompress(b"\x00", True, 9) == b""
    assert deflate.decompress(ZlibPeer().write(b"three"), True, 9) == b"three"


def test_too_many_final_blocks() -> None:
    """Each of which costs more than its two bytes."""
    block = final(b"")[:-1]
    assert len(block) == 2
    assert Deflate(False, False, 15, 15).decompress(block * 16 + b"\x00", True, 0) == b""
    with pytest.raises(ZlibError, match="more than 16 final blocks in a frame"):
        Deflate(False, False, 15, 15).decompress(block * 500_000, True, MIB)


# What is no compressed message


@pytest.mark.parametrize(
    ("data", "fin"),
    [
        (b"\xff\xff\xff", True),  # there is no such type of block
        (b"\x06", False),
        (b"\x00\x05\x00\xfa\xfe" + b"Hello", True),  # a length and its complement that do not fit
        (ZlibPeer().write(b"tide" * 100)[5:], True),  # from before its first message
    ],
)
def test_bad_streams(data: bytes, fin: bool) -> None:
    with pytest.raises(ZlibError):
        Deflate(False, False, 15, 15).decompress(data, fin, 10_000)


PARTS: list[list[bytes]] = [
    [b""],
    [b"", b""],
    [EMPTY_BLOCK[:0], b"", b""],
    [b"\0" + EMPTY_BLOCK],
    [b"", b"\0" + EMPTY_BLOCK],
]


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("parts", PARTS)
def test_empty_messages_of_lenient_peers(parts: list[bytes], takeover: bool) -> None:
    """Some send nothing at all for an empty message, or the empty block that ought to be left out."""
    peer, deflate = ZlibPeer(takeover=takeover), Deflate(not takeover, False, 15, 15)
    assert deflate.decompress(peer.write(b"Hello"), True, 100) == b"Hello"
    for _ in range(3):
        assert [deflate.decompress(part, part is parts[-1], 0) for part in parts[:-1]] == [b""] * (len(parts) - 1)
        assert deflate.decompress(parts[-1], True, 0) == b""
        assert not deflate.in_message
        assert deflate.decompress(peer.write(b"Hello"), True, 100) == b"Hello"


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.booleans())
def test_peers_that_do_not_leave_the_empty_block_out(messages: list[bytes], takeover: bool) -> None:
    peer, deflate = ZlibPeer(takeover=takeover), Deflate(not takeover, False, 15, 15)
    for message in messages:
        assert deflate.decompress(peer.write(message) + EMPTY_BLOCK, True, -1) == message


def test_a_distance_beyond_the_window() -> None:
    """Whoever compresses with more than was agreed is told so, if it matters."""
    noise = Random(0).randbytes(3000)
    peer = ZlibPeer(15)
    first, second = peer.write(noise), peer.write(noise)
    enough, small = Deflate(False, False, 12, 15), Deflate(False, False, 9, 15)
    assert enough.decompress(first, True, 3000) == small.decompress(first, True, 3000) == noise
    assert enough.decompress(second, True, 3000) == noise
    with pytest.raises(ZlibError):
        small.decompress(second, True, 3000)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_well(data: bytes, fin: bool) -> None:
    deflate = Deflate(False, False, 15, 15)
    try:
        assert len(deflate.decompress(data, fin, 1000)) <= 1000
    except (ZlibError, TooLong):
        pass


def test_settings_are_zlibs() -> None:
    with pytest.raises(TypeError):
        Deflate(False, False, 15, 15, {"no_such_setting": 1}).compress(b"")
