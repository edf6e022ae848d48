"""Who may ask the admin address: whoever has the token, if there is one, and of web pages only its own.

/livez, /readyz and the page itself, which has nothing to tell by itself, are open to everybody.
What must not live here: what is answered (answers).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from ..exceptions import InvalidHeader
from ..headers import parse_subprotocol
from ..http11 import Request
from ..typing import Subprotocol

__all__ = ["BEARER", "PROTOCOL", "Access"]

PROTOCOL = Subprotocol("tidegate.live")
"""The subprotocol of /live, for browsers, who must be given one of those that they offer."""

BEARER = "tidegate.bearer."
"""What goes before the token, in base64url without padding, where a browser offers it as a subprotocol: a page can set
no header of its WebSocket."""

Refusal = tuple[HTTPStatus, str]


class Access:
    """Decides by a request's headers.

    Parameters:
        token: what whoever asks must have; None: the address is one of loopback, and everybody there may.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token is not None else None

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def refuse(self, request: Request) -> Refusal | None:
        """Why a request is not answered; None: it is."""
        return self._refuse_token(request) or self._refuse_page(request)

    def _refuse_token(self, request: Request) -> Refusal | None:
        if self._token is None or any(hmac.compare_digest(given, self._token) for given in _given(request)):
            return None
        return HTTPStatus.UNAUTHORIZED, "the token of --admin-token is needed, as in: Authorization: Bearer TOKEN"

    def _refuse_page(self, request: Request) -> Refusal | None:
        """Web pages of others, which browsers let open a WebSocket to anywhere (RFC 6455 section 10.2).

        Without a token, such a page could also have its own host name lead to loopback: then the name is not ours.
        """
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        if origin is None:
            return None
        if urlsplit(origin).netloc.lower() != host.lower():
            return HTTPStatus.FORBIDDEN, f"only the page of this address may ask, and not one of {origin}"
        if self._token is None and not _is_local(host):
            return HTTPStatus.FORBIDDEN, f"by the name {host} only whoever has a token may ask: give --admin-token"
        return None


def select_subprotocol(connection: object, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The subprotocol of /live, for who offers it; others go on without."""
    return PROTOCOL if PROTOCOL in offered else None


def _given(request: Request) -> Iterator[bytes]:
    """Every token that a request has."""
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


def _is_local(host: str) -> bool:
    """Whether a Host header is an address, or the name that always means this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
