"""Frames of a link that are read natively: the same as the decoder in Python gives, whatever comes.

What must not live here: frames themselves (tests/bus/test_link.py).
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate._core.link_reader import LinkReader
from tidegate.bus.link import HEAD, PAYLOAD_LIMIT, Decoder, Frame, Kind, LinkError, encode

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    Frame, st.sampled_from(Kind).map(int), st.integers(0, 255), U32, U32, U64, U64, U64, st.binary(max_size=200)
)


@given(st.lists(FRAMES.map(encode) | st.binary(max_size=100), max_size=8), st.lists(st.integers(0, 100), max_size=20))
def test_it_reads_what_the_decoder_reads(parts: list[bytes], sizes: list[int]) -> None:
    data = b"".join(parts)
    reader, decoder = LinkReader(), Decoder()
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        try:
            expected = list(decoder.feed(piece))
        except LinkError as error:
            with pytest.raises(ValueError, match=str(error)):
                reader.feed(piece)
            return
        assert [Frame(*raw) for raw in reader.feed(piece) if raw[0] in frozenset(Kind)] == expected
        assert len(reader) == len(decoder)


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    head = struct.pack("<I", PAYLOAD_LIMIT + 1) + bytes(HEAD.size - 4)
    with pytest.raises(ValueError, match=r"at most 4194304 bytes, and this one says 4194305"):
        LinkReader().feed(head)
