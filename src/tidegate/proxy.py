"""Proxies (RFC 6455, 4.1, "Proxy Usage"): which one a URI goes through, what its URL says, how it is asked.

What must not live here: connecting, which is ``asyncio.tunnel``'s; nothing here does I/O.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import urllib.parse

from .datastructures import Headers
from .exceptions import InvalidProxy
from .headers import build_authorization_basic, build_host
from .http11 import USER_AGENT
from .uri import WebSocketURI, to_ascii

__all__ = ["Proxy", "connect_request", "get_proxy", "parse_proxy"]

# Scheme -> the port that is meant if the URL names none. For SOCKS see RFC 1928, 3.
_PORTS = {"socks5h": 1080, "socks5": 1080, "socks4a": 1080, "socks4": 1080, "https": 443, "http": 80}


@dataclasses.dataclass
class Proxy:
    """The address of a proxy.

    Attributes:
        scheme: ``socks5h``, ``socks5``, ``socks4a``, ``socks4``, ``https`` or ``http``; with ``socks5h`` and
            ``socks4a`` the proxy looks up the name of the server.
        host: in lower case, an international name in its ASCII form.
        port: the usual one if the URL does not say.
        username: from the user information, decoded; None if there is none.
        password: likewise.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password; None if there are none."""
        if self.username is None or self.password is None:
            return None
        return self.username, self.password


def parse_proxy(proxy: str) -> Proxy:
    """Parse the URL of a proxy.

    Raises:
        InvalidProxy: if it is not one.
    """
    try:
        parsed = urllib.parse.urlsplit(proxy)
        if parsed.scheme not in _PORTS:
            raise InvalidProxy(proxy, f"scheme {parsed.scheme} isn't supported")
        if not parsed.hostname:
            raise InvalidProxy(proxy, "hostname isn't provided")
        for part, value in (("path", parsed.path.removeprefix("/")), ("query", parsed.query)):
            if value:
                raise InvalidProxy(proxy, f"{part} is meaningless")
        if parsed.fragment:
            raise InvalidProxy(proxy, "fragment is meaningless")
        if parsed.username is not None and parsed.password is None:
            raise InvalidProxy(proxy, "username provided without password")
        port = parsed.port or _PORTS[parsed.scheme]
        host = to_ascii(parsed.hostname)
        username, password = _decoded(parsed.username), _decoded(parsed.password)
    except ValueError as exc:
        raise InvalidProxy(proxy, str(exc)) from exc
    return Proxy(parsed.scheme, host, port, username, password)


def _decoded(part: str | None) -> str | None:
    return None if part is None else urllib.parse.unquote(part, errors="strict")


def get_proxy(uri: WebSocketURI) -> str | None:
    """Return the URL of the proxy that the environment or the system has for ``uri``; None if there is none for it.

    It is, for ``wss``, the first of ``wss_proxy``, ``socks_proxy`` and ``https_proxy``; for ``ws`` the first of
    ``ws_proxy``, ``socks_proxy``, ``https_proxy`` and ``http_proxy``, since what is not HTTP passes best through a
    proxy that does not look into it; in upper or lower case, or the system's settings of these names on macOS and
    Windows. Hosts in ``no_proxy`` need none: names and what is below them, addresses, networks; each perhaps with a
    port, IPv6 addresses perhaps in brackets; or ``*``.
    """
    import urllib.request  # a second HTTP client comes along, which is not needed before

    if urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        return None
    proxies = urllib.request.getproxies()
    if _is_in(uri.host, uri.port, proxies.get("no", "")):
        return None
    for scheme in ("wss", "socks", "https") if uri.secure else ("ws", "socks", "https", "http"):
        proxy = proxies.get(scheme)
        if proxy:
            if scheme == "socks" and proxy.startswith("http://"):  # so the settings of macOS come
                return "socks5h://" + proxy.removeprefix("http://")
            return proxy
    return None


def _is_in(host: str, port: int, no_proxy: str) -> bool:
    """Return whether the host is an address in the list, whose entries the standard library takes for names."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        entry = entry.strip()
        if entry.startswith("["):
            entry, _, rest = entry[1:].partition("]")
            if rest and rest != f":{port}":
                continue
        try:
            if address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue  # a name
    return False


def connect_request(proxy: Proxy, host: str, port: int, user_agent: str | None = USER_AGENT) -> bytes:
    """Return the request that asks an HTTP proxy for a tunnel (RFC 9110, 9.3.6).

    Args:
        proxy: the proxy; a user name and password of its are sent along.
        host: name or address of the server.
        port: the server's.
        user_agent: value of the ``User-Agent`` header; None for no header.
    """
    authority = build_host(host, port, False, always_include_port=True)
    headers = Headers([("Host", authority)])
    if user_agent is not None:
        headers["User-Agent"] = user_agent
    if proxy.user_info is not None:
        headers["Proxy-Authorization"] = build_authorization_basic(*proxy.user_info)
    return f"CONNECT {authority} HTTP/1.1\r\n".encode("ascii") + headers.serialize()
