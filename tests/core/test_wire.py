"""Bytes of frames against models in Python: headers, masks, and UTF-8 that is cut at every byte."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate._core.wire import Utf8Validator, apply_mask, build_header, parse_header

LENGTHS = st.one_of(
    st.sampled_from([0, 1, 125, 126, 127, 255, 256, 65535, 65536, 2**31, 2**32, 2**63 - 1]),
    st.integers(0, 2**63 - 1),
)
KEYS = st.binary(min_size=4, max_size=4)


def model_header(first: int, length: int, key: bytes) -> bytes:
    """A header as RFC 6455 5.2 draws it."""
    masked = 0x80 if key else 0
    if length < 126:
        return struct.pack("!BB", first, masked | length) + key
    if length < 1 << 16:
        return struct.pack("!BBH", first, masked | 126, length) + key
    return struct.pack("!BBQ", first, masked | 127, length) + key


# Headers


@given(st.integers(0, 255), LENGTHS, st.one_of(st.just(b""), KEYS))
def test_headers_are_built_as_the_rfc_draws_them(first: int, length: int, key: bytes) -> None:
    assert build_header(first, length, key) == model_header(first, length, key)


@given(st.integers(0, 255), LENGTHS, st.one_of(st.just(b""), KEYS), st.binary(max_size=8))
def test_headers_are_parsed_once_they_are_whole(first: int, length: int, key: bytes, payload: bytes) -> None:
    header = model_header(first, length, key)
    for size in range(len(header)):
        assert parse_header(header[:size]) is None
    assert parse_header(header + payload) == (len(header), first, bool(key), length, key)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_header_or_too_few(data: bytes) -> None:
    parsed = parse_header(data)
    if parsed is None:
        assert len(data) < 14
        return
    size, first, masked, length, key = parsed
    assert first == data[0]
    assert masked == bool(data[1] & 0x80)
    assert len(key) == (4 if masked else 0)
    assert data[size - len(key) : size] == key
    short = data[1] & 0x7F
    assert size == 2 + {126: 2, 127: 8}.get(short, 0) + len(key)
    if short == 126:
        assert length == int.from_bytes(data[2:4], "big")
    elif short == 127:
        assert length == int.from_bytes(data[2:10], "big")  # also one with the forbidden first bit: it is seen
    else:
        assert length == short


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_headers_in_any_buffer(kind: type) -> None:
    assert parse_header(kind(b"\x81\x85abcdHello")) == (6, 0x81, True, 5, b"abcd")


@pytest.mark.parametrize("key", [b"a", b"abc", b"abcde"])
def test_keys_of_another_size_are_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        build_header(0x81, 5, key)
    with pytest.raises(ValueError, match="4 bytes"):
        apply_mask(b"Hello", key)


def test_no_buffer_no_header() -> None:
    with pytest.raises(TypeError):
        parse_header(None)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        build_header(0x81, -1)


# Masks


@given(st.binary(max_size=200), KEYS)
def test_masking(data: bytes, key: bytes) -> None:
    masked = apply_mask(data, key)
    assert masked == bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
    assert apply_mask(masked, key) == data


@pytest.mark.parametrize("size", [*range(72), 4095, 4096, 4097])
@pytest.mark.parametrize("offset", range(4))
def test_masking_at_every_size_and_alignment(size: int, offset: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(offset + size))
    key = b"\x01\x80\xff\x35"
    expected = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[offset:]))
    assert apply_mask(memoryview(data)[offset:], bytearray(key)) == expected


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
    validator = Utf8Validator()
    so_far = b""
    for piece in pieces:
        so_far += piece
        assert validator.check(piece) == valid_prefix(so_far), so_far
        assert validator.complete == complete(so_far), so_far


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
    for cut in range(len(data) + 1):
        check_in_pieces([data[:cut], data[cut:]])
        check_in_pieces([data[:cut], b"", data[cut:]])


def test_utf8_every_two_bytes() -> None:
    for pair in itertools.product(range(256), repeat=2):
        data = bytes(pair)
        validator = Utf8Validator()
        assert validator.check(data) == valid_prefix(data), data
        assert validator.complete == complete(data), data


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


def test_utf8_stays_broken() -> None:
    validator = Utf8Validator()
    assert not validator.check(b"\xff")
    assert not validator.check(b"fine")
    assert not validator.check(b"")
    assert not validator.complete
