"""Plain requests are answered natively as the parser and the rules in Python answer them, byte for byte.

What must not live here: requests that are not plain (tests/test_http11.py, tests/test_server.py).
"""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate._core.handshake import accept_plain
from tidegate.http11 import RequestParser
from tidegate.server import HandshakeOptions, accept, accept_key, check_host, http_date

NOW = 1_700_000_000
DATE = http_date(NOW).encode()
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
LINES = (
    b"GET /chat?a=b HTTP/1.1",
    b"Host: example.com:8080",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
)
CHROMIUM = (
    *LINES[:2],
    b"Connection: Upgrade",
    b"Pragma: no-cache",
    b"Cache-Control: no-cache",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0",
    b"Upgrade: websocket",
    b"Origin: http://example.com:8080",
    b"Sec-WebSocket-Version: 13",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Accept-Language: en-GB,en;q=0.9",
    b"Cookie: a=b; c=d",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
FIREFOX = (*LINES[:3], b"Connection: keep-alive, Upgrade", *LINES[4:], b"Sec-Fetch-Mode: websocket", b"DNT: 1")


def request(lines: tuple[bytes, ...], rest: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + rest


def by_rules(data: bytes) -> tuple[int, bytes]:
    """The size of the head and the response, as Python makes them."""
    parser = RequestParser()
    assert parser.feed(data)
    head = parser.request()
    check_host(head)
    accepted = accept(head, HandshakeOptions(), None, NOW)
    return len(parser.head), accepted.response.serialize()


def check(data: bytes) -> None:
    """Where the native answer is one, it is the right one."""
    plain = accept_plain(data, DATE)
    if plain is not None:
        size, response, offers = plain
        assert (size, response + b"\r\n") == by_rules(data)
        parser = RequestParser()
        parser.feed(data)
        lines = parser.request().headers.get_all("Sec-WebSocket-Extensions")
        assert lines == ([] if offers is None else [offers.decode()])


@pytest.mark.parametrize("lines", [LINES, CHROMIUM, FIREFOX], ids=["least", "chromium", "firefox"])
@pytest.mark.parametrize("rest", [b"", b"\x81\x85abcd"])
def test_what_browsers_send_is_plain(lines: tuple[bytes, ...], rest: bytes) -> None:
    assert accept_plain(request(lines, rest), DATE) is not None
    check(request(lines, rest))


def test_names_in_any_case() -> None:
    lines = (LINES[0], *(line.partition(b":")[0].upper() + b":" + line.partition(b":")[2] for line in LINES[1:]))
    assert accept_plain(request(lines), DATE) is not None
    check(request(lines))


@pytest.mark.parametrize(
    "lines",
    [
        *(LINES[:i] + LINES[i + 1 :] for i in range(1, 6)),
        *((*LINES, LINES[i]) for i in range(1, 6)),
        (*LINES, b"Origin: http://a", b"Origin: http://a"),
        (*LINES, b"Sec-WebSocket-Protocol: chat"),
        (*LINES, b"Content-Length: 0"),
        (*LINES, b"Transfer-Encoding: chunked"),
        (*LINES, b"X-Folded: a", b" b"),
        (*LINES, b"X-Bytes: \xff"),
        (*LINES, b"X-Tab: a\tb"),
        (*LINES, b": nothing"),
        (*LINES, b"No colon"),
        (*LINES, b"X-Space : a"),
        (*LINES, *(b"X-%d: a" % i for i in range(60))),
        (b"POST / HTTP/1.1", *LINES[1:]),
        (b"GET / HTTP/1.0", *LINES[1:]),
        (b"GET http://example.com/ HTTP/1.1", *LINES[1:]),
        (b"GET  / HTTP/1.1", *LINES[1:]),
        (b"GET /\x7f HTTP/1.1", *LINES[1:]),
        (LINES[0], b"Host: [::1]:80", *LINES[2:]),
        (LINES[0], b"Host: example.com:", *LINES[2:]),
        (LINES[0], b"Host: example.com:99999", *LINES[2:]),
        (LINES[0], b"Host: a b", *LINES[2:]),
        (LINES[0], b"Host:", *LINES[2:]),
        (*LINES[:3], b"Connection: close", *LINES[4:]),
        (*LINES[:2], b"Upgrade: websocket, h2c", *LINES[3:]),
        (*LINES[:4], b"Sec-WebSocket-Key: AAAA", LINES[5]),
        (*LINES[:4], b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==", LINES[5]),
        (*LINES[:5], b"Sec-WebSocket-Version: 8"),
    ],
)
def test_others_are_left_to_the_rules(lines: tuple[bytes, ...]) -> None:
    assert accept_plain(request(lines), DATE) is None


def test_a_head_in_pieces_is_left_to_the_parser() -> None:
    data = request(LINES)
    assert [size for size in range(len(data)) if accept_plain(data[:size], DATE) is not None] == []
    assert accept_plain(data, DATE) is not None


def test_a_long_head_is_left_to_the_parser() -> None:
    assert accept_plain(request((*LINES, b"Cookie: " + b"a" * 4096)), DATE) is None


@given(st.binary(min_size=16, max_size=16))
def test_every_key_is_answered(raw: bytes) -> None:
    key = base64.b64encode(raw)
    plain = accept_plain(request((*LINES[:4], b"Sec-WebSocket-Key: " + key, LINES[5])), DATE)
    assert plain is not None
    assert plain[1].endswith(b"Sec-WebSocket-Accept: %s\r\n" % accept_key(key.decode()).encode())


@given(
    st.sampled_from([LINES, CHROMIUM, FIREFOX]).flatmap(st.permutations),
    st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=0, max_size=3), st.integers(0, 3)), max_size=3),
    st.binary(max_size=8),
)
@example([*LINES], [], b"")
def test_what_is_accepted_natively_is_what_the_rules_accept(
    lines: list[bytes], changes: list[tuple[int, bytes, int]], rest: bytes
) -> None:
    """Requests with their lines in any order, and bytes changed, added or gone."""
    lines.sort(key=lambda line: not line.startswith(b"GET"))
    data = request(tuple(lines))
    for place, new, gone in changes:
        data = data[:place] + new + data[place + gone :]
    check(data + rest)


@pytest.mark.parametrize("data", [bytearray(b"GET"), memoryview(b"GET"), None, "GET"])
def test_other_types(data: object) -> None:
    """Only bytes are taken."""
    with pytest.raises(TypeError):
        accept_plain(data, DATE)  # type: ignore[arg-type]
