"""RFC 6455 as bytes, the one codec of the tests: frames are built and read here, and the opening handshake is written.

    frame(), close()     a frame as a client sends it, or unmasked
    header(), masked()   the parts of a frame
    Frame, reading()     a frame that came; how to read one, whatever the bytes come from
    read_frame()         the next one of a stream of asyncio
    parsed()             the frames that bytes are made of
    request()            an opening handshake
    acceptance()         the answer that accepts one

What must not live here: sockets (rawclient.py, rawpeer.py); tidegate or another WebSocket library: this is the other
side.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NO_CODE = 1005
"""What a close frame without a code stands for (section 7.1.5)."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


class Frame(NamedTuple):
    """A frame that came (section 5.2): its first byte (FIN, RSV, opcode), its mask if it has one, its payload."""

    first: int
    mask: bytes | None
    payload: bytes

    @property
    def fin(self) -> bool:
        return bool(self.first & 0x80)

    @property
    def rsv(self) -> int:
        """The three bits: 4 is RSV1."""
        return self.first >> 4 & 7

    @property
    def opcode(self) -> int:
        return self.first & 0x0F


# Frames.


def frame(
    payload: bytes = b"", opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\0\0\0\0"
) -> bytes:
    """A frame as a client sends it; `mask=None` leaves it unmasked, the default mask leaves the payload readable."""
    head = header((0x80 if fin else 0) | rsv << 4 | opcode, len(payload), mask)
    return head + (payload if mask is None else masked(payload, mask))


def header(first: int, length: int, mask: bytes | None = None) -> bytes:
    """The header of a frame whose first byte (FIN, RSV, opcode) is `first`, as section 5.2 draws it."""
    bit = 0x80 if mask is not None else 0
    if length < 126:
        head = bytes([first, bit | length])
    elif length < 65536:
        head = bytes([first, bit | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + length.to_bytes(8, "big")
    return head + (mask or b"")


def masked(payload: bytes, mask: bytes) -> bytes:
    """A payload with its mask, or what a masked one was (section 5.3)."""
    if not any(mask):
        return payload
    length = len(payload)
    pad = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")


def close(code: int | None = 1000, reason: str = "", *, mask: bytes | None = b"\0\0\0\0") -> bytes:
    """A close frame as a client sends it; None for one without a code."""
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason.encode(), CLOSE, mask=mask)


def close_of(payload: bytes) -> tuple[int, str]:
    """The code and the reason in a close frame's payload."""
    return int.from_bytes(payload[:2], "big") if payload else NO_CODE, payload[2:].decode()


def reading() -> Generator[int, bytes, Frame]:
    """Yield how many bytes are needed next, to be sent those; return the frame, unmasked."""
    first, second = yield 2
    length = second & 0x7F
    if length > 125:
        length = int.from_bytes((yield 2 if length == 126 else 8), "big")
    mask = (yield 4) if second & 0x80 else None
    payload = (yield length) if length else b""
    return Frame(first, mask, payload if mask is None else masked(payload, mask))


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame; IncompleteReadError at the end of the stream, with `partial` within a frame."""
    steps = reading()
    needed, taken = next(steps), b""
    while True:
        try:
            data = await reader.readexactly(needed)
        except asyncio.IncompleteReadError as exc:
            raise asyncio.IncompleteReadError(taken + exc.partial, len(taken) + needed) from None
        taken += data
        try:
            needed = steps.send(data)
        except StopIteration as stop:
            found: Frame = stop.value
            return found


def parsed(data: bytes, *, partial: bool = False) -> Iterator[Frame]:
    """The frames that `data` is made of; the last one may be `partial`, and is left out, or else AssertionError."""
    start = 0
    while start < len(data):
        steps = reading()
        needed = next(steps)
        while start + needed <= len(data):
            start += needed
            try:
                needed = steps.send(data[start - needed : start])
            except StopIteration as stop:
                yield stop.value
                break
        else:
            assert partial, f"the last frame lacks {start + needed - len(data)} bytes"
            return


# The opening handshake.


def request(
    method: str = "GET", path: str = "/", version: str = "HTTP/1.1", headers: Mapping[str, str | None] | None = None
) -> bytes:
    """An opening handshake; `headers` replaces the ordinary ones by name, None leaves one out."""
    return _head(f"{method} {path} {version}", {**_HEADERS, **(headers or {})}.items())


def acceptance(
    key: str, headers: Sequence[tuple[str, str]] = (), replace: Mapping[str, str | None] | None = None
) -> bytes:
    """The answer to a request with this key: the right headers, but for those replaced (None: left out), and more."""
    fields: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode(),
    }
    return _head("HTTP/1.1 101 Switching Protocols", [*{**fields, **(replace or {})}.items(), *headers])


def _head(line: str, headers: Iterable[tuple[str, str | None]]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers if value is not None]
    return "\r\n".join([line, *lines, "", ""]).encode("iso-8859-1")
