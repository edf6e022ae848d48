"""Setup of a transport before HTTP: the PROXY header of a proxy, and TLS.

TLS starts here, and not in the loop's create_server(), because the header comes before it, and so that connections are
counted and bounded by `open_timeout` from their first moment on.

What must not live here: grammar of the header (proxy_protocol.py), whom to believe (admission.py), anything of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from .._core.counters import current
from ..limits import DESCRIPTORS
from ..proxy_protocol import BadHeader, HeaderParser
from .access_log import log_handshake
from .access_log import logger as access_logger
from .admission import Admission, ClientRecord, full_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from .options import ServerSettings
    from .server_connection import BaseServerConnection

__all__ = ["TransportSetup"]


class _Early(asyncio.Protocol):
    """Keeps what a client sends after its TLS handshake until the connection takes over."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class TransportSetup(asyncio.Protocol):
    """The protocol of a transport until the opening handshake can start; then a server's connection takes over.

    Parameters:
        settings: of the server that accepted it.
        admission: tells what to expect.
        connect: makes the connection.
    """

    def __init__(
        self, settings: ServerSettings, admission: Admission, connect: Callable[[], BaseServerConnection]
    ) -> None:
        self._settings, self._registry, self._admission, self._connect = settings, settings.registry, admission, connect
        self._row = current()
        self._deadline: float | None = None
        self._header: HeaderParser | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._id: uuid.UUID | None = None

    @property
    def id(self) -> uuid.UUID:
        """As of a connection, for the log."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def remote_address(self) -> Any:
        """As of a connection, for the log."""
        return self._record.address or self.transport.get_extra_info("peername")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._record = ClientRecord(monotonic())
        self._row.accepted()
        self._registry.all.add(self)
        self._registry.handshaking.add(self)
        if self._admission.must_abort(transport):
            self._row.inc("limit_rejections", DESCRIPTORS)
            self._fail("limited")
            return
        self._settings.deadlines.set(self, self._settings.open_timeout)
        if self._registry.rejecting:
            self.on_rejecting()
        elif self._admission.expects_proxy_header(transport):
            self._header = HeaderParser()
        elif self._admission.tls is None:
            self._hand_over(self.transport, b"")

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._header is not None:
            try:
                if not self._header.feed(data):
                    return
            except BadHeader as error:
                self._bad_header(error)
                return
            data = self._read_header(self._header)
        if self._admission.tls is None:
            self._hand_over(self.transport, data)
        elif data:
            self._start_tls(data)

    def _read_header(self, parser: HeaderParser) -> bytes:
        assert parser.header is not None
        source = parser.header.source
        self._record.address = full_address(*source) if isinstance(source, tuple) else source
        self._header = None
        return parser.rest

    def _bad_header(self, error: BadHeader) -> None:
        logger = logging.LoggerAdapter(cast(logging.Logger, self._settings.logger), {"websocket": self})
        peer = self.remote_address or "on a Unix socket"
        logger.warning("no valid PROXY header from the proxy %s: %s", peer, error)
        self._fail("bad_proxy_header")

    # TLS.

    def _start_tls(self, data: bytes) -> None:
        """Start TLS; `data` is the beginning of the client's first message."""
        self.transport.pause_reading()
        loop = self._settings.loop
        # A task of the ordinary kind, whatever the loop's factory is: the order of what follows depends on it.
        self._task = asyncio.Task(self._tls(), loop=loop)

        def feed() -> None:
            protocol = cast(asyncio.BufferedProtocol, self.transport.get_protocol())
            place = 0
            while place < len(data) and not self.transport.is_closing():
                buffer = cast(memoryview, protocol.get_buffer(len(data) - place))
                size = min(len(buffer), len(data) - place)
                buffer[:size] = data[place : place + size]
                protocol.buffer_updated(size)
                place += size

        # First the task's first step, by which TLS has the transport and waits to be connected; then, after that, the
        # bytes that came already, and only then the next ones from the socket.
        loop.call_soon(loop.call_soon, feed)

    async def _tls(self) -> None:
        settings, early = self._settings, _Early()
        try:
            # Deadlines bound the handshake already; here it just must not end sooner.
            transport = await settings.loop.start_tls(
                self.transport,
                early,
                cast(Any, self._admission.tls),
                server_side=True,
                ssl_handshake_timeout=None if settings.open_timeout is None else max(settings.open_timeout * 2, 1),
                ssl_shutdown_timeout=settings.close_timeout or None,
            )
        except (OSError, asyncio.CancelledError) as error:  # ssl.SSLError is an OSError
            if settings.logger.isEnabledFor(logging.DEBUG):
                settings.logger.debug("TLS handshake failed: %s", error)
            self._fail("tls_failed")
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        if self._over or early.lost or transport is None:
            self._fail("disconnected")
        else:
            self._hand_over(transport, early.data)

    # The end.

    def _finish(self) -> None:
        self._over = True
        self._settings.deadlines.clear(self)
        self._registry.handshaking.discard(self)

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Let the connection take over, with what has come of its request."""
        self._finish()
        connection = self._connect()
        self._registry.all.discard(self)
        connection.take_over(transport, self._record, data)

    def on_rejecting(self) -> None:
        """Answer 503 if no TLS is needed for that: the server rejects handshakes from now on."""
        if self._admission.tls is None:
            self._hand_over(self.transport, b"")
        else:
            self._fail("unavailable")

    def _end(self, result: str) -> None:
        """End without an opening handshake."""
        if self._over:
            return
        self._finish()
        taken = monotonic() - self._record.since
        self._row.handshake(result, taken)
        if access_logger.isEnabledFor(logging.INFO):
            log_handshake(self, None, taken, failure=result)

    def _fail(self, result: str) -> None:
        self._end(result)
        self.transport.abort()
        if self._task is not None:  # the transport has another protocol, which does not call connection_lost() here
            self._registry.lost(self, self._record)

    def _on_deadline(self, now: float) -> None:
        self._fail("timeout")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("disconnected")
        self._registry.lost(self, self._record)
