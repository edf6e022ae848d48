"""What an address of the settings stands for on this machine, and the errors of those that cannot be bound.

    resolve       the socket addresses of a host and port
    bind_each     bind one after the other; of a host name, those suffice that this machine has
    tcp_socket    a socket, bound to one of them
    bind_admin    the sockets of the admin address, which listen at once

What must not live here: who has which socket, and when it listens (sockets/listeners.py).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from ...config.bind import Address, Tcp

__all__ = ["AddressError", "Place", "SocketAddress", "bind_admin", "bind_each", "reason_of", "resolve", "tcp_socket"]

logger = logging.getLogger("tidegate.supervisor")

Place: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
SocketAddress: TypeAlias = tuple[socket.AddressFamily, Place]

# A name has addresses of IPv6 in /etc/hosts or in the DNS that a machine, or a container, need not have.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
_EVERY = ("0.0.0.0", "::")

TWICE = "it is given twice"

_P = TypeVar("_P")


class AddressError(Exception):
    """An address that could not be bound, and why.

    Attributes:
        address: as it was given, or as it is bound.
        reason: why, in words.
    """

    def __init__(self, address: Address | str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return f"{self.address} could not be bound: {self.reason}"


def reason_of(error: OSError) -> str:
    """Return an error's reason, in words that follow others."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def resolve(address: Tcp) -> list[SocketAddress]:
    """Return every socket address that a host and port stand for.

    Raises:
        AddressError: the host is unknown.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        words = error.strerror if isinstance(error, socket.gaierror) and error.strerror else str(error)
        raise AddressError(address, f"the host is unknown ({words})") from None
    places = [(family, place) for family, _, _, _, place in found if family in (socket.AF_INET, socket.AF_INET6)]
    return list(dict.fromkeys(places))  # type: ignore[arg-type]


def bind_each(address: Address, places: Sequence[_P], bind: Callable[[_P], object]) -> None:
    """Bind each of the places that an address stands for; of several, those may fail that this machine does not have.

    Raises:
        AddressError: one of them could not be bound.
    """
    absent = []
    for place in places:
        try:
            bind(place)
        except OSError as error:
            absent.append(place)
            if error.errno not in _ABSENT or len(absent) == len(places):
                raise AddressError(address, reason_of(error)) from None
    for place in absent:
        logger.info("%s: this machine does not have %s, which is left out", address, place)


def tcp_socket(family: socket.AddressFamily, place: Place, *, reuse_port: bool) -> socket.socket:
    """Return a socket that is bound there."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] is IPv6, and 0.0.0.0 is IPv4
        sock.bind(place)
    except BaseException:
        sock.close()
        raise
    return sock


def check_other(family: socket.AddressFamily, place: Place, others: Iterable[SocketAddress]) -> None:
    """Check that no other address of the daemon is this one, or covers it: the system lets both be until they listen.

    Raises:
        OSError: one is, or does.
    """
    for other_family, other in others:
        if (other_family, other[1]) != (family, place[1]) or not place[1]:
            continue
        if other[0] == place[0]:
            raise OSError(errno.EADDRINUSE, TWICE)
        if other[0] in _EVERY or place[0] in _EVERY:
            raise OSError(errno.EADDRINUSE, f"{Tcp(*other[:2])}, which is given as well, has it")


def bind_admin(address: Tcp | None, others: Iterable[SocketAddress] = ()) -> list[socket.socket]:
    """Return the listening sockets of the admin address, which all admin processes share.


    Parameters:
        address: as it is set.
        others: those that clients connect to.

    Raises:
        AddressError: it could not be bound.
    """
    if address is None:
        return []
    sockets: list[socket.socket] = []
    known = list(others)

    def bind(place: SocketAddress) -> None:
        check_other(*place, known)
        sock = tcp_socket(*place, reuse_port=False)
        sockets.append(sock)
        sock.listen(128)

    try:
        bind_each(address, resolve(address), bind)
    except AddressError as error:
        for sock in sockets:
            sock.close()
        remedy = f"{error.reason}: give another address with --admin, or none"
        raise AddressError(f"the admin address {address}", remedy) from None
    return sockets
