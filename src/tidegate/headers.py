"""Grammar of the header values that the opening handshake uses: text to values and back (RFC 9110, 5.6; RFC 6455, 9.1).

Parsers take one header value, as received, and raise :exc:`InvalidHeaderFormat` with the place of the first mistake.
Whether the values are acceptable is not decided here but in ``server``.
"""

from __future__ import annotations

import base64
import binascii
import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

from .exceptions import InvalidHeaderFormat, InvalidHeaderValue
from .typing import (
    ConnectionOption,
    ExtensionHeader,
    ExtensionName,
    ExtensionParameter,
    Subprotocol,
    UpgradeProtocol,
)

__all__ = [
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "check_length",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_lines",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_host",
    "validate_subprotocols",
]

MAX_LIST_ITEMS = 128
"""Items and parameters in a header that is a list, empty ones included. Browsers send two or three."""

_T = TypeVar("_T")

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

_token = re.compile(_TOKEN)
_protocol = re.compile(rf"{_TOKEN}(?:/{_TOKEN})?")  # RFC 9110, 7.8: name, and perhaps a version
_token68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 9110, 11.2
_blanks = re.compile(r"[ \t]*")
# RFC 9110, 5.6.4, without obs-text: no value of a WebSocket header can contain it.
_quoted_string = re.compile(r'"((?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*)"')
_quoted_pair = re.compile(r"\\(.)")
_special = re.compile(r'(["\\])')
_quotable = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# RFC 9110, 7.2; RFC 3986, 3.2.2: a name or an IPv4 address, or an IPv6 address in brackets; and a port.
_host = re.compile(
    r"(?:(?:[\w.~!$&'()*+,;=-]|%[0-9a-fA-F]{2})+|\[(?P<ipv6>[0-9a-fA-F:.]+(?:%[\w.~%-]+)?)\])(?::(?P<port>[0-9]*))?",
    re.ASCII,
)

# Parses an item at a position of a header of a given name; returns it, and the position after it.
_ItemParser = Callable[[str, int, str], tuple[_T, int]]


# Pieces


def _match(pattern: re.Pattern[str], what: str, header: str, pos: int, name: str) -> tuple[str, int]:
    match = pattern.match(header, pos)
    if match is None:
        raise InvalidHeaderFormat(name, f"expected {what}", header, pos)
    return match[0], match.end()


def _parse_token(header: str, pos: int, name: str) -> tuple[str, int]:
    return _match(_token, "token", header, pos, name)


def _parse_protocol(header: str, pos: int, name: str) -> tuple[str, int]:
    return _match(_protocol, "protocol", header, pos, name)


def _skip(header: str, pos: int) -> int:
    """Skip spaces and tabs."""
    return cast("re.Match[str]", _blanks.match(header, pos)).end()


def _is_at(char: str, header: str, pos: int) -> bool:
    return header.startswith(char, pos)


def _parse_list(parse_item: _ItemParser[_T], header: str, name: str) -> list[_T]:
    """Parse items between commas, of which there may be too many (RFC 9110, 5.6.1.2) or nothing else."""
    check_length([header], name)
    pos = 0
    items: list[_T] = []
    while True:
        while _is_at(",", header, pos):
            pos = _skip(header, pos + 1)
        if pos == len(header):
            return items
        item, pos = parse_item(header, pos, name)
        items.append(item)
        pos = _skip(header, pos)
        if pos == len(header):
            return items
        if not _is_at(",", header, pos):
            raise InvalidHeaderFormat(name, "expected comma", header, pos)


def parse_lines(parse: Callable[[str], Iterable[_T]], lines: Sequence[str], name: str) -> list[_T]:
    """Parse a header that is a list and may be split into several lines (RFC 9110, 5.3).

    Args:
        parse: of one line.
        lines: values of the header, in order.
        name: of the header.

    Raises:
        InvalidHeaderFormat: on invalid input, and beyond :data:`MAX_LIST_ITEMS` in all.
    """
    check_length(lines, name)
    return [item for line in lines for item in parse(line)]


def check_length(lines: Sequence[str], name: str) -> None:
    """Check that a list (RFC 9110, 5.6.1) is not too long, before any of it is parsed: a rejection must be cheap.

    Args:
        lines: values of the header.
        name: of the header.

    Raises:
        InvalidHeaderFormat: beyond :data:`MAX_LIST_ITEMS`.
    """
    items = len(lines)
    for line in lines:
        items += line.count(",") + line.count(";")
    if items > MAX_LIST_ITEMS:
        raise InvalidHeaderFormat(name, f"more than {MAX_LIST_ITEMS} items", lines[0][:80], 0)


# Host


def build_host(host: str, port: int, secure: bool, *, always_include_port: bool = False) -> str:
    """Build a ``Host`` header (RFC 9110, 7.2).

    Args:
        host: a name, or an address; an IPv6 address gets its brackets.
        port: left out when it is the usual one, 80 or 443.
        secure: whether that is 443.
        always_include_port: True to write it even so.
    """
    # RFC 3986, 3.2.2: an IPv6 address needs brackets, or its colons could not be told from the port's. Its zone is of
    # this machine alone, and not sent (RFC 6874, 4).
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.version == 6:
            host = f"[{host.partition('%')[0]}]"
    if always_include_port or port != (443 if secure else 80):
        return f"{host}:{port}"
    return host


@functools.lru_cache(256)  # clients of one service say the same
def validate_host(value: str) -> None:
    """Check the value of a ``Host`` header: a name or an address, and perhaps a port (RFC 9110, 7.2).

    An empty one, which RFC 9112 has for targets without an authority, is none: a WebSocket's URI has one (RFC 6455, 3).

    Raises:
        InvalidHeaderValue: if it is something else.
    """
    match = _host.fullmatch(value)
    if match is not None and (not match["port"] or (len(match["port"]) <= 5 and int(match["port"]) <= 65535)):
        if match["ipv6"] is None:
            return
        try:
            # Clients ought not to send the zone (RFC 6874, 4), and some do.
            ipaddress.IPv6Address(match["ipv6"].partition("%")[0])
            return
        except ValueError:
            pass
    raise InvalidHeaderValue("Host", value)


# Connection, Upgrade


def parse_connection(header: str) -> list[ConnectionOption]:
    """Parse a ``Connection`` header (RFC 9110, 7.6.1).

    Raises:
        InvalidHeaderFormat: on invalid input.
    """
    return cast("list[ConnectionOption]", _parse_list(_parse_token, header, "Connection"))


def parse_upgrade(header: str) -> list[UpgradeProtocol]:
    """Parse an ``Upgrade`` header (RFC 9110, 7.8).

    Raises:
        InvalidHeaderFormat: on invalid input.
    """
    return cast("list[UpgradeProtocol]", _parse_list(_parse_protocol, header, "Upgrade"))


# Sec-WebSocket-Extensions


def _parse_parameter(header: str, pos: int, name: str) -> tuple[ExtensionParameter, int]:
    parameter, pos = _parse_token(header, pos, name)
    pos = _skip(header, pos)
    if not _is_at("=", header, pos):
        return (parameter, None), pos
    pos = _skip(header, pos + 1)
    if not _is_at('"', header, pos):
        value, pos = _parse_token(header, pos, name)
        return (parameter, value), pos
    match = _quoted_string.match(header, pos)
    if match is None:
        raise InvalidHeaderFormat(name, "expected quoted string", header, pos)
    value = _quoted_pair.sub(r"\1", match[1])
    # RFC 6455, 9.1: without its quotes the value must be a token all the same.
    if _token.fullmatch(value) is None:
        raise InvalidHeaderFormat(name, "invalid quoted header content", header, pos)
    return (parameter, value), match.end()


def _parse_extension_item(header: str, pos: int, name: str) -> tuple[ExtensionHeader, int]:
    extension, pos = _parse_token(header, pos, name)
    pos = _skip(header, pos)
    parameters = []
    while _is_at(";", header, pos):
        parameter, pos = _parse_parameter(header, _skip(header, pos + 1), name)
        parameters.append(parameter)
        pos = _skip(header, pos)
    return (cast("ExtensionName", extension), parameters), pos


def parse_extension(header: str) -> list[ExtensionHeader]:
    """Parse a ``Sec-WebSocket-Extensions`` header (RFC 6455, 9.1).

    Returns:
        Extensions in order, each with its parameters: ``[("permessage-deflate", [("client_max_window_bits", None)])]``.

    Raises:
        InvalidHeaderFormat: on invalid input.
    """
    return _parse_list(_parse_extension_item, header, "Sec-WebSocket-Extensions")


def build_extension(extensions: Sequence[ExtensionHeader]) -> str:
    """Build a ``Sec-WebSocket-Extensions`` header (RFC 6455, 9.1); the reverse of :func:`parse_extension`.

    Args:
        extensions: in order, each with its parameters.
    """
    return ", ".join(
        [
            "; ".join([name, *[key if value is None else f"{key}={value}" for key, value in parameters]])
            for name, parameters in extensions
        ]
    )


# Sec-WebSocket-Protocol


def parse_subprotocol(header: str) -> list[Subprotocol]:
    """Parse a ``Sec-WebSocket-Protocol`` header (RFC 6455, 11.3.4).

    Raises:
        InvalidHeaderFormat: on invalid input.
    """
    return cast("list[Subprotocol]", _parse_list(_parse_token, header, "Sec-WebSocket-Protocol"))


def build_subprotocol(subprotocols: Sequence[str]) -> str:
    """Build a ``Sec-WebSocket-Protocol`` header (RFC 6455, 11.3.4); the reverse of :func:`parse_subprotocol`.

    Args:
        subprotocols: in order of preference.
    """
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: Sequence[str]) -> None:
    """Check a list of subprotocols that is given as an option.

    Raises:
        TypeError: if it is not a list or the like, or an item is not a :class:`str`.
        ValueError: if an item is not a token (RFC 6455, 4.1).
    """
    if not isinstance(subprotocols, Sequence):
        raise TypeError("subprotocols must be a list")
    if isinstance(subprotocols, str | bytes | bytearray):
        raise TypeError(f"subprotocols must be a list, not a {type(subprotocols).__name__}")
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str):
            raise TypeError(f"subprotocols must be a list of str, not of {type(subprotocol).__name__}")
        if _token.fullmatch(subprotocol) is None:
            raise ValueError(f"invalid subprotocol: {subprotocol}")


# WWW-Authenticate, Authorization


def build_www_authenticate_basic(realm: str) -> str:
    """Build a ``WWW-Authenticate`` header for HTTP Basic authentication (RFC 7617).

    Raises:
        ValueError: if the realm contains a control character, or one that ISO-8859-1 does not have.
    """
    if _quotable.fullmatch(realm) is None:
        raise ValueError(f"realm contains characters that a header cannot: {realm!r}")
    quoted = _special.sub(r"\\\1", realm)
    return f'Basic realm="{quoted}", charset="UTF-8"'


def parse_authorization_basic(header: str) -> tuple[str, str]:
    """Parse an ``Authorization`` header for HTTP Basic authentication (RFC 7617).

    Returns:
        User name and password.

    Raises:
        InvalidHeaderFormat: on invalid input.
        InvalidHeaderValue: if it uses another scheme, or does not contain a user name and a password.
    """
    name = "Authorization"
    scheme, pos = _parse_token(header, 0, name)
    if scheme.lower() != "basic":
        raise InvalidHeaderValue(name, f"unsupported scheme: {scheme}")
    if not _is_at(" ", header, pos):
        raise InvalidHeaderFormat(name, "expected space after scheme", header, pos)
    encoded, pos = _match(_token68, "token68", header, pos + 1, name)
    if pos != len(header):
        raise InvalidHeaderFormat(name, "trailing data", header, pos)
    try:
        # Lenient: the meaning is compared, not the spelling. Bytes that are no UTF-8 become surrogates, which no
        # password matches.
        credentials = base64.b64decode(encoded).decode("utf-8", "surrogateescape")
    except binascii.Error:
        raise InvalidHeaderValue(name, "expected base64-encoded credentials") from None
    username, colon, password = credentials.partition(":")
    if not colon:
        raise InvalidHeaderValue(name, "expected username:password credentials")
    return username, password


def build_authorization_basic(username: str, password: str) -> str:
    """Build an ``Authorization`` header for HTTP Basic authentication (RFC 7617).

    The reverse of :func:`parse_authorization_basic`.

    Args:
        username: without a colon.
        password: any text; both are encoded to UTF-8.

    Raises:
        ValueError: if the user name contains a colon, which would end it (RFC 7617, 2).
    """
    if ":" in username:
        raise ValueError("a username cannot contain a colon")
    credentials = f"{username}:{password}".encode()
    return "Basic " + base64.b64encode(credentials).decode()
