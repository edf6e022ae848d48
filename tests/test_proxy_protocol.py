"""The PROXY protocol: headers of both versions, in pieces, and what is none.

What must not live here: connections (asyncio/test_transport_setup.py).
"""

from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.proxy_protocol import MAX_SIZE, BadHeader, HeaderParser

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(command: int, family: int, data: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(data)) + data


def inet(source: str, port: int) -> bytes:
    address = ip_address(source).packed
    return address + address + struct.pack("!HH", port, 443)


UNIX = b"/run/client".ljust(108, b"\0") + b"/run/proxy".ljust(108, b"\0")
TLV = b"\x03\x00\x04abcd" + b"\x20\x00\x00"

GOOD = [
    (b"PROXY TCP4 192.0.2.1 203.0.113.1 56324 443\r\n", ("192.0.2.1", 56324)),
    (b"PROXY TCP6 2001:db8::1 2001:DB8::2 1 65535\r\n", ("2001:db8::1", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (version_2(1, 0x11, inet("192.0.2.1", 56324)), ("192.0.2.1", 56324)),
    (version_2(1, 0x21, inet("2001:db8::1", 7)), ("2001:db8::1", 7)),
    (version_2(1, 0x11, inet("192.0.2.1", 56324) + TLV), ("192.0.2.1", 56324)),
    (version_2(1, 0x31, UNIX), "/run/client"),
    (version_2(1, 0x31, bytes(216)), ""),
    (version_2(1, 0x00, b""), None),
    (version_2(1, 0x00, TLV), None),
    (version_2(0, 0x00, b""), None),
    (version_2(0, 0x11, inet("192.0.2.1", 1)), None),  # LOCAL: addresses are to be ignored
]


@pytest.mark.parametrize(("data", "source"), GOOD)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"])
def test_headers(data: bytes, source: object, rest: bytes) -> None:
    """A header of the PROXY protocol gives the source, and leaves what follows."""
    parser = HeaderParser()
    assert parser.feed(data + rest)
    assert parser.header is not None
    assert parser.header.source == source
    assert parser.rest == rest


@given(st.sampled_from(GOOD), st.lists(st.integers(0, 300), max_size=8))
def test_headers_in_pieces(good: tuple[bytes, object], cuts: list[int]) -> None:
    data, source = good
    parser = HeaderParser()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(places):
        assert parser.feed(data[start:end]) == (end == len(data))
    assert parser.header is not None
    assert parser.header.source == source
    assert parser.rest == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "it starts with b'GET / HTTP/1.1"),
        (b"\x16\x03\x01", "it starts with"),
        (b"PROXIES", "it starts with"),
        (b"\r\n\r\n\0\r\nQUIX", "it starts with"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.1 56324\r\n", "expected TCP4 or TCP6"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.1 56324 443 \r\n", "expected TCP4 or TCP6"),
        (b"PROXY  TCP4 192.0.2.1 203.0.113.1 56324 443\r\n", "expected TCP4 or TCP6"),
        (b"PROXY UDP4 192.0.2.1 203.0.113.1 56324 443\r\n", "expected TCP4 or TCP6"),
        (b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1"),
        (b"PROXY TCP4 192.0.2.256 203.0.113.1 1 2\r\n", "192.0.2.256"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.1 65536 2\r\n", "65536"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.1 -1 2\r\n", "-1"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.1 1 \xb2\r\n", "ports"),
        (b"PROXY UNKNOWN " + b"x" * 93, "no line break within 107 bytes"),
        (SIGNATURE + b"\x11\x11\0\0", "unknown version and command 0x11"),
        (SIGNATURE + b"\x22\x11\0\0", "unknown version and command 0x22"),
        (version_2(1, 0x12, inet("192.0.2.1", 1)), "unknown family and protocol 0x12"),
        (version_2(1, 0x41, bytes(12)), "unknown family and protocol 0x41"),
        (version_2(1, 0x21, inet("192.0.2.1", 1)), "12 bytes of addresses where 36 are needed"),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_SIZE + 1), "4097 bytes of addresses, more than 4096"),
    ],
)
def test_what_is_no_header(data: bytes, reason: str) -> None:
    with pytest.raises(BadHeader) as caught:
        HeaderParser().feed(data)
    assert reason in str(caught.value)


@given(st.lists(st.binary(max_size=40), max_size=8), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21"]))
def test_anything_ends_in_a_header_or_an_error(pieces: list[bytes], start: bytes) -> None:
    parser = HeaderParser()
    with contextlib.suppress(BadHeader):
        assert any(map(parser.feed, [start, *pieces])) == (parser.header is not None)
