"""The server: `serve()`, the server it returns, and its connections as handlers see them, which know their server.

What must not live here: one connection's handshake and handler (server_connection.py), what either side of a connection
does (connection.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack, cast, overload

from .. import defaults
from .._compat import OlderServer, accepts, give_path, server_arguments
from ..closing import Closing
from ..datastructures import Headers
from ..exceptions import BusError
from ..extensions.permessage_deflate import enable_server_permessage_deflate
from ..frames import CloseCode
from ..http11 import SERVER, Request, Response
from ..server import HandshakeOptions
from .auth import basic_auth, guarded
from .broadcast import broadcast
from .deadlines import Deadlines
from .listening import address_of, listen
from .options import ProcessPolicy, ServerSettings, Settings, check_functions
from .registry import ConnectionRegistry
from .server_connection import BaseServerConnection

if TYPE_CHECKING:
    import re

    from ..bus.bus import Bus
    from ..bus.sharing import Share
    from ..channels import Channel, ChannelLimits, Joined, Position
    from ..extensions.base import ServerExtensionFactory
    from ..typing import LoggerLike, PathLike, Subprotocol
    from .membership import ConnectionMember, JoinHow, OnGap, OnPresence

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

Handler = Callable[["ServerConnection"], Awaitable[None]]
ProcessRequest = Callable[["ServerConnection", Request], Awaitable[Response | None] | Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Awaitable[Response | None] | Response | None]
Listen = Callable[[asyncio.AbstractEventLoop, Callable[[], asyncio.Protocol]], Awaitable[asyncio.AbstractServer]]
SelectSubprotocol = Callable[["ServerConnection", Sequence["Subprotocol"]], "str | None"]

GLANCE = 0.05
"""Seconds between two looks at handshakes in progress."""


class ServerConnection(BaseServerConnection):
    """The server's side of a connection, as handlers and hooks receive it: the same object from the start.

    Attributes:
        server: the `Server` that accepted it.
        username: set by `basic_auth` when it let the client in.
        handler, handler_kwargs: set by the router.
        member: the connection as a member of channels; None as long as it has joined none, and at the end.

    Args:
        protocol: settings of the server's connections.
        server: the server.
        overrides: other limits for this connection than the server's: ping_interval, ping_timeout, close_timeout,
            max_queue, write_limit, ... as for `serve()`.

    Raises:
        TypeError, ValueError: for wrong limits.
    """

    __slots__ = ("__dict__", "__weakref__", "server")

    handler: Handler
    handler_kwargs: dict[str, Any]
    server: Server
    member: ConnectionMember | None = None

    def __init__(self, protocol: ServerSettings, server: Server, **overrides: Any) -> None:
        super().__init__(protocol.overridden(overrides) if overrides else protocol)
        self.server = server

    # Channels.

    @overload
    async def join(self, channels: str, *, since: Position | str | None = None, **how: Unpack[JoinHow]) -> Joined: ...
    @overload
    async def join(
        self, channels: Mapping[str, Position | str | None], **how: Unpack[JoinHow]
    ) -> dict[str, Joined]: ...

    async def join(
        self,
        channels: str | Mapping[str, Position | str | None],
        *,
        since: Position | str | None = None,
        last: int = 0,
        on_gap: OnGap | None = None,
        member: str | None = None,
        info: Any = None,
        on_presence: OnPresence | None = None,
    ) -> Joined | dict[str, Joined]:
        """Join a channel, or many at once: its messages are sent to the client until the connection closes.

        What the client missed after `since` comes first. Joining a channel again begins anew.

        Args:
            channels: a name, or names with the place after which the client has missed messages, or None.
            since: that place, for one channel: a `Position` or its token, whatever the client says it is.
            last: how many of the last messages to send if there is no such place, or if not all can be sent.
            on_gap: `f(connection, gap)`, function or coroutine function, called when messages are missing that cannot
                be sent any more; without it that closes the connection with code 1013 (try again later).
            member: name of who this is, in channels with presence: 1 to 128 bytes. All its connections are one member.
            info: what others are told of it: at most 1 KiB of JSON.
            on_presence: `f(connection, event)`, as `on_gap`, called when a member comes to a channel or goes.

        Returns:
            How it was joined, or that of each channel.

        Raises:
            InvalidChannel, TooManyChannels: it is not possible; nothing was joined.
            BusDown: the engine is away; nothing was joined.
            BusError: the server has no bus, or no channel has presence, and there is a `member` or an `on_presence`.
            ConnectionClosed: when the connection is closed.
        """
        await self._drain()  # a client that reads slowly is not closed for what it missed
        await self._must_be_open()
        me = self._as_member()
        asked = {channels: since} if isinstance(channels, str) else channels
        identity = me.identify(asked, member, info, on_presence)
        try:
            joined = await me.join(asked, last, on_gap, identity)
        except BusError:
            await self._must_be_open()  # else that is the reason
            raise
        return joined[channels] if isinstance(channels, str) else joined

    def _as_member(self) -> ConnectionMember:
        """Return the connection as a member of channels, which it is from now on."""
        if self.member is None:
            from .enveloped import make_member

            self.member = make_member(self, self.server.bus)
        return self.member

    async def leave(self, *channels: str) -> None:
        """Leave channels; what was not joined is left already.

        Args:
            channels: their names.
        """
        if self.member is not None:
            for channel in channels:
                self.member.leave(channel)

    def _enter_closing(self) -> None:
        super()._enter_closing()
        if self.member is not None:
            self.member.end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.member is not None:
            self.member.end()
            self.member = None  # they refer to each other


class BusWanted(NamedTuple):
    """The arguments of `serve()` for the bus."""

    bus: str | Bus
    channels: Mapping[str, Channel] | None
    limits: ChannelLimits | None


class Server(OlderServer):
    """The server that `serve()` returns: mirrors asyncio.Server; await or enter it to start.

    Attributes:
        server: the underlying asyncio server, once started.
        logger: the server's logger.
    """

    server: asyncio.AbstractServer

    def __init__(
        self,
        settings: Callable[..., ServerSettings],
        policy: ProcessPolicy,
        logger: LoggerLike | None,
        create_connection: Callable[..., ServerConnection] | None,
        listen: Listen,
        bus: BusWanted | None = None,
    ) -> None:
        self.logger: LoggerLike = logging.getLogger("tidegate.server") if logger is None else logger
        self._registry: ConnectionRegistry[Any] = ConnectionRegistry(self._check_closed, policy.admission)
        self._make_settings = functools.partial(
            settings, logger=self.logger, policy=policy, registry=self._registry, start=self._start
        )
        self._settings: ServerSettings
        self._event_level = policy.event_level
        self._connect = create_connection or ServerConnection
        self._listen = listen
        self.handler_tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._settled = False  # all connections are closed, and all handlers have returned
        self._settling: asyncio.Task[None] | None = None  # leaves the bus then; the loop holds no task
        self._closed: asyncio.Future[None]  # done soon after that
        self._bus_wanted = bus
        self._share: Share | None = None  # of the bus

    @property
    def connections(self) -> set[ServerConnection]:
        """The open connections: past the opening handshake, and not closing."""
        return set(self._registry.open)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; empty once the server is closed."""
        return () if self._closing else tuple(cast(Any, self.server).sockets)

    @property
    def bus(self) -> Bus:
        """The bus that its connections join channels of.

        Raises:
            BusError: it has none.
        """
        if self._share is None:
            raise BusError("the server has no bus: give serve() channels=, or bus=")
        return self._share.bus

    @property
    def has_bus(self) -> bool:
        """Whether there is one."""
        return self._share is not None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the server."""
        return self._settings.loop

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self.server.is_serving()

    async def start_serving(self) -> None:
        """Start to accept connections, after `serve(..., start_serving=False)`."""
        await self.server.start_serving()

    async def serve_forever(self) -> None:
        """Serve until `close()` is called elsewhere, or until cancelled, which closes the server first.

        Raises:
            asyncio.CancelledError: when cancelled, once the server is closed.
        """
        try:
            if not self.is_serving():
                await self.start_serving()
            await self.wait_closed()
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    def close(
        self, close_connections: bool = True, code: CloseCode | int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Stop the server; idempotent, and does not wait: see `wait_closed()`.

        Nothing more is accepted, handshakes in progress are answered with 503 (service unavailable), open connections
        are closed, and handlers are left to end.

        Args:
            close_connections: False leaves open connections to their clients and handlers.
            code: close code; 1001 (going away) by default.
            reason: close reason, at most 123 bytes in UTF-8.

        Raises:
            ProtocolError: for a code or a reason that may not be sent (RFC 6455 7.4).
        """
        Closing().send(code, reason)  # raises for what no close frame can carry, before anything is done
        if not self._closing:
            self.logger.log(self._event_level, "server closing")
            self._closing = True
            self.server.close()
            self.reject_handshakes()
        if close_connections:
            for connection in self.connections:
                connection.start_closing(code, reason)
        self._check_closed()

    def connect(self) -> ServerConnection:
        """Make the connection of a transport that was accepted, which it takes over."""
        return self._connect(self._settings, self)

    def reject_handshakes(self) -> None:
        """Answer opening handshakes with 503 (service unavailable) from now on, those in progress too.

        Connections that speak HTTP end as soon as they are idle.
        """
        self._registry.rejecting = True
        for http in list(self._registry.http):
            http.shutdown()
        for connection in list(self._registry.handshaking):
            connection.on_rejecting()

    def stop_accepting(self) -> None:
        """Accept no more connections, and let handshakes in progress go on: others accept from the same sockets."""
        self.server.close()

    @property
    def handshakes(self) -> int:
        """The number of opening handshakes in progress."""
        return len(self._registry.handshaking)

    @property
    def busy(self) -> bool:
        """Whether there are connections, open or not, or handlers that have not ended."""
        return bool(self._registry.all or self.handler_tasks)

    def abort_connections(self) -> None:
        """Abort all TCP connections at once, open or not."""
        for connection in list(self._registry.all):
            connection.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the server is closed: all TCP connections are, and all handlers have returned."""
        await asyncio.shield(self._closed)

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begin().__await__()

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    async def _begin(self) -> Self:
        if not hasattr(self, "server"):
            loop = asyncio.get_running_loop()
            self._settings = self._make_settings(loop=loop, deadlines=Deadlines(loop))
            self._closed = loop.create_future()
            if self._bus_wanted is not None:
                await self._enter_bus(self._bus_wanted)
            try:
                self.server = await self._listen(loop, self._made)
            except BaseException:
                await self._leave_bus()
                raise
            if self.is_serving() and self.logger.isEnabledFor(self._event_level):
                for sock in self.sockets:
                    self.logger.log(self._event_level, "server listening on %s", address_of(sock))
        return self

    async def _enter_bus(self, wanted: BusWanted) -> None:
        from ..bus.sharing import share
        from .membership import ConnectionTable

        found = share(wanted.bus, wanted.channels, ConnectionTable, wanted.limits)
        await found.enter()
        self._share = found

    async def _leave_bus(self) -> None:
        found, self._share = self._share, None
        if found is not None:
            await found.leave()

    async def _settle(self) -> None:
        try:
            await self._leave_bus()
        finally:
            self._closed.set_result(None)

    # Connections.

    def _made(self) -> asyncio.Protocol:
        admission = self._registry.admission
        if admission is not None and admission.needs_setup:
            from .transport_setup import TransportSetup

            return TransportSetup(self._settings, admission, self.connect)
        # With the loop's own TLS the server learns of a connection when TLS is up: of others it would miss the end.
        return self.connect()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._settings.loop.create_task(work)
        self.handler_tasks.add(task)
        task.add_done_callback(self.task_ended)

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """Forget a task that handled a connection or a request."""
        self.handler_tasks.discard(task)
        self._check_closed()

    def _check_closed(self) -> None:
        if self._closing and not self.busy and not self._settled:
            self.logger.log(self._event_level, "server closed")
            self._settled = True
            if self._share is not None:
                self._settling = self._settings.loop.create_task(self._settle())
                return
            # Soon: the task that leaves the server's block, which waits after close(), is then the last one to go on.
            self._settings.loop.call_soon(self._closed.set_result, None)


# A plain function, so that its result can be awaited or entered, and so that mistakes show where they are made.
@accepts(server_arguments(Headers))
def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    # WebSocket
    origins: Sequence[str | re.Pattern[str] | None] | None = None,
    extensions: Sequence[ServerExtensionFactory] | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: str | None = defaults.COMPRESSION,
    # HTTP
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
    # Seconds
    open_timeout: float | None = defaults.OPEN_TIMEOUT,
    ping_interval: float | None = defaults.PING_INTERVAL,
    ping_timeout: float | None = defaults.PING_TIMEOUT,
    close_timeout: float | None = defaults.CLOSE_TIMEOUT,
    # Limits
    max_size: int | tuple[int | None, int | None] | None = defaults.MAX_SIZE,
    max_queue: int | tuple[int | None, int | None] | None = defaults.MAX_QUEUE,
    write_limit: int | tuple[int, int | None] = defaults.WRITE_LIMIT,
    broadcast_limit: int | None = defaults.BROADCAST_LIMIT,
    # Channels
    bus: str | Bus | None = None,
    channels: Mapping[str, Channel] | None = None,
    channel_limits: ChannelLimits | None = None,
    # Others
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    **kwargs: Any,
) -> Server:
    """Create a WebSocket server on `host` and `port`.

    `async with serve(...) as server` starts it and closes it at the end; `server = await serve(...)` starts it and
    leaves closing to you, or to `server.serve_forever()`. For each client, `handler` runs as a task with the
    connection once the opening handshake is done; when it returns the connection is closed with code 1000, when it
    raises with 1011.

    Args:
        handler: coroutine function of one `ServerConnection`.
        host, port: where to listen, as for asyncio's create_server().
        origins: accepted values of the Origin header: str for the value, compiled patterns for a full match, None for
            no header; None accepts all. Others get 403 (RFC 6455 10.2).
        extensions: extension factories, in order of preference.
        subprotocols: supported subprotocols, in order of preference.
        select_subprotocol: `f(connection, offered)` that returns a subprotocol or None, instead of the default choice;
            NegotiationError is answered with 400.
        compression: "deflate" or None.
        process_request: `f(connection, request)`, function or coroutine function: None to go on, or the Response to
            send instead.
        process_response: `f(connection, request, response)`: None to send that response, or another one.
        server_header: value of the Server header; None for no header.
        open_timeout: seconds for the opening handshake; None for no limit.
        ping_interval: seconds between keepalive pings; None for none.
        ping_timeout: seconds to wait for their pongs; None for no limit.
        close_timeout: seconds to wait for the client when closing; None for no limit.
        max_size: bytes of a message, or (message, fragment); None for no limit. Larger ones fail with 1009.
        max_queue: frames that wait to be received before reading pauses, or (high, low) marks; low is high // 4.
        write_limit: bytes in the write buffer above which send() waits, or (high, low) marks.
        broadcast_limit: bytes that `broadcast()` may pile up in the write buffer of a client that does not read; one
            more broadcast closes it with code 1013 (try again later). None for no limit.
        bus: URL of the bus that connections join channels of, or a `Bus` that was started; "memory://", within this
            process, if there are `channels`. Servers of one event loop with the same URL share one.
        channels: policy of the channels with each prefix; "" is the default of the rest.
        channel_limits: limits of channels, and of the connections that join them.
        logger: logger of the server; "tidegate.server" by default.
        create_connection: `ServerConnection`, a subclass, or a function that makes one.
        kwargs: passed to the event loop's create_server(): ssl, sock, backlog, reuse_port, start_serving, ...

    Raises:
        TypeError, ValueError, InvalidHeaderValue: at once, for wrong arguments.
        OSError: on awaiting, if the address cannot be bound.
        BusDown: on awaiting, if the engine of the bus is not there.
    """
    if compression == "deflate":
        extensions = enable_server_permessage_deflate(extensions)
    elif compression is not None:
        raise ValueError(f"unsupported compression: {compression}")
    _check_handler(handler, server_header)
    check_functions(
        process_request=process_request, process_response=process_response, create_connection=create_connection
    )
    options = HandshakeOptions(
        origins=origins, subprotocols=subprotocols, select_subprotocol=select_subprotocol, extensions=extensions
    )
    limits = Settings.check(
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        write_limit=write_limit,
        broadcast_limit=broadcast_limit,
    )
    # TLS is uvloop's. aiofastnet's, measured beside it, takes 10 % less CPU for a small message and 23 % less from
    # 16 KiB, but 7 % more with 16 in flight, and 39 KiB an idle connection instead of 30; and it reads the ssl
    # module's objects behind its back.
    if kwargs.get("ssl") is not None:
        kwargs.setdefault("ssl_handshake_timeout", open_timeout)
        kwargs.setdefault("ssl_shutdown_timeout", close_timeout)
    policy = kwargs.pop("policy", None) or ProcessPolicy()
    http = kwargs.pop("http", None)
    admission = policy.admission
    kwargs["tls"] = admission is not None and admission.tls is not None
    listening = functools.partial(listen, host=host, port=port, **kwargs)
    settings = functools.partial(
        ServerSettings,
        handler=give_path(handler),
        handshake=options,
        process_request=guarded(handler, process_request),
        process_response=process_response,
        server_header=server_header,
        http=http,
        **limits,
    )
    return Server(settings, policy, logger, create_connection, listening, _bus_wanted(bus, channels, channel_limits))


def _check_handler(handler: Any, server_header: Any) -> None:
    if not isinstance(server_header, (str, NoneType)):
        raise TypeError(f"server_header must be a str or None, not {type(server_header).__name__}")
    Headers(Server=server_header or "")  # raises for what no header can hold
    if not callable(handler):
        raise TypeError(f"handler must be a coroutine function of one connection, not {handler!r}")


def _bus_wanted(
    bus: str | Bus | None, channels: Mapping[str, Channel] | None, limits: ChannelLimits | None
) -> BusWanted | None:
    """Check the arguments of serve() for the bus, before there is a loop, and complete them; None without a bus."""
    if bus is None and channels is None and limits is None:
        return None
    from ..bus.bus import Bus
    from ..bus.connect import check_url
    from ..channels import ChannelLimits, check_channels

    if not isinstance(limits, ChannelLimits | None):
        raise TypeError(f"channel_limits must be a ChannelLimits, not {limits!r}")
    if bus is None and channels is None:
        raise ValueError("channel_limits need channels=, or bus=")
    if channels is not None:
        check_channels(channels)
    if bus is None:
        bus = "memory://"
    if not isinstance(bus, Bus):
        check_url(bus)
    return BusWanted(bus, channels, limits)


async def handshakes_done(
    servers: Sequence[Server], timeout: float, hurried: Callable[[], bool] = lambda: False
) -> None:
    """Wait until these servers, which have stopped accepting, have no opening handshake in progress.

    Args:
        servers: they share what is left of the time.
        timeout: seconds to wait at most.
        hurried: called every 50 ms; True ends the wait.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    # Connections accepted in this turn of the loop are known in the next one.
    await asyncio.sleep(GLANCE)
    while any(server.handshakes for server in servers) and loop.time() < deadline and not hurried():
        await asyncio.sleep(GLANCE)


def unix_serve(handler: Handler, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Create a WebSocket server on a Unix socket: `serve()` with `path` instead of host and port.

    Args:
        handler: coroutine function of one `ServerConnection`.
        path: of the socket, or None with `sock=`.
        kwargs: as for `serve()`.
    """
    return serve(handler, unix=True, path=path, **kwargs)
