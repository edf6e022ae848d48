"""The server's side of a connection: its opening handshake, its handler, its end.

What must not live here: the server, and the public class of connections, which knows it (server.py); what all
connections of a server share (options.py, registry.py); what either side of a connection does (connection.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._core.counters import RESULT_OF_STATUS
from ..exceptions import InvalidHandshake
from ..http11 import Request, RequestParser, Response, has_body
from ..limits import DAEMON
from ..protocol import CLOSED, CONNECTING, OPEN
from ..redaction import redact
from ..server import accept, check_host, finalize, refuse, reject, rejection
from .access_log import log_close, log_handshake
from .access_log import logger as access_logger
from .admission import Verdict, Visit
from .connection import Connection

if TYPE_CHECKING:
    from ..typing import StatusLike
    from .options import ServerSettings

__all__ = ["BaseServerConnection"]

EARLY_DATA = 65536
"""Bytes that a client may send between its request and our response, which hooks may delay."""

RETRY_AFTER = 1
"""Seconds after which a client that met a closing server should try again: its successor, if there is one, is up."""

REFUSED_WITHIN = 2.0
"""Seconds for the request of somebody who will be refused whatever it is, and then for leaving."""

LINGER = 2.0
"""Seconds that a client that was turned away has to close the connection."""

SHUTTING_DOWN = Verdict(None, HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n", RETRY_AFTER)
"""The verdict of a server that closes."""


class BaseServerConnection(Connection):
    """The server's side of a connection, without the server.

    Attributes:
        username: set by `basic_auth` when it let the client in.

    Args:
        settings: of the server's connections, or of this one.
    """

    __slots__ = ("_departed", "_hooks", "_parser", "_visit")

    username: str
    _settings: ServerSettings

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings, client=False)
        self._parser: RequestParser | None = None
        self._hooks: asyncio.Task[Any] | None = None  # the task that runs hooks, as long as it does
        self._departed: tuple[str, float] | None = None  # how the handshake ended, as long as hooks go on after it
        self._visit: Visit | None = None  # what the server's gate, if it has one, remembers of this connection

    def respond(self, status: StatusLike, text: str) -> Response:
        """Make a plain text response, for `process_request` and `process_response` to return.

        Args:
            status: HTTP status code.
            text: body, to be encoded to UTF-8.
        """
        return reject(status, text)

    # The opening handshake (RFC 6455 section 4.2), in reading order.

    def take_over(self, transport: asyncio.Transport, visit: Visit, data: bytes) -> None:
        """Take a transport over when it is set up.

        Args:
            transport: that the request comes by.
            visit: what is known of the client.
            data: what has come of the request.
        """
        self._visit = visit
        transport.set_protocol(self)
        self.connection_made(transport)
        if data:
            self.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        timeout, self._opened_at = self._settings.open_timeout, monotonic()
        if self._visit is None:
            self._row.accepted()
        else:  # by way of a preface, which has counted it
            taken, self._opened_at = self._opened_at - self._visit.since, self._visit.since
            timeout = None if timeout is None else max(timeout - taken, 0)
        registry = self._settings.registry
        registry.all.add(self)
        registry.handshaking.add(self)
        self._settings.deadlines.set(self, timeout)
        refused = registry.refusing
        if not refused and registry.gate is not None:
            visit = self._visit = registry.gate.arrived(transport, self._opened_at, self._visit, self._displace)
            if visit is not None and visit.verdict is not None:
                refused = True
                if visit.verdict.cut:
                    self._refuse(visit.verdict)
        if refused:
            # Who is answered before it has asked may not understand: a proxy, for one.
            self._settings.deadlines.set(self, REFUSED_WITHIN if timeout is None else min(timeout, REFUSED_WITHIN))

    @property
    def remote_address(self) -> Any:
        """Remote address: (host, port) on IPv4; for other families see socket.getpeername().

        It is the client's, where the server trusts a proxy that tells it; port 0: the proxy does not tell the port.
        """
        visit = self._visit
        return super().remote_address if visit is None or visit.address is None else visit.address

    def _handshake_received(self, data: bytes) -> None:
        if self._response is not None or self._request is not None:
            self._early_data(data)
            return
        if self._parser is None:
            self._parser = RequestParser()
        try:
            complete = self._parser.feed(data)
        except InvalidHandshake as exc:
            if self._slow:
                self.logger.debug("! no valid HTTP request", exc_info=exc)
            self._answer(self._with_server_header(rejection(exc)))
            return
        if complete:
            self._request_received(self._parser)

    @property
    def _answered(self) -> bool:
        """Whether the handshake is over, with a response or without."""
        return self not in self._settings.registry.handshaking

    def _early_data(self, data: bytes) -> None:
        """Bytes between request and response: kept while a hook makes up its mind, dropped after a rejection."""
        if self._parser is not None and len(self._parser.rest) + len(data) <= EARLY_DATA:
            self._parser.rest += data
        elif self._parser is not None:
            if self._hooks is not None:
                self._hooks.cancel()
            self._refuse_with(refuse(HTTPStatus.BAD_REQUEST, "Too much data before the response.\n"))

    def _request_received(self, parser: RequestParser) -> None:
        settings = self._settings
        self._request = parser.head
        if self._slow:
            self._log_head("<", parser.head)
        request = parser.request()
        try:
            visit, gate = self._visit, settings.registry.gate
            if visit is not None and visit.waits and gate is not None:
                gate.asked(visit, request, self.remote_address)
            verdict = self._refusal()
            if verdict is not None:
                self._refuse(verdict)
                return
            check_host(request)
        except InvalidHandshake as exc:
            self._answer(self._rejected(exc))
            return
        if settings.process_request is None and settings.process_response is None:
            self._respond(self._accept(request))
        else:
            self._request = request
            settings.start(self._run_hooks(request))

    async def _run_hooks(self, request: Request) -> None:
        """The handshake with hooks, which may take their time, and then the handler."""
        self._hooks = asyncio.current_task()
        try:
            response, chosen = await self._hooked_response(request)
        finally:
            self._hooks = None
            if self._departed is not None:
                self._row.handshake(*self._departed)
            if self._state == CLOSED:
                self._settings.deadlines.clear(self)
                self._settings.registry.hook_ended(self._visit)
        if response is None or self._answered or self.transport.is_closing():
            return  # refused meanwhile: timeout, or the connection is gone
        if response.status_code == 101 and self._settings.registry.refusing:
            response, chosen = self._with_server_header(_refused(SHUTTING_DOWN)), False
        if self._answer(response, chosen):
            await self._handle()

    async def _hooked_response(self, request: Request) -> tuple[Response | None, bool]:
        """What to answer, if that still matters, and whether a hook chose it."""
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
                return None  # the client has left, and nobody is there to be answered
            self.logger.error("%s failed", name, exc_info=True)
            return rejection(RuntimeError(f"{name} failed"))  # 500 whatever was raised
        return response

    def _accept(self, request: Request) -> Response:
        """Negotiate: the 101 response, or the one that tells why not."""
        try:
            accepted = accept(request, self._settings.handshake, self)
        except InvalidHandshake as exc:
            return self._rejected(exc)
        except self._settings.policy.failures:
            self.logger.error("opening handshake failed", exc_info=True)
            return self._with_server_header(rejection(RuntimeError("opening handshake failed")))  # 500
        self.subprotocol = accepted.subprotocol
        if accepted.extensions:
            self._adopt(accepted.extensions)
        return self._with_server_header(accepted.response)

    def _respond(self, response: Response) -> None:
        """Answer without hooks, and start the handler."""
        if self._answer(response):
            self._settings.start(self._handle())

    def _answer(self, response: Response, chosen: bool = False) -> bool:
        """Send the response, which a hook has `chosen` or we have: True with 101, when the connection is open."""
        now = monotonic()
        try:
            if isinstance(self._request, Request):  # it has been in a hook's hands
                finalize(response)
            raw = response.serialize()
        except Exception as exc:  # what a hook has made of it cannot be sent
            self.logger.error("opening handshake failed", exc_info=True)
            response, chosen = self._with_server_header(rejection(exc)), False
            raw = response.serialize()
        status = response.status_code
        if status != 101 and self._parser is not None and not has_body(self._parser.method, status):
            raw = raw[: len(raw) - len(response.body)]
        if self._slow:
            self._log_head(">", raw)
        self._response = raw if isinstance(self._request, bytes) else response
        if self._visit is not None and self._visit.verdict is not None:
            result = "limited"
        else:
            result = "rejected" if chosen and status not in (101, 500) else RESULT_OF_STATUS.get(status, "rejected")
        self._row.handshake(result, now - self._opened_at)
        if access_logger.isEnabledFor(logging.INFO):
            log_handshake(self, self._request, now - self._opened_at, status)
        self._settings.registry.handshaking.discard(self)
        self._write_bytes(raw)
        if status == 101:
            self._open(now)
        else:
            self._log_event("connection rejected (%d %s)", status, response.reason_phrase)
            self._settings.deadlines.set(self, self._settings.close_timeout)
            self._parser = None
            self._end_stream()
        return status == 101

    def _open(self, now: float) -> None:
        parser, self._parser = self._parser, None
        self._state = OPEN
        self._opened_at = now
        self._row.opened()
        self._settings.registry.open.add(self)
        self._settings.deadlines.set(self, self._settings.ping_interval)
        self._log_event("connection open")
        if parser is not None and parser.rest:
            self.data_received(parser.rest)

    def on_refusing(self) -> None:
        """Answer 503: the server refuses handshakes from now on. With a request in a hook's hands, after the hook."""
        if self._request is None:
            self._refuse()

    def _refusal(self) -> Verdict | None:
        """Return why the connection must not open, as far as is known by now; None: it may."""
        if self._settings.registry.refusing:
            return SHUTTING_DOWN
        return None if self._visit is None else self._visit.verdict

    def _refuse(self, verdict: Verdict = SHUTTING_DOWN) -> None:
        """Do what the verdict says: answer, or cut."""
        if verdict.limit is not None:
            self._row.inc("limit_rejections", verdict.limit)
        if verdict.cut:
            self._handshake_over("limited")
            self.transport.abort()
            return
        self._refuse_with(_refused(verdict))
        if verdict.limit is not None:
            timeout = self._settings.close_timeout
            self._settings.deadlines.set(self, LINGER if timeout is None else min(LINGER, timeout))

    def _displace(self) -> bool:
        """Cut the connection to make room for another, unless its handshake is over; return whether it was cut."""
        if self._state != CONNECTING or self.transport.is_closing():
            return False
        self._refuse(Verdict.of((DAEMON, 0), cut=True))
        return True

    def _refuse_with(self, response: Response) -> None:
        if self._state == CONNECTING and not self._answered:
            self._answer(self._with_server_header(response))

    def _with_server_header(self, response: Response) -> Response:
        header = self._settings.server_header
        if header is not None:
            response.headers["Server"] = header
        return response

    def _rejected(self, exc: InvalidHandshake) -> Response:
        """Make the response to a request that is not acceptable."""
        if self._slow:
            self.logger.debug("! invalid handshake", exc_info=exc)
        return self._with_server_header(rejection(exc))

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
            # A client that vanished is no failure of a handler that was reading or writing; thousands of tracebacks at
            # once, when a network breaks, would be one of the log.
            if not self._is_own_end(exc):
                self.logger.error("connection handler failed", exc_info=True)

    # The end.

    def _enter_closing(self) -> None:
        self._settings.registry.open.discard(self)
        super()._enter_closing()

    def _on_deadline(self, now: float) -> None:
        if self._hooks is not None:
            self._hooks.cancel()  # also those that nobody waits for any more
        if self._state == CLOSED:
            return
        if self._state != CONNECTING:
            super()._on_deadline(now)
        elif not self._answered and (verdict := self._refusal()) is not None:
            self._refuse(verdict)
        elif not self._answered and self._parser is not None and not self._parser.head:
            # Part of a request has come: say what was expected.
            self._refuse_with(refuse(HTTPStatus.REQUEST_TIMEOUT, "Timed out waiting for the request.\n"))
        else:
            self._handshake_over("timeout")
            self.transport.abort()

    def _handshake_over(self, result: str) -> None:
        """The handshake ends without an answer."""
        if not self._answered:
            self._response = b""
            taken = monotonic() - self._opened_at
            if access_logger.isEnabledFor(logging.INFO):
                log_handshake(self, self._request, taken, failure=result)
            self._settings.registry.handshaking.discard(self)
            if self._hooks is None:
                self._row.handshake(result, taken)
            else:  # which takes as much of the server as a connection, and counts as one until it ends
                self._departed = result, taken

    def connection_lost(self, exc: Exception | None) -> None:
        if not (opened := self._state != CONNECTING):
            self._handshake_over("disconnected")
        self._settings.registry.open.discard(self)
        left = None if self._hooks is None or self._deadline is None else self._deadline - self.loop.time()
        super().connection_lost(exc)
        if self._hooks is not None:
            self._hooks.cancel()  # nobody waits for what it decides
            self._parser = None
            if left is not None:
                self._settings.deadlines.set(self, max(left, 0))  # one that goes on all the same is told again
        self._log_event("connection closed")
        if opened and self._closing is not None and access_logger.isEnabledFor(logging.INFO):
            log_close(self, self._closing, monotonic() - self._opened_at)
        self._settings.registry.lost(self, self._visit, stays=self._hooks is not None)


def _refused(verdict: Verdict) -> Response:
    """Make the response that tells a verdict."""
    response = refuse(verdict.status, verdict.text)
    response.headers["Retry-After"] = str(verdict.retry_after)
    return response
