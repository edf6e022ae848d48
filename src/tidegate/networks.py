"""Addresses of clients: which networks hold them, what two of them have in common, how headers write them.

    Networks    which peers are trusted, by network
    key_of      what counts as one client where clients are counted
    host_of     an address with or without a port, as headers write it

What must not live here: headers (forwarded.py), the PROXY protocol (proxy_protocol.py), what a peer is trusted with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["UNIX", "Networks", "host_of", "key_of", "parse_network"]

UNIX = "unix"
"""The word for peers on Unix sockets, which have no address."""

_IPv6_CLIENT = 8  # bytes: a /64 is what one customer has, and may choose addresses from as it likes

_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?", re.ASCII)


def parse_network(text: str) -> str:
    """Return a network as ``10.0.0.0/8``, a single address, or ``unix``, in the canonical form.

    Raises:
        ValueError: it is none of them; the text says what is wrong.
    """
    if text.lower() == UNIX:
        return UNIX
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("an IPv6 address has no brackets here" if text.startswith("[") else "") from None
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"the network of that address is {network}") from None
    return str(network)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return IPv4 as IPv4, also where a dual-stack socket shows it as ::ffff:192.0.2.1."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


class Networks:
    """A set of networks.

    Parameters:
        texts: what `parse_network` returns.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = set(texts)
        self._unix = UNIX in texts
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(text) for text in texts if text != UNIX]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, host: str | None) -> bool:
        """Return whether an address, or a peer on a Unix socket (None), is in one of them."""
        if host is None:
            return self._unix
        try:
            address = _plain(ip_address(host.partition("%")[0]))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def key_of(host: str) -> bytes:
    """Return what is counted as one client: an IPv4 address, or the /64 of an IPv6 address.

    Raises:
        ValueError: that is no address.
    """
    address = _plain(ip_address(host.partition("%")[0]))
    return address.packed[:_IPv6_CLIENT] if isinstance(address, IPv6Address) else address.packed


def host_of(text: str) -> tuple[str, int] | None:
    """Parse an address and port (0: none), as ``192.0.2.1:80``, ``2001:db8::1`` or ``[2001:db8::1]:80``."""
    match = _WITH_PORT.fullmatch(text)
    host, port = (match[1] or match[2], int(match[3] or 0)) if match else (text, 0)
    if port > 65535 or "%" in host:
        return None
    try:
        return str(_plain(ip_address(host))), port
    except ValueError:
        return None
