"""The opening handshake, seen by the server (RFC 6455, 4): from a request to its response.

:func:`check_host` checks what every request must have; :func:`accept` makes the response 101 or raises;
:func:`rejection_of` makes the response to what it raised, from one table; :func:`text_response` makes any plain
response; :func:`finalize` mends those of hooks.
Bytes become a request in ``http11``; hooks, the ``Server`` header and timeouts are the connection's. Older programs
find :func:`serve` here. What must not live here: listening and connections, which are in ``asyncio.server``.
"""

from __future__ import annotations

import binascii
import dataclasses
import functools
import hashlib
import http
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ._compat import NAMES, lookup
from .datastructures import Headers, MultipleValuesError
from .exceptions import (
    HeaderLineTooLong,
    HeadTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
    UnexpectedBody,
)
from .extensions.base import Extension, ServerExtensionFactory
from .headers import (
    build_extension,
    parse_connection,
    parse_extension,
    parse_lines,
    parse_subprotocol,
    parse_upgrade,
    validate_host,
    validate_subprotocols,
)
from .http11 import Request, Response
from .typing import ExtensionHeader, Origin, StatusLike, Subprotocol

__all__ = [
    "Accepted",
    "HandshakeOptions",
    "UnsupportedVersion",
    "accept",
    "accept_key",
    "asks_for_websocket",
    "check_host",
    "finalize",
    "http_date",
    "rejection",
    "rejection_of",
    "text_response",
]

VERSION = "13"
"""The version of the protocol (RFC 6455, 4.1)."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class UnsupportedVersion(InvalidHeaderValue):
    """The client asks for another version of the protocol, which has an answer of its own (RFC 6455, 4.4)."""


@dataclasses.dataclass(slots=True)
class HandshakeOptions:
    """What a server accepts; made once, checked when it is made.

    Attributes:
        origins: acceptable values of ``Origin``: a :class:`str` must be equal, a compiled regular expression must match
            the whole, None allows the header to be absent. None instead of a list accepts everything.
        subprotocols: supported subprotocols, the preferred first. None or an empty list negotiates none.
        select_subprotocol: called with the connection and the subprotocols that the client offers, perhaps none;
            returns one, or None for none; may raise :exc:`NegotiationError`. It replaces the choice among
            ``subprotocols``.
        extensions: factories of supported extensions, in the order in which they are tried.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if a subprotocol is not a token.
    """

    origins: Sequence[str | re.Pattern[str] | None] | None = None
    subprotocols: Sequence[str] | None = None
    select_subprotocol: Callable[[Any, Sequence[Subprotocol]], str | None] | None = None
    extensions: Sequence[ServerExtensionFactory] | None = None
    _exact: frozenset[str | None] = dataclasses.field(init=False, repr=False, compare=False)
    _patterns: tuple[re.Pattern[str], ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.subprotocols is not None:
            validate_subprotocols(self.subprotocols)
        if self.select_subprotocol is not None and not callable(self.select_subprotocol):
            raise TypeError("select_subprotocol must be a function")
        exact, patterns = [], []
        if isinstance(self.origins, str | bytes):
            raise TypeError(f"origins must be a list, not a {type(self.origins).__name__}")
        for origin in self.origins or ():
            if isinstance(origin, re.Pattern):
                patterns.append(origin)
            elif origin is None or isinstance(origin, str):
                exact.append(origin)
            else:
                raise TypeError(f"origins must contain str, compiled patterns or None, not {type(origin).__name__}")
        self._exact = frozenset(exact)
        self._patterns = tuple(patterns)


class Accepted(NamedTuple):
    """Outcome of a handshake that succeeds."""

    response: Response
    subprotocol: Subprotocol | None
    extensions: list[Extension]
    origin: Origin | None


# Accept


def check_host(request: Request) -> None:
    """Check that a request names its host (RFC 9112, 3.2), also one that a hook answers.

    Raises:
        InvalidHeader: if ``Host`` is missing, unless it is of HTTP/1.0, or there are two, or it is none.
    """
    if request.protocol != "HTTP/1.0" or "Host" in request.headers:
        validate_host(single(request.headers, "Host"))


def accept(request: Request, options: HandshakeOptions, connection: Any, now: float | None = None) -> Accepted:
    """Check a request and make the response that accepts it (RFC 6455, 4.2).

    Args:
        request: request of the client.
        options: what the server accepts.
        connection: first argument of ``select_subprotocol``.
        now: time for the ``Date`` header, in seconds since the epoch; the present by default.

    Raises:
        InvalidHandshake: if the request is not acceptable, as one of its subclasses; :func:`rejection` answers it.
        Exception: whatever ``select_subprotocol`` raises.
    """
    if request.method != "GET":
        raise InvalidMethod(request.method)
    if request.protocol != "HTTP/1.1":
        raise InvalidProtocol(request.protocol)
    headers = request.headers
    check_upgrade(headers)
    key = single(headers, "Sec-WebSocket-Key")
    _check_key(key)
    _check_version(headers)
    origin = _check_origin(headers, options)
    extensions_header, extensions = negotiate_extensions(headers.get_all("Sec-WebSocket-Extensions"), options)
    subprotocol = _negotiate_subprotocol(headers, options, connection)

    # These values are known to be valid. The headers are a hook's to change; nothing of them may be shared.
    answer = Headers._of(
        [
            ("Date", http_date(time.time() if now is None else now)),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(key)),
        ]
    )
    if extensions_header:
        answer["Sec-WebSocket-Extensions"] = extensions_header
    if subprotocol is not None:
        answer["Sec-WebSocket-Protocol"] = subprotocol
    return Accepted(Response(101, "Switching Protocols", answer), subprotocol, extensions, origin)


def accept_key(key: str) -> str:
    """Compute ``Sec-WebSocket-Accept`` from ``Sec-WebSocket-Key`` (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def asks_for_websocket(request: Request) -> bool:
    """Return whether a request means to open a WebSocket, be it right or not."""
    return any("websocket" in value.lower() for value in request.headers.get_all("Upgrade"))


def check_upgrade(headers: Headers) -> None:
    """Check that a request asks for a WebSocket (RFC 6455, 4.2.1, items 3 and 4), or a response grants it (4.2.2).

    Raises:
        InvalidUpgrade: if it does not.
    """
    for name, wanted, parse, alone in _UPGRADES:
        values = headers.get_all(name)
        if len(values) == 1 and values[0].lower() == wanted:
            continue
        items = parse_lines(parse, values, name)
        found = [item for item in items if item.lower() == wanted]
        if not found or (alone and len(items) > 1):
            raise InvalidUpgrade(name, ", ".join(items) if items else None)


# Header, the item it must contain, how to parse it, whether that must be the only item. Connection lists what is meant
# for the next hop, and may list more; to upgrade to one of several protocols is not what a WebSocket client asks.
_UPGRADES: tuple[tuple[str, str, Callable[[str], Sequence[str]], bool], ...] = (
    ("Connection", "upgrade", parse_connection, False),
    ("Upgrade", "websocket", parse_upgrade, True),
)


def single(headers: Headers, name: str) -> str:
    """Return the value of a header that must be there, once.

    Raises:
        InvalidHeader: if it is not.
    """
    try:
        return headers[name]
    except KeyError:
        raise InvalidHeader(name) from None
    except MultipleValuesError:
        raise InvalidHeader(name, "multiple values") from None


def _check_key(key: str) -> None:
    """Check the key: sixteen bytes in base64 (RFC 6455, 4.2.1, item 5)."""
    try:
        raw = binascii.a2b_base64(key.encode(), strict_mode=True)
    except binascii.Error as exc:
        raise InvalidHeaderValue("Sec-WebSocket-Key", key) from exc
    if len(raw) != 16:
        raise InvalidHeaderValue("Sec-WebSocket-Key", key)


def _check_version(headers: Headers) -> None:
    """Check the version (RFC 6455, 4.2.1, item 6, and 4.4)."""
    version = single(headers, "Sec-WebSocket-Version")
    if version != VERSION:
        raise UnsupportedVersion("Sec-WebSocket-Version", version)


def _check_origin(headers: Headers, options: HandshakeOptions) -> Origin | None:
    """Check the origin (RFC 6455, 4.2.2, item 4, and 10.2)."""
    try:
        origin = headers.get("Origin")
    except MultipleValuesError:
        raise InvalidHeader("Origin", "multiple values") from None
    if (
        options.origins is None
        or origin in options._exact
        or (origin is not None and any(pattern.fullmatch(origin) for pattern in options._patterns))
    ):
        return None if origin is None else Origin(origin)
    raise InvalidOrigin(origin)


def negotiate_extensions(lines: Sequence[str], options: HandshakeOptions) -> tuple[str, list[Extension]]:
    """Choose extensions (RFC 6455, 9.1) from the values of a header; return the value that answers it, and them.

    What the client offers is taken in its order, which is that of its preference. The same extension may be offered
    several times with different parameters; the first offer that a factory accepts counts.
    """
    accepted: list[Extension] = []
    if not options.extensions:
        return "", accepted
    names: list[ExtensionHeader] = []
    for name, offer in parse_lines(parse_extension, lines, "Sec-WebSocket-Extensions"):
        for factory in options.extensions:
            if factory.name != name or any(extension.name == name for extension in accepted):
                continue
            try:
                parameters, extension = factory.process_request_params(offer, accepted)
            except NegotiationError:
                continue
            names.append((name, parameters))
            accepted.append(extension)
            break
    return build_extension(names), accepted


def _negotiate_subprotocol(headers: Headers, options: HandshakeOptions, connection: Any) -> Subprotocol | None:
    """Choose a subprotocol (RFC 6455, 4.2.2, item 5)."""
    lines = headers.get_all("Sec-WebSocket-Protocol")
    offered = parse_lines(parse_subprotocol, lines, "Sec-WebSocket-Protocol")
    if options.select_subprotocol is not None:
        return cast("Subprotocol | None", options.select_subprotocol(connection, offered))
    if not options.subprotocols:
        return None
    if not offered:
        raise NegotiationError("missing subprotocol")
    for subprotocol in options.subprotocols:
        if subprotocol in offered:
            return Subprotocol(subprotocol)
    raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(options.subprotocols)}")


# Reject


class _Answer(NamedTuple):
    status: http.HTTPStatus
    headers: tuple[tuple[str, str], ...] = ()
    hint: str = ""


_HINT = "This address speaks WebSocket (RFC 6455): a browser page or a program must open it as ws:// or wss://.\n"

# RFC 9110, 15.5.22: 426 must say to what to upgrade; RFC 6455, 4.4: and to which version, if that was the mistake.
_UPGRADE_TO = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION))

# The first row whose class the exception belongs to counts. InvalidHandshake takes the rest; any other exception is a
# failure of this side.
_ANSWERS: tuple[tuple[type[InvalidHandshake], _Answer], ...] = (
    (InvalidOrigin, _Answer(http.HTTPStatus.FORBIDDEN)),
    (InvalidMethod, _Answer(http.HTTPStatus.METHOD_NOT_ALLOWED, (("Allow", "GET"),))),
    (UnexpectedBody, _Answer(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)),
    (RequestLineTooLong, _Answer(http.HTTPStatus.REQUEST_URI_TOO_LONG)),
    (InvalidUpgrade, _Answer(http.HTTPStatus.UPGRADE_REQUIRED, _UPGRADE_TO, _HINT)),
    (UnsupportedVersion, _Answer(http.HTTPStatus.UPGRADE_REQUIRED, _UPGRADE_TO)),
    (HeaderLineTooLong, _Answer(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)),
    (TooManyHeaders, _Answer(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)),
    (HeadTooLong, _Answer(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)),
    (InvalidProtocol, _Answer(http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)),
    (InvalidHandshake, _Answer(http.HTTPStatus.BAD_REQUEST)),
)


def rejection_of(exc: Exception, now: float | None = None) -> Response:
    """Make the response to a request that cannot be accepted; its body says what was wrong.

    Args:
        exc: why. Of an exception that is not an :exc:`InvalidHandshake` the client learns nothing: status 500.
        now: time for the ``Date`` header, in seconds since the epoch; the present by default.
    """
    for type_, answer in _ANSWERS:
        if isinstance(exc, type_):
            cause = f" ({exc.__cause__})" if exc.__cause__ is not None and not answer.hint else ""
            text = f"The WebSocket connection was rejected: {exc}{cause}.\n{answer.hint}"
            break
    else:
        answer = _Answer(http.HTTPStatus.INTERNAL_SERVER_ERROR)
        text = "The WebSocket connection failed on the side of the server; its log says why.\n"
    response = rejection(answer.status, text, now)
    for name, value in answer.headers:
        response.headers[name] = value
    return response


def rejection(status: StatusLike, text: str, now: float | None = None) -> Response:
    """Make a response that rejects a request; browsers take it for nothing but text, whatever it quotes."""
    response = text_response(status, text, now)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def text_response(status: StatusLike, text: str, now: float | None = None) -> Response:
    """Make a plain text response.

    Args:
        status: status of the response.
        text: body of the response; sent in UTF-8.
        now: time for the ``Date`` header, in seconds since the epoch; the present by default.

    Raises:
        ValueError: if there is no such status.
    """
    status = http.HTTPStatus(status)
    body = text.encode("utf-8", "backslashreplace")
    headers = Headers._of(
        [
            ("Date", http_date(time.time() if now is None else now)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)


def finalize(response: Response) -> None:
    """Make a response that a hook has made or changed valid HTTP.

    Setting a header that is there adds a second value, where one value was meant: the last counts. And a
    server that closes after the response must say so, or clients would go on to use the connection (RFC 9112, 9.6).
    """
    headers = response.headers
    for name in _ONCE:
        values = headers.get_all(name)
        if len(values) > 1:
            del headers[name]
            headers[name] = values[-1]
    if response.status_code != 101 and headers.get_all("Connection") != ["close"]:
        if "Connection" in headers:
            del headers["Connection"]
        headers["Connection"] = "close"
    if response.status_code == 204 and "Content-Length" in headers:
        del headers["Content-Length"]  # RFC 9110, 8.6


# Headers with a single value that hooks may set beside one of ours.
_ONCE = ("Content-Length", "Content-Type", "Date", "Sec-WebSocket-Protocol", "Server")


# Date

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(now: float) -> str:
    """Write a time, in seconds since the epoch, as HTTP does (RFC 9110, 5.6.7); made once a second."""
    return _http_date(int(now))


@functools.lru_cache(maxsize=2)
def _http_date(now: int) -> str:
    # Not strftime: its names of days and months follow the locale.
    t = time.gmtime(now)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )


# Older names


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Look up serve(), which older programs import from here."""
        return lookup(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES[__name__]})
