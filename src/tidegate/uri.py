"""WebSocket URIs: text to values (RFC 6455, 3; RFC 3986, 3). Nothing is resolved or connected here."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri", "to_ascii"]

# Characters that have a meaning in a URI, and "%": they stay as they are when an IRI becomes a URI.
_KEPT = ":/?#[]@!$&'()*+,;=%"

_PORTS = {"ws": 80, "wss": 443}

_label = re.compile(r"[\w~!$&'()*+,;=-]{1,63}", re.ASCII)  # RFC 3986, 3.2.2, without dots; RFC 1035, 2.3.4
_JOINERS = "\u200c\u200d"


@dataclasses.dataclass
class WebSocketURI:
    """A WebSocket URI (RFC 6455, 3).

    Attributes:
        secure: True for ``wss``.
        host: in lower case, an IPv6 address without brackets and perhaps with a zone, an international name in its
            ASCII form.
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
        """Path and query, for the request line."""
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
        host = to_ascii(parsed.hostname)
        username, password = _decoded(parsed.username), _decoded(parsed.password)
    except ValueError as exc:
        raise InvalidURI(uri, str(exc)) from exc
    return WebSocketURI(
        parsed.scheme == "wss", host, port, _ascii(parsed.path), _ascii(parsed.query), username, password
    )


def to_ascii(host: str) -> str:
    """Return the form of a host in which it is looked up and sent, as browsers make it (UTS 46, not transitional).

    Args:
        host: from a URI (RFC 3986, 3.2.2), in lower case, an IPv6 address without its brackets.

    Raises:
        ValueError: if there can be no such host.
    """
    if ":" in host:
        return host.replace("%25", "%")  # the zone of an IPv6 address (RFC 6874, 2)
    if "%" in host:
        host = urllib.parse.unquote(host, errors="strict").lower()
    if not host.isascii():
        host = _from_unicode(host)
    for label in host.removesuffix(".").split("."):
        if _label.fullmatch(label) is None:
            raise ValueError(f"hostname isn't valid: {host[:80]!r}")
    return host


def _from_unicode(host: str) -> str:
    import idna  # whose tables only such names need

    labels = []
    for label in idna.uts46_remap(host, std3_rules=False, transitional=False).split("."):
        if not label.isascii():
            idna.check_initial_combiner(label)
            idna.check_bidi(label)
            if not all(idna.valid_contextj(label, place) for place, char in enumerate(label) if char in _JOINERS):
                raise ValueError(f"hostname isn't valid: a joiner in {label!r} joins nothing")
            # Not idna.alabel(), which knows only the characters of IDNA 2008: browsers know all of UTS 46.
            label = "xn--" + label.encode("punycode").decode()
        labels.append(label)
    return ".".join(labels)


def _decoded(part: str | None) -> str | None:
    return None if part is None else urllib.parse.unquote(part, errors="strict")


def _ascii(part: str) -> str:
    return part if part.isascii() else urllib.parse.quote(part, safe=_KEPT)
