"""Reaching a server: over TCP or a Unix socket, directly or through a proxy, with TLS or without.

What must not live here: the handshake with the server (client.py), that with a proxy (tunnel.py).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import ssl
from typing import Any, Literal, cast

from .._core.stream import STREAMS, adopt
from ..proxy import Proxy, get_proxy, parse_proxy
from ..uri import WebSocketURI
from .tunnel import through_http, through_socks

__all__ = ["Dialer"]

TLS_ARGUMENTS = ("ssl", "server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout")
TCP_ARGUMENTS = frozenset(inspect.signature(asyncio.BaseEventLoop.create_connection).parameters).difference(
    TLS_ARGUMENTS, ("self", "protocol_factory")
)
UNIX_ARGUMENTS = frozenset({"path", "sock"})


class Waiting(asyncio.Protocol):
    """Keeps a transport of the loop's from reading, until its socket has another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


def take_over(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Make a stream of a transport's socket; it has read nothing, and its own descriptor is closed."""
    sock = transport.get_extra_info("socket")
    own = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    transport.abort()
    adopt(asyncio.get_running_loop(), own, protocol)


class Dialer:
    """The arguments of connect() that are about reaching the server: checked, sorted, applied.

    Args:
        uri: of the server.
        proxy: as for connect().
        arguments: those that connect() passes on to the event loop; it becomes the dialer's own.

    Raises:
        TypeError: for an unknown argument, or one of a wrong type.
        ValueError: for arguments that exclude each other, or the URI.
        InvalidProxy: for a proxy that is none.
    """

    def __init__(self, uri: WebSocketURI, proxy: str | Literal[True] | None, arguments: dict[str, Any]) -> None:
        self.unix = bool(arguments.pop("unix", False))
        self._tls = {name: arguments.pop(name) for name in TLS_ARGUMENTS if name in arguments}
        proxied = [f"proxy_{name}" for name in TLS_ARGUMENTS if f"proxy_{name}" in arguments]
        self._proxy_tls = {name.removeprefix("proxy_"): arguments.pop(name) for name in proxied}
        for name in arguments:
            if name not in (UNIX_ARGUMENTS if self.unix else TCP_ARGUMENTS):
                raise TypeError(f"connect() got an unexpected keyword argument {name!r}")
        self.sock = arguments.pop("sock", None)
        self.host, self.port = arguments.pop("host", None), arguments.pop("port", None)
        self._path = arguments.pop("path", None)
        self._tcp = arguments
        self._check_ends()
        for name, value in (("ssl", self._tls.get("ssl")), ("proxy_ssl", self._proxy_tls.get("ssl"))):
            if value is not None and not isinstance(value, bool | ssl.SSLContext):
                raise TypeError(f"{name} must be an SSLContext, True or None, not {value!r}")
        self._tls_with(uri)
        if proxy is not None and proxy is not True:
            if not isinstance(proxy, str):
                raise TypeError(f"proxy must be True, None or a URL, not {proxy!r}")
            self._tls_with_proxy(parse_proxy(proxy))
        self._proxy = None if self.unix or self.sock is not None else proxy

    def _check_ends(self) -> None:
        """Check the addresses, in the words of the event loop, which would say so later."""
        if self.unix:
            if self._path is not None and self.sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            if self._path is None and self.sock is None:
                raise ValueError("no path and sock were specified")
        elif self.sock is not None and (self.host is not None or self.port is not None):
            raise ValueError("host/port and sock can not be specified at the same time")

    def _tls_with(self, uri: WebSocketURI) -> dict[str, Any]:
        """Return the arguments for TLS with a server; none without TLS."""
        if not uri.secure:
            for name, value in self._tls.items():
                if value is not None:
                    raise ValueError(f"{name} argument is incompatible with a ws:// URI")
            return {}
        arguments = {"ssl": True, "server_hostname": uri.host.partition("%")[0]} | self._tls
        if not arguments["ssl"]:
            raise ValueError(f"ssl={arguments['ssl']} is incompatible with a wss:// URI")
        return arguments

    def _tls_with_proxy(self, proxy: Proxy) -> dict[str, Any]:
        """Return the arguments for TLS with a proxy; none without TLS."""
        if proxy.scheme == "http":
            for name, value in self._proxy_tls.items():
                if value is not None:
                    raise ValueError(f"proxy_{name} argument is incompatible with an http:// proxy")
        if proxy.scheme != "https":
            return {}
        arguments = {"ssl": True} | self._proxy_tls
        if not arguments["ssl"]:
            raise ValueError(f"proxy_ssl={arguments['ssl']} is incompatible with an https:// proxy")
        return arguments

    async def dial(self, uri: WebSocketURI, user_agent: str | None, protocol: asyncio.Protocol) -> None:
        """Connect `protocol` to the server of `uri`, TLS included, possibly through a proxy.

        Args:
            uri: of the server; another than before, after a redirect.
            user_agent: value of the User-Agent header for an HTTP proxy; None for no header.
            protocol: on return, its connection_made() has been called.

        Raises:
            OSError: if there is no TCP connection, or no TLS.
            ProxyError, InvalidProxy: if the proxy does not work.
        """
        loop = asyncio.get_running_loop()
        proxy = get_proxy(uri) if self._proxy is True else self._proxy
        tls = self._tls_with(uri)
        host = uri.host if self.host is None else self.host
        port = uri.port if self.port is None else self.port
        streams = STREAMS and not tls
        factory = Waiting if streams else lambda: protocol
        if streams and self.sock is not None:
            adopt(loop, self.sock, protocol)
            return
        if self.unix:
            transport, _ = await loop.create_unix_connection(factory, cast(Any, self._path), sock=self.sock, **tls)
        elif self.sock is not None:
            transport, _ = await loop.create_connection(factory, sock=self.sock, **self._tcp, **tls)
        elif proxy is None:
            transport, _ = await loop.create_connection(factory, host, port, **self._tcp, **tls)
        else:
            await self._dial_through(parse_proxy(proxy), host, port, user_agent, tls, protocol)
            return
        if streams:
            take_over(transport, protocol)

    async def _dial_through(
        self,
        proxy: Proxy,
        host: str,
        port: int,
        user_agent: str | None,
        tls: dict[str, Any],
        protocol: asyncio.Protocol,
    ) -> None:
        loop = asyncio.get_running_loop()
        if proxy.scheme.startswith("socks"):
            sock = await through_socks(proxy, host, port, local_addr=self._tcp.get("local_addr"))
            if STREAMS and not tls:
                adopt(loop, sock, protocol)
            else:
                await loop.create_connection(lambda: protocol, sock=sock, **tls)
            return
        own_tls = self._tls_with_proxy(proxy)
        transport = await through_http(proxy, host, port, user_agent=user_agent, **self._tcp, **own_tls)
        transport.set_protocol(protocol)
        if tls:
            context = tls.pop("ssl")
            if context is True:
                context = ssl.create_default_context()
            try:
                transport = cast(asyncio.Transport, await loop.start_tls(transport, protocol, context, **tls))
            except BaseException:
                transport.abort()
                raise
        protocol.connection_made(transport)
        transport.resume_reading()

    def bound_to(self) -> str | None:
        """Return what ties the client to one server, and forbids redirects to others; None if nothing does."""
        if self.unix:
            return "a Unix socket"
        if self.host is not None or self.port is not None:
            return "an explicit host or port"
        return None
