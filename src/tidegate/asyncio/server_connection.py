"""The server's side of a connection: its opening handshake, its handler, its end.

What must not live here: the server, and the public class of connections, which knows it (server.py); what all
connections of a server share (options.py, registry.py); what either side of a connection does (connection.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from .._core.counters import RESULT_OF_STATUS
from .._core.handshake import accept_plain
from ..exceptions import InvalidHandshake, UnexpectedBody
from ..http11 import Request, RequestParser, Response, announces_body, has_body
from ..limits import DAEMON
from ..protocol import CLOSED, CONNECTING, OPEN
from ..redaction import redact
from ..server import (
    accept,
    asks_for_websocket,
    check_host,
    finalize,
    http_date,
    negotiate_extensions,
    rejection,
    rejection_of,
    text_response,
)
from .access_log import log_close, log_handshake
from .access_log import logger as access_logger
from .admission import ClientRecord, Verdict
from .connection import Connection

if TYPE_CHECKING:
    from ..typing import StatusLike
    from .options import Http, ServerSettings

__all__ = ["BaseServerConnection"]

EARLY_DATA = 65536
"""Bytes that a client may send between its request and our response, which hooks may delay."""

RETRY_AFTER_RESTART = 1
"""Seconds after which a client of a closing server should try again: its successor, if there is one, is up."""

REJECT_WITHIN = 2.0
"""Seconds for a request that will be rejected whatever it is."""

LINGER = 2.0
"""Seconds that a rejected client has to close the connection."""

SHUTTING_DOWN = Verdict(None, HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n", RETRY_AFTER_RESTART)
"""The verdict of a closing server."""


class BaseServerConnection(Connection):
    """The server's side of a connection, without the server.

    Attributes:
        username: set by `basic_auth` when it let the client in.

    Args:
        settings: of the server's connections, or of this one.
    """

    __slots__ = ("_hooks", "_outcome", "_parser", "_record")

    username: str
    server: Any
    _settings: ServerSettings

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings, client=False)
        self._parser: RequestParser | None = None
        self._hooks: asyncio.Task[Any] | None = None  # the task that runs hooks
        self._outcome: tuple[str, float] | None = None  # of the handshake, while hooks go on after its end
        self._record: ClientRecord | None = None  # what admission remembers

    def respond(self, status: StatusLike, text: str) -> Response:
        """Make a plain text response, for `process_request` and `process_response` to return.

        Args:
            status: HTTP status code.
            text: body, to be encoded to UTF-8.
        """
        return text_response(status, text)

    # The opening handshake (RFC 6455 section 4.2), in reading order.

    def take_over(self, transport: asyncio.Transport, record: ClientRecord, data: bytes) -> None:
        """Take a transport over when it is set up.

        Args:
            transport: that the request comes by.
            record: what is known of the client.
            data: what has come of the request.
        """
        self._record = record
        transport.set_protocol(self)
        self.connection_made(transport)
        if data:
            self.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        timeout, self._opened_at = self._settings.open_timeout, monotonic()
        if self._record is None:
            self._row.accepted()
        else:  # by TransportSetup, which has counted it
            taken, self._opened_at = self._opened_at - self._record.since, self._record.since
            timeout = None if timeout is None else max(timeout - taken, 0)
        registry = self._settings.registry
        registry.all.add(self)
        registry.handshaking.add(self)
        self._settings.deadlines.set(self, timeout)
        rejected = registry.rejecting
        if not rejected and registry.admission is not None:
            record = self._record = registry.admission.admit(transport, self._opened_at, self._record, self._evict)
            if record is not None and record.verdict is not None:
                rejected = True
                if record.verdict.abort:
                    self._enforce(record.verdict)
        if rejected:
            # The answer waits for the request: proxies, for one, may not understand a response that comes before it.
            self._settings.deadlines.set(self, REJECT_WITHIN if timeout is None else min(timeout, REJECT_WITHIN))

    @property
    def remote_address(self) -> Any:
        """Remote address: (host, port) on IPv4; for other families see socket.getpeername().

        It is the client's, where the server trusts a proxy that tells it; port 0: the proxy does not tell the port.
        """
        record = self._record
        return super().remote_address if record is None or record.address is None else record.address

    def _handshake_received(self, data: bytes) -> None:
        if self._response is not None or self._request is not None:
            self._early_data(data)
            return
        if self._parser is None:
            if self._settings.plain and not self._slow and self._accept_plain(data):
                return
            self._parser = self._make_parser()
        try:
            complete = self._parser.feed(data)
        except InvalidHandshake as exc:
            if self._slow:
                self.logger.debug("! no valid HTTP request", exc_info=exc)
            self._answer(self._with_server_header(rejection_of(exc)))
            return
        if complete:
            self._request_received(self._parser)

    def _make_parser(self) -> RequestParser:
        return RequestParser(bodies=None if self._settings.http is None else b"")

    def _accept_plain(self, data: bytes) -> bool:
        """Accept a request that is as most are, without making an object of it; return whether it was one."""
        record, handshake = self._record, self._settings.handshake
        if (record is not None and record.unidentified) or self._verdict() is not None:
            return False
        accepted = accept_plain(data, http_date(time()).encode())
        if accepted is None:
            return False
        size, response, offers = accepted
        if offers is not None and handshake.extensions:
            try:
                header, extensions = negotiate_extensions([offers.decode()], handshake)
            except InvalidHandshake:
                return False  # it is rejected with the reason
            if extensions:
                self._adopt(extensions)
                response += f"Sec-WebSocket-Extensions: {header}\r\n".encode()
        self._request = data[:size]
        self._accepted(response, data[size:])
        return True

    def _accepted(self, response: bytes, rest: bytes) -> None:
        """Accept a plain request, after which `rest` came; the response lacks its last lines."""
        self._send_response(response + self._settings.last_lines, 101, "Switching Protocols", monotonic())
        self._open(rest)
        self._settings.start(self._handle())

    @property
    def _answered(self) -> bool:
        """Whether the handshake is over, with a response or without."""
        return self not in self._settings.registry.handshaking

    def _early_data(self, data: bytes) -> None:
        """Keep bytes between request and response while hooks run; drop them after a rejection."""
        if self._parser is not None and len(self._parser.rest) + len(data) <= EARLY_DATA:
            self._parser.rest += data
        elif self._parser is not None:
            if self._hooks is not None:
                self._hooks.cancel()
            self._reject(rejection(HTTPStatus.BAD_REQUEST, "Too much data before the response.\n"))

    def _request_received(self, parser: RequestParser) -> None:
        settings = self._settings
        self._request = parser.head
        if self._slow:
            self._log_head("<", parser.head)
        request = parser.request()
        try:
            record, admission = self._record, settings.registry.admission
            if record is not None and record.unidentified and admission is not None:
                admission.identify(record, request, self.remote_address)
            verdict = self._verdict()
            if verdict is not None:
                self._enforce(verdict)
                return
            check_host(request)
            if settings.http is not None:
                if not asks_for_websocket(request):
                    self._hand_over(settings.http, parser.head + parser.rest)
                    return
                if announces_body(parser.head):
                    raise UnexpectedBody("a request that opens a WebSocket cannot have a body")
        except InvalidHandshake as exc:
            self._answer(self._rejection(exc))
            return
        if settings.process_request is None and settings.process_response is None:
            self._respond(self._accept(request))
        else:
            self._request = request
            settings.start(self._run_hooks(request))

    def _hand_over(self, http: Http, data: bytes) -> None:
        """Have HTTP take the transport over, with what came of it."""
        registry = self._settings.registry
        self._settings.deadlines.clear(self)
        registry.handshaking.discard(self)
        registry.all.discard(self)
        http.take_over(self._settings, self.server, self.transport, self._record, data)

    async def _run_hooks(self, request: Request) -> None:
        """Finish the handshake with hooks, which may take long, then run the handler."""
        self._hooks = asyncio.current_task()
        try:
            response, chosen = await self._response_of_hooks(request)
        finally:
            self._hooks = None
            if self._outcome is not None:
                self._row.handshake(*self._outcome)
            if self._state == CLOSED:
                self._settings.deadlines.clear(self)
                self._settings.registry.hook_ended(self._record)
        if response is None or self._answered or self.transport.is_closing():
            return  # rejected meanwhile, timed out, or disconnected
        if response.status_code == 101 and self._settings.registry.rejecting:
            response, chosen = self._with_server_header(_response_of(SHUTTING_DOWN)), False
        if self._answer(response, chosen):
            await self._handle()

    async def _response_of_hooks(self, request: Request) -> tuple[Response | None, bool]:
        """Return the response, unless the handshake is over, and whether a hook chose it."""
        settings = self._settings
        response = None
        if settings.process_request is not None:
            response = await self._hook("process_request", settings.process_request, self, request)
        if self._answered:
            return None, False
        chosen = response is not None
        if response is None:
            response = self._accept(request)
        elif "Server" not in response.headers:
            response = self._with_server_header(response)
        if settings.process_response is not None:
            self._response = response
            other = await self._hook("process_response", settings.process_response, self, request, response)
            if other is not None:
                response, chosen = other, True
        return response, chosen

    async def _hook(self, name: str, hook: Callable[..., Any], *arguments: Any) -> Response | None:
        try:
            response = hook(*arguments)
            if isinstance(response, Awaitable):
                response = await response
            if response is not None and not isinstance(response, Response):
                raise TypeError(f"{name} must return a Response or None, not {response!r}")
        except asyncio.CancelledError:
            raise
        except self._settings.policy.failures as exc:
            if self._is_own_end(exc):
                return None  # the client has left
            self.logger.error("%s failed", name, exc_info=True)
            return rejection_of(RuntimeError(f"{name} failed"))  # 500 whatever was raised
        return response

    def _accept(self, request: Request) -> Response:
        """Negotiate; return the response: 101, or why not."""
        try:
            accepted = accept(request, self._settings.handshake, self)
        except InvalidHandshake as exc:
            return self._rejection(exc)
        except self._settings.policy.failures:
            self.logger.error("opening handshake failed", exc_info=True)
            return self._with_server_header(rejection_of(RuntimeError("opening handshake failed")))  # 500
        self.subprotocol = accepted.subprotocol
        if accepted.extensions:
            self._adopt(accepted.extensions)
        return self._with_server_header(accepted.response)

    def _respond(self, response: Response) -> None:
        """Answer without hooks, and start the handler."""
        if self._answer(response):
            self._settings.start(self._handle())

    def _answer(self, response: Response, chosen: bool = False) -> bool:
        """Send the response, which a hook has `chosen` or not; return whether it is 101 and the connection open."""
        now = monotonic()
        try:
            if isinstance(self._request, Request):  # it has been in a hook's hands
                finalize(response)
            raw = response.serialize()
        except Exception as exc:  # what a hook has made of it cannot be sent
            self.logger.error("opening handshake failed", exc_info=True)
            response, chosen = self._with_server_header(rejection_of(exc)), False
            raw = response.serialize()
        status = response.status_code
        if status != 101 and self._parser is not None and not has_body(self._parser.method, status):
            raw = raw[: len(raw) - len(response.body)]
        self._send_response(raw, status, response.reason_phrase, now, chosen)
        self._response = raw if isinstance(self._request, bytes) else response
        if status == 101:
            parser, self._parser = self._parser, None
            self._open(b"" if parser is None else parser.rest)
        else:
            self._settings.deadlines.set(self, self._settings.close_timeout)
            self._parser = None
            self._end_stream()
        return status == 101

    def _send_response(self, raw: bytes, status: int, reason: str, now: float, chosen: bool = False) -> None:
        """Send the response, by which the handshake is over; count and log it."""
        if self._slow:
            self._log_head(">", raw)
        self._response = raw
        if self._record is not None and self._record.verdict is not None:
            result = "limited"
        else:
            result = "rejected" if chosen and status not in (101, 500) else RESULT_OF_STATUS.get(status, "rejected")
        self._row.handshake(result, now - self._opened_at)
        if access_logger.isEnabledFor(logging.INFO):
            log_handshake(self, self._request, now - self._opened_at, status)
        self._settings.registry.handshaking.discard(self)
        self._write_bytes(raw)
        if status == 101:
            self._opened_at = now
        else:
            self._log_event("connection rejected (%d %s)", status, reason)

    def _open(self, rest: bytes) -> None:
        """Be open; `rest` came after the request."""
        self._state = OPEN
        self._row.opened()
        self._settings.registry.open.add(self)
        self._settings.deadlines.set(self, self._settings.ping_interval)
        self._log_event("connection open")
        if rest:
            self.data_received(rest)

    def on_rejecting(self) -> None:
        """Answer 503: the server rejects handshakes from now on."""
        if self._request is None:  # else the answer comes after the hooks
            self._enforce(SHUTTING_DOWN)

    def _verdict(self) -> Verdict | None:
        """Return why the connection must not open; None as long as it may."""
        if self._settings.registry.rejecting:
            return SHUTTING_DOWN
        return None if self._record is None else self._record.verdict

    def _enforce(self, verdict: Verdict) -> None:
        """Do what the verdict says: answer, or abort."""
        if verdict.limit is not None:
            self._row.inc("limit_rejections", verdict.limit)
        if verdict.abort:
            self._end_handshake("limited")
            self.transport.abort()
            return
        self._reject(_response_of(verdict))
        if verdict.limit is not None:
            timeout = self._settings.close_timeout
            self._settings.deadlines.set(self, LINGER if timeout is None else min(LINGER, timeout))

    def _evict(self) -> bool:
        """Abort the connection to make room for another, unless its handshake is over; return whether it did."""
        if self._state != CONNECTING or self.transport.is_closing():
            return False
        self._enforce(Verdict.of((DAEMON, 0), abort=True))
        return True

    def _reject(self, response: Response) -> None:
        if self._state == CONNECTING and not self._answered:
            self._answer(self._with_server_header(response))

    def _with_server_header(self, response: Response) -> Response:
        header = self._settings.server_header
        if header is not None:
            response.headers["Server"] = header
        return response

    def _rejection(self, exc: InvalidHandshake) -> Response:
        """Make the response to a request that cannot be accepted."""
        if self._slow:
            self.logger.debug("! invalid handshake", exc_info=exc)
        return self._with_server_header(rejection_of(exc))

    def _log_event(self, message: str, *values: object) -> None:
        level = self._settings.policy.event_level
        if self._settings.logger.isEnabledFor(level):
            self.logger.log(level, message, *values)

    def _log_head(self, direction: str, message: bytes) -> None:
        """Log the head of a request or response, line by line, and the size of its body."""
        head, _, body = message.partition(b"\r\n\r\n")
        for line in head.decode("iso-8859-1").split("\r\n"):
            self.logger.debug("%s %s", direction, redact(line))
        if body:
            self.logger.debug("%s [body] (%d bytes)", direction, len(body))

    # The handler's life.

    async def _handle(self) -> None:
        settings = self._settings
        try:
            async with self:
                await settings.handler(self)
        except asyncio.CancelledError:
            raise
        except settings.policy.failures as exc:
            # A handler that was reading or writing when its client vanished has not failed; when a network breaks, its
            # thousands of tracebacks would drown the log.
            if not self._is_own_end(exc):
                self.logger.error("connection handler failed", exc_info=True)

    # The end.

    def _enter_closing(self) -> None:
        self._settings.registry.open.discard(self)
        super()._enter_closing()

    def _on_deadline(self, now: float) -> None:
        if self._hooks is not None:
            self._hooks.cancel()  # also orphaned ones
        if self._state == CLOSED:
            return
        if self._state != CONNECTING:
            super()._on_deadline(now)
        elif not self._answered and (verdict := self._verdict()) is not None:
            self._enforce(verdict)
        elif not self._answered and self._parser is not None and not self._parser.head:
            # Part of a request has come.
            self._reject(rejection(HTTPStatus.REQUEST_TIMEOUT, "Timed out waiting for the request.\n"))
        else:
            self._end_handshake("timeout")
            self.transport.abort()

    def _end_handshake(self, result: str) -> None:
        """End the handshake without an answer."""
        if not self._answered:
            self._response = b""
            taken = monotonic() - self._opened_at
            if access_logger.isEnabledFor(logging.INFO):
                log_handshake(self, self._request, taken, failure=result)
            self._settings.registry.handshaking.discard(self)
            if self._hooks is None:
                self._row.handshake(result, taken)
            else:  # an orphaned hook takes as much of the server as a connection, and counts as one until it ends
                self._outcome = result, taken

    def connection_lost(self, exc: Exception | None) -> None:
        if not (opened := self._state != CONNECTING):
            self._end_handshake("disconnected")
        self._settings.registry.open.discard(self)
        left = None if self._hooks is None or self._deadline is None else self._deadline - self.loop.time()
        super().connection_lost(exc)
        if self._hooks is not None:
            self._hooks.cancel()
            self._parser = None
            if left is not None:
                self._settings.deadlines.set(self, max(left, 0))  # it is cancelled again if it goes on
        self._log_event("connection closed")
        if opened and self._closing is not None and access_logger.isEnabledFor(logging.INFO):
            log_close(self, self._closing, monotonic() - self._opened_at)
        self._settings.registry.lost(self, self._record, orphans_hook=self._hooks is not None)


def _response_of(verdict: Verdict) -> Response:
    """Make the response of a verdict."""
    response = rejection(verdict.status, verdict.text)
    response.headers["Retry-After"] = str(verdict.retry_after)
    return response
