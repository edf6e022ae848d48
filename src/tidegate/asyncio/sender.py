"""Sending what is not one simple frame: fragments, control frames, extensions, frames that are logged.

A message of one frame that none of these applies to goes out natively (_core/writer.pyx). What must not live here: how
a connection closes or keeps alive (connection.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from .._core.messages import MessageChannel
from ..closing import failure
from ..exceptions import ConcurrencyError, ConnectionClosed, PayloadTooBig, ProtocolError
from ..extensions.permessage_deflate import PerMessageDeflate
from ..frames import CONT, DATA_OPCODES, CloseCode, Frame, Opcode
from ..protocol import CLOSED, OPEN
from .fragments import fragments, opcode_of
from .waiters import Waiters

if TYPE_CHECKING:
    from ..closing import Closing
    from ..extensions.base import Extension
    from ..typing import DataLike, LoggerLike
    from .options import Settings

__all__ = ["Sender"]

FIN = 0x80
MAX_CONTROL = 125  # bytes of a control frame's payload (RFC 6455 5.5)


class Sender(MessageChannel):
    """The part of a connection that sends what the native channel declines."""

    __slots__ = ("_drainers", "_send_done", "_settings", "_unsent_pong", "extensions")

    _drainers: Waiters | None
    _send_done: asyncio.Future[None] | None
    _settings: Settings
    _unsent_pong: bytes | None
    extensions: tuple[Any, ...]

    if TYPE_CHECKING:  # which Connection defines

        @property
        def logger(self) -> LoggerLike: ...
        @property
        def _end(self) -> Closing: ...
        def _fail(self, code: int, reason: str, exc: BaseException | None) -> None: ...
        async def wait_closed(self) -> None: ...

    def _send_control(self, opcode: Opcode, payload: bytes) -> None:
        if len(payload) > MAX_CONTROL:
            raise ProtocolError("control frame too long")
        self._encode_and_send(opcode, True, payload)

    async def _must_be_open(self) -> None:
        """Raise ConnectionClosed unless the connection is open, as soon as it is known how it ended."""
        if self._state != OPEN:
            await self.wait_closed()
            raise self._end.exception()

    def _drained(self) -> None:
        if self._unsent_pong is not None:
            pong, self._unsent_pong = self._unsent_pong, None
            self._send_control(Opcode.PONG, pong)
        if self._drainers is not None:
            self._drainers.wake()
            self._drainers = None

    async def _drain(self) -> None:
        """Wait until the write buffer is below the low-water mark of `write_limit`, and let other tasks run."""
        while self._write_paused:
            if self._drainers is None:
                self._drainers = Waiters()
            await self._drainers.wait(self.loop)
        if self._state == CLOSED:
            raise self._end.exception()
        await self._end_step()

    async def _send_slowly(self, message: Any, text: bool | None) -> None:
        """Send what the fast path declined: fragments, on a logged or closing connection, or a wrong type."""
        while self._send_done is not None:
            await asyncio.shield(self._send_done)
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            await self._send_part(opcode_of(message, text), message, True)
            return
        source, parts = fragments(message)
        try:
            first = await anext(parts)
        except StopAsyncIteration:
            return
        await self._send_fragments(first, parts, text, source)

    async def _send_fragments(self, first: Any, parts: AsyncIterator[Any], text: bool | None, source: str) -> None:
        # Another message may have begun while the first part was awaited.
        while self._send_done is not None:
            await asyncio.shield(self._send_done)
        self._send_done = self.loop.create_future()
        self._sending = True
        kind = str if isinstance(first, str) else (bytes, bytearray, memoryview)
        try:
            if not isinstance(first, kind):
                raise TypeError(f"{source} must contain bytes or str")
            opcode = opcode_of(first, text)
            size = await self._send_part(opcode, first, False)
            async for part in parts:
                if not isinstance(part, kind):
                    raise TypeError(f"{source} must contain uniform types")
                size += await self._send_part(CONT, part, False)
            await self._send_part(CONT, b"", True)
            self._count_message_sent(opcode, size)
        except ConnectionClosed:
            raise
        except BaseException as exc:
            # A message that was begun and cannot be ended makes the connection useless.
            if self._state == OPEN:
                self._fail(CloseCode.INTERNAL_ERROR, "error in fragmented message", exc)
                if isinstance(exc, Exception):  # others, such as a cancellation, do not wait
                    await self.wait_closed()
            raise
        finally:
            self._sending = False
            self._send_done.set_result(None)
            self._send_done = None

    async def _send_part(self, opcode: Opcode, data: DataLike, fin: bool) -> int:
        """Send one data frame, in its turn; return its size."""
        await self._must_be_open()
        payload = data.encode() if isinstance(data, str) else bytes(data)
        self._encode_and_send(opcode, fin, payload)
        self._count_sent(len(payload))
        if fin and opcode != CONT:
            self._count_message_sent(opcode, len(payload))
        await self._drain()
        return len(payload)

    def send_broadcast(self, opcode: Opcode, payload: bytes) -> None:
        """Send a whole message now, or close the connection if its peer is so slow that `broadcast_limit` is reached.

        Args:
            opcode: of the message.
            payload: of the message.

        Raises:
            ConcurrencyError: in the middle of a fragmented message.
        """
        if self._sending:
            raise ConcurrencyError("sending a fragmented message")
        limit = self._settings.broadcast_limit
        if limit is not None and self._write_paused:
            waiting = self.transport.get_write_buffer_size()
            if waiting + len(payload) > limit:
                self.logger.warning("too slow for broadcasts: %d bytes wait to be read", waiting)
                self._row.inc("slow_consumers", "close")
                self._fail(CloseCode.TRY_AGAIN_LATER, "too slow", None)
                return
        self._encode_and_send(opcode, True, payload)
        self._count_sent(len(payload))
        self._count_message_sent(opcode, len(payload))

    # Extensions (RFC 6455 section 9), and frames that are logged.

    def _adopt(self, extensions: Iterable[Extension]) -> None:
        """Use the extensions that were negotiated: permessage-deflate alone natively, others frame by frame."""
        self.extensions = tuple(extensions)
        if len(self.extensions) == 1 and type(self.extensions[0]) is PerMessageDeflate:
            self._use_deflate(self.extensions[0].deflate)
        elif self.extensions:
            self._use_extensions()

    def _encode_and_send(self, opcode: Opcode, fin: bool, payload: bytes) -> None:
        if opcode not in (Opcode.PING, Opcode.PONG):
            self._finish_message()
        if self._slow:
            self._log_frame(">", opcode, fin, payload)
        first = (FIN if fin else 0) | opcode
        if self.extensions and (self._extended or opcode in DATA_OPCODES):
            frame = Frame(opcode, payload, fin)
            try:
                for extension in self.extensions:
                    frame = extension.encode(frame)
            except Exception as exc:
                self.logger.error("an extension failed", exc_info=True)
                self._end.blame(exc)
                self.transport.abort()  # the state of the extension at the peer is unknown now
                raise
            first |= frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4
            payload = bytes(frame.data)
        self._send_frame(first, payload)

    def _frame_decoded(self, opcode: int, fin: bool, rsv: int, payload: bytes, limit: int | None) -> bytes | None:
        frame = Frame(Opcode(opcode), payload, fin, bool(rsv & 4), bool(rsv & 2), bool(rsv & 1))
        try:
            for extension in reversed(self.extensions):
                frame = extension.decode(frame, max_size=limit)
            frame.check()
        except PayloadTooBig as exc:
            self._fail(CloseCode.MESSAGE_TOO_BIG, failure(exc), exc)
        except ProtocolError as exc:
            self._fail(CloseCode.PROTOCOL_ERROR, failure(exc), exc)
        except Exception as exc:
            self.logger.error("an extension failed", exc_info=True)
            self._fail(CloseCode.INTERNAL_ERROR, "", exc)
        else:
            return bytes(frame.data)
        return None

    def _log_frame(self, direction: str, opcode: int, fin: bool, payload: bytes) -> None:
        self.logger.debug("%s %s", direction, Frame(Opcode(opcode), payload, fin))
