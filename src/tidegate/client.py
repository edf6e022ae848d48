"""The opening handshake, seen by the client (RFC 6455, 4.1): request, check of the response, redirects, retries.

What must not live here: connecting and waiting, which ``asyncio.client`` does.
"""

from __future__ import annotations

import base64
import dataclasses
import random
import secrets
import urllib.parse
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ._compat import lookup
from .datastructures import Headers
from .environment import number
from .exceptions import (
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidStatus,
    NegotiationError,
)
from .extensions.base import ClientExtensionFactory, Extension
from .headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    parse_extension,
    parse_lines,
    parse_subprotocol,
    validate_subprotocols,
)
from .http11 import Request, Response
from .server import VERSION, accept_key, check_upgrade, single
from .typing import Subprotocol
from .uri import WebSocketURI

__all__ = [
    "Agreed",
    "ClientOptions",
    "backoff",
    "check_response",
    "generate_key",
    "make_request",
    "process_exception",
    "redirect_target",
    "same_origin",
    "without_credentials",
]

MAX_REDIRECTS = number("TIDEGATE_MAX_REDIRECTS", 10)
"""Redirects that are followed for one connection."""

BACKOFF_INITIAL_DELAY = number("TIDEGATE_BACKOFF_INITIAL_DELAY", 5.0)
"""Seconds; a random part of it is the first delay, lest all clients of a server that was lost come back at once."""

BACKOFF_MIN_DELAY = number("TIDEGATE_BACKOFF_MIN_DELAY", 3.1)
"""Seconds of the second delay."""

BACKOFF_MAX_DELAY = number("TIDEGATE_BACKOFF_MAX_DELAY", 90.0)
"""Seconds that no delay exceeds."""

BACKOFF_FACTOR = number("TIDEGATE_BACKOFF_FACTOR", 1.618)
"""Each delay is so many times as long as the one before."""


# The question


@dataclasses.dataclass(slots=True)
class ClientOptions:
    """What a client asks for; made once, checked when it is made.

    Attributes:
        origin: value of ``Origin``; None for no such header, as from a program that is no browser.
        subprotocols: acceptable subprotocols, the preferred first. None or an empty list asks for none.
        extensions: factories of the extensions to offer, in order of preference.
        user_agent: value of ``User-Agent``, unless the additional headers have one; None for no such header.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if a subprotocol is not a token.
        InvalidHeaderValue: if a header cannot hold ``origin`` or ``user_agent``.
    """

    origin: str | None = None
    subprotocols: Sequence[str] | None = None
    extensions: Sequence[ClientExtensionFactory] | None = None
    user_agent: str | None = None

    def __post_init__(self) -> None:
        for option, name, value in (
            ("origin", "Origin", self.origin),
            ("user_agent_header", "User-Agent", self.user_agent),
        ):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{option} must be a str or None, not {type(value).__name__}")
            if value is not None:
                Headers([(name, value)])
        if self.subprotocols is not None:
            validate_subprotocols(self.subprotocols)
        for factory in self.extensions or ():
            if not hasattr(factory, "process_response_params"):
                raise TypeError(f"extensions must contain ClientExtensionFactory instances, not {factory!r}")


def generate_key() -> str:
    """Make a value of ``Sec-WebSocket-Key``: sixteen random bytes in base64 (RFC 6455, 4.1, item 7)."""
    return base64.b64encode(secrets.token_bytes(16)).decode()


def make_request(uri: WebSocketURI, key: str, options: ClientOptions, additional: Headers) -> Request:
    """Make the request of an opening handshake (RFC 6455, 4.1).

    Args:
        uri: where to; its user name and password become an ``Authorization`` header.
        key: value of ``Sec-WebSocket-Key``.
        options: what to ask for.
        additional: headers to add. Those of :data:`_OVERRIDABLE` replace ours; those that make the handshake do not,
            and are left out: servers reject a request with two of them.
    """
    pairs: list[tuple[str, str | None]] = [
        ("Host", build_host(uri.host, uri.port, uri.secure)),
        ("Authorization", None if uri.user_info is None else build_authorization_basic(*uri.user_info)),
        ("Origin", options.origin),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if options.extensions:
        offers = [(factory.name, factory.get_request_params()) for factory in options.extensions]
        pairs.append(("Sec-WebSocket-Extensions", build_extension(offers)))
    if options.subprotocols:
        pairs.append(("Sec-WebSocket-Protocol", build_subprotocol(options.subprotocols)))
    headers, ours = Headers(), set()
    for name, value in pairs:
        others = additional.get_all(name) if name in _OVERRIDABLE else []
        for one in others or ([] if value is None else [value]):
            headers[name] = one
        ours.add(name.lower())
    for name, value in additional.raw_items():
        if name.lower() not in ours:
            headers[name] = value
    if options.user_agent is not None and "User-Agent" not in headers:
        headers["User-Agent"] = options.user_agent
    return Request(uri.resource_name, headers)


_OVERRIDABLE = frozenset({"Host", "Authorization", "Origin"})
"""Headers of ours in whose place the caller may put others; and User-Agent."""


# The answer


class Agreed(NamedTuple):
    """Outcome of a handshake that succeeds.

    Attributes:
        subprotocol: the one that the server chose, or None.
        extensions: those that it accepted, in the order in which they are applied to what is sent.
    """

    subprotocol: Subprotocol | None
    extensions: list[Extension]


def check_response(response: Response, key: str, options: ClientOptions) -> Agreed:
    """Check the answer to a request (RFC 6455, 4.1, the second list).

    Args:
        response: answer of the server.
        key: ``Sec-WebSocket-Key`` of the request.
        options: what the request asked for.

    Raises:
        InvalidStatus: if it is not 101.
        InvalidHandshake: if another condition does not hold, as one of its subclasses.
    """
    if response.status_code != 101:
        raise InvalidStatus(response)
    headers = response.headers
    check_upgrade(headers)
    accept = single(headers, "Sec-WebSocket-Accept")
    if accept != accept_key(key):
        raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)
    extensions = _check_extensions(headers, options)
    return Agreed(_check_subprotocol(headers, options), extensions)


def _check_extensions(headers: Headers, options: ClientOptions) -> list[Extension]:
    """Make the extensions that the server accepted (RFC 6455, 9.1); each must have been offered."""
    accepted: list[Extension] = []
    lines = headers.get_all("Sec-WebSocket-Extensions")
    for name, parameters in parse_lines(parse_extension, lines, "Sec-WebSocket-Extensions"):
        if not options.extensions:
            raise NegotiationError("no extensions supported")
        for factory in options.extensions:
            if factory.name != name:
                continue
            try:
                extension = factory.process_response_params(parameters, accepted)
            except NegotiationError:
                continue  # another factory may have offered what was accepted here
            accepted.append(extension)
            break
        else:
            raise NegotiationError(f"Unsupported extension: name = {name}, params = {parameters}")
    return accepted


def _check_subprotocol(headers: Headers, options: ClientOptions) -> Subprotocol | None:
    lines = headers.get_all("Sec-WebSocket-Protocol")
    names = parse_lines(parse_subprotocol, lines, "Sec-WebSocket-Protocol")
    if not names:
        return None
    if not options.subprotocols:
        raise NegotiationError("no subprotocols supported")
    if len(names) > 1:
        raise InvalidHeader("Sec-WebSocket-Protocol", f"multiple values: {', '.join(names)}")
    if names[0] not in options.subprotocols:
        raise NegotiationError(f"unsupported subprotocol: {names[0]}")
    return names[0]


# Another address (RFC 9110, 15.4)

_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_CREDENTIALS = frozenset({"authorization", "cookie", "host", "proxy-authorization"})


def redirect_target(uri: str, exc: Exception) -> str | None:
    """Return the URI to which the answer to ``uri`` sends the client; None if ``exc`` is not for a redirect."""
    if not isinstance(exc, InvalidStatus) or exc.response.status_code not in _REDIRECTS:
        return None
    locations = exc.response.headers.get_all("Location")
    if len(locations) != 1:
        return None
    return urllib.parse.urljoin(uri, locations[0])


def same_origin(one: WebSocketURI, other: WebSocketURI) -> bool:
    """Return whether what is for one may be sent to the other (RFC 6454, 5)."""
    return (one.secure, one.host, one.port) == (other.secure, other.host, other.port)


def without_credentials(headers: Headers) -> Headers:
    """Return the headers that may be sent to another origin than their own."""
    return Headers([(name, value) for name, value in headers.raw_items() if name.lower() not in _CREDENTIALS])


# Another try

_TRANSIENT = frozenset({500, 502, 503, 504})


def process_exception(exc: Exception) -> Exception | None:
    """Tell whether a failure to connect may pass, for ``async for websocket in connect(...)``.

    This is the default of the option of that name. These may pass: what the network does (:exc:`OSError`,
    :exc:`TimeoutError`, and :exc:`InvalidMessage` because the stream ended before the response did), and the statuses
    500, 502, 503, 504. All else would fail again.

    Args:
        exc: what the attempt to connect raised.

    Returns:
        None to try again, or the exception to raise: this one, or another.
    """
    if isinstance(exc, OSError | TimeoutError):
        return None
    if isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError):
        return None
    if isinstance(exc, InvalidStatus) and exc.response.status_code in _TRANSIENT:
        return None
    return exc


def backoff(
    initial_delay: float = BACKOFF_INITIAL_DELAY,
    min_delay: float = BACKOFF_MIN_DELAY,
    max_delay: float = BACKOFF_MAX_DELAY,
    factor: float = BACKOFF_FACTOR,
) -> Generator[float, None, None]:
    """Generate delays between attempts to connect, each longer than the last, without end (RFC 6455, 7.2.3).

    The defaults can be changed by ``TIDEGATE_BACKOFF_INITIAL_DELAY``, ``_MIN_DELAY``, ``_MAX_DELAY`` and ``_FACTOR`` in
    the environment.

    Args:
        initial_delay: seconds; the first delay is random between 0 and this.
        min_delay: seconds of the second delay.
        max_delay: seconds that no delay but the first exceeds.
        factor: by which each delay is longer than the one before.
    """
    yield random.random() * initial_delay
    delay = min_delay
    while True:
        yield min(delay, max_delay)
        delay = min(delay * factor, max_delay)


if not TYPE_CHECKING:  # type checkers must report wrong names

    def __getattr__(name: str) -> Any:
        """Look up connect(), which older programs import from here."""
        return lookup(__name__, name)
