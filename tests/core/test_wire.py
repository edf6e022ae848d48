"""Bytes of frames against models in Python: headers, masks, and UTF-8 that is cut at every byte.

What must not live here: what a channel makes of frames (test_channel.py).
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.recorder import MASK, Recorder, cut
from tests.support.wire import BINARY, CONT, TEXT, frame, header, masked
from tidegate.closing import FAILURES
from tidegate.frames import CloseCode

LENGTHS = st.one_of(
    st.sampled_from([1, 125, 126, 127, 255, 256, 65535, 65536, 2**31, 2**32, 2**63 - 1]),
    st.integers(1, 2**63 - 1),
)
KEYS = st.binary(min_size=4, max_size=4)
TOO_BIG = next(what for what, (code, _) in enumerate(FAILURES) if code == CloseCode.MESSAGE_TOO_BIG)


# Headers


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 255, 256, 65535, 65536, 70000])
@pytest.mark.parametrize("first", [0x00, 0x01, 0x82, 0xC1, 0x89, 0xFF])
def test_headers_are_built_as_the_rfc_draws_them(first: int, length: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(length))
    server, client = Recorder(), Recorder(client=True)
    server._send_frame(first, payload)
    assert server.transport_.written == header(first, length) + payload
    client._send_frame(first, payload)
    written = client.transport_.written
    mask = written[-length - 4 : len(written) - length]
    assert written == header(first, length, mask) + masked(payload, mask)


@given(
    st.sampled_from([0x01, 0x02, 0x81, 0x82]), LENGTHS, KEYS, st.booleans(), st.lists(st.integers(1, 13), max_size=4)
)
def test_headers_are_parsed_once_they_are_whole(
    first: int, length: int, key: bytes, client: bool, cuts: list[int]
) -> None:
    """However the header is cut, its length is read: nothing is allowed, so it is told as what would be too much."""
    channel = Recorder(client=client, max_size=0)
    whole = header(first, length, None if client else key)
    channel.feed(*cut(whole[:-1], *sorted(cuts)))
    assert channel.failures == []
    channel.feed(whole[-1:])
    assert channel.failures == [(TOO_BIG, (length, 0, 0))]


@given(st.integers(2**63, 2**64 - 1))
def test_lengths_with_the_forbidden_first_bit_are_too_long(length: int) -> None:
    channel = Recorder(max_size=None)
    channel.feed(header(0x82, length, MASK))
    ((what, _),) = channel.failures
    assert what == TOO_BIG


# Masks


@given(st.binary(max_size=200), KEYS)
def test_masks_are_taken_off(data: bytes, key: bytes) -> None:
    channel = Recorder()
    channel.feed(header(0x82, len(data), key) + bytes(byte ^ key[i % 4] for i, byte in enumerate(data)))
    assert channel.take_all() == [data]


@pytest.mark.parametrize("size", [*range(72), *range(124, 134), 255, 256, 257, 4095, 4096, 4097])
@pytest.mark.parametrize("offset", range(4))
def test_masks_are_taken_off_at_every_size_and_alignment(size: int, offset: int) -> None:
    """The payload is cut, so that its second part begins anywhere in the mask."""
    data = bytes(i * 7 & 0xFF for i in range(offset + size))
    key = b"\x01\x80\xff\x35"
    whole = frame(data, BINARY, mask=key)
    place = len(whole) - size
    channel = Recorder()
    channel.feed(whole[:place], whole[place:])
    assert channel.take_all() == [data]


# UTF-8


def valid_prefix(data: bytes) -> bool:
    """Whether some text begins with these bytes: the model, which knows no state."""
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        # Python says "unexpected end of data" exactly when bytes are missing at the end.
        return exc.reason == "unexpected end of data"
    return True


def complete(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_in_pieces(pieces: list[bytes]) -> None:
    """The text comes in these pieces, as frames and then within a frame: it fails as soon as it cannot go on."""
    whole = b"".join(pieces)
    in_frames = [frame(piece, CONT if i else TEXT, fin=False, mask=MASK) for i, piece in enumerate(pieces)]
    check([*in_frames, frame(b"", CONT if pieces else TEXT, mask=MASK)], pieces)
    if whole:
        # With a payload that is not all there.
        start = header(0x81, len(whole), MASK)
        places = list(itertools.accumulate(map(len, pieces), initial=0))
        check([start, *cut(masked(whole, MASK), *places[1:-1])], [b"", *pieces])


def check(chunks: list[bytes], pieces: list[bytes]) -> None:
    """Feed chunks with these pieces of a text in them, the end of the message with or after the last one."""
    channel = Recorder(high=None)
    so_far = b""
    for chunk, piece in itertools.zip_longest(chunks, pieces, fillvalue=b""):
        channel.feed(chunk)
        so_far += piece
        if channel.failures:
            break
        assert valid_prefix(so_far), so_far
    whole = b"".join(pieces)
    if complete(whole):
        assert channel.failures == []
        assert channel.take_all() == [whole.decode()]
    else:
        assert len(channel.failures) == 1
        assert not valid_prefix(so_far) or so_far == whole, f"failed too early, after {so_far!r} of {whole!r}"


EDGES = [
    "",
    "ASCII, and longer than one machine word of eight bytes",
    "\x00\x7f",
    "\x80\u07ff",
    "\u0800\ud7ff\ue000\uffff",
    "\U00010000\U0010ffff",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε " * 5,
    "a" * 7 + "é" + "b" * 15 + "\U0001f30a" + "c" * 9,
]
BROKEN = [
    b"\x80",  # a continuation byte first
    b"\xbf" * 9,
    b"\xc0\xaf",  # overlong
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xed\xa0\x80",  # surrogates
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",  # over U+10FFFF
    b"\xf5\x80\x80\x80",
    b"\xe2\x82",  # a character that is not finished, and one that never will be
    b"\xe2\x82x",
    b"\xe2x",
    b"\xf0\x9f\x8cx",
    b"12345678\xc3(12345678",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",  # RFC 6455's test suite calls it 6.4
]


@pytest.mark.parametrize("data", [text.encode() for text in EDGES] + BROKEN)
def test_utf8_cut_at_every_byte(data: bytes) -> None:
    check_in_pieces([data])
    check_in_pieces([data[i : i + 1] for i in range(len(data))])
    for place in range(len(data) + 1):
        check_in_pieces(cut(data, place))
        check_in_pieces([data[:place], b"", data[place:]])


@pytest.mark.parametrize("first", range(0x7E, 0x100))
def test_utf8_every_two_bytes(first: int) -> None:
    for second in range(256):
        data = bytes([first, second])
        channel = Recorder()
        channel.feed(frame(data, TEXT, fin=False, mask=MASK))
        assert (channel.failures == []) == valid_prefix(data), data
        if not channel.failures:
            channel.feed(frame(b"", CONT, mask=MASK))
            assert (channel.failures == []) == complete(data), data


@pytest.mark.parametrize("lead", [0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5])
def test_utf8_borders_of_long_characters(lead: int) -> None:
    borders = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]
    for tail in itertools.product(borders, repeat=3):
        check_in_pieces([bytes([lead, *tail[:2]])])
        check_in_pieces([bytes([lead, *tail])])


@given(st.lists(st.binary(max_size=12), max_size=6))
def test_utf8_of_any_bytes(pieces: list[bytes]) -> None:
    check_in_pieces(pieces)


@given(st.text(max_size=60), st.data())
@example("\U0010ffff" * 3, None)
def test_utf8_of_any_text(text: str, data: st.DataObject | None) -> None:
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=5))) if data is not None else [1, 5, 6]
    check_in_pieces([encoded[a:b] for a, b in itertools.pairwise([0, *cuts, len(encoded)])])
