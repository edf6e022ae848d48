"""One connection, either side: the documented methods over the native channel, and all that is not a simple message.

Control frames, closing (RFC 6455 sections 5.5 and 7), keepalive. What must not live here: handshakes (server, client),
frames on their way out (sender.py), the hot path (`_core`).
"""

from __future__ import annotations

import asyncio
import codecs
import functools
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

from .._compat import OlderConnection
from ..closing import FAILURES, Closing, failure
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK, ProtocolError
from ..frames import TEXT, CloseCode, Opcode
from ..http11 import Request, Response, parse_request, parse_response
from ..keepalive import Pings
from ..protocol import CLOSED, CLOSING, CONNECTING, OPEN, STATES, State
from .fragments import control_payload
from .logger import ConnectionExtra
from .sender import MAX_CONTROL, Sender
from .tcp_info import unacknowledged
from .waiters import Waiters

if TYPE_CHECKING:
    from ..typing import Data, DataLike, LoggerLike, Subprotocol
    from .options import Settings

__all__ = ["Connection"]


class Connection(Sender, OlderConnection):
    """A WebSocket connection, as handlers see it. Made by `serve()` or `connect()`, never directly.

    It is an asynchronous iterator of messages, and an asynchronous context manager that closes it: with code 1000, or
    1011 when an exception leaves the block.

    Attributes:
        transport: asyncio transport, from the start of the opening handshake.
        loop: the event loop.
        latency: seconds of the last ping's round trip; 0 before the first.
        subprotocol: the negotiated subprotocol, or None.
        extensions: the negotiated extensions.

    Args:
        settings: limits, timeouts and logger.
        client: which side this is.
    """

    __slots__ = (
        "_addresses",
        "_closing",
        "_deadline",
        "_id",
        "_keepalive_ping",
        "_logger",
        "_lost_waiters",
        "_opened_at",
        "_pings",
        "_request",
        "_response",
        "latency",
        "subprotocol",
    )

    def __init__(self, settings: Settings, *, client: bool) -> None:
        self._settings = settings
        self._state = CONNECTING
        self._configure(
            settings.loop,
            client,
            *settings.max_size,
            *settings.max_queue,
            settings.logger.isEnabledFor(logging.DEBUG),
            settings.broadcast_limit,
        )
        self._addresses: tuple[Any, Any] | None = None  # of a TLS connection
        self._closing: Closing | None = None
        self._deadline: float | None = None
        self._drainers: Waiters | None = None
        self._id: uuid.UUID | None = None
        self._keepalive_ping: bytes | None = None
        self._logger: LoggerLike | None = None
        self._lost_waiters: Waiters | None = None
        self._opened_at = 0.0
        self._pings: Pings | None = None
        self._request: Request | bytes | None = None
        self._response: Response | bytes | None = None
        self._send_done: asyncio.Future[None] | None = None
        self._unsent_pong: bytes | None = None
        self.extensions: tuple[Any, ...] = ()
        self.latency: float = 0.0
        self.subprotocol: Subprotocol | None = None

    # Attributes of the connection.

    @property
    def id(self) -> uuid.UUID:
        """Unique identifier of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def logger(self) -> LoggerLike:
        """Logger of this connection: the server's or client's, with the connection as `websocket` in its extra."""
        if self._logger is None:
            self._logger = logging.LoggerAdapter(cast(logging.Logger, self._settings.logger), ConnectionExtra(self))
        return self._logger

    @property
    def protocol(self) -> Self:
        """The connection itself: state, extensions and close codes are its own attributes."""
        return self

    @property
    def debug(self) -> bool:
        """Whether frames are logged."""
        return self._settings.logger.isEnabledFor(logging.DEBUG)

    @property
    def local_address(self) -> Any:
        """Local address: (host, port) on IPv4; for other families see socket.getsockname()."""
        return self.transport.get_extra_info("sockname") if self._addresses is None else self._addresses[0]

    @property
    def remote_address(self) -> Any:
        """Remote address: (host, port) on IPv4; for other families see socket.getpeername()."""
        return self.transport.get_extra_info("peername") if self._addresses is None else self._addresses[1]

    @property
    def state(self) -> State:
        """State of the connection (RFC 6455 4.1, 7.1.3, 7.1.4)."""
        return STATES[self._state]

    @property
    def request(self) -> Request | None:
        """The opening handshake's request, once it is known."""
        if isinstance(self._request, bytes):
            self._request = parse_request(self._request)
        return self._request

    @property
    def response(self) -> Response | None:
        """The opening handshake's response, once it is known."""
        if self._response == b"":
            return None  # the handshake ended without one
        if isinstance(self._response, bytes):
            self._response = parse_response(self._response)
        return self._response

    @property
    def close_code(self) -> int | None:
        """Close code that came from the peer, 1006 if none did; None until closed (RFC 6455 7.1.5)."""
        return self._end.code if self._state == CLOSED else None

    @property
    def close_reason(self) -> str | None:
        """Close reason that came from the peer, "" if none did; None until closed (RFC 6455 7.1.6)."""
        return self._end.reason if self._state == CLOSED else None

    @property
    def close_rcvd(self) -> Any:
        """The close frame that came, as a `frames.Close`."""
        return self._closing and self._closing.rcvd

    @property
    def close_sent(self) -> Any:
        """The close frame that was sent, as a `frames.Close`."""
        return self._closing and self._closing.sent

    @property
    def ping_interval(self) -> float | None:
        """Seconds between keepalive pings; None without keepalive."""
        return self._settings.ping_interval

    @ping_interval.setter
    def ping_interval(self, seconds: float | None) -> None:
        self._settings = self._settings.overridden({"ping_interval": seconds})

    @property
    def ping_timeout(self) -> float | None:
        """Seconds to wait for a pong to a keepalive ping; None without limit."""
        return self._settings.ping_timeout

    @ping_timeout.setter
    def ping_timeout(self, seconds: float | None) -> None:
        self._settings = self._settings.overridden({"ping_timeout": seconds})

    @property
    def close_timeout(self) -> float | None:
        """Seconds to wait for the peer when closing; None without limit."""
        return self._settings.close_timeout

    @close_timeout.setter
    def close_timeout(self, seconds: float | None) -> None:
        self._settings = self._settings.overridden({"close_timeout": seconds})

    @property
    def paused(self) -> bool:
        """Whether the write buffer is above `write_limit`."""
        return self._write_paused

    # Messages. recv(), send() and iteration come from MessageChannel.

    async def _iterate(self) -> AsyncGenerator[Data, None]:
        """Iterate over messages for a subclass that overrides recv()."""
        try:
            while True:
                yield await self.recv()
        except ConnectionClosedOK:
            return

    @overload
    def recv_streaming(self, decode: Literal[True]) -> AsyncIterator[str]: ...
    @overload
    def recv_streaming(self, decode: Literal[False]) -> AsyncIterator[bytes]: ...
    @overload
    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]: ...

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """Receive the next message frame by frame, as str for text and bytes for binary unless `decode` says otherwise.

        The iterator must be consumed whole: until then, recv() and recv_streaming() raise ConcurrencyError. Cancelling
        is safe before the first frame only.

        Args:
            decode: True for str, False for bytes, whatever the message is.

        Raises:
            ConnectionClosed: when the connection is closed.
            ConcurrencyError: when another coroutine is reading.
        """
        if self._streaming:
            raise self._concurrent_read(True)
        payload, opcode, fin = await self._recv_frame()
        self._streaming = not fin
        decoder = None
        if opcode == TEXT if decode is None else decode:
            decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            if decoder is None:
                yield payload.encode() if isinstance(payload, str) else payload
            else:
                try:
                    text = payload if isinstance(payload, str) else decoder.decode(payload, fin)
                except UnicodeDecodeError as exc:
                    await self._recv_undecodable(exc)
                    return
                yield text
            if fin:
                return
            payload, opcode, fin = await self._recv_frame()
            self._streaming = not fin

    async def ping(self, data: DataLike | None = None) -> Awaitable[float]:
        """Send a ping (RFC 6455 5.5.2).

        Args:
            data: payload, at most 125 bytes; a str is encoded to UTF-8; four random bytes by default.

        Returns:
            A future of the latency in seconds, done when the pong comes; it need not be awaited.

        Raises:
            ConnectionClosed: when the connection is closed.
            ConcurrencyError: when a ping with the same data still waits for its pong.
            ProtocolError, TypeError: for data that is too long, or of another type.
        """
        payload = None if data is None else control_payload(data)
        if payload is not None and len(payload) > MAX_CONTROL:
            raise ProtocolError("control frame too long")
        await self._must_be_open()
        if self._pings is None:
            self._pings = Pings()
        waiter: asyncio.Future[float] = self.loop.create_future()
        sent = self._pings.add(payload, waiter, monotonic())
        waiter.add_done_callback(functools.partial(self._pings.abandon, sent))
        self._send_control(Opcode.PING, sent)
        try:
            await self._drain()
        except BaseException:
            waiter.cancel()  # it is not returned
            raise
        return waiter

    async def pong(self, data: DataLike = b"") -> None:
        """Send an unsolicited pong, which serves as a one-way heartbeat (RFC 6455 5.5.3).

        Args:
            data: payload, at most 125 bytes; a str is encoded to UTF-8.

        Raises:
            ConnectionClosed: when the connection is closed.
            ProtocolError, TypeError: for data that is too long, or of another type.
        """
        payload = control_payload(data)
        await self._must_be_open()
        self._send_control(Opcode.PONG, payload)
        await self._drain()

    # Closing (RFC 6455 section 7).

    async def close(self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Perform the closing handshake, and wait until the TCP connection is closed too; idempotent.

        After `close_timeout` seconds without an answer the TCP connection is aborted.

        Args:
            code: close code (RFC 6455 7.4).
            reason: text of at most 123 bytes in UTF-8.

        Raises:
            ProtocolError: if the code or the reason may not be sent.
        """
        self.start_closing(code, reason)
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed: the closing handshake and the TCP connection."""
        if self._state == CLOSED:
            return
        if self._lost_waiters is None:
            self._lost_waiters = Waiters()
        await self._lost_waiters.wait(self.loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        elif issubclass(kind, (KeyboardInterrupt, SystemExit)):  # do not wait
            self.start_closing(CloseCode.INTERNAL_ERROR, "")
        else:
            await self.close(CloseCode.INTERNAL_ERROR)

    @property
    def _end(self) -> Closing:
        if self._closing is None:
            self._closing = Closing()
        return self._closing

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close frame, unless the connection is closing already, and do not wait for the answer.

        Args:
            code, reason: as for `close()`.

        Raises:
            ProtocolError: as `close()`.
        """
        if self._state == CONNECTING:
            self.transport.abort()
        elif self._state == OPEN:
            if self._sending:
                self._fail(CloseCode.INTERNAL_ERROR, "close during fragmented message", None)
                return
            self._send_control(Opcode.CLOSE, self._end.send(code, reason))
            self._enter_closing()
            self._resume_reading()  # the answer may be behind messages that wait

    def _enter_closing(self) -> None:
        self._state = CLOSING
        self._row.closing()
        self._settings.deadlines.set(self, self._settings.close_timeout)

    def _fail(self, code: int, reason: str, exc: BaseException | None) -> None:
        """Fail the connection (RFC 6455 7.1.7): send why, read no more, and as a server close the TCP connection."""
        self._end.blame(exc)
        self._end.failed = True
        if self._state == OPEN:
            self._send_control(Opcode.CLOSE, self._end.send(code, reason))
            self._enter_closing()
        self._discard()
        self._hang_up()

    def _end_stream(self) -> None:
        """End what this side sends; a server does so first (RFC 6455 7.1.1)."""
        self._flush()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except (OSError, RuntimeError) as exc:  # the connection broke just now
                self._end.blame(exc)
        else:
            self.transport.close()

    def _on_deadline(self, now: float) -> None:
        """Handle the timeout that has passed; which one follows from the state."""
        if self._state == OPEN:
            self._keep_alive(now)
        else:
            self._end.blame(TimeoutError("timed out while closing connection"))
            self.transport.abort()

    # Keepalive.

    def _keep_alive(self, now: float) -> None:
        """Send the ping that is due, or give up on the one that was sent."""
        settings = self._settings
        if self._pings is None:
            self._pings = Pings()
        if self._keepalive_ping in self._pings.pending:
            if self._holds_back and not unacknowledged(self.transport):
                # The pong may be behind messages that the handler has not received yet.
                settings.deadlines.set(self, settings.ping_timeout)
                return
            if settings.ping_timeout is not None:
                self._row.inc("pong_timeouts")
                self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", None)
                return
            del self._pings.pending[self._keepalive_ping]
        if self.extensions and not self._extended:
            self.extensions[0].deflate.rest()  # an idle connection needs no compressor
        self._keepalive_ping = self._pings.add(None, None, monotonic())
        self._send_control(Opcode.PING, self._keepalive_ping)
        settings.deadlines.set(self, settings.ping_interval if settings.ping_timeout is None else settings.ping_timeout)

    def _pong_received(self, payload: bytes) -> None:
        if self._pings is None:
            return
        latency = self._pings.acknowledge(payload, monotonic())
        if latency is None:
            return
        self.latency = latency
        self._row.observe("ping_rtt", latency)
        if self._keepalive_ping is not None and self._keepalive_ping not in self._pings.pending:
            self._keepalive_ping = None
            interval = self._settings.ping_interval
            if self._state == OPEN and interval is not None:
                self._settings.deadlines.set(self, max(interval - latency, 0))
        if not self._pings:
            self._pings = None

    # Callbacks of asyncio, beside the hot path.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(*self._settings.write_limit)
        if not transport.can_write_eof():  # TLS forgets its addresses at the end
            self._addresses = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self._connect(transport)

    def eof_received(self) -> None:
        if self._state != CONNECTING:
            self._end.blame_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnect()
        was_open, was_closing = self._state == OPEN, self._state == CLOSING
        self._state = CLOSED
        self._settings.deadlines.clear(self)
        self._end.blame(exc)
        if was_open or was_closing:
            self._end.blame_end()
        self._close_inbox()
        if was_open or was_closing:
            end = self._end
            lifetime = monotonic() - self._opened_at
            self._row.closed(end.final_code, end.initiator, lifetime, "open" if was_open else "closing")
        if self._pings is not None:
            for ping in self._pings.waiters():
                ping.set_exception(self._end.exception())
                ping.exception()  # pings need not be awaited: no "never retrieved" from the loop
            self._pings = None
        for waiters in (self._lost_waiters, self._drainers):
            if waiters is not None:
                waiters.wake()
        self._lost_waiters = self._drainers = None

    # Callbacks of the native channel.

    def _control_received(self, opcode: int, payload: bytes) -> None:
        if self._slow:
            self._log_frame("<", opcode, True, payload)
        if opcode == Opcode.PING:
            if self._write_paused:
                # Pongs to a peer that does not read would fill the memory; the latest is enough (RFC 6455 5.5.3).
                self._unsent_pong = payload
            else:
                self._send_control(Opcode.PONG, payload)
        elif opcode == Opcode.PONG:
            self._pong_received(payload)
        else:
            self._close_received(payload)

    def _close_received(self, payload: bytes) -> None:
        end = self._end
        try:
            end.receive(payload)
        except ProtocolError as exc:
            self._fail(CloseCode.PROTOCOL_ERROR, str(exc), exc)
            return
        except UnicodeDecodeError as exc:
            self._fail(CloseCode.INVALID_DATA, failure(exc), exc)
            return
        if self._state == OPEN:
            end.echo()
            self._send_control(Opcode.CLOSE, payload)
            self._enter_closing()
        # "A peer discards any further data received" (RFC 6455 1.4); the server closes the TCP connection first.
        self._discard()
        self._hang_up()

    def _hang_up(self) -> None:
        """End the TCP connection after the last frame; a client waits for the server to do so (RFC 6455 7.1.1)."""
        self._end_stream()

    def _fail_received(self, what: int, detail: Any) -> None:
        code, explain = FAILURES[what]
        exc = explain(detail)
        self._fail(code, failure(exc), exc)

    def _frame_received(self, opcode: int, fin: bool, payload: bytes) -> None:
        self._log_frame("<", opcode, fin, payload)

    def _write_failed(self, exc: Exception) -> None:
        if self._slow:
            self.logger.debug("! error while sending data", exc_info=exc)
        self._end.blame(exc)
        self.transport.abort()

    def _concurrent_read(self, streaming: bool) -> Exception:
        name = "recv_streaming" if streaming else "recv"
        return ConcurrencyError(f"cannot call {name} while another coroutine is already running recv or recv_streaming")

    def _closed_exception(self, iterating: bool) -> Exception:
        exc = self._end.exception()
        return StopAsyncIteration() if iterating and isinstance(exc, ConnectionClosedOK) else exc

    def _is_own_end(self, exc: BaseException) -> bool:
        """Return whether `exc` is the end of this connection, and not of another that a handler uses."""
        if isinstance(exc, BaseExceptionGroup):  # of a handler with a TaskGroup
            return all(map(self._is_own_end, exc.exceptions))
        end = self._closing
        return isinstance(exc, ConnectionClosed) and end is not None and exc.rcvd is end.rcvd and exc.sent is end.sent

    async def _recv_undecodable(self, exc: UnicodeDecodeError) -> Data:
        self._fail(CloseCode.INVALID_DATA, failure(exc), exc)
        await self.wait_closed()
        raise self._end.exception()
