"""Admission control: who a client is, behind proxies, and whether limits let its connection in.

    Admission      decides; shared by the servers of a process
    ClientRecord   what it remembers of one connection
    Verdict        why a connection must not go on: the response, or to abort it

It touches no connection: the connection carries the verdict out (server_connection.py).

Descriptors are watched by their numbers: the system gives out the lowest free one, so a high number means that so many
are open, whatever for. From `nofile` minus a reserve on, connections are answered 503; in the last half of the reserve
they are aborted, so that the rest is the application's. Accepting never fails for lack of descriptors, which uvloop
would answer by closing every connection in the queue without a word.

What must not live here: counting (limits.py), what headers mean (forwarded.py), bytes before HTTP (transport_setup.py).
"""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..forwarded import client_of
from ..headers import check_length
from ..limits import DAEMON, DESCRIPTORS, RATE, RETRY_AFTER, Exceeded, Limiter
from ..networks import Networks, key_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..http11 import Request

__all__ = ["Admission", "ClientRecord", "Verdict", "descriptors"]

_LEAST_RESERVE, _RESERVED_PART = 32, 16

_UNSEEN = 15
"""Connections whose descriptors are not looked at while half of all are free: it costs time, and memory that stays."""


def descriptors(limit: int | None = None) -> tuple[int, int]:
    """Return the descriptors from which on connections are answered 503, and from which on they are aborted.

    Args:
        limit: how many descriptors there are; by default those that the system allows this process.
    """
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY:
            limit = 2**31
    reserve = min(max(_LEAST_RESERVE, limit // _RESERVED_PART), limit // 4)
    return limit - reserve, limit - reserve // 2


class Verdict(NamedTuple):
    """Why a connection must not go on, and what its client is told.

    Attributes:
        limit: the limit that is reached, as metrics call it; None if the server closes instead.
        status, text: of the response.
        retry_after: seconds after which the client should try again.
        abort: there is no descriptor to answer with: the connection must be aborted.
    """

    limit: str | None
    status: HTTPStatus
    text: str
    retry_after: int
    abort: bool = False

    @classmethod
    def of(cls, exceeded: Exceeded, abort: bool = False) -> Verdict:
        """Make the verdict that follows from a limit that is reached."""
        limit, seconds = exceeded
        if limit in (DAEMON, DESCRIPTORS):
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, "The server has as many connections as it can take.\n"
        elif limit == RATE:
            status, text = HTTPStatus.TOO_MANY_REQUESTS, "Your address opens connections too often.\n"
        else:
            status, text = HTTPStatus.TOO_MANY_REQUESTS, "Your address has too many connections.\n"
        return cls(limit, status, text, seconds, abort)


class ClientRecord:
    """What admission remembers of the client of one connection.

    Attributes:
        since: when the connection was accepted (`time.monotonic()`).
        address: as `remote_address`, if a proxy told it.
        key: what limits on addresses count the client as; None if they do not.
        unidentified: a trusted proxy speaks for the client, and its request will tell the address.
        verdict: why the connection must not go on; None as long as it may.
    """

    __slots__ = ("address", "key", "since", "unidentified", "verdict")

    def __init__(self, since: float) -> None:
        self.since = since
        self.address: Any = None
        self.key: bytes | None = None
        self.unidentified = False
        self.verdict: Verdict | None = None


class Admission:
    """Admission control of a process.

    Parameters:
        limiter: counts.
        trusted: proxies that are believed.
        proxy_protocol: whether trusted proxies begin with a PROXY header.
        header: of requests, in which trusted proxies tell the client's address; None: they do not.
        tls: context of the TLS that comes before HTTP; None without.
        limits: as `descriptors()` returns.

    Attributes:
        orphaned_hooks: hooks that go on although their clients have left. Each counts as a connection, in every limit.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        trusted: Networks,
        proxy_protocol: bool = False,
        header: str | None = None,
        tls: ssl.SSLContext | None = None,
        limits: tuple[int, int] | None = None,
    ) -> None:
        self.limiter = limiter
        self.trusted = trusted
        self.proxy_protocol = proxy_protocol
        self.tls = tls
        self._header = header if trusted else None
        self._reserve, self._last = descriptors() if limits is None else limits
        self._unseen = 0
        self.orphaned_hooks = 0
        self._plain = not limiter.by_address and self._header is None

    @property
    def needs_setup(self) -> bool:
        """Whether a PROXY header or TLS comes before HTTP."""
        return self.proxy_protocol or self.tls is not None

    def header_of(self, peer: Any) -> str | None:
        """Return the header in which this peer tells the client of each request; None if it is not trusted to.

        Args:
            peer: address of the peer.
        """
        return self._header if self._header is not None and _host(peer) in self.trusted else None

    # A connection's way, in reading order.

    def must_abort(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether the connection has one of the last descriptors, and must give it back at once."""
        return self._number(transport) >= self._last

    def is_in_reserve(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether the connection has a descriptor of the reserve."""
        return self._number(transport) >= self._reserve

    def _number(self, transport: asyncio.BaseTransport) -> int:
        """Return the number of its descriptor; -1 if it is low enough."""
        if self._unseen:
            self._unseen -= 1
            return -1
        number = _descriptor(transport)
        if number < self._reserve // 2:
            self._unseen = _UNSEEN
        return number

    def expects_proxy_header(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether the peer is a proxy that has to begin with a PROXY header."""
        if not self.proxy_protocol:
            return False
        host = _host(transport.get_extra_info("peername"))
        return host is None or host in self.trusted

    def admit(
        self, transport: asyncio.BaseTransport, since: float, record: ClientRecord | None, evict: Callable[[], bool]
    ) -> ClientRecord | None:
        """Check a connection before its handshake; return what to remember of it, with the verdict, if anything.

        Args:
            transport: of the connection.
            since: when it was accepted.
            record: what is known already.
            evict: aborts the connection unless its handshake is over, and returns whether it did; for subclasses that
                make room for other connections.
        """
        number = self._number(transport)
        few = number + self.orphaned_hooks < self._reserve
        if few and self._plain and not self.limiter.full():
            return record
        if record is None:
            record = ClientRecord(since)
        if not few:
            record.verdict = Verdict.of((DESCRIPTORS, RETRY_AFTER), abort=number >= self._last)
        elif self.limiter.full():
            record.verdict = Verdict.of((DAEMON, RETRY_AFTER), abort=number >= self._last)
        else:
            host = _host(record.address or transport.get_extra_info("peername"))
            record.unidentified = self._header is not None and host in self.trusted
            if not record.unidentified:
                self._count(record, host)
        return record

    def identify(self, record: ClientRecord, request: Request, address: Any) -> None:
        """Read from the request which client a trusted proxy speaks for, and count it.

        Args:
            record: of an unidentified client; gets the verdict.
            request: of the connection.
            address: the client's, if the request does not tell.

        Raises:
            InvalidHeaderFormat: if the request tells of more proxies than there can be.
        """
        record.unidentified = False
        assert self._header is not None
        values = request.headers.get_all(self._header)
        check_length(values, self._header)
        client = client_of(self._header, values, self.trusted)
        if client is not None:
            address = record.address = full_address(*client)
        self._count(record, _host(address))

    def _count(self, record: ClientRecord, host: str | None) -> None:
        """Count a connection of this address, unless a limit on addresses is reached."""
        if host is None or not self.limiter.by_address:
            return
        if record.address is None and host in self.trusted:
            return  # a proxy for itself, as in health checks; or one that does not tell, and is many clients
        try:
            key = key_of(host)
        except ValueError:  # what a proxy says of a Unix socket
            return
        exceeded = self.limiter.enter(key, monotonic())
        if exceeded is None:
            record.key = key
        else:
            record.verdict = Verdict.of(exceeded)

    def release(self, record: ClientRecord) -> None:
        """Count the connection no more."""
        key, record.key = record.key, None
        if key is not None:
            self.limiter.leave(key, monotonic())


def full_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return an address as sockets have it."""
    return (host, port, 0, 0) if ":" in host else (host, port)


def _host(address: Any) -> str | None:
    """Return the host of a peer's address; None on a Unix socket."""
    return address[0] if isinstance(address, tuple) and address else None


def _descriptor(transport: asyncio.BaseTransport) -> int:
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else sock.fileno()
