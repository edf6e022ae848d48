"""Who may ask the admin address: clients with the token, if there is one, and of web pages only its own.

Another web page can have its own host name lead to loopback, so that its requests come here and have the same origin
(DNS rebinding). It cannot choose the name, and it has no token: so requests without a token are refused unless the Host
header is an address or a known name of this machine.

/livez, /readyz and the page itself, which has no data, are open to everyone.
What must not live here: the answers (routes.py).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection, Iterator, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from ..exceptions import InvalidHeader
from ..headers import parse_subprotocol
from ..http11 import Request
from ..typing import Subprotocol

__all__ = ["BEARER", "PROTOCOL", "Authorization"]

PROTOCOL = Subprotocol("tidegate.live")
"""The subprotocol of /live, for browsers, which must be given one of those that they offer."""

BEARER = "tidegate.bearer."
"""What goes before the token, in base64url without padding, where a browser offers it as a subprotocol: a page can set
no header of its WebSocket."""

Refusal = tuple[HTTPStatus, str]


class Authorization:
    """Decides by a request's headers.

    Parameters:
        token: what a request must have; None: the address is one of loopback, and needs no token.
        names: host names of this machine, in lower case, besides localhost.
        flag: the setting that the token is from.
    """

    def __init__(self, token: str | None, names: Collection[str] = (), flag: str = "--admin-token") -> None:
        self._flag = flag
        self._token = token.encode() if token is not None else None
        self._names = frozenset(name.rstrip(".") for name in names)

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def refusal(self, request: Request) -> Refusal | None:
        """Return why a request is refused; None: it is answered."""
        return self._token_refusal(request) or self._name_refusal(request) or self._page_refusal(request)

    def _token_refusal(self, request: Request) -> Refusal | None:
        if self._token is None or any(hmac.compare_digest(given, self._token) for given in _given(request)):
            return None
        return HTTPStatus.UNAUTHORIZED, f"the token of {self._flag} is needed, as in: Authorization: Bearer TOKEN"

    def _name_refusal(self, request: Request) -> Refusal | None:
        host = ",".join(request.headers.get_all("Host"))
        if self._token is not None or not host:  # clients other than browsers may leave it out, in HTTP/1.0
            return None
        try:
            parts = urlsplit(f"//{host}")
            name = (parts.hostname or "") if parts.netloc == host else ""
        except ValueError:
            name = ""
        if not name or any(character in host for character in "@, "):
            return HTTPStatus.BAD_REQUEST, "the Host header must be one host, and perhaps a port"
        if _is_local(name) or name.rstrip(".") in self._names:
            return None
        return HTTPStatus.FORBIDDEN, f"asking by the name {name} needs a token, or --admin-hosts"

    def _page_refusal(self, request: Request) -> Refusal | None:
        """Refuse other web pages, which browsers let open a WebSocket to anywhere (RFC 6455 section 10.2)."""
        origins = request.headers.get_all("Origin")
        if not origins:
            return None
        origin, host = ",".join(origins), ",".join(request.headers.get_all("Host"))
        if origin != "null" and not _is_origin(origin):
            return HTTPStatus.BAD_REQUEST, "the Origin header must be one origin, such as http://localhost:9465"
        if origin.partition("://")[2].lower() != host.lower():
            return HTTPStatus.FORBIDDEN, f"only pages of this address may ask, not those of {origin}"
        return None


def select_subprotocol(connection: object, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select the subprotocol of /live if the client offers it."""
    return PROTOCOL if PROTOCOL in offered else None


def _given(request: Request) -> Iterator[bytes]:
    """Yield every token that a request has."""
    for value in request.headers.get_all("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip().encode()
    for value in request.headers.get_all("Sec-WebSocket-Protocol"):
        try:
            offered = parse_subprotocol(value)
        except InvalidHeader:
            continue
        for name in offered:
            if name.startswith(BEARER):
                try:
                    yield base64.b64decode(name.removeprefix(BEARER) + "==", altchars=b"-_")
                except binascii.Error:
                    continue


def _is_origin(text: str) -> bool:
    """Return whether a text is an origin as browsers write it (RFC 6454 section 6.1)."""
    try:
        parts = urlsplit(text)
        return bool(parts.hostname and parts.port != 0) and text == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        return False


def _is_local(name: str) -> bool:
    """Return whether a host is an address, or a name that always means this machine."""

    try:
        return name == "localhost" or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
