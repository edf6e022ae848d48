"""HTTP of an ASGI application, by uvicorn's protocol, to which a connection is handed with its first request.

    HttpService       of one application, for all servers of a process
    HttpConnection    one connection, until it ends or opens a WebSocket

Ours are the limits and deadlines of each request's head, the client behind proxies, counting, the access log, and the
end: idle connections end when the server closes, busy ones with their response. What must not live here: the first
request of a connection (server_connection.py), WebSocket (asgi.py). It is imported for applications with HTTP alone,
since uvicorn is an extra.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import termios
from collections.abc import Mapping, MutableMapping
from time import monotonic, time
from typing import TYPE_CHECKING, Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .._core.counters import current
from .._core.writer import slow_connections
from ..forwarded import client_of
from ..http11 import MAX_HEAD_SIZE
from ..networks import Networks
from .access_log import log_request
from .access_log import logger as access_logger
from .admission import ClientRecord
from .asgi_headers import default_headers
from .channels import publish
from .scope import Application, Headers, told_scheme

if TYPE_CHECKING:
    from .options import ServerSettings
    from .server import Server

__all__ = ["HttpConnection", "HttpService"]

CLIENT_LEFT = 499
"""Counted as the status of a request whose client left before there was a response, as nginx has it."""

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # RFC 6585, 5
)
FLUSH_SIZE = 16384
"""Bytes that are not kept for the end of the turn."""

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # RFC 9110, 15.5.9


class HttpService:
    """An application as connections that speak HTTP need it.

    Parameters:
        application: the ASGI application.
        root_path: where it is mounted, as clients see it.
        state: of its lifespan.
        keep_alive: seconds that an idle connection waits for another request.
    """

    def __init__(
        self, application: Application, *, root_path: str = "", state: Mapping[str, Any], keep_alive: float = 5
    ) -> None:
        self.application = application
        self.root_path = root_path
        self.state = state
        self.config = Config(
            application,
            http="httptools",
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            root_path=root_path,
            timeout_keep_alive=keep_alive,  # type: ignore[arg-type]
        )
        self.config.load()
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_are_of: tuple[int, str | None] = 0, None  # the second that they tell, and the server

    def default_headers(self, server_header: str | None) -> list[tuple[bytes, bytes]]:
        """Return the headers of each response now."""
        wanted = int(time()), server_header
        if wanted != self._headers_are_of:
            self._headers_are_of = wanted
            self._headers = default_headers(server_header, wanted[0])
        return self._headers

    def take_over(
        self,
        settings: ServerSettings,
        server: Server,
        transport: asyncio.Transport,
        record: ClientRecord | None,
        data: bytes,
    ) -> None:
        """Serve a transport from its first request on.

        Args:
            settings: of the server.
            server: the server.
            transport: of the connection.
            record: what is known of the client.
            data: what has come: at least the head of the request.
        """
        HttpConnection(self, settings, server, record).begin(transport, data)


def _is_cancelled(exc: BaseException) -> bool:
    """Return whether the server has cancelled this task, and the application ends for that."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _strip(headers: Headers) -> None:
    """Remove the space behind values, which is no part of them, and which the parser leaves (RFC 9110, 5.5)."""
    for _, value in headers:
        if value.endswith((b" ", b"\t")):
            headers[:] = [(name, value.rstrip(b" \t")) for name, value in headers]
            break


async def _soon(receive: Any) -> Any:
    """Receive the end: an application that asks for it forever must not stop the others."""
    await asyncio.sleep(0)
    return await receive()


class _State:
    """What uvicorn's protocol expects of its server: where its tasks and connections are, headers of every response."""

    def __init__(self, service: HttpService, settings: ServerSettings, server: Server) -> None:
        self._service, self._settings, self._server = service, settings, server
        self.total_requests = 0
        self.connections: set[Any] = set()

    @property
    def tasks(self) -> _State:
        """Where tasks are added."""
        return self

    def add(self, task: asyncio.Task[None]) -> None:
        """Have the end wait for a task that handles a request, or cancel it if that takes long."""
        self._server.handler_tasks.add(task)
        task.add_done_callback(self._server.task_ended)

    def discard(self, task: asyncio.Task[None]) -> None:
        """Forget it, which the server does."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self._service.default_headers(self._settings.server_header)


class _CoalescingTransport:
    """A transport that writes what comes in one turn of the loop at once: the head of a response, and its body.

    Parameters:
        loop: the event loop.
        transport: that writes.
    """

    __slots__ = ("_loop", "_pieces", "_size", "abort", "is_closing", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self.transport, self._loop = transport, loop
        self._pieces: list[bytes] = []
        self._size = 0
        self.abort, self.is_closing = transport.abort, transport.is_closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell of the connection what uvicorn asks for, but of addresses no more than a host and a port.

        It would have them from the socket, of which an object would be made for that, and closed with the connection.
        """
        found = default if name == "socket" else self.transport.get_extra_info(name, default)
        return found[:2] if isinstance(found, tuple) else found

    def write(self, data: bytes) -> None:
        """Write soon; at once, if it is much."""
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > FLUSH_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what has come."""
        pieces = self._pieces
        if pieces:
            self._pieces, self._size = [], 0
            if len(pieces[-1]) > FLUSH_SIZE:
                self.transport.write(b"".join(pieces[:-1]))
                del pieces[:-1]
            self.transport.write(b"".join(pieces))

    def close(self) -> None:
        """Write what has come, and close."""
        self.flush()
        self.transport.close()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are not written."""
        return self._size + self.transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Read no more."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resume_reading()


class HttpConnection(HttpToolsProtocol):
    """A connection that speaks HTTP.

    Parameters:
        service: of the application.
        settings: of the server.
        server: the server.
        record: what is known of the client.
    """

    def __init__(
        self, service: HttpService, settings: ServerSettings, server: Server, record: ClientRecord | None
    ) -> None:
        super().__init__(service.config, _State(service, settings, server), dict(service.state), settings.loop)  # type: ignore[arg-type]
        self.app = self._answer
        self.access_log = False
        if isinstance(settings.logger, logging.Logger):
            self.logger = settings.logger
        self.ws_protocol_class = HttpConnection  # not called: handle_websocket_upgrade() makes the connection
        self._service, self._settings, self._server, self._record = service, settings, server, record
        self._row = current()
        self._told_in: str | None = None  # the header in which the peer, a trusted proxy, tells of its clients
        self._deadline: float | None = None
        self._has_bus = server.has_bus
        self._head_size = 0  # bytes of a head that is not complete
        self._ending = False
        self._refused = False
        self._upgraded = False

    @property
    def id(self) -> object:
        """As of a connection, for the log."""
        return f"{id(self):x}"

    @property
    def remote_address(self) -> Any:
        """As of a connection, for the log."""
        return self.client

    def begin(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take the transport over, with what has come of its first request."""
        registry = self._settings.registry
        registry.all.add(self)
        registry.http.add(self)
        self._row.http_opened()
        admission = registry.admission
        if admission is not None:
            self._told_in = admission.header_of(transport.get_extra_info("peername"))
        transport.set_protocol(self)
        self.connection_made(_CoalescingTransport(self.loop, transport))  # type: ignore[arg-type]
        if self._record is not None and self._record.address is not None and self._told_in is None:
            self.client = self._record.address[:2]
        self.data_received(data)

    # Requests.

    def data_received(self, data: bytes) -> None:
        if self._upgraded or self._refused or self.transport.is_closing():
            return
        super().data_received(data)
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:  # the last head is complete
            if self._head_size:
                self._head_size = 0
                self._settings.deadlines.clear(self)
            if self._ending:
                cycle.keep_alive = False
        elif not self._upgraded and not self._refused and not self.transport.is_closing():
            self._head_size += len(data)
            if self._head_size > MAX_HEAD_SIZE:
                self._refuse(TOO_LARGE)
            elif self._deadline is None:
                self._settings.deadlines.set(self, self._settings.open_timeout)

    def _on_deadline(self, now: float) -> None:
        """Give up on a head that does not come."""
        self._refuse(TIMED_OUT)

    @property
    def _responding(self) -> bool:
        """Whether a response is due, or has begun."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, response: bytes) -> None:
        """End, and read no more: with this response, or if others are due before it, with the last of them."""
        self._refused = True
        self._settings.deadlines.clear(self)
        if self._responding:
            self.cycle.keep_alive = False
        else:
            self.transport.write(response)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and end; but never in the middle of a response to what came before."""
        if not self._responding:
            super().send_400_response(msg)
        elif not self.cycle.more_body:
            self._refuse(b"")
        elif self.cycle.response_started or self.pipeline:
            self.transport.close()  # the body of its request is broken
        else:
            super().send_400_response(msg)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Call the application, and count what it did."""
        _strip(scope["headers"])
        if self._told_in is not None:
            self._tell(scope, self._told_in)
        if self._has_bus:
            scope["extensions"] = {**scope.get("extensions", {}), "tidegate": {"publish": publish}}
        began, status = monotonic(), CLIENT_LEFT

        def sent(event: Any) -> Any:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            return send(event)

        cycle = receive.__self__

        def received() -> Any:
            return _soon(receive) if cycle.response_complete or cycle.disconnected else receive()

        try:
            await self._service.application(scope, received, sent)
        except BaseException as exc:
            if status == CLIENT_LEFT:
                status = 500
            if not _is_cancelled(exc):
                raise
            self.transport.abort()
            cycle.disconnected = True  # nothing is to be said of the response, or logged
        finally:
            taken = monotonic() - began
            self._row.http_request(status, taken)
            if access_logger.isEnabledFor(logging.INFO):
                log_request(self, scope, self._service.root_path, status, taken)

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # what the application does after it may take long
        super().on_response_complete()

    def _tell(self, scope: MutableMapping[str, Any], header: str) -> None:
        """Tell the application what a trusted proxy tells of its client: each request may be another's."""
        admission = self._settings.registry.admission
        trusted = Networks(()) if admission is None else admission.trusted
        values = [value.decode("latin-1") for name, value in scope["headers"] if name == header.encode()]
        client = client_of(header, values, trusted)
        if client is not None:
            scope["client"] = client
        scope["scheme"] = told_scheme(header, scope["headers"]) or scope["scheme"]

    # An Upgrade on a connection that was kept.

    def handle_websocket_upgrade(self) -> None:
        """Make it a connection of WebSocket, which takes the transport over with the request."""
        if self._responding:
            self._refuse(b"")  # a pipelined one: its client did not wait to know whether it may
            return
        lines = [self.scope["method"].encode() + b" " + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.scope["headers"]]
        registry, record = self._settings.registry, self._record
        self._forget()
        registry.all.discard(self)
        self._row.http_upgraded()
        if record is None:
            record = ClientRecord(monotonic())
        elif registry.admission is not None:
            registry.admission.release(record)
        record.since = monotonic()
        if self._told_in is not None:
            record.address = None  # the request tells
        self._upgraded = True
        self.parser = None  # type: ignore[assignment]
        transport = cast(Any, self.transport).transport
        self._server.connect().take_over(transport, record, b"\r\n".join([*lines, b"", b""]))

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client may offer what it likes (RFC 9110, 7.8)."""

    # Backpressure.

    def pause_writing(self) -> None:
        super().pause_writing()
        slow_connections.add(self)  # type: ignore[arg-type]

    def resume_writing(self) -> None:
        super().resume_writing()
        slow_connections.discard(self)

    # The end.

    def shutdown(self) -> None:
        """End when idle: now, or after the response, or after that to a request that waits in the socket."""
        self._ending = True
        if self._responding:
            self.cycle.keep_alive = False
        elif not self._head_size and not self._has_more():
            self.transport.close()

    def _has_more(self) -> bool:
        """Return whether bytes have come that were not read."""
        sock = cast(Any, self.transport).transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        waiting = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, waiting)
        return waiting[0] > 0

    def _forget(self) -> None:
        self.connections.discard(self)
        slow_connections.discard(self)
        self._unset_keepalive_if_required()
        self._settings.deadlines.clear(self)
        self._settings.registry.http.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.app = self._service.application  # else it would refer to itself, and stay until the garbage collection
        self._forget()
        self._row.http_closed()
        self._settings.registry.lost(self, self._record)
