"""Tunnels through proxies: a socket or a transport whose other end is the server.

What must not live here: which proxy, and what its URL means (`proxy`); TLS and WebSocket with the server (`client`).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from ..exceptions import InvalidHandshake, InvalidMessage, InvalidProxyMessage, InvalidProxyStatus, ProxyError
from ..http11 import ResponseParser
from ..proxy import Proxy, connect_request

__all__ = ["through_http", "through_socks"]

FOREVER = 1e8
"""Seconds that python-socks may take; it knows no None. The bound is the open_timeout around it."""


async def through_http(
    proxy: Proxy, host: str, port: int, *, user_agent: str | None, **kwargs: Any
) -> asyncio.Transport:
    """Connect to an HTTP proxy and ask it for a tunnel (RFC 9110, 9.3.6).

    Args:
        proxy: with the scheme `http` or `https`.
        host, port: of the server.
        user_agent: value of the User-Agent header; None for no header.
        kwargs: for the event loop's create_connection() to the proxy.

    Returns:
        The transport, not reading: it wants a protocol, and resume_reading().

    Raises:
        OSError: if there is no connection to the proxy.
        InvalidProxyStatus: if the proxy rejects the request.
        InvalidProxyMessage: if it answers nonsense.
    """
    request = connect_request(proxy, host, port, user_agent)
    transport, asking = await asyncio.get_running_loop().create_connection(
        lambda: Asking(request), proxy.host, proxy.port, **kwargs
    )
    try:
        await asking.answer
        if transport.is_closing():
            raise ConnectionResetError("the proxy closed the connection that it had just opened")
    except BaseException:
        transport.abort()
        raise
    return transport


class Asking(asyncio.Protocol):
    """Asks an HTTP proxy for a tunnel, and reads its answer and no further.

    Attributes:
        answer: done when the tunnel is there.
    """

    transport: asyncio.Transport

    def __init__(self, request: bytes) -> None:
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._parser = ResponseParser(proxy=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        try:
            if not self._parser.feed(data):
                return
            response = self._parser.response()
            if 200 <= response.status_code < 300 and self._parser.rest:
                raise InvalidMessage("the proxy sent more than its answer, before the server was asked anything")
        except InvalidHandshake as exc:
            self._fail(exc)
            return
        if 200 <= response.status_code < 300:
            self.transport.pause_reading()
            self.answer.set_result(None)
        else:
            self.answer.set_exception(InvalidProxyStatus(response))

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def _ended(self, cause: Exception | None) -> None:
        if not self.answer.done():
            try:
                self._parser.feed_eof()
            except EOFError as exc:
                exc.__cause__ = cause
                self._fail(exc)

    def _fail(self, cause: Exception) -> None:
        exc = InvalidProxyMessage("did not receive a valid HTTP response from proxy")
        exc.__cause__ = cause
        self.answer.set_exception(exc)


async def through_socks(proxy: Proxy, host: str, port: int, *, local_addr: Any = None) -> socket.socket:
    """Connect to a SOCKS proxy and ask it for a connection (RFC 1928).

    Args:
        proxy: with the scheme `socks5h`, `socks5`, `socks4a` or `socks4`.
        host, port: of the server; the proxy looks up the name with `socks5h` and `socks4a`.
        local_addr: (host, port) to connect from.

    Returns:
        A connected socket.

    Raises:
        ImportError: without python-socks.
        OSError: if there is no connection to the proxy.
        ProxyError: if the proxy rejects the request, or answers nonsense.
    """
    try:
        from python_socks import ProxyType
        from python_socks.async_.asyncio import Proxy as SocksProxy
    except ImportError as exc:
        raise ImportError(
            "connecting through a SOCKS proxy requires python-socks: pip install 'tidegate[socks]'"
        ) from exc
    version = ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else ProxyType.SOCKS4
    names_go_far = proxy.scheme in ("socks5h", "socks4a")
    connector = SocksProxy(version, proxy.host, proxy.port, proxy.username, proxy.password, names_go_far)
    try:
        return await connector.connect(host, port, timeout=FOREVER, local_addr=local_addr)
    except OSError:
        raise
    except Exception as exc:
        raise ProxyError("failed to connect to SOCKS proxy") from exc
