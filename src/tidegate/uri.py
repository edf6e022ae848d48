"""WebSocket URIs: text to values (RFC 6455, 3; RFC 3986, 3). Nothing is resolved or connected here."""

from __future__ import annotations

import dataclasses
import urllib.parse

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]

# Characters that have a meaning in a URI, and "%": they stay as they are when an IRI becomes a URI.
_KEPT = ":/?#[]@!$&'()*+,;=%"

_PORTS = {"ws": 80, "wss": 443}


@dataclasses.dataclass
class WebSocketURI:
    """A WebSocket URI (RFC 6455, 3).

    Attributes:
        secure: True for ``wss``.
        host: in lower case, an IPv6 address without brackets, an international name in its ASCII form.
        port: 80 or 443 if the URI does not say.
        path: may be empty.
        query: may be empty; without the question mark.
        username: from the user information, decoded; None if there is none.
        password: likewise.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    @property
    def resource_name(self) -> str:
        """What goes into the request line: path and query."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password; None if there are none."""
        if self.username is None or self.password is None:
            return None
        return self.username, self.password


def parse_uri(uri: str) -> WebSocketURI:
    """Parse a WebSocket URI (RFC 6455, 3).

    Args:
        uri: the URI; an internationalized one (RFC 3987) is converted.

    Raises:
        InvalidURI: if it is not a valid WebSocket URI.
    """
    try:
        parsed = urllib.parse.urlsplit(uri)
        if parsed.scheme not in _PORTS:
            raise InvalidURI(uri, "scheme isn't ws or wss")
        if not parsed.hostname:
            raise InvalidURI(uri, "hostname isn't provided")
        if parsed.fragment:
            raise InvalidURI(uri, "fragment identifier is meaningless")
        if parsed.username is not None and parsed.password is None:
            raise InvalidURI(uri, "username provided without password")
        port = parsed.port or _PORTS[parsed.scheme]
        host = parsed.hostname if parsed.hostname.isascii() else parsed.hostname.encode("idna").decode()
        username, password = _decoded(parsed.username), _decoded(parsed.password)
    except ValueError as exc:
        raise InvalidURI(uri, str(exc)) from exc
    return WebSocketURI(
        parsed.scheme == "wss", host, port, _ascii(parsed.path), _ascii(parsed.query), username, password
    )


def _decoded(part: str | None) -> str | None:
    return None if part is None else urllib.parse.unquote(part, errors="strict")


def _ascii(part: str) -> str:
    return part if part.isascii() else urllib.parse.quote(part, safe=_KEPT)
