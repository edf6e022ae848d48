"""Headers of ASGI events, checked, as bytes of a response; and those that a response has by itself.

What must not live here: when they are sent (asgi.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from ..http11 import has_body
from ..server import http_date

__all__ = ["checked", "default_headers", "header_lines", "http_head", "subprotocol_line"]

_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110, 5.6.2
_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110, 5.5

_OURS = frozenset(
    {b"connection", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"}
)
"""Headers of a response 101 that the handshake makes (RFC 6455, 4.2.2)."""


def checked(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers of an application, checked, with names in lower case.

    Raises:
        TypeError: one is not bytes.
        ValueError: one cannot be sent; the message names it.
    """
    return [_checked(name, value) for name, value in headers]


def _checked(name: Any, value: Any) -> tuple[bytes, bytes]:
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise TypeError(f"names and values of headers must be bytes, not {name!r:.60}: {value!r:.60}")
    if not _name(name):
        raise ValueError(f"not a name of a header: {name!r:.60}")
    if not _value(value):
        raise ValueError(f"not a value of the header {name.decode()}: {value!r:.60}")
    return name.lower(), value


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the lines of headers that an application adds to a response 101.

    Raises:
        TypeError: one is not bytes.
        ValueError: one cannot be sent; the message names it.
    """
    lines = []
    for name, value in checked(headers):
        if name in _OURS:
            hint = ": use subprotocol" if name == b"sec-websocket-protocol" else ""
            raise ValueError(f"the header {name.decode()} is the server's{hint}")
        lines.append(name + b": " + value + b"\r\n")
    return b"".join(lines)


def subprotocol_line(subprotocol: Any) -> bytes:
    """Return the line of the subprotocol that an application has chosen; none for None.

    Raises:
        TypeError, ValueError: it is none.
    """
    if subprotocol is None or subprotocol == "":
        return b""
    if not isinstance(subprotocol, str):
        raise TypeError(f"subprotocol must be a str or None, not {subprotocol!r:.60}")
    if not subprotocol.isascii() or not _name(subprotocol.encode()):
        raise ValueError(f"subprotocol must be a token, not {subprotocol!r:.60}")
    return f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode()


def default_headers(server_header: str | None, now: float) -> list[tuple[bytes, bytes]]:
    """Make the headers that a response has by itself: the date, and the server's name if there is one."""
    date = (b"date", http_date(now).encode())
    return [date] if server_header is None else [date, (b"server", server_header.encode())]


def http_head(
    status: int, headers: Sequence[tuple[bytes, bytes]], length: int | None, defaults: Iterable[tuple[bytes, bytes]]
) -> tuple[bytes, str]:
    """Return the head of a response that denies a handshake, and its reason phrase.

    Args:
        status: of the response.
        headers: of the application, checked.
        length: of the body; None: not known, it goes on to the end of the connection.
        defaults: headers of the server, which those of the application replace.
    """
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    names = {name for name, _ in headers}
    hop_by_hop = (b"connection", b"transfer-encoding")
    lines = [f"HTTP/1.1 {status} {reason}\r\n".encode()]
    lines += [name + b": " + value + b"\r\n" for name, value in defaults if name not in names]
    lines += [name + b": " + value + b"\r\n" for name, value in headers if name not in hop_by_hop]
    if b"content-length" not in names and length is not None and has_body("GET", status):
        lines.append(f"content-length: {length}\r\n".encode())
    lines.append(b"connection: close\r\n\r\n")
    return b"".join(lines), reason
