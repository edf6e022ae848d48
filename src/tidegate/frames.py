"""Frames: opcodes, close codes, :class:`Frame` and :class:`Close` (RFC 6455, 5 and 7).

Values and their text form for logs. The bytes of a frame are the business of ``_core.wire``; nothing here reads from a
connection or knows its state.
"""

from __future__ import annotations

import codecs
import dataclasses
import enum
import re

from ._exceptions import ProtocolError
from .environment import number
from .typing import BytesLike

__all__ = ["Close", "CloseCode", "Frame", "Opcode"]

MAX_LOG_SIZE = number("TIDEGATE_MAX_LOG_SIZE", 75)
"""Characters of a payload shown in a log line, beyond which its middle is left out."""


class Opcode(enum.IntEnum):
    """Opcode of a frame (RFC 6455, 5.2)."""

    CONT, TEXT, BINARY = 0x00, 0x01, 0x02
    CLOSE, PING, PONG = 0x08, 0x09, 0x0A


CONT, TEXT, BINARY = Opcode.CONT, Opcode.TEXT, Opcode.BINARY
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG

DATA_OPCODES = (CONT, TEXT, BINARY)
CTRL_OPCODES = (CLOSE, PING, PONG)


class CloseCode(enum.IntEnum):
    """Close codes of RFC 6455, 7.4.1, and of the IANA registry."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1004 is reserved.
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


CLOSE_CODE_EXPLANATIONS: dict[int, str] = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}

INTERNAL_CLOSE_CODES = {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}
"""Codes that stand for the absence of one, and must not be in a close frame (RFC 6455, 7.4.1)."""

EXTERNAL_CLOSE_CODES = set(CloseCode) - INTERNAL_CLOSE_CODES
"""Codes below 3000 that may be in a close frame."""

OK_CLOSE_CODES = {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD}
"""Codes after which a connection counts as ended normally (:exc:`~tidegate.exceptions.ConnectionClosedOK`)."""


@dataclasses.dataclass(slots=True)
class Close:
    """Code and reason of a close frame (RFC 6455, 5.5.1).

    Attributes:
        code: why the connection is closed (RFC 6455, 7.4).
        reason: text, at most 123 bytes in UTF-8; may be empty.
    """

    code: CloseCode | int
    reason: str

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            meaning = "registered"
        elif 4000 <= self.code < 5000:
            meaning = "private use"
        else:
            meaning = CLOSE_CODE_EXPLANATIONS.get(self.code, "unknown")
        text = f"{self.code:d} ({meaning})"
        return f"{text} {self.reason}" if self.reason else text

    @classmethod
    def parse(cls, data: BytesLike) -> Close:
        """Read the payload of a close frame.

        Args:
            data: the payload. An empty one is legal, and reads as code 1005.

        Raises:
            ProtocolError: if there is one byte only, or the code is not one that may be sent.
            UnicodeDecodeError: if the reason is not valid UTF-8.
        """
        if len(data) >= 2:
            close = cls(int.from_bytes(data[:2], "big"), str(data[2:], "utf-8"))
            close.check()
            return close
        if len(data) == 0:
            return cls(CloseCode.NO_STATUS_RCVD, "")
        raise ProtocolError("close frame too short")

    def serialize(self) -> bytes:
        """Make the payload of a close frame.

        Raises:
            ProtocolError: if the code is not one that may be sent.
        """
        self.check()
        return self.code.to_bytes(2, "big") + self.reason.encode()

    def check(self) -> None:
        """Check that the code may be sent (RFC 6455, 7.4).

        Raises:
            ProtocolError: if it may not.
        """
        if not (self.code in EXTERNAL_CLOSE_CODES or 3000 <= self.code < 5000):
            raise ProtocolError("invalid status code")


@dataclasses.dataclass(slots=True)
class Frame:
    """A frame, unmasked (RFC 6455, 5.2).

    ``str()`` is the form that debug logs show: opcode, payload shortened to :data:`MAX_LOG_SIZE` characters, size.

    Attributes:
        opcode: what kind of frame it is.
        data: the payload.
        fin: whether it is the last frame of its message.
        rsv1, rsv2, rsv3: reserved bits, for extensions (RFC 6455, 9).
    """

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def __str__(self) -> str:
        shown, notes = self._describe()
        size = len(self.data)
        notes.append(f"{size} byte" if size == 1 else f"{size} bytes")
        if not self.fin:
            notes.append("continued")
        return f"{self.opcode.name} {shown} [{', '.join(notes)}]"

    def _describe(self) -> tuple[str, list[str]]:
        """Return the payload as it is shown, and a note if that is not what the opcode lets expect."""
        data = bytes(self.data)
        if not data:
            return "''", []
        if self.opcode is Opcode.CLOSE:
            try:
                return str(Close.parse(data)), []
            except (ProtocolError, UnicodeDecodeError):
                return _hexadecimal(data), ["binary"]
        if self.opcode in CTRL_OPCODES:
            text = data.decode() if data.isascii() else None
        else:
            text = _fragment(data, starts=self.opcode is not Opcode.CONT, ends=self.fin)
        if text is None or _unseen(text):
            return _hexadecimal(data), [] if self.opcode is Opcode.BINARY else ["binary"]
        return _quoted(text), [] if self.opcode is Opcode.TEXT else ["text"]

    def check(self) -> None:
        """Check what can be known from the frame alone, when no extension uses the reserved bits.

        Raises:
            ProtocolError: if a reserved bit is set, or a control frame is fragmented or longer than 125 bytes.
        """
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise ProtocolError("reserved bits must be 0")
        if self.opcode in CTRL_OPCODES:
            if len(self.data) > 125:
                raise ProtocolError("control frame too long")
            if not self.fin:
                raise ProtocolError("fragmented control frame")


_decode_utf8 = codecs.utf_8_decode  # it can be told that more follows
# Characters that a log line must not contain, or that cannot be seen in it.
_unseen = re.compile(r"[^\t\n\r\x20-\x7e\xa1-\xac\xae-\U0010ffff]").search


def _fragment(data: bytes, starts: bool, ends: bool) -> str | None:
    """Read a piece of UTF-8 text, or return None if it is none.

    If it does not start the text, or does not end it, its first or last character may be incomplete.
    """
    skipped = 0
    while not starts and skipped < min(3, len(data)) and data[skipped] & 0xC0 == 0x80:
        skipped += 1
    try:
        _decode_utf8(data[skipped:], "strict", ends)
    except UnicodeDecodeError:
        return None
    return data.decode(errors="replace")


def _quoted(text: str) -> str:
    shown = repr(text)
    if len(shown) > MAX_LOG_SIZE:
        tail = MAX_LOG_SIZE // 3 - 1
        shown = shown[: MAX_LOG_SIZE - 3 - tail] + "..." + shown[-tail:]
    return shown


def _hexadecimal(data: bytes) -> str:
    room = MAX_LOG_SIZE // 3  # three characters a byte
    if len(data) > room:
        tail = room // 3
        return f"{data[: room - 1 - tail].hex(' ')} ... {data[-tail:].hex(' ')}"
    return data.hex(" ")
