"""The client: `connect()`, and the client's side of a connection with its opening handshake.

What must not live here: what either side of a connection does (connection.py), the request and the check of the
response (the root's client.py), how a server is reached (dialer.py, tunnel.py).
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from .. import defaults
from .._compat import CLIENT as OLDER_ARGUMENTS
from .._compat import accepts
from ..client import (
    MAX_REDIRECTS,
    ClientOptions,
    backoff,
    check_response,
    generate_key,
    make_request,
    process_exception,
    redirect_target,
    same_origin,
    without_credentials,
)
from ..datastructures import Headers, HeadersLike
from ..exceptions import InvalidHandshake, InvalidMessage, SecurityError, StatusLineTooLong
from ..extensions.permessage_deflate import enable_client_permessage_deflate
from ..http11 import USER_AGENT, Request, ResponseParser
from ..protocol import OPEN
from ..redaction import redact
from ..uri import WebSocketURI, parse_uri
from .connection import Connection
from .deadlines import Deadlines
from .dialer import Dialer
from .options import Settings

if TYPE_CHECKING:
    from ..extensions.base import ClientExtensionFactory
    from ..typing import LoggerLike, PathLike

__all__ = ["ClientConnection", "connect", "unix_connect"]


class ClientConnection(Connection):
    """The client's side of a connection, as `connect()` returns it.

    Args:
        protocol: settings of the connection.
        overrides: other limits for this connection: ping_interval, ping_timeout, close_timeout, max_queue,
            write_limit, ... as for `connect()`.

    Raises:
        TypeError, ValueError: for wrong limits.
    """

    __slots__ = ("__dict__", "__weakref__", "_key", "_opening", "_options", "_parser")

    def __init__(self, protocol: Settings, **overrides: Any) -> None:
        super().__init__(protocol.overridden(overrides) if overrides else protocol, client=True)
        self._key = ""
        self._options: ClientOptions
        self._opening: asyncio.Future[None] | None = self.loop.create_future()  # None once it is done
        self._parser: ResponseParser | None = None  # while the response is awaited

    # The opening handshake (RFC 6455 section 4.1), in reading order.

    def prepare(self, request: Request, key: str, options: ClientOptions) -> asyncio.Future[None]:
        """Set what to ask, before there is a transport.

        Args:
            request: to send.
            key: its `Sec-WebSocket-Key`.
            options: to check the response by.

        Returns:
            A future that is done when the opening handshake is, with the exception if it has failed.
        """
        self._request = request
        self._key = key
        self._options = options
        self._parser = ResponseParser()
        assert self._opening is not None
        return self._opening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        request = cast(Request, self._request)
        if self._slow:
            self.logger.debug("> %s %s %s", request.method, redact(request.path), request.protocol)
            self._log_headers(">", request.headers)
        self._write_bytes(request.serialize())

    def _handshake_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            if self._parser.feed(data):
                self._response_received(self._parser)
        except InvalidHandshake as exc:
            self._response_unreadable(exc)

    def eof_received(self) -> None:
        super().eof_received()
        if self._parser is not None:
            try:
                self._parser.feed_eof()
            except EOFError as exc:
                self._response_unreadable(exc)
            else:
                self._response_received(self._parser)

    def _response_received(self, parser: ResponseParser) -> None:
        response = self._response = parser.response()
        if self._slow:
            self.logger.debug("< HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
            self._log_headers("<", response.headers)
            if response.body:
                self.logger.debug("< [body] (%d bytes)", len(response.body))
        self._parser = None
        try:
            agreed = check_response(response, self._key, self._options)
        except Exception as exc:  # of an extension too
            self._end_opening(exc)
            return
        self.subprotocol = agreed.subprotocol
        self._adopt(agreed.extensions)
        self._state = OPEN
        self._opened_at = monotonic()
        self._row.opened()
        self._settings.deadlines.set(self, self._settings.ping_interval)
        self._end_opening(None)
        if parser.rest:
            self.data_received(parser.rest)

    def _response_unreadable(self, cause: Exception) -> None:
        exc: Exception = cause
        if not isinstance(cause, StatusLineTooLong):
            exc = InvalidMessage("did not receive a valid HTTP response")
            exc.__cause__ = cause
        self._parser = None
        self._end_opening(exc)

    def _end_opening(self, exc: Exception | None) -> None:
        opening, self._opening = self._opening, None
        if opening is None or opening.done():  # given up
            return
        if exc is None:
            opening.set_result(None)
        else:
            opening.set_exception(exc)
            opening.exception()  # TLS through a proxy may fail before this is awaited

    def _log_headers(self, direction: str, headers: Headers) -> None:
        for name, value in headers.raw_items():
            self.logger.debug("%s %s", direction, redact(f"{name}: {value}"))

    # The end.

    def _hang_up(self) -> None:
        """Do nothing: the server ends the TCP connection, within `close_timeout` (RFC 6455 7.1.1)."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._parser is not None:
            lost = EOFError("the connection was lost before the response was complete")
            lost.__cause__ = exc
            self._response_unreadable(lost)
        super().connection_lost(exc)


class Target(NamedTuple):
    """Where one request goes, and the headers for that origin."""

    uri: str
    parsed: WebSocketURI
    headers: Headers


# In lower case, because it is called like a function.
class connect:
    """Connect to the WebSocket server at `uri`.

    There are three ways. As an asynchronous context manager, which closes the connection at the end::

        async with connect("ws://localhost:8765") as websocket:
            ...

    As an asynchronous iterator, which connects again whenever the body is done with a connection, and closes that one
    first; failures that may pass are waited out with growing delays, others are raised::

        async for websocket in connect("ws://localhost:8765"):
            try:
                ...
            except ConnectionClosed:
                continue

    Awaited, which leaves closing to you: `websocket = await connect("ws://localhost:8765")`.

    Args:
        uri: `ws://` or `wss://`; a user name and password in it are sent as basic authentication.
        origin: value of the Origin header, for servers that check it.
        extensions: extension factories, in order of preference.
        subprotocols: acceptable subprotocols, in order of preference.
        compression: "deflate" or None.
        additional_headers: headers to add to the request. Host, Origin, Authorization and User-Agent replace ours;
            those that make the handshake (Upgrade, Connection, Sec-WebSocket-...) are ours alone.
        user_agent_header: value of the User-Agent header; None for no header.
        proxy: True for the proxy of the environment or the system, if there is one; None for none; or a URL, with the
            scheme http, https, socks5h, socks5, socks4a or socks4. SOCKS needs the extra `tidegate[socks]`.
        process_exception: when iterating: `f(exc)` that returns None if another try may succeed, or the exception to
            raise; see `tidegate.client.process_exception`, the default.
        open_timeout: seconds for everything until the connection is open: names, TCP, proxy, TLS, handshake, redirects;
            None for no limit.
        ping_interval: seconds between keepalive pings; None for none.
        ping_timeout: seconds to wait for their pongs; None for no limit.
        close_timeout: seconds to wait for the server when closing; None for no limit.
        reconnect_delays: when iterating: a function that returns an iterator of the seconds to wait before each new
            try; when it ends, the last failure is raised. See `tidegate.client.backoff`, the default.
        max_size: bytes of a message, or (message, fragment); None for no limit. Larger ones fail with 1009.
        max_queue: frames that wait to be received before reading pauses, or (high, low) marks; low is high // 4.
        write_limit: bytes in the write buffer above which send() waits, or (high, low) marks.
        logger: logger of the connection; "tidegate.client" by default.
        create_connection: `ClientConnection`, a subclass, or a function that makes one.
        kwargs: passed to the event loop's create_connection(): ssl, server_hostname, sock, host and port (to connect to
            another address than that of the URI), local_addr, family, ...; those of TLS with the prefix `proxy_` are
            for TLS with an HTTPS proxy.

    Raises:
        InvalidURI, InvalidProxy, TypeError, ValueError: at once, for wrong arguments.
        OSError: on awaiting, if there is no TCP connection, or no TLS.
        InvalidHandshake: on awaiting, if the opening handshake fails; `InvalidStatus` has the server's response.
        TimeoutError: on awaiting, after `open_timeout`.
    """

    @accepts(OLDER_ARGUMENTS)
    def __init__(
        self,
        uri: str,
        *,
        # WebSocket
        origin: str | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: str | None = defaults.COMPRESSION,
        # HTTP
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        # Seconds
        open_timeout: float | None = defaults.OPEN_TIMEOUT,
        ping_interval: float | None = defaults.PING_INTERVAL,
        ping_timeout: float | None = defaults.PING_TIMEOUT,
        close_timeout: float | None = defaults.CLOSE_TIMEOUT,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        # Limits
        max_size: int | tuple[int | None, int | None] | None = defaults.MAX_SIZE,
        max_queue: int | tuple[int | None, int | None] | None = defaults.MAX_QUEUE,
        write_limit: int | tuple[int, int | None] = defaults.WRITE_LIMIT,
        # Others
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(uri, str):
            raise TypeError(f"uri must be a str, not {type(uri).__name__}")
        for name, value in (
            ("process_exception", process_exception),
            ("reconnect_delays", reconnect_delays),
            ("create_connection", create_connection or ClientConnection),
        ):
            if not callable(value):
                raise TypeError(f"{name} must be a function, not {value!r}")
        self.uri = uri
        self.additional_headers: HeadersLike = Headers(() if additional_headers is None else additional_headers)
        self.process_exception = process_exception
        self.open_timeout = open_timeout
        self.reconnect_delays = reconnect_delays
        self.logger: LoggerLike = logging.getLogger("tidegate.client") if logger is None else logger
        self._create = create_connection
        self._limits = Settings.check(
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            write_limit=write_limit,
        )
        self._options = ClientOptions(
            origin=origin, subprotocols=subprotocols, extensions=extensions, user_agent=user_agent_header
        )
        self._options.extensions = offered(extensions, compression)
        self._dialer = Dialer(parse_uri(uri), proxy, kwargs)
        self._target: Target

    async def connect(self) -> ClientConnection:
        """Connect, following redirects, as awaiting does.

        Raises:
            OSError, InvalidHandshake, TimeoutError: as the class; SecurityError after ten redirects.
        """
        # From the start each time: a redirect may lead elsewhere tomorrow, and credentials are for this origin.
        self._target = Target(self.uri, parse_uri(self.uri), Headers(self.additional_headers))
        try:
            async with asyncio.timeout(self.open_timeout) as limit:
                for _ in range(MAX_REDIRECTS + 1):
                    result = await self._attempt()
                    if isinstance(result, ClientConnection):
                        return result
                    self._redirect(result)
                raise SecurityError(f"more than {MAX_REDIRECTS} redirects")
        except TimeoutError as exc:
            if limit.expired():
                raise TimeoutError("timed out during opening handshake") from exc
            raise

    async def _attempt(self) -> ClientConnection | str:
        """Make one request; return the connection, or the URI to go to instead."""
        target = self._target
        loop = asyncio.get_running_loop()
        key = generate_key()
        request = make_request(target.parsed, key, self._options, target.headers)
        settings = Settings(loop=loop, logger=self.logger, deadlines=Deadlines.of(loop), **self._limits)
        connection = self._make(settings)
        opening = connection.prepare(request, key, self._options)
        await self._dialer.dial(target.parsed, self._options.user_agent, connection)
        try:
            await opening
        except BaseException as exc:
            connection.transport.abort()
            if not isinstance(exc, Exception):
                raise
            await connection.wait_closed()
            outcome = self.process_redirect(exc)
            try:
                if outcome is exc:
                    raise
                if isinstance(outcome, Exception):
                    raise outcome from exc
                return outcome
            finally:
                del outcome
        finally:
            # An exception holds this frame: what held the exception would be freed by the garbage collector alone.
            del opening
        return connection

    def _make(self, settings: Settings) -> ClientConnection:
        if self._create is None:
            return ClientConnection(settings)
        names = ("ping_interval", "ping_timeout", "close_timeout", "max_queue", "write_limit")
        connection = self._create(settings, **{name: self._limits[name] for name in names})
        if not isinstance(connection, ClientConnection):
            raise TypeError(f"create_connection must make a ClientConnection, not {connection!r}")
        return connection

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Tell whether a failed attempt is a redirect that may be followed (RFC 9110 15.4); may be overridden.

        Args:
            exc: what the attempt raised.

        Returns:
            The URI to go to, or the exception to raise: `exc` if it is no redirect.
        """
        old = self._target
        new = redirect_target(old.uri, exc)
        if new is None:
            return exc
        if self._dialer.sock is not None:
            return ValueError(f"cannot follow redirect to {new} with a preexisting socket")
        parsed = parse_uri(new)
        if old.parsed.secure and not parsed.secure:
            return SecurityError(f"cannot follow redirect to non-secure URI {new}")
        bound = self._dialer.bound_to()
        if bound is not None and not same_origin(old.parsed, parsed):
            return ValueError(f"cannot follow cross-origin redirect to {new} with {bound}")
        return new

    def _redirect(self, uri: str) -> None:
        """Go elsewhere, without what was meant for another origin."""
        parsed = parse_uri(uri)
        headers = self._target.headers
        if not same_origin(self._target.parsed, parsed):
            headers = without_credentials(headers)
        self._target = Target(uri, parsed, headers)

    # websocket = await connect(...)

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self.connect().__await__()

    # async with connect(...) as websocket

    async def __aenter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection = await self
        return await self.connection.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.connection.__aexit__(kind, value, traceback)
        finally:
            del self.connection

    # async for websocket in connect(...)

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        delays: Iterator[float] | None = None
        while True:
            try:
                connection = await self
            except Exception as exc:
                if delays is None:
                    delays = self.reconnect_delays()
                if not await self._wait_after(exc, delays):
                    raise
            else:
                delays = None
                async with connection:
                    yield connection

    async def _wait_after(self, exc: Exception, delays: Iterator[float]) -> bool:
        """Wait before the next try; return False if there is none to be. It may raise another exception instead."""
        try:
            fatal = self.process_exception(exc)
        except Exception as raised:  # the same as returned
            fatal = raised
        if fatal is exc:
            return False
        if fatal is not None:
            raise fatal from exc
        delay = next(delays, None)
        if delay is None:
            return False
        reason = traceback.format_exception_only(exc)[0].strip()
        self.logger.info("connect failed; reconnecting in %.1f seconds: %s", delay, reason)
        await asyncio.sleep(delay)
        return True


def offered(
    extensions: Sequence[ClientExtensionFactory] | None, compression: str | None
) -> Sequence[ClientExtensionFactory] | None:
    """Return the extension factories of a client, with that of `compression`."""
    if compression == "deflate":
        return enable_client_permessage_deflate(extensions)
    if compression is not None:
        raise ValueError(f"unsupported compression: {compression}")
    return extensions


def unix_connect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """Connect to a WebSocket server on a Unix socket: `connect()` with `path` instead of an address.

    Args:
        path: of the socket, or None with `sock=`.
        uri: for the Host header and TLS; `ws://localhost/` by default, or `wss://localhost/` with `ssl=`.
        kwargs: as for `connect()`.
    """
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, unix=True, path=path, **kwargs)
