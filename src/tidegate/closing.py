"""Closing a connection (RFC 6455 section 7): what each side said, what may be said, and what is raised afterwards.

A connection makes a `Closing` when its end begins, so that an open one carries none. What must
not live here: I/O, timers, tasks; how long to wait is for `asyncio.connection`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from .frames import OK_CLOSE_CODES, Close, CloseCode

__all__ = ["FAILURES", "Closing", "failure"]

MAX_REASON = 123
"""Bytes of a reason: a control frame carries 125 at most, of which the code takes two (RFC 6455 5.5.1)."""


def _invalid_utf8(text: bytes) -> Exception:
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        return exc
    return ProtocolError("invalid UTF-8")  # never: the native check found an error that decode() finds too


def _undecodable(cause: Exception) -> Exception:
    exc = ProtocolError("decompression failed")
    exc.__cause__ = cause
    return exc


def _too_big(sizes: tuple[int | None, int, int]) -> Exception:
    size, limit, before = sizes
    exc = PayloadTooBig(size, limit)
    exc.set_current_size(before or None)
    return exc


# In the order of the numbers that the native channel reports: close code, and the exception that tells what happened.
FAILURES: tuple[tuple[CloseCode, Callable[[Any], Exception]], ...] = (
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("reserved bits must be 0")),
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("invalid opcode")),
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("incorrect masking")),
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("control frame too long")),
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("fragmented control frame")),
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("expected a continuation frame")),
    (CloseCode.PROTOCOL_ERROR, lambda _: ProtocolError("unexpected continuation frame")),
    (CloseCode.MESSAGE_TOO_BIG, _too_big),
    (CloseCode.INVALID_DATA, _invalid_utf8),
    (CloseCode.PROTOCOL_ERROR, _undecodable),
)


def failure(exc: Exception) -> str:
    """Return the reason to give the peer for `exc`, cut to what a close frame carries."""
    if isinstance(exc, UnicodeDecodeError):
        return f"{exc.reason} at position {exc.start}"
    return str(exc).encode()[:MAX_REASON].decode(errors="ignore")


class Closing:
    """How one connection ends.

    Attributes:
        rcvd: the close frame that came, if any.
        sent: the close frame that went out, if any.
        rcvd_then_sent: which was first, if there are both.
        failed: whether we gave up on the peer, so that how it leaves says nothing more.
        cause: what went wrong first, to be chained to ConnectionClosed; None if nothing did.
    """

    __slots__ = ("cause", "failed", "rcvd", "rcvd_then_sent", "sent")

    def __init__(self) -> None:
        self.rcvd: Close | None = None
        self.sent: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.failed = False
        self.cause: BaseException | None = None

    def send(self, code: int, reason: str) -> bytes:
        """Return the payload of our close frame. Raises ProtocolError for a code or reason that may not be sent."""
        close = Close(code, reason)
        payload = close.serialize()
        if len(payload) > MAX_REASON + 2:
            raise ProtocolError("control frame too long")
        self.sent = close
        if self.rcvd is not None:
            self.rcvd_then_sent = True
        return payload

    def receive(self, payload: bytes) -> None:
        """Read the payload of the peer's close frame. Raises ProtocolError or UnicodeDecodeError if it is none."""
        self.rcvd = Close.parse(payload)
        if self.sent is not None:
            self.rcvd_then_sent = False

    def echo(self) -> None:
        """Note that the peer's close frame was sent back (RFC 6455 5.5.1)."""
        self.sent = self.rcvd
        self.rcvd_then_sent = True

    def blame(self, exc: BaseException | None) -> None:
        """Remember what went wrong; the first cause counts."""
        if self.cause is None:
            if isinstance(exc, ProtocolError | PayloadTooBig | UnicodeDecodeError):
                # What the peer has sent, said by ourselves: the frames of its traceback would keep the connection.
                exc.__traceback__ = None
            self.cause = exc

    def blame_end(self) -> None:
        """Blame the end of the stream, unless a close frame announced it."""
        if self.rcvd is None and not self.failed:
            self.blame(EOFError("unexpected end of stream"))

    @property
    def code(self) -> int:
        """The close code that came (RFC 6455 7.1.5); 1006 without one."""
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The reason that came (RFC 6455 7.1.6); "" without one."""
        return "" if self.rcvd is None else self.rcvd.reason

    @property
    def initiator(self) -> str:
        """Who began: "local", "remote", or "abort" when the connection broke before any close frame."""
        if self.rcvd is None:
            return "abort" if self.sent is None else "local"
        return "remote" if self.rcvd_then_sent else "local"

    @property
    def final_code(self) -> int:
        """The code to count this end under: what came, else what was sent, else 1006."""
        close = self.rcvd or self.sent
        return CloseCode.ABNORMAL_CLOSURE if close is None else close.code

    def exception(self) -> ConnectionClosed:
        """Make what recv() and send() raise; a new one each time, since tracebacks grow."""
        ok = (
            self.rcvd is not None
            and self.sent is not None
            and self.rcvd.code in OK_CLOSE_CODES
            and self.sent.code in OK_CLOSE_CODES
        )
        kind = ConnectionClosedOK if ok else ConnectionClosedError
        exc = kind(self.rcvd, self.sent, self.rcvd_then_sent)
        exc.__cause__ = self.cause
        return exc
