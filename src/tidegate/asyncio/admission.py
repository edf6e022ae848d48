"""What a server asks before it lets a connection in: who the client is, behind proxies, and whether limits allow it.

    Gate      what is asked; shared by the servers of a process
    Visit     what is known of one connection that the gate has something to remember of
    Verdict   its answer to one that must not come in: what to say, or to cut it

It touches no connection: who asks does what the verdict says (server_connection.py).

Descriptors are looked after by their numbers: the system gives out the lowest that is free, so whoever gets a high one
knows that so many are open, whatever for. From `nofile` minus a reserve on, connections are answered 503; in the last
half of the reserve they are cut, so that the rest of it is the application's. Accepting never fails for lack of them,
which uvloop would answer by closing every connection of the queue without a word.

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
from ..limits import DAEMON, DESCRIPTORS, RATE, RETRY_AFTER, Limiter, Refusal
from ..networks import Networks, key_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..http11 import Request

__all__ = ["Gate", "Verdict", "Visit", "descriptors"]

_LEAST_RESERVE, _RESERVED_PART = 32, 16

_UNSEEN = 15
"""Connections whose descriptors are not looked at while half of all are free: it costs time, and memory that stays."""


def descriptors(limit: int | None = None) -> tuple[int, int]:
    """From which number of a descriptor on connections are answered 503, and from which on they are cut.

    Args:
        limit: how many there are, by default those that the system allows this process.
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
        limit: the limit that keeps it out, as metrics call it; None: it is none, the server closes.
        status, text: of the response.
        retry_after: seconds after which the client should try again.
        cut: there is no descriptor to answer with; the connection must be cut instead.
    """

    limit: str | None
    status: HTTPStatus
    text: str
    retry_after: int
    cut: bool = False

    @classmethod
    def of(cls, refusal: Refusal, cut: bool = False) -> Verdict:
        """Make the verdict that follows from a limit which is reached."""
        limit, seconds = refusal
        if limit in (DAEMON, DESCRIPTORS):
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, "The server has as many connections as it can take.\n"
        elif limit == RATE:
            status, text = HTTPStatus.TOO_MANY_REQUESTS, "Your address opens connections too often.\n"
        else:
            status, text = HTTPStatus.TOO_MANY_REQUESTS, "Your address has too many connections.\n"
        return cls(limit, status, text, seconds, cut)


class Visit:
    """One client's stay.

    Attributes:
        since: when it was accepted (`time.monotonic()`).
        address: as `remote_address`, where a proxy told another than the socket's.
        key: what it is counted as by the limits on addresses; None if it is not.
        waits: a trusted proxy speaks for it, and its request will tell its address.
        verdict: why it must not go on; None: it may, as far as is known by now.
    """

    __slots__ = ("address", "key", "since", "verdict", "waits")

    def __init__(self, since: float) -> None:
        self.since = since
        self.address: Any = None
        self.key: bytes | None = None
        self.waits = False
        self.verdict: Verdict | None = None


class Gate:
    """The entrance of a process.

    Parameters:
        limiter: counts.
        trusted: proxies that are believed.
        proxy_protocol: trusted proxies begin with a PROXY header.
        header: of requests, in which trusted proxies tell the client's address; None: they do not.
        tls: what TLS is made of, if it is.
        limits: as `descriptors()` returns.

    Attributes:
        staying: hooks that go on although their clients have left. Each counts as a connection, in every limit.
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
        self._busy, self._last = descriptors() if limits is None else limits
        self._unseen = 0
        self.staying = 0
        self._plain = not limiter.by_address and self._header is None

    @property
    def has_preface(self) -> bool:
        """Whether something comes before HTTP."""
        return self.proxy_protocol or self.tls is not None

    # A connection's way, in reading order.

    def cuts(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the connection has taken one of the last descriptors, and must give it back at once."""
        return self._number(transport) >= self._last

    def is_busy(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the connection has taken a descriptor of the reserve."""
        return self._number(transport) >= self._busy

    def _number(self, transport: asyncio.BaseTransport) -> int:
        """The number of its descriptor; -1: low enough."""
        if self._unseen:
            self._unseen -= 1
            return -1
        number = _descriptor(transport)
        if number < self._busy // 2:
            self._unseen = _UNSEEN
        return number

    def expects_header(self, transport: asyncio.BaseTransport) -> bool:
        """Whether its peer is a proxy that has to begin with a PROXY header."""
        if not self.proxy_protocol:
            return False
        host = _host(transport.get_extra_info("peername"))
        return host is None or host in self.trusted

    def arrived(
        self, transport: asyncio.BaseTransport, since: float, visit: Visit | None, displace: Callable[[], bool]
    ) -> Visit | None:
        """Return what is to be remembered of a connection that is about to begin its handshake, with the verdict.

        Args:
            transport: of the connection.
            since: when it was accepted.
            visit: what is known of it already.
            displace: cuts it if its handshake is not over, and tells whether so; for gates that make room for others.
        """
        number = self._number(transport)
        few = number + self.staying < self._busy
        if few and self._plain and not self.limiter.full():
            return visit
        if visit is None:
            visit = Visit(since)
        if not few:
            visit.verdict = Verdict.of((DESCRIPTORS, RETRY_AFTER), cut=number >= self._last)
        elif self.limiter.full():
            visit.verdict = Verdict.of((DAEMON, RETRY_AFTER), cut=number >= self._last)
        else:
            self._meet(visit, visit.address or transport.get_extra_info("peername"))
        return visit

    def _meet(self, visit: Visit, address: Any) -> None:
        """A client of this address is there, or a proxy of it."""
        host = _host(address)
        visit.waits = self._header is not None and host in self.trusted
        if not visit.waits:
            self._enter(visit, host)

    def asked(self, visit: Visit, request: Request, address: Any) -> None:
        """Read from the request who it is that a trusted proxy speaks for, of a visit that `waits` for that.

        Args:
            visit: of the connection, whose verdict may come of it.
            request: tells who it is, perhaps.
            address: what is known for the client's address otherwise.

        Raises:
            InvalidHeaderFormat: it tells of more proxies than there can be.
        """
        visit.waits = False
        assert self._header is not None
        values = request.headers.get_all(self._header)
        check_length(values, self._header)
        client = client_of(self._header, values, self.trusted)
        if client is not None:
            address = visit.address = full_address(*client)
        self._enter(visit, _host(address))

    def _enter(self, visit: Visit, host: str | None) -> None:
        if host is None or not self.limiter.by_address:
            return
        if visit.address is None and host in self.trusted:
            return  # a proxy for itself, as in checks of health; or it does not tell, and is many clients
        try:
            key = key_of(host)
        except ValueError:  # what a proxy says of a Unix socket
            return
        refusal = self.limiter.enter(key, monotonic())
        if refusal is None:
            visit.key = key
        else:
            visit.verdict = Verdict.of(refusal)

    def gone(self, visit: Visit) -> None:
        """It has ended."""
        key, visit.key = visit.key, None
        if key is not None:
            self.limiter.leave(key, monotonic())


def full_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """An address as a socket shows it."""
    return (host, port, 0, 0) if ":" in host else (host, port)


def _host(address: Any) -> str | None:
    """The address of a peer, None if it has none: on a Unix socket."""
    return address[0] if isinstance(address, tuple) and address else None


def _descriptor(transport: asyncio.BaseTransport) -> int:
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else sock.fileno()
