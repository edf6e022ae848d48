"""Tests of the responses of tidegate.http11: how they come out of bytes, and their bodies."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate import http11
from tidegate.exceptions import (
    HeaderLineTooLong,
    HeadTooLong,
    InvalidHandshake,
    InvalidMessage,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from tidegate.http11 import Response, ResponseParser, parse_response

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nTrailer: z\r\n\r\n"


def outcome(pieces: list[bytes], *, eof: bool = False, proxy: bool = False) -> Any:
    """Feed pieces; return what came of it in a form that can be compared."""
    parser = ResponseParser(proxy=proxy)
    done = False
    try:
        for piece in pieces:
            if done:
                parser.rest += piece
            else:
                done = parser.feed(piece)
        if eof and not done:
            parser.feed_eof()
            done = True
    except (InvalidHandshake, EOFError) as exc:
        return type(exc), str(exc)
    return (parser.response(), parser.rest) if done else "more"


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def error(data: bytes, *, eof: bool = False) -> type[Exception]:
    """Return what the data raises, whole and byte by byte."""
    whole = outcome([data], eof=eof)
    assert whole == outcome(bytewise(data), eof=eof)
    assert isinstance(whole[0], type), f"accepted: {whole}"
    kind: type[Exception] = whole[0]
    return kind


def read(data: bytes, *, eof: bool = False, proxy: bool = False) -> Response:
    """Return the response, whole and byte by byte."""
    whole = outcome([data], eof=eof, proxy=proxy)
    assert whole[0] == outcome(bytewise(data), eof=eof, proxy=proxy)[0]
    assert isinstance(whole[0], Response), whole
    return whole[0]


def test_switching_protocols() -> None:
    response = read(SWITCH)
    assert (response.status_code, response.reason_phrase, response.body) == (101, "Switching Protocols", b"")
    assert response == parse_response(SWITCH)
    assert response.headers["Upgrade"] == "websocket"


@pytest.mark.parametrize("head", [SWITCH, b"HTTP/1.1 101 X\r\n\r\n", b"HTTP/1.1 101\r\nContent-Length: 5\r\n\r\n"])
def test_what_follows_a_switch_are_frames(head: bytes) -> None:
    parser = ResponseParser()
    assert parser.feed(head + b"\x81\x05hello")
    assert parser.rest == b"\x81\x05hello"
    assert parser.response().body == b""


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:0\r\n\r\n", b""),
        (CHUNKED, b"abcd"),
        (b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 426 Upgrade\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
def test_bodies_with_an_end(data: bytes, body: bytes) -> None:
    assert read(data).body == body
    assert outcome([data[:-1]]) == "more"


INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 199 X\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
]


@pytest.mark.parametrize("interim", INTERIM)
@pytest.mark.parametrize("final", [SWITCH, CHUNKED, OK + b"Content-Length: 5\r\n\r\nhello"])
def test_interim_responses_are_left_out(interim: bytes, final: bytes) -> None:
    assert outcome([interim]) == outcome([interim, final[:-1]]) == "more"
    assert read(interim + final) == read(final)
    assert outcome([interim + SWITCH + b"\x81\x02hi"])[1] == b"\x81\x02hi"
    assert outcome([interim + b"HTTP/1.1 200 OK\r\n\r\n"], proxy=True)[0].status_code == 200


def test_interim_responses_are_bounded() -> None:
    one = INTERIM[0]
    assert read(one * http11.MAX_INTERIM_RESPONSES + SWITCH).status_code == 101
    assert error(one * (http11.MAX_INTERIM_RESPONSES + 1)) is InvalidMessage
    assert error(one + b"HTTP/1.1 100 x", eof=True) is EOFError
    assert error(one, eof=True) is EOFError
    assert error(one + b"junk") is InvalidMessage
    assert error(one + OK + b"X: 1\r\n" * 129) is TooManyHeaders


BODIES = [
    b"Content-Length: 5",
    b"Content-Length: x",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
]


@pytest.mark.parametrize("lines", BODIES)
def test_what_a_proxy_says_of_a_body_is_ignored(lines: bytes) -> None:
    """RFC 9110, 9.3.6."""
    response = read(OK + lines + b"\r\n\r\n", proxy=True)
    assert (response.status_code, response.body) == (200, b"")


@pytest.mark.parametrize("head", [b"no colon", b"a b: c", b"X: a\r\n folded", b"X: \0"])
def test_the_head_of_a_proxy_is_checked_all_the_same(head: bytes) -> None:
    assert outcome([OK + head + b"\r\n\r\n"], proxy=True)[0] is InvalidMessage


def test_what_follows_a_body_is_not_looked_at() -> None:
    for tail in (b"hello", b"\r\n\r\n", OK):
        assert read(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nno" + tail).body == b"no"


@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n", b"Transfer-Encoding: gzip\r\n"])
def test_bodies_that_end_with_the_stream(headers: bytes) -> None:
    assert outcome([OK + headers + b"\r\nhello"]) == "more"
    assert read(OK + headers + b"\r\nhello", eof=True).body == b"hello"
    assert read(OK + headers + b"\r\n", eof=True).body == b""


@pytest.mark.parametrize(
    "data", [b"", b"H", SWITCH[:-1], OK, OK + b"Content-Length: 5\r\n\r\nhell", CHUNKED[:-1], CHUNKED[:60]]
)
def test_the_stream_ends_too_soon(data: bytes) -> None:
    assert error(data, eof=True) is EOFError


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"SSH-2.0", InvalidMessage),
        (b"\r\nHTTP/1.1 200 OK\r\n", InvalidMessage),
        (b"HTTP/2.0 200 OK\r\n", InvalidMessage),
        (b"HTTP/1.0 200 OK\r\n", InvalidMessage),
        (b"HTTP/1.1 2x0", InvalidMessage),
        (b"HTTP/1.1 099 OK\r\n", InvalidMessage),
        (b"HTTP/1.1 600 OK\r\n", InvalidMessage),
        (OK + b"A : b\r\n\r\n", InvalidMessage),
        (OK + b"A: b\r\n c\r\n\r\n", InvalidMessage),
        (OK + b"A: b\n", InvalidMessage),
        (OK + b"A: b\0\r\n", InvalidMessage),
        (OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", InvalidMessage),
        (OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", InvalidMessage),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nx", InvalidMessage),
        (OK + b"Content-Length: 99999999999999999999999\r\n\r\n", InvalidMessage),
        (OK + b"Content-Length: 1048577\r\n\r\n", SecurityError),
        (b"HTTP/1.1 200 " + b"x" * 8192, StatusLineTooLong),
        (OK + b"A: " + b"x" * 8192, HeaderLineTooLong),
        (OK + b"A: b\r\n" * 129, TooManyHeaders),
        (OK + (b"A: " + b"x" * 8000 + b"\r\n") * 9, HeadTooLong),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, bytes) else "",
)
def test_errors(data: bytes, kind: type[Exception]) -> None:
    """Each kind of broken response raises its exception."""
    assert error(data) is kind


def test_bodies_have_a_limit() -> None:
    for body in (b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n200000\r\n"):
        parser = ResponseParser()
        parser.feed(OK + body)
        for _ in range(16):
            parser.feed(b"x" * 65536)
        with pytest.raises(SecurityError, match="more than 1048576 bytes"):
            parser.feed(b"x")
    whole = OK + b"Content-Length: 1048576\r\n\r\n" + b"x" * 2**20
    assert outcome([whole])[0].body == b"x" * 2**20


def test_the_complaint_is_the_cause() -> None:
    with pytest.raises(InvalidMessage, match=r"^header line 1 is not valid HTTP/1.1: ") as raised:
        ResponseParser().feed(OK + b"A : b\r\n")
    assert isinstance(raised.value.__cause__, httptools.HttpParserError)


def test_values_are_latin_1() -> None:
    response = read(b"HTTP/1.1 200 \xe9\r\nA:\t \xe9 \t\r\nContent-Length: 0\r\n\r\n")
    assert response.reason_phrase == response.headers["A"] == "é"


# Proxies


def test_answers_of_proxies() -> None:
    for line in (b"HTTP/1.0 200 Connection established", b"HTTP/1.1 200", b"HTTP/1.1 407 No"):
        parser = ResponseParser(proxy=True)
        assert parser.feed(line + b"\r\nContent-Length: 5\r\n\r\nhello")
        assert parser.rest == b"hello"
        assert parser.response().status_code in (200, 407)
    with pytest.raises(InvalidMessage):
        parse_response(b"HTTP/1.0 200 OK\r\n\r\n")
    assert parse_response(b"HTTP/1.0 200 OK\r\n\r\n", proxy=True).status_code == 200


# However they are cut

PARTS = [
    b"HTTP/1.1 ",
    b"101 X\r\n",
    b"200 OK\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"abc",
    b": \r",
    b"\xff",
]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.data(), st.booleans())
@example([PARTS[0], PARTS[1], PARTS[6], b"abc"], None, True)
def test_the_outcome_does_not_depend_on_the_cuts(parts: list[bytes], data: Any, eof: bool) -> None:
    whole = b"".join(parts)
    cuts = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = outcome([whole], eof=eof)
    for other in (outcome(pieces, eof=eof), outcome(bytewise(whole), eof=eof)):
        if isinstance(expected[0], Response) and expected[0].status_code == 101:
            assert other == expected
        elif isinstance(expected[0], Response):
            assert other[0] == expected[0]
        else:
            assert other == expected or (isinstance(other[0], type) and isinstance(expected[0], type))


def test_public_names() -> None:
    assert {"ResponseParser", "parse_response", "Response"} < set(http11.__all__)
