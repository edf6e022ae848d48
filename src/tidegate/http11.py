"""HTTP/1.1 as far as an opening handshake needs it: messages, and their parsers (RFC 9112).

llhttp (httptools) reads them, and tells of each byte whether it is valid; limits, and what llhttp leaves to its caller,
are here. What a request asks for is decided in ``server``, what a response means in
``client``; nothing here does I/O.
"""

from __future__ import annotations

import dataclasses
import operator
import os
import re
import sys

import httptools

from ._compat import take_body
from ._exceptions import (
    HeaderLineTooLong,
    HeadTooLong,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
    UnexpectedBody,
)
from .datastructures import Headers
from .environment import number
from .version import version

__all__ = [
    "SERVER",
    "USER_AGENT",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "announces_body",
    "has_body",
    "parse_request",
    "parse_response",
]


MAX_LINE_LENGTH = number("TIDEGATE_MAX_LINE_LENGTH", 8192, positive=True)
"""Bytes in the request line, and in each header, line break included. Cookies are longest: browsers stop at 4 KiB."""

MAX_NUM_HEADERS = number("TIDEGATE_MAX_NUM_HEADERS", 128, positive=True)
"""Headers in a message. Browsers send about 15; proxies add some."""

MAX_HEAD_SIZE = number("TIDEGATE_MAX_HEAD_SIZE", 64 * 1024, positive=True)
"""Bytes in the request line and all headers: what a client can make the server keep before the handshake."""

MAX_INTERIM_RESPONSES = 16
"""Responses before the final one, such as 103 (early hints)."""

MAX_BODY_SIZE = number("TIDEGATE_MAX_BODY_SIZE", 1024 * 1024, positive=True)
"""Bytes in the body of a response."""

_PRODUCT = f"Python/{sys.version_info.major}.{sys.version_info.minor} tidegate/{version}"

SERVER = os.environ.get("TIDEGATE_SERVER", _PRODUCT)
"""Default value of the ``Server`` header."""

USER_AGENT = os.environ.get("TIDEGATE_USER_AGENT", _PRODUCT)
"""Default value of the ``User-Agent`` header."""


@dataclasses.dataclass
class Request:
    """Request of the opening handshake.

    Attributes:
        path: target of the request, as sent: path and query.
        headers: its headers.
        method: "GET", in a valid handshake.
        protocol: "HTTP/1.1", in a valid handshake.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        """Return the bytes of the request."""
        return f"{self.method} {self.path} {self.protocol}\r\n".encode("ascii") + self.headers.serialize()


@dataclasses.dataclass
class Response:
    """Response to the opening handshake.

    Attributes:
        status_code: 101 if the connection is accepted.
        reason_phrase: what follows the status in the first line.
        headers: its headers; hooks may change them.
        body: its body; empty with status 101.
    """

    status_code: int
    reason_phrase: str
    headers: Headers = dataclasses.field(default_factory=Headers)
    body: bytes | bytearray = b""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            take_body(self, Headers)

    def serialize(self) -> bytes:
        """Return the bytes of the response.

        Raises:
            ValueError: if the reason is none that a status line can hold (RFC 9112, 4).
        """
        reason = self.reason_phrase
        if not (reason.isascii() and reason.isprintable()) and not _reason_phrase(reason):
            raise ValueError(f"invalid reason phrase: {reason!r}")
        status_line = f"HTTP/1.1 {self.status_code:d} {reason}\r\n".encode("latin-1")
        return status_line + self.headers.serialize() + self.body


_reason_phrase = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_split_header = operator.methodcaller("partition", ":")


class _Silent:
    """Callbacks of a parser that is used for its errors alone; one serves all."""

    __slots__ = ()


_SILENT = _Silent()

# The beginning of a request line as far as the version, and no farther: a parser that stopped at that byte has seen it.
_up_to_version = re.compile(rb"[A-Z-]+ [^ ]+ (HTTP/[0-9]\.[0-9])").match
_header_name = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):").match  # RFC 9112, 5
# RFC 9112, 6: what announces a body. Searched in a head that llhttp found to be well formed.
announces_body = re.compile(rb"\n(?:content-length:[ \t]*(?![ \t0]*\r)|transfer-encoding:)", re.IGNORECASE).search
_PROTOCOLS = (b"HTTP/1.1", b"HTTP/1.0")
# llhttp's errors about what comes before the version: it does not look at what follows.
_BEFORE_VERSION = (httptools.HttpParserInvalidMethodError, httptools.HttpParserInvalidURLError)
_PREFACE = b"PRI * HTTP/2.0"  # RFC 9113, 3.4


class _HeadParser:
    """What heads of requests and of responses have in common: lines, their limits, llhttp's check of each byte.

    Until the head is complete no more than :data:`MAX_HEAD_SIZE` bytes are kept.
    """

    __slots__ = ("_buffer", "_line", "_lines", "_llhttp", "head", "rest")

    head: bytes
    rest: bytes

    FIRST_LINE: str
    FIRST_LINE_TOO_LONG: type[SecurityError]

    def __init__(self) -> None:
        self.head = self.rest = b""
        self._buffer = bytearray()
        self._line = 0  # where the current line begins in the buffer
        self._lines = 0  # lines before it
        self._llhttp: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def _check_start(self) -> None:
        """Check the first byte of the buffer, which llhttp would skip if it were a line break."""
        raise NotImplementedError

    def _check_first_line(self, line: bytes) -> None:
        """Check the first line, in which llhttp found no invalid byte."""
        raise NotImplementedError

    def _check_head(self) -> None:
        """Check the whole head."""

    def _flaw(self, exc: Exception) -> Exception:
        """Return the exception for llhttp's error in the last piece in the buffer."""
        where = self._where()
        begun = self._buffer[self._line :]
        if self._lines > 1 and len(begun) == 1 and _header_name(begun + b":"):
            # This byte is right; the line before is not.
            where = self._name(self._buffer.rfind(b"\n", 0, self._line - 1) + 1, self._lines - 1)
        return InvalidMessage(f"{where} is not valid HTTP/1.1: {str(exc).lower()}")

    def _take_piece(self, data: bytes) -> bool:
        """Take any piece, line by line, so that an error is the one that the first offending byte makes."""
        buffer = self._buffer
        position = 0
        while position < len(data):
            break_ = data.find(b"\n", position) + 1
            room = min(self._line + MAX_LINE_LENGTH, MAX_HEAD_SIZE) - len(buffer)
            end = min(break_ or len(data), position + room)
            if position < end and self._lines and len(buffer) == self._line:
                # By itself: here llhttp judges the line before, because now it knows that it is not folded.
                buffer += data[position : position + 1]
                self._check_bytes(data[position : position + 1])
                position += 1
            if position < end:
                buffer += data[position:end]
                self._check_bytes(data[position:end])
            if 0 < end == break_:
                self._check_line()
                if len(buffer) - self._line == 2:
                    self.head = bytes(buffer)
                    self.rest = data[end:]
                    self._buffer = bytearray()
                    return True
                self._line = len(buffer)
                self._lines += 1
            elif end < len(data):
                raise self._too_long()
            position = end
        return False

    def _check_bytes(self, piece: bytes) -> None:
        """Show llhttp a piece of a line, which is in the buffer already."""
        self._check_start()
        assert self._llhttp is not None
        try:
            self._llhttp.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as exc:
            raise self._flaw(exc) from exc

    def _check_line(self) -> None:
        """Check the line that the buffer ends with, beyond what llhttp checks."""
        line = bytes(self._buffer[self._line :])
        if not line.endswith(b"\r\n"):
            raise InvalidMessage(f"{self._where()} must end with CR LF, not LF alone")
        if self._lines == 0:
            self._check_first_line(line[:-2])
        elif line == b"\r\n":
            self._check_head()
        elif self._lines > MAX_NUM_HEADERS:
            raise TooManyHeaders(f"more than {MAX_NUM_HEADERS} headers")

    def _too_long(self) -> SecurityError:
        if len(self._buffer) >= MAX_HEAD_SIZE:
            return HeadTooLong(f"{self.FIRST_LINE[4:]} and headers have more than {MAX_HEAD_SIZE} bytes")
        if self._lines == 0:
            return self.FIRST_LINE_TOO_LONG(f"{self.FIRST_LINE} has more than {MAX_LINE_LENGTH} bytes")
        return HeaderLineTooLong(f"{self._where()} has more than {MAX_LINE_LENGTH} bytes")

    def _where(self) -> str:
        """Name the current line."""
        if self._lines == 0:
            return self.FIRST_LINE
        return self._name(self._line, self._lines)

    def _name(self, start: int, number: int) -> str:
        """Name the header line that begins at `start` in the buffer."""
        name = _header_name(bytes(self._buffer[start : start + 64]))
        return f"header {name[1].decode()}" if name else f"header line {number}"


class RequestParser(_HeadParser):
    """Reads the head of a request from bytes that come in any pieces, with the same outcome however they are cut.

    Feed what is received until :meth:`feed` returns True, then use :attr:`head`, :attr:`rest` and :meth:`request`.
    An error is raised at the first byte from which no acceptable request can follow; after it the parser is of no use.
    Until the head is complete no more than :data:`MAX_HEAD_SIZE` bytes are kept.

    Args:
        bodies: the beginning of those requests that may announce a body, since they open no WebSocket: b"POST ", or b""
            for all; None: no request may.

    Attributes:
        head: the head as received, once it is complete: request line, headers, empty line.
        rest: what was received after the head. A client ought to wait for the response (RFC 6455, 4.1), yet what it
            sends before belongs to the frames.
    """

    __slots__ = ("_bodies",)

    FIRST_LINE = "the request line"
    FIRST_LINE_TOO_LONG = RequestLineTooLong

    def __init__(self, *, bodies: bytes | None = None) -> None:
        super().__init__()
        self._bodies = bodies

    def feed(self, data: bytes) -> bool:
        """Take more bytes; return whether the head is complete.

        Raises:
            RequestLineTooLong: if the request line exceeds :data:`MAX_LINE_LENGTH` bytes.
            HeaderLineTooLong: if a header exceeds it.
            TooManyHeaders: if there are more than :data:`MAX_NUM_HEADERS`.
            HeadTooLong: if all that exceeds :data:`MAX_HEAD_SIZE` bytes.
            UnexpectedBody: if the request announces a body.
            InvalidProtocol: if the request line names a version of HTTP other than 1.0 and 1.1.
            InvalidMessage: if it is no HTTP/1.1 request for another reason; llhttp's complaint, if any, is its cause.
        """
        if self.head:
            self.rest += data
            return True
        if self._llhttp is None:
            if self._take_whole(data):
                return True
            self._llhttp = httptools.HttpRequestParser(_SILENT)
        return self._take_piece(data)

    def request(self) -> Request:
        """Return the request, once its head is complete."""
        lines = self.head.decode("latin-1").split("\r\n")
        method, path, protocol = lines[0].split(" ")
        # llhttp has seen to it that each line has a colon, and that no name or value needs unfolding.
        return Request(
            path,
            Headers._of([(name, value.strip(" \t")) for name, _, value in map(_split_header, lines[1:-2])]),
            method,
            protocol,
        )

    @property
    def method(self) -> str:
        """The method of the request, as far as it has come: for an answer before the head is complete."""
        return (self.head or bytes(self._buffer)).partition(b" ")[0].decode("latin-1")

    def _take_whole(self, data: bytes) -> bool:
        """Take a head that came in one piece, as almost all do; False, with nothing changed, if it has a flaw."""
        size = data.find(b"\r\n\r\n") + 4
        # A head no longer than a line may be cannot have a line that is too long.
        if not 4 < size <= MAX_LINE_LENGTH or size > MAX_HEAD_SIZE:
            return False
        head = data[:size]
        words = head[: head.index(b"\r\n")].split(b" ")
        lines = head.count(b"\n")
        if (
            len(words) != 3
            or words[2] not in _PROTOCOLS
            or words[0] == _PREFACE[:3]
            or not words[1]
            or lines != head.count(b"\r\n")
            or lines - 2 > MAX_NUM_HEADERS
            or head[0] <= 32
            or self._has_wrong_body(head)
        ):
            return False
        try:
            httptools.HttpRequestParser(_SILENT).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            return False
        self.head = head
        self.rest = data[size:]
        return True

    def _check_start(self) -> None:
        if self._buffer[0] <= 32:
            raise InvalidMessage("a request line begins with a method, not with an empty line or a space")

    def _check_first_line(self, line: bytes) -> None:
        """Check the request line (RFC 9112, 3)."""
        words = line.split(b" ")
        if words[0] == _PREFACE[:3]:  # after which llhttp expects nothing but HTTP/2
            raise InvalidProtocol("HTTP/2.0")
        if len(words) == 3 and words[1]:
            if words[2] in _PROTOCOLS:
                return
            if _up_to_version(line):
                raise InvalidProtocol(words[2].decode())
        elif len(words) == 2:
            raise InvalidMessage("the request line has no HTTP version, which is HTTP/0.9; use HTTP/1.1")
        raise InvalidMessage("the request line must be a method, a target and HTTP/1.1, with one space between them")

    def _check_head(self) -> None:
        if self._has_wrong_body(self._buffer):
            raise UnexpectedBody("a request that opens a WebSocket cannot have a body")

    def _has_wrong_body(self, head: bytes | bytearray) -> bool:
        return bool(announces_body(head)) and not (self._bodies is not None and head.startswith(self._bodies))

    def _flaw(self, exc: Exception) -> Exception:
        if self._lines == 0:
            found = _up_to_version(bytes(self._buffer))
            if self._buffer.startswith(_PREFACE[:4]):
                return InvalidProtocol("HTTP/2.0")
            if found and found[1] not in _PROTOCOLS and not isinstance(exc, _BEFORE_VERSION):
                return InvalidProtocol(found[1].decode())
        elif self._buffer.startswith(b"\r", self._line) and self._has_wrong_body(self._buffer):
            return UnexpectedBody("a request that opens a WebSocket cannot have a body")
        return super()._flaw(exc)


def parse_request(head: bytes) -> Request:
    """Make the request of a complete head.

    Raises:
        InvalidHandshake: as :meth:`RequestParser.feed`; InvalidMessage if it is not complete.
    """
    parser = RequestParser()
    if not parser.feed(head):
        raise InvalidMessage("the head of the request is not complete")
    return parser.request()


_status_line = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_header_line = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)").fullmatch


def parse_response(head: bytes, *, proxy: bool = False) -> Response:
    """Make the response of a complete head; what follows it is taken as the body.

    Args:
        head: status line, headers, empty line, perhaps a body.
        proxy: whether HTTP/1.0 will do, as some proxies still answer.

    Raises:
        InvalidMessage: if it is not the head of an HTTP/1.1 response.
    """
    head, end, body = head.partition(b"\r\n\r\n")
    if not end:
        raise InvalidMessage("the head of the response is not complete")
    first, *rest = head.decode("latin-1").split("\r\n")
    status, reason = _parse_status_line(first, proxy)
    pairs = []
    for line in rest:
        header = _header_line(line)
        if header is None:
            raise InvalidMessage(f"not a header: {line}")
        pairs.append((header[1], header[2].rstrip(" \t")))
    return Response(status, reason, Headers._of(pairs), body)


def _parse_status_line(line: str, proxy: bool) -> tuple[int, str]:
    """Parse the status line (RFC 9112, 4)."""
    found = _status_line(line)
    if found is None or not (proxy or found[1] == "1"):
        raise InvalidMessage(f"not an HTTP/1.1 status line: {line[:80]}")
    return int(found[2]), found[3] or ""


class _Body:
    """Receives the body of a response from llhttp."""

    __slots__ = ("complete", "data")

    def __init__(self) -> None:
        self.complete = False
        self.data = bytearray()

    def on_body(self, piece: bytes) -> None:
        self.data += piece

    def on_message_complete(self) -> None:
        self.complete = True


class ResponseParser(_HeadParser):
    """Reads a response from bytes that come in any pieces; of a response other than 101 also the body.

    Interim responses before it are left out (RFC 9110, 15.2): all of 1xx but 101.
    Feed what is received until :meth:`feed` returns True, and tell the end of the stream by :meth:`feed_eof`; then use
    :meth:`response` and :attr:`rest`. An error is raised at the first byte from which no acceptable response can
    follow; after it the parser is of no use. No more than :data:`MAX_HEAD_SIZE` bytes and a body of
    :data:`MAX_BODY_SIZE` are kept.

    Args:
        proxy: whether it is a proxy that answers to CONNECT: with HTTP/1.0 perhaps, and what it says after the head is
            not read: after success the server speaks, and not the proxy, whatever it says of a body (RFC 9110,
            9.3.6).

    Attributes:
        rest: what was received after a head without a body: with 101, the first frames.
    """

    __slots__ = ("_body", "_interim", "_proxy", "_response")

    FIRST_LINE = "the status line"
    FIRST_LINE_TOO_LONG = StatusLineTooLong

    def __init__(self, *, proxy: bool = False) -> None:
        super().__init__()
        self._interim = 0  # responses before the one that counts
        self._proxy = proxy
        self._response: Response | None = None  # once there is a head
        self._body = _Body()
        self._llhttp = httptools.HttpResponseParser(self._body)

    def feed(self, data: bytes) -> bool:
        """Take more bytes; return whether the response is complete.

        Raises:
            StatusLineTooLong: if the status line exceeds :data:`MAX_LINE_LENGTH` bytes.
            HeaderLineTooLong: if a header exceeds it.
            TooManyHeaders: if there are more than :data:`MAX_NUM_HEADERS`.
            HeadTooLong: if all that exceeds :data:`MAX_HEAD_SIZE` bytes.
            SecurityError: if the body exceeds :data:`MAX_BODY_SIZE` bytes.
            InvalidMessage: if it is no HTTP/1.1 response for another reason, or more than
                :data:`MAX_INTERIM_RESPONSES` come before it; llhttp's complaint, if any, is its cause.
        """
        if self._response is None:
            if not self._take_piece(data):
                return False
            response = parse_response(self.head, proxy=self._proxy)
            if 100 <= response.status_code < 200 and response.status_code != 101:
                return self._skip_interim()
            self._response = response
            if self._proxy or not has_body("GET", response.status_code):
                self._body.complete = True
                return True
            self._check_content_length(response.headers)
            data, self.rest = self.rest, b""
        if not self._body.complete:
            self._take_body(data)
        return self._body.complete

    def _skip_interim(self) -> bool:
        """Start again with what follows an interim response."""
        self._interim += 1
        if self._interim > MAX_INTERIM_RESPONSES:
            raise InvalidMessage(f"more than {MAX_INTERIM_RESPONSES} interim responses")
        data, self.head, self.rest = self.rest, b"", b""
        self._line = self._lines = 0
        self._body = _Body()
        self._llhttp = httptools.HttpResponseParser(self._body)
        return self.feed(data) if data else False

    def feed_eof(self) -> None:
        """Take the end of the stream, where a body of unknown length ends.

        Raises:
            EOFError: if the response is not complete.
        """
        if self._response is None:
            raise EOFError(f"the connection ended {'in ' + self._where() if self._buffer else 'without a response'}")
        if not self._body.complete and _length_is_known(self._response.headers):
            raise EOFError(f"the connection ended after {len(self._body.data)} bytes of the response's body")
        self._body.complete = True

    def response(self) -> Response:
        """Return the response, once it is complete."""
        assert self._response is not None
        self._response.body = bytes(self._body.data)
        return self._response

    def _check_start(self) -> None:
        if self._buffer[0] != 72:  # "H"
            raise InvalidMessage("a response begins with HTTP/1.1")

    def _check_bytes(self, piece: bytes) -> None:
        if self._proxy:
            # llhttp would look at Content-Length and Transfer-Encoding. The whole head is checked at its end.
            self._check_start()
            return
        try:
            super()._check_bytes(piece)
        except InvalidMessage:
            # At the end of the head of any 101 llhttp stops, and without the headers of an upgrade calls that an error.
            if not (self._buffer.endswith(b"\r\n\r\n") and self._buffer[9:12] == b"101"):
                raise

    def _check_first_line(self, line: bytes) -> None:
        _parse_status_line(line.decode("latin-1"), self._proxy)

    def _check_content_length(self, headers: Headers) -> None:
        for value in headers.get_all("Content-Length"):  # of digits, as llhttp found
            if len(value) > 18 or int(value) > MAX_BODY_SIZE:
                raise SecurityError(f"the body of the response has more than {MAX_BODY_SIZE} bytes: {value[:20]}")

    def _take_body(self, data: bytes) -> None:
        assert self._llhttp is not None
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserError as exc:
            if not self._body.complete:  # else it is llhttp's error about what follows, which does not matter
                raise InvalidMessage(f"the body of the response is not valid HTTP/1.1: {str(exc).lower()}") from exc
        if len(self._body.data) > MAX_BODY_SIZE:
            raise SecurityError(f"the body of the response has more than {MAX_BODY_SIZE} bytes")


def has_body(method: str, status: int) -> bool:
    """Return whether a response has a body, if only an empty one (RFC 9112, 6.3).

    Args:
        method: of the request.
        status: of the response.
    """
    return method != "HEAD" and status >= 200 and status not in (204, 304)


def _length_is_known(headers: Headers) -> bool:
    """Return whether the length of a body is known before the stream ends (RFC 9112, 6.3)."""
    codings = headers.get_all("Transfer-Encoding")
    if codings:
        return codings[-1].lower().rpartition(",")[2].strip(" \t") == "chunked"
    return "Content-Length" in headers
