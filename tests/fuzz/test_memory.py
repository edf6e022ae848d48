"""However a peer puts it, a connection holds no more than its limits allow and what the peer really sent.

What must not live here: single cases of limits (tests/core/test_channel_limits), and what is received (test_receiving).
"""

from __future__ import annotations

import gc
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.model import Deflating
from tests.fuzz.subject import Subject
from tests.fuzz.wires import KEYS, examples
from tests.support.wire import frame

KIB, MIB = 1 << 10, 1 << 20
TRUSTED = MIB  # what a header alone makes the channel allocate, at most
OVERHEAD = 128 * KIB  # of a subject, its models, and whatever the interpreter puts aside


pytestmark = pytest.mark.usefixtures("few_objects")


@contextmanager
def at_most(size: Callable[[], int]) -> Iterator[None]:
    """No more than so many bytes are held at any moment."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak <= size() + OVERHEAD, f"{peak} bytes were held"
    finally:
        tracemalloc.stop()


@examples(60)
@given(
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 2**64 - 1) | st.integers(0, 1 << 22),
    st.lists(st.integers(0, 3000), max_size=20),
    st.none() | st.integers(0, 1 << 21),
    KEYS,
)
def test_a_length_is_not_believed(
    opcode: int, compressed: bool, length: int, sizes: list[int], limit: int | None, key: bytes
) -> None:
    subject = Subject(receiving=Deflating(), sending=Deflating(), max_size=limit)
    head = bytes([0xC0 | opcode if compressed else 0x80 | opcode, 0xFF]) + length.to_bytes(8, "big") + key
    chunks = [head, *(bytes(size) for size in sizes)]
    with at_most(lambda: min(TRUSTED, length if limit is None else min(limit, length)) + 8 * sum(sizes)):
        for chunk in chunks:
            subject.connection.data_received(chunk)
    subject.lose()


@examples(40)
@given(
    st.lists(st.integers(0, 8 * MIB), min_size=1, max_size=4),
    st.integers(0, 256 * KIB),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_is_compressed_is_not_believed(
    sizes: list[int], limit: int, of_fragments: bool, takeover: bool, text: bool
) -> None:
    """A message of many MiB in a few KiB is not made where the limit is lower, and then nothing of it is kept."""
    compressor = zlib.compressobj(wbits=-15)
    wire, fits = b"", True  # each payload, as it is compressed, into what is left of the limit
    for i, size in enumerate(sizes):
        data = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        fin = i == len(sizes) - 1
        payload = data[:-4] if fin else data
        wire += frame(payload, 0 if i else 2 - text, fin=fin, rsv=0 if i else 4)
        fits = fits and len(payload) <= limit - (0 if of_fragments else sum(sizes[:i]))
    limits = {"max_fragment": limit} if of_fragments else {"max_size": limit}
    subject = Subject(receiving=Deflating(takeover), sending=Deflating(), **limits)
    fragments = len(sizes) if of_fragments else 1
    # The output is made in pieces that are then joined, and the decompressor has a window.
    with at_most(lambda: (fragments + 2) * (limit + 1) + 2 * len(wire) + 64 * KIB):
        subject.connection.data_received(wire)
    assert subject.line.ended == (not fits or (max(sizes) if of_fragments else sum(sizes)) > limit)
    subject.lose()


@pytest.mark.slow
@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 600), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 16),
    st.integers(1, 4 * KIB),
    st.booleans(),
)
def test_what_nobody_takes(frames: list[tuple[int, bool]], high: int, chunk: int, closing: bool) -> None:
    """Reading pauses, so that what waits is at most what was allowed and one read; while closing it is dropped."""
    subject = Subject(high=high, max_size=1000, max_fragment=500)
    if closing:
        subject.connection.start_closing(1000, "")
    begun, wire = False, b""
    for size, fin in frames:
        wire += frame(b"x" * size, 0 if begun else 2, fin=fin)
        begun = not fin
    wire = (wire * 200)[: 512 * KIB]  # several times what may be held
    with at_most(lambda: (high + 2) * 600 + 8 * chunk):
        for i in range(0, len(wire), chunk):
            if subject.line.reading:
                subject.connection.data_received(wire[i : i + chunk])
    subject.lose()
