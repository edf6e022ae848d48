"""What a connection should make of the bytes that it receives: RFC 6455 section 5 and RFC 7692 section 7.2, spelt out.

It is slow and simple: bytes are kept until a frame is whole, and every rule is one `if`. It shares no code with what it
is compared to, zlib excepted. What must not live here: test cases, and anything of tidegate.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.support.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT

EMPTY_BLOCK = b"\x00\x00\xff\xff"
STREAMS = 17  # of zlib in one frame, which are one unless the peer ends them


class Failed(Exception):
    """The peer broke a rule; `args[0]` is the close code."""


@dataclass
class Deflating:
    """The parameters of RFC 7692 7.1 in one direction."""

    takeover: bool = True
    bits: int = 15


@dataclass
class Frame:
    """One data frame that waits to be read."""

    opcode: int
    fin: bool
    payload: bytes


@dataclass
class Model:
    """The receiving side of a connection.

    Feed it what is received; `queue`, `controls`, `answers` and `ended` are what comes of it.
    """

    client: bool = False
    max_size: int | None = None
    max_fragment: int | None = None
    high: int | None = None  # frames that wait for readers; what follows waits unread, or is dropped while closing
    deflating: Deflating | None = None

    buffer: bytes = b""
    queue: list[Frame] = field(default_factory=list)
    controls: list[tuple[int, bytes]] = field(default_factory=list)
    answers: list[tuple[int, bytes | int]] = field(
        default_factory=list
    )  # pongs with their payload, a close by its code
    closing: bool = False  # a close frame was sent
    ended: bool = False  # nothing more is read
    dropping: bool = False
    held: bool = False  # a data frame waits unread, and what follows it
    reader: bool = False  # somebody takes each message as it comes
    lost: bool = False  # the connection is gone; what came before that can still be read

    # The message that is being received.
    opcode: int = 0
    compressed: bool = False
    size: int = 0
    text: bytes = b""
    deflated: bool = False  # there were bytes of it
    zlib: Any = None

    def feed(self, chunk: bytes) -> None:
        """Take more bytes."""
        self.buffer += chunk
        if not self.held:
            self.go_on()

    def go_on(self) -> None:
        """Read what there is, as far as there is room."""
        self.held = False
        try:
            while not self.ended and self.step():
                if self.lost and self.has_whole_message():
                    return  # the rest is read when it is asked for
        except Failed as failed:
            self.end(failed.args[0])

    def full(self) -> bool:
        return not self.reader and self.high is not None and len(self.queue) >= max(self.high, 1)

    def end(self, code: int) -> None:
        """Give up on the peer, saying why if that can still be said."""
        self.ended = True
        if not self.closing and not self.lost:
            self.answers.append((CLOSE, code))
            self.closing = True

    def step(self) -> bool:
        """Read one frame; False if it is not all there."""
        if len(self.buffer) < 2:
            return False
        first, second = self.buffer[:2]
        extra = {126: 2, 127: 8}.get(second & 0x7F, 0)
        start = 2 + extra + (4 if second & 0x80 else 0)
        if len(self.buffer) < start:
            return False
        length = int.from_bytes(self.buffer[2 : 2 + extra], "big") if extra else second & 0x7F
        fin, rsv, opcode = first >= 0x80, first >> 4 & 7, first & 15
        self.check(fin, rsv, opcode, second >= 0x80, length)
        if opcode < 8 and self.full() and not self.closing and not (self.lost and not self.has_whole_message()):
            self.held = True
            return False
        payload = self.buffer[start : start + length]
        if second & 0x80:
            key = self.buffer[start - 4 : start]
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        whole = len(payload) == length
        compressed = self.compressed if opcode == CONT else rsv == 4
        if (opcode or self.opcode) == TEXT and not compressed:
            check_text(self.text + payload, whole and fin)
        if not whole:
            return False
        self.buffer = self.buffer[start + length :]
        if opcode >= 8:
            self.control(opcode, payload)
        else:
            self.data(opcode, fin, compressed, payload)
        return True

    def check(self, fin: bool, rsv: int, opcode: int, masked: bool, length: int) -> None:
        """RFC 6455 5.1, 5.2, 5.4, 5.5; RFC 7692 6."""
        may_be_compressed = self.deflating is not None and opcode in (TEXT, BINARY)
        if rsv and not (rsv == 4 and may_be_compressed):
            raise Failed(1002)
        if opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG):
            raise Failed(1002)
        if masked == self.client:
            raise Failed(1002)
        if opcode >= 8:
            if length > 125 or not fin:
                raise Failed(1002)
            return
        if (opcode == CONT) != (self.opcode != 0):
            raise Failed(1002)
        if length >= 2**63 or length > self.room():
            raise Failed(1009)

    def room(self) -> float:
        """How long the next fragment may be."""
        left = float("inf") if self.max_size is None else self.max_size - self.size
        return left if self.max_fragment is None else min(left, self.max_fragment)

    def data(self, opcode: int, fin: bool, compressed: bool, payload: bytes) -> None:
        """A data frame is whole."""
        if opcode != CONT:
            self.opcode, self.compressed = opcode, compressed
        if compressed:
            payload = self.decompress(payload, fin)
            if self.opcode == TEXT:
                check_text(self.text + payload, fin)
        self.text += payload
        self.size += len(payload)
        self.keep(Frame(opcode, fin, payload))
        if fin:
            self.opcode, self.size, self.text, self.compressed = 0, 0, b"", False

    def keep(self, frame: Frame) -> None:
        if self.closing and not self.lost and self.full():
            self.dropping = True
        if not self.dropping:
            self.queue.append(frame)

    def decompress(self, data: bytes, fin: bool) -> bytes:
        """RFC 7692 7.2.2; a final block ends a stream of zlib, and what follows is another (7.2.3.4)."""
        assert self.deflating is not None
        out = b""
        if not data and not self.deflated:
            return out  # of an empty message some peers make nothing
        self.deflated = not fin
        room = self.room()
        rest = data + EMPTY_BLOCK if fin and not data.endswith(EMPTY_BLOCK) else data  # which some peers leave there
        for _ in range(STREAMS):
            if self.zlib is None:
                self.zlib = zlib.decompressobj(wbits=-self.deflating.bits)
            try:
                out += self.zlib.decompress(rest, 0 if room == float("inf") else int(room) + 1 - len(out))
            except zlib.error:
                raise Failed(1002) from None
            if len(out) > room:
                raise Failed(1009)
            if not self.zlib.eof:
                break
            rest, self.zlib = self.zlib.unused_data, None
            if not rest or (fin and rest in (EMPTY_BLOCK, b"\x00" + EMPTY_BLOCK)):
                break
        else:
            raise Failed(1002)
        if fin and not self.deflating.takeover:
            self.zlib = None
        return out

    def control(self, opcode: int, payload: bytes) -> None:
        """RFC 6455 5.5."""
        if self.lost:
            self.ended = opcode == CLOSE
            return
        self.controls.append((opcode, payload))
        if opcode == PING:
            self.answers.append((PONG, payload))
        elif opcode == CLOSE:
            if len(payload) == 1:
                raise Failed(1002)
            check_text(payload[2:], True)
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            if payload and code not in {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}:
                raise Failed(1002)
            self.end(code)

    # What a reader does.

    def has_whole_message(self) -> bool:
        return any(frame.fin for frame in self.queue)

    def has_message(self) -> bool:
        if self.lost and not self.has_whole_message():
            self.go_on()
        return self.has_whole_message()

    def take(self, decode: bool | None = None) -> str | bytes:
        """The first message. Raises Failed if it cannot be decoded."""
        parts = self.take_frames()
        message = b"".join(frame.payload for frame in parts)
        if parts[0].opcode == TEXT if decode is None else decode:
            try:
                return message.decode()
            except UnicodeDecodeError:
                raise Failed(1007) from None
        return message

    def take_frames(self) -> list[Frame]:
        count = next(i for i, frame in enumerate(self.queue) if frame.fin) + 1
        taken, self.queue = self.queue[:count], self.queue[count:]
        if self.held and self.high is not None and len(self.queue) <= self.high // 4:
            self.go_on()
        return taken


def check_text(text: bytes, final: bool) -> None:
    """RFC 6455 8.1: as soon as it cannot be the beginning of a text. (Python's incremental decoder may wait longer.)"""
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        rest = text[exc.start :]
        if final or not any(is_text(rest + more) for more in REST_OF_CHARACTERS):
            raise Failed(1007) from None


# What the first bytes of any character, if they are right, can be completed with.
REST_OF_CHARACTERS = [bytes([byte, *tail]) for byte in (0x80, 0x90, 0xA0) for tail in (b"", b"\x80", b"\x80\x80")]


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
