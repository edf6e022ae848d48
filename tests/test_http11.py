"""Tests of tidegate.http11."""

from __future__ import annotations

import itertools
import os
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate import http11
from tidegate.datastructures import Headers
from tidegate.exceptions import (
    HeaderLineTooLong,
    HeadTooLong,
    InvalidHandshake,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    TooManyHeaders,
    UnexpectedBody,
)
from tidegate.http11 import Request, RequestParser, Response, parse_request, parse_response
from tidegate.version import version

HANDSHAKE = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
FIRST = b"GET / HTTP/1.1\r\n"

DOCUMENTED = (
    HeadTooLong,
    HeaderLineTooLong,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    TooManyHeaders,
    UnexpectedBody,
)


def outcome(pieces: list[bytes]) -> object:
    """Feed pieces; return what came of it in a form that can be compared."""
    parser = RequestParser()
    done = False
    try:
        for piece in pieces:
            assert not done or parser.feed(b"") is True
            done = parser.feed(piece)
    except DOCUMENTED as exc:
        return type(exc), str(exc)
    if not done:
        return "more"
    return parser.head, parser.rest, parser.request()


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def error(data: bytes) -> InvalidHandshake:
    """Return what the data raises, whole and byte by byte."""
    assert outcome([data]) == outcome(bytewise(data))
    with pytest.raises(InvalidHandshake) as raised:
        RequestParser().feed(data)
    assert type(raised.value) in DOCUMENTED
    return raised.value


# Request


def test_request() -> None:
    """A request serializes, compares and pickles."""
    request = Request("/", Headers(Host="example.com"))
    assert (request.path, request.method, request.protocol) == ("/", "GET", "HTTP/1.1")
    assert request.serialize() == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    assert request == Request("/", Headers(host="example.com"))
    assert request != Request("/", Headers(), "HEAD")
    assert pickle.loads(pickle.dumps(request)) == request
    assert Request("/", Headers(), "PUT", "HTTP/1.0").serialize() == b"PUT / HTTP/1.0\r\n\r\n"


def test_request_takes_attributes() -> None:
    request = Request("/", Headers())
    request.path = "/other"
    request.user = "someone"  # type: ignore[attr-defined]
    assert request.serialize() == b"GET /other HTTP/1.1\r\n\r\n"


def test_request_path_must_be_ascii() -> None:
    with pytest.raises(UnicodeEncodeError):
        Request("/é", Headers()).serialize()


# Response


def test_response() -> None:
    """A response serializes as it is now, and pickles."""
    response = Response(200, "OK", Headers(Server="é"), b"body")
    assert response.serialize() == b"HTTP/1.1 200 OK\r\nServer: \xe9\r\n\r\nbody"
    assert Response(101, "Switching Protocols", Headers()).body == b""
    response.headers["X-More"] = "1"
    response.body = bytearray(b"other")
    assert response.serialize() == b"HTTP/1.1 200 OK\r\nServer: \xe9\r\nX-More: 1\r\n\r\nother"
    assert pickle.loads(pickle.dumps(response)) == response


# RequestParser: what it takes


def test_parse() -> None:
    """The parser gives a request's head, and its method, path, version and headers."""
    parser = RequestParser()
    assert parser.feed(HANDSHAKE) is True
    assert parser.head == HANDSHAKE
    assert parser.rest == b""
    request = parser.request()
    assert request == parse_request(HANDSHAKE)
    assert request.path == "/chat?room=1"
    assert request.method == "GET"
    assert request.protocol == "HTTP/1.1"
    assert list(request.headers.raw_items()) == [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    assert request.serialize() == HANDSHAKE


@pytest.mark.parametrize("rest", [b"", b"\x81\x85", b"\r\n\r\n", b"GET /2 HTTP/1.1\r\n\r\n", b"\n" * 100])
@pytest.mark.parametrize("head", [HANDSHAKE, FIRST + b"\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n"])
def test_rest_is_what_follows_the_head(head: bytes, rest: bytes) -> None:
    data = head + rest
    for cut in range(len(data) + 1):
        parser = RequestParser()
        assert parser.feed(data[:cut]) is (cut >= len(head))
        assert parser.feed(data[cut:]) is True
        assert parser.head == head
        assert parser.rest == rest


@pytest.mark.parametrize(
    "pieces", [[HANDSHAKE], bytewise(HANDSHAKE), [HANDSHAKE[:100], HANDSHAKE[100:]], [b"", HANDSHAKE]]
)
def test_pieces(pieces: list[bytes]) -> None:
    """A request that comes in pieces is the same as in one."""
    assert outcome(pieces) == (HANDSHAKE, b"", parse_request(HANDSHAKE))


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        (b"A: b", ("A", "b")),
        (b"A:b", ("A", "b")),
        (b"A: \t b c\td \t ", ("A", "b c\td")),
        (b"A:", ("A", "")),
        (b"A:  \t", ("A", "")),
        (b"a-B_c.9: x:y", ("a-B_c.9", "x:y")),
        (b"A: caf\xe9 \x80", ("A", "café \x80")),
        (b"A: \xa0", ("A", "\xa0")),
        (b"Content-Length: 0", ("Content-Length", "0")),
        (b"X-Content-Length: 5", ("X-Content-Length", "5")),
        (b"X: transfer-encoding: chunked", ("X", "transfer-encoding: chunked")),
    ],
)
def test_headers(line: bytes, pair: tuple[str, str]) -> None:
    """A header line is parsed the same in one piece and byte by byte."""
    data = FIRST + line + b"\r\n\r\n"
    assert outcome([data]) == outcome(bytewise(data))
    assert list(parse_request(data).headers.raw_items()) == [pair]


@pytest.mark.parametrize(
    "line", [b"GET /x HTTP/1.0", b"POST /x HTTP/1.1", b"HEAD http://host/x HTTP/1.1", b"OPTIONS * HTTP/1.1"]
)
def test_request_lines_for_the_handshake_to_judge(line: bytes) -> None:
    request = parse_request(line + b"\r\n\r\n")
    assert f"{request.method} {request.path} {request.protocol}".encode() == line


# RequestParser: what it rejects


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1),  # TLS ClientHello
        (b"HELLO\r\n", 3),
        (b"\x00\x00\x00\x00", 1),
        (b"\r\n" + HANDSHAKE, 1),
        (b"\n" + HANDSHAKE, 1),
        (b" GET / HTTP/1.1\r\n", 1),
        (b"get / HTTP/1.1\r\n", 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 2),
        (b"\x81\x85\x00\x00\x00\x00hello", 1),  # a frame without a handshake
    ],
)
def test_junk_is_rejected_on_its_first_bytes(data: bytes, needed: int) -> None:
    assert isinstance(error(data), InvalidMessage)
    parser = RequestParser()
    for byte in bytewise(data[: needed - 1]):
        assert parser.feed(byte) is False
    with pytest.raises(InvalidMessage):
        parser.feed(data[needed - 1 : needed])


@pytest.mark.parametrize(
    "line",
    [
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET\t/ HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET foo HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/11",
        b"GET / HTTP/1.1.1",
        b"GET / RTSP/1.1",
        b"GET / ICE/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /\rX HTTP/1.1",
        b"GET HTTP/1.1",
        b"BREW /pot HTTP/1.1",
    ],
)
def test_request_line_that_is_not_one(line: bytes) -> None:
    assert type(error(line + b"\r\nHost: a\r\n\r\n")) is InvalidMessage


def test_http09_is_named() -> None:
    assert "HTTP/0.9" in str(error(b"GET /\r\n"))
    assert "HTTP/0.9" in str(error(b"GET /\r\n\r\n"))


@pytest.mark.parametrize("protocol", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.7", "HTTP/9.9"])
def test_other_versions(protocol: str) -> None:
    exc = error(f"GET / {protocol}\r\nHost: a\r\n\r\n".encode())
    assert isinstance(exc, InvalidProtocol)
    assert exc.protocol == protocol


def test_http2_preface() -> None:
    exc = error(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert isinstance(exc, InvalidProtocol)
    assert exc.protocol == "HTTP/2.0"


@pytest.mark.parametrize(
    "lines",
    [
        b"A: b\nC: d\r\n",
        b"A: b\r\nC: d\n",
        b"A : b\r\n",
        b"A\t: b\r\n",
        b" A: b\r\n",
        b"A: b\r\n c\r\n",
        b"A: b\r\n\tc\r\n",
        b"A:\r\n b\r\n",
        b": b\r\n",
        b"A\r\n",
        b"A b: c\r\n",
        b"A(: b\r\n",
        b'"A": b\r\n',
        b"A\xe9: b\r\n",
        b"A\x00: b\r\n",
        b"A: b\x00c\r\n",
        b"A: b\x01\r\n",
        b"A: b\x0b\r\n",
        b"A: b\x7f\r\n",
        b"A: b\rc\r\n",
        b"A: b\r\r\n",
        b"Content-Length: x\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0\r\nContent-Length: 0\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
    ],
)
def test_header_that_is_not_one(lines: bytes) -> None:
    assert type(error(FIRST + lines + b"\r\n")) is InvalidMessage


def test_line_breaks_of_a_lone_line_feed() -> None:
    assert type(error(HANDSHAKE.replace(b"\r\n", b"\n"))) is InvalidMessage
    assert type(error(HANDSHAKE[:-2] + b"\n")) is InvalidMessage
    assert type(error(HANDSHAKE[:-2] + b"\r\r\n")) is InvalidMessage


@pytest.mark.parametrize("next_line", [b"Host: a\r\n", b"H: a\r\n"])
def test_the_message_names_the_header_even_if_it_is_known_by_the_next(next_line: bytes) -> None:
    """A value may go on in the next line; llhttp judges it when that does not."""
    data = FIRST + b"Content-Length: \r\n" + next_line + b"\r\n"
    assert str(error(data)) == "header Content-Length is not valid HTTP/1.1: empty content-length"
    for at in range(len(data)):
        assert outcome([data[:at], data[at:]]) == outcome([data])


def test_the_message_names_the_header_and_its_cause_is_the_parser_s() -> None:
    exc = error(FIRST + b"A: b\r\nX-Thing: \x01\r\n\r\n")
    assert "X-Thing" in str(exc)
    assert exc.__cause__ is not None


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 5",
        b"content-length:5",
        b"CONTENT-LENGTH: 10",
        b"Content-Length: 00010",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding:",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_body(method: bytes, header: bytes) -> None:
    """A request with a body is rejected."""
    assert isinstance(error(method + b" / HTTP/1.1\r\n" + header + b"\r\n\r\nhello"), UnexpectedBody)
    upgrade = HANDSHAKE[:-2] + header + b"\r\n\r\n"
    assert isinstance(error(upgrade), UnexpectedBody)


def test_a_body_where_it_is_allowed() -> None:
    """Of POST alone, which opens no WebSocket; and it is the same however it is cut."""
    head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
    for pieces in ([head + b"hello"], [head[:20], head[20:], b"hello"], [bytes([byte]) for byte in head + b"hello"]):
        parser = RequestParser(bodies=b"POST ")
        complete = [parser.feed(piece) for piece in pieces]
        assert (complete[-1], parser.head, parser.rest) == (True, head, b"hello")
        assert parser.request().method == "POST"
    upgrade = HANDSHAKE[:-2] + b"Content-Length: 5\r\n\r\n"
    with pytest.raises(UnexpectedBody):
        RequestParser(bodies=b"POST ").feed(upgrade)
    parser = RequestParser(bodies=b"POST ")
    parser.feed(upgrade[:-1])
    with pytest.raises(UnexpectedBody):
        parser.feed(upgrade[-1:])


# RequestParser: limits


def request_line(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 16) + b" HTTP/1.1\r\n"


def header_line(size: int) -> bytes:
    return b"A: " + b"a" * (size - 5) + b"\r\n"


def test_request_line_limit() -> None:
    limit = http11.MAX_LINE_LENGTH
    assert limit == 8192
    assert len(request_line(limit)) == limit
    assert parse_request(request_line(limit) + b"\r\n").path == "/" + "a" * (limit - 16)
    assert isinstance(error(request_line(limit + 1) + b"\r\n"), RequestLineTooLong)
    parser = RequestParser()
    assert parser.feed(b"GET /" + b"a" * (limit - 5)) is False
    with pytest.raises(RequestLineTooLong):
        parser.feed(b"a")


def test_header_line_limit() -> None:
    limit = http11.MAX_LINE_LENGTH
    assert len(header_line(limit)) == limit
    assert parse_request(FIRST + header_line(limit) + b"\r\n").headers["A"] == "a" * (limit - 5)
    assert isinstance(error(FIRST + header_line(limit + 1) + b"\r\n"), HeaderLineTooLong)


def test_header_count_limit() -> None:
    limit = http11.MAX_NUM_HEADERS
    assert limit == 128
    assert len(list(parse_request(FIRST + b"A: b\r\n" * limit + b"\r\n").headers.raw_items())) == limit
    assert isinstance(error(FIRST + b"A: b\r\n" * (limit + 1) + b"\r\n"), TooManyHeaders)


def test_head_limit() -> None:
    limit = http11.MAX_HEAD_SIZE
    assert limit == 65536
    head = FIRST + header_line(8000) * 8
    head += header_line(limit - len(head) - 2) + b"\r\n"
    assert len(head) == limit
    assert outcome([head]) == outcome([head[:20000], head[20000:]])
    assert len(parse_request(head).headers.get_all("A")) == 9
    head = head.replace(b"\r\nA: ", b"\r\nA: a", 1)
    assert isinstance(error(head), HeadTooLong)


def test_memory_is_bounded() -> None:
    parser = RequestParser()
    with pytest.raises(RequestLineTooLong):
        parser.feed(b"GET /" + b"a" * 10_000_000)
    assert len(parser._buffer) <= http11.MAX_LINE_LENGTH


LIMITS = {"MAX_LINE_LENGTH": 48, "MAX_NUM_HEADERS": 3, "MAX_HEAD_SIZE": 120}

WORDS = st.sampled_from(
    [
        *[
            b"GET",
            b"HEAD",
            b"PRI",
            b"CONNECT",
            b" / ",
            b" ",
            b"  ",
            b"/",
            b"*",
            b"HTTP/",
            b"1.1",
            b"1.0",
            b"2.0",
            b"3.7",
        ],
        *[
            b"\r\n",
            b"\r\n\r\n",
            b"\r",
            b"\n",
            b"\t",
            b":",
            b": ",
            b"A",
            b"Host: a",
            b"A: " + b"b" * 40,
            b"\xe9",
            b"\x00",
        ],
        *[b"Upgrade: websocket", b"Connection: upgrade", b"Content-Length: 0", b"Content-Length: 1"],
        *[b"Transfer-Encoding: chunked", FIRST, b"A: b\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r\n", b"\x16\x03\x01"],
    ]
)


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """Draw something like a request: pieces of one in any order, or one with a few bytes changed."""
    if draw(st.booleans()):
        return b"".join(draw(st.lists(WORDS, max_size=12)))
    data = bytearray(
        draw(st.sampled_from([FIRST + b"Host: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", HANDSHAKE]))
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2) | WORDS)
    return bytes(data)


@given(nearly_requests() | st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4), st.booleans())
@example(b"GET / HTTP/1.1\r\n\r\n" * 20, [], False)
@example(HANDSHAKE + b"\x81\x00", [1], True)
def test_any_cut_has_the_same_outcome(data: bytes, cuts: list[int], small: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            for name, limit in LIMITS.items():
                patch.setattr(http11, name, limit)
        bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(bounds)]
        whole = outcome([data])
        assert outcome(pieces) == whole
        assert outcome(bytewise(data)) == whole


TOKEN = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=10)
VALUE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="".join(map(chr, range(0x7F, 0x80)))),
    max_size=20,
).map(lambda value: value.strip(" \t"))
PAIRS = st.lists(
    st.tuples(TOKEN.filter(lambda name: name.lower() not in {"content-length", "transfer-encoding"}), VALUE),
    max_size=10,
)


@given(st.from_regex(r"/[!$-;=?-Z_a-z~]{0,20}", fullmatch=True), PAIRS, st.binary(max_size=20))
def test_requests_survive_the_wire(path: str, pairs: list[tuple[str, str]], rest: bytes) -> None:
    request = Request(path, Headers(pairs))
    head = request.serialize()
    assert outcome([head + rest]) == (head, rest, request)
    assert list(parse_request(head).headers.raw_items()) == pairs


def test_what_was_accepted_follows_the_grammar() -> None:
    """Nothing that llhttp lets pass in one release and not in another gets through."""
    line = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
    for byte in range(256):
        for template in (b"A%b: c", b"%bA: c", b"A: %bc", b"A:%b", b"A%b"):
            text = template % bytes([byte])
            if isinstance(outcome([FIRST + text + b"\r\n\r\n"])[0], bytes):  # type: ignore[index]
                assert line.fullmatch(text)


def test_parse_request_needs_a_whole_head() -> None:
    with pytest.raises(InvalidMessage, match="not complete"):
        parse_request(HANDSHAKE[:-1])


# parse_response


@given(st.integers(100, 599), st.sampled_from(["OK", "", "Switching Protocols", "é x"]), PAIRS, st.binary(max_size=20))
def test_responses_survive_the_wire(status: int, reason: str, pairs: list[tuple[str, str]], body: bytes) -> None:
    response = Response(status, reason, Headers(pairs), body)
    assert parse_response(response.serialize()) == response


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nc\r\n\r\n",
    ],
)
def test_response_that_is_not_one(head: bytes) -> None:
    with pytest.raises(InvalidMessage):
        parse_response(head)


def test_response_without_reason() -> None:
    assert parse_response(b"HTTP/1.1 200\r\nA:  b \r\n\r\n") == Response(200, "", Headers(A="b"))


# Settings


def test_server() -> None:
    """The Server and User-Agent headers name Python and tidegate with their versions."""
    assert f"Python/{sys.version_info.major}.{sys.version_info.minor} tidegate/{version}" == http11.SERVER
    assert http11.USER_AGENT == http11.SERVER


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_environment() -> None:
    """Environment variables set limits and the Server header, and nonsense in them raises."""
    code = "from tidegate import http11 as h; print(h.MAX_LINE_LENGTH, h.MAX_HEAD_SIZE, h.SERVER)"
    process = run(code, TIDEGATE_MAX_LINE_LENGTH="100", TIDEGATE_MAX_HEAD_SIZE="", TIDEGATE_SERVER="other")
    assert process.stdout.split() == ["100", "65536", "other"]
    process = run(code, TIDEGATE_MAX_LINE_LENGTH="many")
    assert "TIDEGATE_MAX_LINE_LENGTH must be a positive integer, got 'many'" in process.stderr
