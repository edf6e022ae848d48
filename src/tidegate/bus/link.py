"""The frames of a link, between the hub and a process that is linked to it: bytes to frames and back, without I/O.

    Frame, encode, Decoder    one frame; a head of 40 bytes and a payload
    Kind, Flag                what a frame is for, and what the hub and members should know of a message
    Hello, Welcome            the first frame each way, with the VERSION
    Policy                    how much of a channel the hub keeps, declared by prefix in Hello
    pack_message              a message with its key and sender
    Acknowledgement, Search, Top, Excerpt, Count, Snapshot    payloads of the kinds that have one of their own

A head is: u32 length of the payload, u8 kind, u8 flags, u16 zero, u32 channel, u32 publisher, u64 offset, u64 time in
microseconds, u64 sequence; all little-endian. A channel has a number on each link, which the linked process chooses
when it opens the channel. Kinds are frozen: processes of two releases talk to one hub while they replace each other, so
a kind never changes its meaning, a payload of JSON may get more keys, and a kind that is unknown is skipped.

Native code has the same layout (_core/link.h). What must not live here: sockets (local.py), what the hub does about a
frame (hub/).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag
from typing import Annotated, NamedTuple, TypeVar

import msgspec

__all__ = [
    "HEAD",
    "NAME_LIMIT",
    "PAYLOAD_LIMIT",
    "VERSION",
    "Acknowledgement",
    "Count",
    "Decoder",
    "Excerpt",
    "Flag",
    "Frame",
    "Hello",
    "Kind",
    "LinkError",
    "Policy",
    "Search",
    "Snapshot",
    "Top",
    "Welcome",
    "acknowledgements",
    "encode",
    "epoch_number",
    "epoch_text",
]

VERSION = 1
"""Of the meaning of what is not in a kind: both ends speak the lower of their two."""

HEAD = struct.Struct("<IBBHIIQQQ")

PAYLOAD_LIMIT = 4 << 20
"""Bytes in a frame: a longer one ends the link. A message is at most half of it, an excerpt three quarters."""

NAME_LIMIT = 255
"""Bytes in the name of a channel, in UTF-8."""


class LinkError(ValueError):
    """Bytes that cannot be a frame, or a payload that is not of its kind: nothing after them can be trusted."""


class Kind(IntEnum):
    """What a frame is for. Requests have a number of their own in `sequence`, which the answer has, too."""

    # To the hub.
    HELLO = 1  # Hello; the first frame
    OPEN = 2  # a channel gets a number on this link; payload: its name
    SHUT = 3  # it loses the number, and its subscription
    SUBSCRIBE = 4  # request: answered by TOP, after which messages come
    UNSUBSCRIBE = 5  # request: answered by DONE, after which none come
    PUBLISH = 6  # sequence: of this publisher, growing, where it wants to hear that the message is stored
    READ = 7  # request: Search; answered by EXCERPT
    LOOK = 8  # request: answered by TOP
    BEAT = 9  # Snapshot: who of this process is where, in place of the last one; request: answered by DONE
    COUNT = 10  # request: payload: name of a channel; answered by COUNTED
    # From the hub.
    WELCOME = 32  # Welcome; the first frame
    MESSAGE = 33  # of a channel that is subscribed; offset 0: without history
    STORED = 34  # Acknowledgements
    REFUSED = 35  # the answer to a request, or to a PUBLISH, that failed; payload: why, in UTF-8
    EXCERPT = 36  # Excerpt
    TOP = 37  # Top; with request 0: the channel has a new epoch
    DONE = 38
    COUNTED = 39  # Count, of all processes
    LOST = 40  # offset: so many messages for this link were dropped, since it did not read them
    TROUBLE = 41  # the link ends; payload: why, in UTF-8


class Flag(IntFlag):
    """What there is to know of a message. The hub passes on what it does not know."""

    TEXT = 1
    JSON = 2
    STORED = 4  # it has history, hence an offset; set by the hub
    ECHO = 8  # send it to its own link as well, where that is subscribed; with history it always is
    SENDER = 16  # the payload begins with who sent it: see pack_message()
    KEYED = 32  # and before that with a key, by which a second one within KEY_SECONDS is the same message
    EXCLUDE = 64  # its sender is not to get it
    DEFLATED = 128
    # Of other kinds.
    BACKWARD = 1  # READ: the newest, instead of the oldest
    FIRST = 1  # BEAT: of the frames that a snapshot has
    LAST = 2  # BEAT: from now on, it is in force


class Frame(NamedTuple):
    """A frame; see Kind for what its fields mean in each."""

    kind: int
    flags: int = 0
    channel: int = 0
    publisher: int = 0
    offset: int = 0
    time: int = 0
    sequence: int = 0
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    kind, flags, channel, publisher, offset, time, sequence, payload = frame
    if len(payload) > PAYLOAD_LIMIT:
        raise LinkError(f"a frame holds at most {PAYLOAD_LIMIT} bytes, not {len(payload)}")
    return HEAD.pack(len(payload), kind, flags, 0, channel, publisher, offset, time, sequence) + payload


class Decoder:
    """Bytes to frames. It holds at most the frame that has not come whole, which is not longer than a frame may be.

    Attributes:
        skipped: frames of unknown kinds.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self.skipped = 0

    def __len__(self) -> int:
        """Return how many bytes wait for the rest of their frame."""
        return len(self._rest)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """Yield the frames that are complete with `data`.

        Raises:
            LinkError: a frame is too long; the link must end.
        """
        self._rest += data
        at = 0
        try:
            while len(self._rest) - at >= HEAD.size:
                length, kind, flags, _, channel, publisher, offset, time, sequence = HEAD.unpack_from(self._rest, at)
                if length > PAYLOAD_LIMIT:
                    raise LinkError(f"a frame holds at most {PAYLOAD_LIMIT} bytes, and this one says {length}")
                end = at + HEAD.size + length
                if end > len(self._rest):
                    break
                payload = bytes(self._rest[at + HEAD.size : end])
                at = end
                if kind not in _KINDS:
                    self.skipped += 1
                    continue
                yield Frame(kind, flags, channel, publisher, offset, time, sequence, payload)
        finally:
            del self._rest[:at]


_KINDS = frozenset(Kind)


class Policy(msgspec.Struct, frozen=True):
    """How much of a channel the hub keeps: so many messages, for so many seconds, in so many bytes.

    0 messages are no history; 0 seconds or bytes are no limit.
    """

    history: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    keep: Annotated[float, msgspec.Meta(ge=0, lt=1 << 32)] = 0.0
    history_bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)] = 0


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first frame of a linked process.

    Attributes:
        version: the highest VERSION that it speaks.
        publisher: a number that no other process has: with its sequences, it tells messages that were sent twice.
        name: what operators call the process.
        generation: of the channels; of those that differ, the hub goes by the one that keeps more.
        channels: prefix -> Policy. None: this process does not know, and goes by those of others.
    """

    version: int
    publisher: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    name: str = ""
    generation: int = 0
    channels: dict[str, Policy] | None = None


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first frame of the hub.

    Attributes:
        version: the highest VERSION that it speaks.
        hubs: how many hubs there are; a channel has its own among them. There is one.
        message_limit: the bytes that a message may have.
    """

    version: int
    hubs: int = 1
    message_limit: int = 1 << 20


class Acknowledgement(NamedTuple):
    """What became of a PUBLISH: the message is in the journal; offset 0: it was, its place is not known any more."""

    sequence: int
    epoch: int
    offset: int


_ACKNOWLEDGEMENT = struct.Struct("<QQQ")


def acknowledgements(payload: bytes) -> Iterator[Acknowledgement]:
    """Yield those of a STORED frame."""
    if len(payload) % _ACKNOWLEDGEMENT.size:
        raise LinkError(f"acknowledgements of {_ACKNOWLEDGEMENT.size} bytes each do not make {len(payload)}")
    return map(Acknowledgement._make, _ACKNOWLEDGEMENT.iter_unpack(payload))


def pack_acknowledgements(given: Iterable[Acknowledgement]) -> bytes:
    """Return the payload of a STORED frame."""
    return b"".join(_ACKNOWLEDGEMENT.pack(*each) for each in given)


class Search(NamedTuple):
    """What to READ: at most so many messages and bytes, after the offset in the frame's head; BACKWARD, before it."""

    messages: int
    size: int

    def pack(self) -> bytes:
        return _SEARCH.pack(*self)

    @classmethod
    def unpack(cls, payload: bytes) -> Search:
        return cls(*_unpack(_SEARCH, payload, "search"))


class Top(NamedTuple):
    """Where a channel stands. Without history, its epoch is 0.

    Attributes:
        epoch: of the offsets.
        top: of the newest message; 0 before the first one.
        first: of the oldest one that can be read; top + 1 if there is none.
    """

    epoch: int
    top: int
    first: int

    def pack(self) -> bytes:
        return _TOP.pack(*self)

    @classmethod
    def unpack(cls, payload: bytes) -> Top:
        return cls(*_unpack(_TOP, payload, "top"))


class Excerpt(NamedTuple):
    """An answer to READ: messages as MESSAGE frames, in the order of their offsets, and where the channel stands."""

    top: Top
    messages: list[Frame]

    def pack(self) -> bytes:
        return self.top.pack() + b"".join(map(encode, self.messages))

    @classmethod
    def unpack(cls, payload: bytes) -> Excerpt:
        top = Top.unpack(payload[: _TOP.size])
        decoder = Decoder()
        messages = [frame for frame in decoder.feed(payload[_TOP.size :]) if frame.kind == Kind.MESSAGE]
        if len(decoder):
            raise LinkError(f"an excerpt ends {len(decoder)} bytes into a message")
        return cls(top, messages)


class Count(NamedTuple):
    """Who is in a channel: how many connections; and names with JSON of each, where they are listed."""

    connections: int
    members: dict[str, msgspec.Raw] | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """Who of one process is where: a Count for each channel."""

    channels: dict[str, Count]


Word = TypeVar("Word", Hello, Welcome, Count, Snapshot)


def pack_json(word: Hello | Welcome | Count | Snapshot) -> bytes:
    """Return a payload of JSON."""
    return msgspec.json.encode(word)


def unpack_json(payload: bytes, kind: type[Word]) -> Word:
    """Return what a payload of pack_json() says."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LinkError(f"a {kind.__name__} cannot be read: {error}") from None


def pack_message(payload: bytes, key: bytes | None = None, sender: bytes = b"") -> tuple[int, bytes]:
    """Return flags and payload of a message; a key and a sender have at most 255 bytes each."""
    flags = 0
    if sender:
        flags |= int(Flag.SENDER)
        payload = bytes((len(sender),)) + sender + payload
    if key is not None:
        flags |= int(Flag.KEYED)
        payload = bytes((len(key),)) + key + payload
    return flags, payload


def unpack_message(flags: int, payload: bytes) -> tuple[bytes, bytes]:
    """Return the sender of a message and its payload proper."""
    at = 0
    if flags & Flag.KEYED:
        at = 1 + payload[0] if payload else 1
    if not flags & Flag.SENDER:
        return b"", payload[at:]
    start, end = at + 1, at + 1 + (payload[at] if at < len(payload) else 0)
    if end > len(payload):
        raise LinkError("a message ends within its sender")
    return payload[start:end], payload[end:]


_SEARCH = struct.Struct("<II")
_TOP = struct.Struct("<QQQ")


def _unpack(form: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) != form.size:
        raise LinkError(f"a {what} has {form.size} bytes, not {len(payload)}")
    return form.unpack(payload)


def epoch_text(number: int) -> str:
    """Return an epoch as positions have it: 48 bits in 8 characters of base64url, without dots."""
    return base64.urlsafe_b64encode(number.to_bytes(6, "big")).decode()


def epoch_number(text: str) -> int | None:
    """Return the epoch of a position; None, if it cannot be one of the hub's."""
    try:
        found = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return int.from_bytes(found, "big") if len(found) == 6 else None
