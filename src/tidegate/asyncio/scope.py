"""The scope of an ASGI application: what it is told of a connection, from the bytes of the request; and ASGI's types.

What must not live here: events and states (asgi.py), scopes of HTTP requests, which are uvicorn's (http_service.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from ..forwarded import SCHEME_HEADERS, scheme_of

__all__ = ["ASGI", "Application", "Event", "Headers", "told_scheme", "websocket_scope"]

Event = MutableMapping[str, Any]
Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[Any]]
Headers = list[tuple[bytes, bytes]]

ASGI = {"version": "3.0", "spec_version": "2.5"}
"""Versions of ASGI, and of its specification of WebSocket."""

# What most requests have is shared by the scopes of all connections, which live long.
_NAMES = {
    name: name
    for name in (
        *(b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"cookie", b"host"),
        *(b"origin", b"pragma", b"sec-websocket-extensions", b"sec-websocket-key", b"sec-websocket-protocol"),
        *(b"user-agent", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip"),
    )
}
_FIXED = {
    b"Upgrade: websocket": (b"upgrade", b"websocket"),
    b"Connection: Upgrade": (b"connection", b"Upgrade"),
    b"Sec-WebSocket-Version: 13": (b"sec-websocket-version", b"13"),
}

_SECURE = {"http": "ws", "https": "wss"}


class _Connection(Protocol):
    """A connection, as far as it is told of."""

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def local_address(self) -> Any: ...
    @property
    def remote_address(self) -> Any: ...
    @property
    def told_in(self) -> str | None: ...


def websocket_scope(
    connection: _Connection, head: bytes, root_path: str, state: Mapping[str, Any], extensions: dict[str, Any]
) -> dict[str, Any]:
    """Make the scope of a connection.

    Args:
        connection: the connection.
        head: of its request.
        root_path: where the application is mounted, as clients see it.
        state: of the lifespan, of which each scope has a copy.
        extensions: what the server can do beyond the specification.
    """
    first, *lines = head[:-4].split(b"\r\n")
    target = first.split(b" ")[1]
    headers = [_FIXED.get(line) or _header(line) for line in lines]
    if not target.startswith(b"/"):  # RFC 9112, 3.2.2
        parts = urlsplit(target)
        target = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    raw_path, _, query_string = target.partition(b"?")
    path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    return {
        "type": "websocket",
        "asgi": ASGI.copy(),
        "http_version": "1.1",
        "scheme": _SECURE[_scheme(connection, headers)],
        "path": root_path + path,
        "raw_path": root_path.encode() + raw_path,
        "query_string": query_string,
        "root_path": root_path,
        "headers": headers,
        "client": _address(connection.remote_address),
        "server": _address(connection.local_address) or _unix(connection.local_address),
        "subprotocols": _subprotocols(headers),
        "state": dict(state),
        "extensions": extensions,
    }


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    name = name.lower()
    return _NAMES.get(name, name), value.strip(b" \t")


def told_scheme(header: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the scheme that a trusted proxy tells.

    Args:
        header: in which it tells the address of the client.
        headers: of the request.
    """
    wanted = SCHEME_HEADERS[header].encode()
    return scheme_of(header, [value.decode("latin-1") for name, value in headers if name == wanted])


def _scheme(connection: _Connection, headers: Headers) -> str:
    header = connection.told_in
    told = None if header is None else told_scheme(header, headers)
    return told or ("http" if connection.transport.get_extra_info("sslcontext") is None else "https")


def _address(address: Any) -> tuple[str, int] | None:
    """Return an address of the Internet as ASGI has it; None for another."""
    return address[:2] if isinstance(address, tuple) else None


def _unix(path: Any) -> tuple[str, None] | None:
    return (str(path), None) if path and isinstance(path, str) else None


def _subprotocols(headers: Headers) -> list[str]:
    lines = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
    return [item for item in (item.strip(" \t") for line in lines for item in line.split(",")) if item]
