"""ASGI applications: a connection that is served to one, and `serve_asgi()`.

    connecting    the application has not answered the handshake
    responding    it answers with a response of its own, and has not ended it
    open          it has accepted
    closed        it has closed or denied
    disconnected  the client has left

What it may send in each state is in the table `_EVENTS`. What must not live here: events of messages on an open
connection (_core/asgi.pyx), scopes (scope.py), HTTP (http_service.py), the lifespan (lifespan.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from .._core import asgi as native
from ..exceptions import ConnectionClosed, ProtocolError
from ..frames import CloseCode
from ..http11 import RequestParser, Response, has_body
from ..protocol import CONNECTING, OPEN
from ..server import rejection, rejection_of
from .asgi_headers import checked, default_headers, header_lines, http_head, subprotocol_line
from .channels import publish
from .scope import Application, Event, Headers, websocket_scope
from .server import Server, ServerConnection, serve
from .server_connection import SHUTTING_DOWN
from .waiters import Waiters

if TYPE_CHECKING:
    from ..channels import Position
    from ..closing import Closing
    from .http_service import HttpService
    from .options import ServerSettings

__all__ = ["AsgiConnection", "AsgiDoor", "ClientDisconnected", "no_handler", "serve_asgi"]


class ClientDisconnected(OSError):
    """An application sends to a client that has left, or whose handshake is over without it.

    An application need not catch it: its connection is over.

    Attributes:
        end: of the connection whose client it was.
    """

    def __init__(self, end: Closing | None = None) -> None:
        super().__init__("the client has disconnected")
        self.end = end


class AsgiDoor:
    """What all connections to one application share.

    Parameters:
        application: the ASGI application.
        root_path: where it is mounted, as clients see it.
        state: of its lifespan.
    """

    def __init__(self, application: Application, *, root_path: str, state: Mapping[str, Any]) -> None:
        self.application = application
        self.root_path = root_path
        self.state = state

    def connect(self, settings: ServerSettings, server: Server) -> AsgiConnection:
        """Make a connection."""
        return AsgiConnection(settings, server, self)


class AsgiConnection(ServerConnection):
    """A connection that is served to an ASGI application instead of a handler.

    Args:
        settings: of the server's connections.
        server: the server.
        door: to the application.
    """

    __slots__ = (
        "_closed_by_application",
        "_connected",
        "_decided",
        "_door",
        "_end_received",
        "_pending",
        "_responding",
        "_was_accepted",
    )

    receive = native.receive
    send_event = native.send

    def __init__(self, settings: ServerSettings, server: Server, door: AsgiDoor) -> None:
        super().__init__(settings, server)
        self._door = door
        self._receives_in_python = True
        self._connected = False  # the application has received its first event
        self._pending = b""  # the response that accepts, without its last lines
        self._was_accepted = False
        self._decided: Waiters | None = None  # calls of receive() that wait for the end of the handshake
        self._responding: _Denial | None = None  # the application's own response
        self._closed_by_application = ""  # the type of the event by which it was
        self._end_received = False

    @property
    def told_in(self) -> str | None:
        """The header in which the peer, a trusted proxy, tells of its client; None if it is none."""
        admission = self._settings.registry.admission
        return None if admission is None else admission.header_of(self.transport.get_extra_info("peername"))

    # The opening handshake.

    def _accepted(self, response: bytes, rest: bytes) -> None:
        parser = self._parser = RequestParser()
        parser.head, parser.rest = self._head, rest
        self._call(response)

    def _respond(self, response: Response) -> None:
        if response.status_code == 101:
            response.headers.pop("Server", None)
            self._call(response.serialize()[:-2])
        else:
            super()._respond(response)

    @property
    def _head(self) -> bytes:
        """The head of the request, as received."""
        request = self._request
        return request if isinstance(request, bytes) else request.serialize()  # type: ignore[union-attr]

    def _call(self, pending: bytes) -> None:
        """Call the application, which may accept with this response."""
        self._pending = pending
        self._settings.start(self._handle())

    def on_rejecting(self) -> None:
        """Answer 503: the server rejects handshakes from now on."""
        self._enforce(SHUTTING_DOWN)

    def _answer(self, response: Response, chosen: bool = False) -> bool:
        opened = super()._answer(response, chosen)
        self._responding = None  # the application's has not begun
        self._decide()
        return opened

    def _decide(self) -> None:
        """Let receive() go on: the handshake is over."""
        if self._decided is not None:
            self._decided.wake()
            self._decided = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._decide()

    def _default_headers(self) -> Headers:
        """Make the headers of a response that says nothing of them."""
        return default_headers(self._settings.server_header, time())

    # The application's life.

    async def _handle(self) -> None:
        door, policy = self._door, self._settings.policy
        scope = websocket_scope(self, self._head, door.root_path, door.state, self._asgi_extensions())
        failed: BaseException | None = None
        try:
            await door.application(scope, self.receive, self.send_event)
        except asyncio.CancelledError:
            self.transport.abort()
            raise
        except policy.failures as exc:
            failed = exc
            if not self._is_own_end(exc):
                self.logger.error("ASGI application failed", exc_info=True)
        await self._finish(failed)

    def _asgi_extensions(self) -> dict[str, Any]:
        extensions: dict[str, Any] = {"websocket.http.response": {}}
        if self.server.has_bus:
            extensions["tidegate"] = {"join": self.join, "leave": self.leave, "publish": self.publish}
        return extensions

    async def publish(self, channel: str, message: Any, *, to_self: bool = True, **options: Any) -> Position | None:
        """Publish a message to all members of a channel, in all processes, as `tidegate.publish()` does.

        Args:
            channel: its name.
            message: str for a text, bytes-like for a binary message; anything else becomes a text of JSON.
            to_self: whether this connection gets it, if it is a member.
            options: `key`, `json`, `wait`.
        """
        return await publish(channel, message, exclude=None if to_self else self, **options)

    async def _finish(self, failed: BaseException | None) -> None:
        """End the connection, after the application has returned, or raised."""
        if self._state == OPEN:
            self.start_closing(CloseCode.NORMAL_CLOSURE if failed is None else CloseCode.INTERNAL_ERROR, "")
        elif self._state == CONNECTING and not self._answered:
            if failed is None:
                self.logger.error("ASGI application returned without an answer to the handshake")
            self._reject(rejection_of(RuntimeError()))
        elif self._responding is not None and not self._responding.ended:
            if failed is None:
                self.logger.error("ASGI application returned without the end of its response")
            self.transport.abort()
        if not isinstance(failed, (KeyboardInterrupt, SystemExit)):
            await self.wait_closed()

    def _is_own_end(self, exc: BaseException) -> bool:
        if isinstance(exc, ClientDisconnected):
            return exc.end is self._end
        return super()._is_own_end(exc)

    # Events that the application receives.

    async def _receive_apart(self) -> Event:
        """Receive the first event, before the connection is open, or after the application has closed it."""
        if not self._connected:
            self._connected = True
            self._receives_in_python = bool(self._closed_by_application)
            return {"type": "websocket.connect"}
        if self._end_received:
            await asyncio.sleep(0)  # an application that asks forever must not stop the others
        if self._end_received or self._closed_by_application:
            return self._end_event()
        while self._state == CONNECTING and not self._answered:
            if self._decided is None:
                self._decided = Waiters()
            await self._decided.wait(self.loop)
        if self._state == CONNECTING or self._responding is not None:
            return self._end_event()
        event: Event = await self.receive()
        return event

    def _end_event(self) -> Event:
        """Make the event of the end; a reason is in it if the client closed, or we told one."""
        self._end_received = self._receives_in_python = True
        closing = self._closing
        close = None if closing is None or not self._was_accepted else closing.rcvd or closing.sent
        if close is None:
            return {"type": "websocket.disconnect", "code": int(CloseCode.ABNORMAL_CLOSURE)}
        event = {"type": "websocket.disconnect", "code": int(close.code)}
        if close.reason or closing.rcvd_then_sent:  # type: ignore[union-attr]
            event["reason"] = close.reason
        return event

    # Events that it sends.

    async def _send_event(self, event: Event) -> None:
        """Send an event that is not simply a message on an open connection."""
        kind = event.get("type") if isinstance(event, Mapping) else None
        if not isinstance(kind, str):
            raise TypeError(f"an event must be a dict with a type, not {event!r:.80}")
        if self._closed_by_application:
            raise RuntimeError(f"unexpected event {kind!r} after {self._closed_by_application!r}")
        state = self._asgi_state()
        send = _EVENTS.get((state, kind))
        if send is None:
            expected = ", ".join(kind for of, kind in _EVENTS if of == state)
            raise RuntimeError(f"unexpected event {kind!r} while {state}: it must be one of {expected}")
        await send(self, event)

    def _asgi_state(self) -> str:
        if self._state == OPEN:
            return "open"
        if self._state == CONNECTING and not self.transport.is_closing():
            if self._responding is not None:
                return "responding"
            if not self._answered:
                return "connecting"
        return "disconnected"

    async def _on_accept(self, event: Event) -> None:
        subprotocol = event.get("subprotocol")
        lines = subprotocol_line(subprotocol) + header_lines(event.get("headers") or ())
        parser, self._parser = self._parser, None
        assert parser is not None
        self.subprotocol = subprotocol or None
        self._was_accepted = True
        response = self._pending + lines + self._settings.last_lines
        self._pending = b""
        self._send_response(response, 101, "Switching Protocols", monotonic())
        self._response = None  # an application has no way to ask for it
        self._open(parser.rest)
        self._decide()

    async def _on_message(self, event: Event) -> None:
        """Send a message that native code left: its payload is of a rarer type, or there is none, or there are two."""
        text, data = event.get("text"), event.get("bytes")
        message: Any = text if data is None else data
        if (text is None) == (data is None):
            raise ValueError("websocket.send must have text or bytes, and not both")
        if text is not None and not isinstance(text, str):
            raise TypeError(f"text of websocket.send must be a str, not {type(text).__name__}")
        if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"bytes of websocket.send must be bytes, not {type(data).__name__}")
        await self.send(message)

    async def _on_close(self, event: Event) -> None:
        code = event.get("code")
        reason = event.get("reason")
        try:
            self.start_closing(CloseCode.NORMAL_CLOSURE if code is None else code, reason or "")
        except (ProtocolError, TypeError, ValueError) as exc:
            raise ValueError(
                f"websocket.close cannot be sent with code {code!r} and reason {reason!r}: {exc}"
            ) from None
        self._close_by_application(event)

    def _close_by_application(self, event: Event) -> None:
        """Send no more, and receive nothing but the end."""
        self._closed_by_application = event["type"]
        self._receives_in_python = True
        self._wake_reader()
        self._decide()

    async def _on_deny(self, event: Event) -> None:
        self._close_by_application(event)
        self._reject(rejection(HTTPStatus.FORBIDDEN, ""))

    async def _on_response_start(self, event: Event) -> None:
        status = event.get("status")
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"status of websocket.http.response.start must be 200 to 599, not {status!r}")
        self._responding = _Denial(int(status), checked(event.get("headers") or ()))

    async def _on_response_body(self, event: Event) -> None:
        denial = self._responding
        assert denial is not None
        body, more = event.get("body", b""), bool(event.get("more_body", False))
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body of websocket.http.response.body must be bytes, not {type(body).__name__}")
        content = bytes(body) if has_body("GET", denial.status) else b""
        if denial.begun:
            self._write_bytes(content)
        else:
            denial.begun = True
            length = None if more else len(content)
            head, reason = http_head(denial.status, denial.headers, length, self._default_headers())
            self._send_response(head + content, denial.status, reason, monotonic(), chosen=True)
        if more:
            self._settings.deadlines.set(self, self._settings.open_timeout)  # for the next piece
            await self._drain()
            return
        denial.ended = True
        self._close_by_application(event)
        self._settings.deadlines.set(self, self._settings.close_timeout)
        self._parser = None
        self._end_stream()

    async def _on_left(self, event: Event) -> None:
        raise ClientDisconnected(self._end)

    # What is different from a handler's connection: the end is told at once, and is an OSError.

    def _hang_up(self) -> None:
        super()._hang_up()
        self._wake_reader()

    async def _must_be_open(self) -> None:
        if self._state == CONNECTING and not self._answered:
            raise RuntimeError("the connection must be accepted first")
        if self._state != OPEN:
            raise ClientDisconnected(self._end)

    async def _drain(self) -> None:
        try:
            await super()._drain()
        except ConnectionClosed:
            raise ClientDisconnected(self._end) from None


class _Denial:
    """A response of the application's own instead of accepting."""

    __slots__ = ("begun", "ended", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, headers
        self.begun = self.ended = False


# What an application may send in each state, and what does it.
_EVENTS: dict[tuple[str, str], Callable[[AsgiConnection, Event], Awaitable[None]]] = {
    ("connecting", "websocket.accept"): AsgiConnection._on_accept,
    ("connecting", "websocket.close"): AsgiConnection._on_deny,
    ("connecting", "websocket.http.response.start"): AsgiConnection._on_response_start,
    ("responding", "websocket.http.response.body"): AsgiConnection._on_response_body,
    ("open", "websocket.send"): AsgiConnection._on_message,
    ("open", "websocket.close"): AsgiConnection._on_close,
    **{
        ("disconnected", f"websocket.{kind}"): AsgiConnection._on_left
        for kind in ("accept", "send", "close", "http.response.start", "http.response.body")
    },
}


async def no_handler(connection: object) -> None:
    """Be the handler of a server that has an application instead: it is not called."""
    raise RuntimeError("an ASGI application is called instead of a handler")


def serve_asgi(
    application: Application,
    *args: Any,
    http: HttpService,
    **kwargs: Any,
) -> Server:
    """Create a server of an ASGI application; its lifespan is the caller's.

    Args:
        application: the ASGI application.
        args: host and port, as for `serve()`.
        http: what serves its HTTP, and knows its root path and state.
        kwargs: as for `serve()`.
    """
    door = AsgiDoor(application, root_path=http.root_path, state=http.state)
    return serve(no_handler, *args, http=http, create_connection=door.connect, **kwargs)
