"""The subprotocol `tidegate.v1`: what browsers send to use channels, and what they are sent.

    command     {"join": {"chat:7": "Kd83aQ2f.1041", "price:X": null}, "id": 1}      {"leave": ["chat:7"]}
                {"publish": "chat:7", "data": ..., "key": "c1-77", "id": 2}          {"presence": "chat:7", "id": 3}
    frame       {"id": 1, "joined": {"chat:7": {"at": "Kd83aQ2f.1041", "resumed": "full", "missed": 3}}}
                {"c": "chat:7", "o": 1042, "d": ...}    {"gap": "chat:7", "at": "Kd83aQ2f.1050", ...}
                {"id": 2, "at": "Kd83aQ2f.1043"}        {"id": 2, "error": "denied"}
                {"left": "chat:7", "why": "denied"}     {"id": 3, "count": 2, "presence": {"u1": {}}}
                {"in": "chat:7", "m": "u1", "i": {}}    {"out": "chat:7", "m": "u1"}    {"presence": "chat:7"}

A join is answered channel by channel: in one frame, or, where messages of a channel cannot wait for the others, in
several with the same id. Each answer comes before the first message of its channel.

Each is a JSON object in a text message. A binary payload travels in a binary message: the length of the object as a
varint, the object, the payload. Unknown keys are ignored both ways, so that either side may be newer. `decode_command`
takes whatever a client sends: it returns a command or raises `InvalidEnvelope` with a close code, and nothing else.

What must not live here: I/O, who may do what, whether there is such a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..channels import Gap, Joined, Message, Position, PresenceEvent
from ..exceptions import BusBusy, BusDown, BusError, InvalidChannel, MessageTooBig, TooManyChannels

__all__ = [
    "SUBPROTOCOL",
    "Command",
    "Frame",
    "InvalidEnvelope",
    "Join",
    "Leave",
    "PresenceOf",
    "Publish",
    "Unknown",
    "decode_command",
    "decode_frame",
    "encode_command",
    "error_frame",
    "event_frame",
    "gap_frame",
    "joined_frame",
    "left_frame",
    "message_frame",
    "presence_frame",
    "published_frame",
]

SUBPROTOCOL: Final = "tidegate.v1"

COMMAND_BYTES: Final = 2**16
"""Bytes of a command, without the data of a publication. Part of the subprotocol: clients are written for it."""

COMMAND_CHANNELS: Final = 100
"""Channels that one command joins or leaves; part of the subprotocol, too: `tidegate.js` divides its joins by it."""

IDS: Final = 2**53
"""Ids of commands are below this: what a number of JavaScript holds exactly."""

LAST: Final = 1000
"""Last messages that a join asks for at most."""

# Close codes (RFC 6455, 7.4.1).
_INVALID_DATA: Final = 1007
_POLICY_VIOLATION: Final = 1008

UNSET = msgspec.UNSET


class InvalidEnvelope(ValueError):
    """What a client sent makes no sense, or is more than it may send.

    Attributes:
        code: close code, 1007 or 1008.
        reason: what is wrong, short enough for a close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


# Commands


class Join(msgspec.Struct, frozen=True):
    """Join channels, each with the place after which messages were missed, or None; and get the last ones of each."""

    channels: dict[str, str | None]
    last: int = 0
    id: int | None = None


class Leave(msgspec.Struct, frozen=True):
    """Leave channels."""

    channels: list[str]
    id: int | None = None


class Publish(msgspec.Struct, frozen=True):
    """Publish to a channel: a text, bytes, or JSON as its bytes."""

    channel: str
    data: str | bytes
    json: bool = False
    key: str | None = None
    id: int | None = None


class PresenceOf(msgspec.Struct, frozen=True):
    """Ask who is in a channel."""

    channel: str
    id: int | None = None


class Unknown(msgspec.Struct, frozen=True):
    """A command of a newer client, to be answered with an error."""

    id: int | None = None


Command = Join | Leave | Publish | PresenceOf | Unknown


class _Command(msgspec.Struct):
    """A command as it is on the wire."""

    join: dict[str, str | None] | msgspec.UnsetType = UNSET
    leave: list[str] | msgspec.UnsetType = UNSET
    publish: str | msgspec.UnsetType = UNSET
    presence: str | msgspec.UnsetType = UNSET
    data: msgspec.Raw | msgspec.UnsetType = UNSET
    key: str | None = None
    last: int = 0
    id: int | None = None


_command_decoder: Final = msgspec.json.Decoder(_Command)
_text_decoder: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.Encoder().encode

VERBS: Final = ("join", "leave", "publish", "presence")


def decode_command(message: str | bytes, max_size: int = 2**20) -> Command:
    """Return what a client wants.

    Args:
        message: as it came: a text, or bytes of a binary message.
        max_size: bytes of data that may be published.

    Raises:
        InvalidEnvelope: it makes no sense (1007), or is more than a client may send (1008).
    """
    if isinstance(message, bytes):
        head, payload = _split(message)
    else:
        try:
            head, payload = message.encode(), None
        except UnicodeEncodeError:
            raise InvalidEnvelope(_INVALID_DATA, "the command isn't Unicode text") from None
    if len(head) > max_size + COMMAND_BYTES:
        raise InvalidEnvelope(_POLICY_VIOLATION, f"the command exceeds the limit of {COMMAND_BYTES} bytes")
    command = _parse(head)
    verbs = [verb for verb in VERBS if getattr(command, verb) is not UNSET]
    if command.id is not None and not 0 <= command.id < IDS:
        raise InvalidEnvelope(_INVALID_DATA, "the id isn't a number from 0 to 2^53 - 1")
    if len(verbs) > 1:
        raise InvalidEnvelope(_INVALID_DATA, f"the command has both {verbs[0]} and {verbs[1]}")
    if verbs == ["publish"]:
        return _publish(command, head, payload, max_size)
    if payload is not None:
        raise InvalidEnvelope(_INVALID_DATA, "only publish has a binary form")
    if len(head) > COMMAND_BYTES:
        raise InvalidEnvelope(_POLICY_VIOLATION, f"the command exceeds the limit of {COMMAND_BYTES} bytes")
    return _others(command)


def _parse(head: bytes) -> _Command:
    try:
        return _command_decoder.decode(head)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        # The words of the library may quote what the client sent, and have no limit.
        what = str(exc) if isinstance(exc, msgspec.ValidationError) else "it isn't a JSON object"
        raise InvalidEnvelope(_INVALID_DATA, _short(f"not a command: {what}")) from None


def _others(command: _Command) -> Command:
    for channels in (command.join, command.leave):
        if not isinstance(channels, msgspec.UnsetType) and len(channels) > COMMAND_CHANNELS:
            raise InvalidEnvelope(_POLICY_VIOLATION, f"the command has more than {COMMAND_CHANNELS} channels")
    if not isinstance(command.join, msgspec.UnsetType):
        if not 0 <= command.last <= LAST:
            raise InvalidEnvelope(_INVALID_DATA, f"last isn't a number from 0 to {LAST}")
        return Join(command.join, command.last, command.id)
    if not isinstance(command.leave, msgspec.UnsetType):
        return Leave(command.leave, command.id)
    if not isinstance(command.presence, msgspec.UnsetType):
        return PresenceOf(command.presence, command.id)
    return Unknown(command.id)


def _publish(command: _Command, head: bytes, payload: bytes | None, max_size: int) -> Publish:
    assert isinstance(command.publish, str)
    data: str | bytes
    json = False
    if payload is not None:
        if not isinstance(command.data, msgspec.UnsetType):
            raise InvalidEnvelope(_INVALID_DATA, "a binary publish has its data after the command")
        data, rest, size = payload, len(head), len(payload)
    elif isinstance(command.data, msgspec.UnsetType):
        raise InvalidEnvelope(_INVALID_DATA, "publish has no data")
    else:
        raw = bytes(command.data)
        rest, size = len(head) - len(raw), len(raw)
        json = not raw.startswith(b'"')
        data = raw if json else _text(raw)
    if rest > COMMAND_BYTES:
        raise InvalidEnvelope(_POLICY_VIOLATION, f"the command exceeds the limit of {COMMAND_BYTES} bytes")
    if size > max_size:
        raise InvalidEnvelope(_POLICY_VIOLATION, f"the data exceeds the limit of {max_size} bytes")
    return Publish(command.publish, data, json, command.key, command.id)


def _text(raw: bytes) -> str:
    try:
        text = _text_decoder.decode(raw)
        text.encode()
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidEnvelope(_INVALID_DATA, "the data isn't Unicode text") from None
    return text


def _split(message: bytes) -> tuple[bytes, bytes]:
    """Return the object and the payload of a binary message."""
    length = shift = 0
    for position, byte in enumerate(message[:3]):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            start, end = position + 1, position + 1 + length
            if length > COMMAND_BYTES:
                raise InvalidEnvelope(_POLICY_VIOLATION, f"the command exceeds the limit of {COMMAND_BYTES} bytes")
            if end > len(message):
                break
            return message[start:end], message[end:]
    raise InvalidEnvelope(_INVALID_DATA, "the binary message is shorter than its command")


def _joined(head: bytes, payload: bytes) -> bytes:
    """Return the binary message of an object and a payload."""
    length, varint = len(head), bytearray()
    while length >= 0x80:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"".join((varint, head, payload))


def _short(text: str) -> str:
    """Return a text of at most 120 bytes, which a close frame holds."""
    return text.encode(errors="replace")[:120].decode(errors="ignore")


def encode_command(command: Command) -> str | bytes:
    """Return the message of a command, as a client sends it."""
    fields: dict[str, Any]
    if isinstance(command, Join):
        fields = {"join": command.channels, "last": command.last or None}
    elif isinstance(command, Leave):
        fields = {"leave": command.channels}
    elif isinstance(command, Publish):
        fields = {"publish": command.channel, "key": command.key}
        if command.json:
            fields["data"] = msgspec.Raw(command.data.encode() if isinstance(command.data, str) else command.data)
        elif isinstance(command.data, str):
            fields["data"] = command.data
    else:
        fields = {"presence": command.channel} if isinstance(command, PresenceOf) else {}
    fields["id"] = command.id
    head = _object(fields)
    if isinstance(command, Publish) and not command.json and isinstance(command.data, bytes):
        return _joined(head, command.data)
    return head.decode()


# Frames: each is made once for all members, as the bytes of a text message, unless its name says something else.


def _object(fields: Mapping[str, Any]) -> bytes:
    """Return a JSON object of those fields that are not None."""
    return _encode({key: value for key, value in fields.items() if value is not None})


def message_frame(message: Message, whole: bool = False) -> tuple[bytes, bool]:
    """Return the frame of a message, and whether it is a text.

    The offset is of the epoch that the client knows; where another one begins it is told by a gap before, unless only
    the latest message matters: then the frame has the `whole` position. What was published as JSON is embedded as it
    is; the publisher has checked it.
    """
    head = b'{"c":' + _encode(message.channel)
    if message.position is not None:
        if whole:
            head += b',"at":' + _encode(str(message.position))
        else:
            head += b',"o":%d' % message.position.offset
    if not message.text:
        return _joined(head + b"}", message.payload), False
    data = message.payload if message.json else _encode(message.payload.decode(errors="replace"))
    return b"".join((head, b',"d":', data, b"}")), True


def gap_frame(gap: Gap) -> bytes:
    """Return the frame of a notice."""
    known = gap.after is not None and gap.position is not None and gap.after.epoch == gap.position.epoch
    return _object(
        {
            "gap": gap.channel,
            "from": gap.after.offset + 1 if known and gap.after else None,
            "to": gap.position.offset if known and gap.position else None,
            "at": _token(gap.position),
            "why": gap.reason,
        }
    )


def joined_frame(answers: Mapping[str, Joined | BusError | str], id: int | None = None) -> bytes:
    """Return the frame that answers a join: of each channel how it was joined, or why not."""
    joined: dict[str, Any] = {}
    for channel, answer in answers.items():
        if isinstance(answer, Joined):
            fields: dict[str, Any] = {
                "at": _token(answer.position),
                "resumed": answer.resumed,
                "missed": answer.missed or None,
            }
            fields["retry"] = answer.retry_after
        else:
            fields = _error(answer)
        joined[channel] = {key: value for key, value in fields.items() if value is not None}
    return _object({"id": id, "joined": joined})


def published_frame(id: int, position: Position | None) -> bytes:
    """Return the frame that acknowledges a publication."""
    return _object({"id": id, "at": _token(position)})


def error_frame(id: int | None, error: BusError | str) -> bytes:
    """Return the frame that answers a command that failed: an error of the bus, or a word such as "denied"."""
    return _object({"id": id, **_error(error)})


def left_frame(channel: str, why: str) -> bytes:
    """Return the frame that tells a client that it is a member no more, though it did not ask for that."""
    return _object({"left": channel, "why": why})


def event_frame(event: PresenceEvent) -> bytes:
    """Return the frame that tells who came or went, or that a client is to ask again who is there."""
    if event.kind == "changed":
        return _object({"presence": event.channel})
    info = msgspec.Raw(event.payload) if event.kind == "in" and event.payload != b"null" else None
    return _object({event.kind: event.channel, "m": event.member, "i": info})


def presence_frame(id: int | None, count: int, members: Mapping[str, bytes] | None) -> bytes:
    """Return the frame that answers who is in a channel; without names, if they are not listed."""
    who = None if members is None else {name: msgspec.Raw(info or b"null") for name, info in members.items()}
    return _object({"id": id, "count": count, "presence": who})


def _token(position: Position | None) -> str | None:
    return None if position is None else str(position)


# Words for errors, so that clients can compare them. The text of an error is for the log: it may tell of the engine.
_WORDS: Final = {
    BusBusy: "busy",
    BusDown: "down",
    InvalidChannel: "invalid channel",
    MessageTooBig: "too big",
    TooManyChannels: "too many channels",
}


def _error(error: BusError | str) -> dict[str, Any]:
    if isinstance(error, str):
        return {"error": error}
    return {"error": _WORDS.get(type(error), "failed"), "retry": getattr(error, "retry_after", None)}


class Frame(msgspec.Struct, rename={"from_": "from", "in_": "in"}):
    """A frame as a client takes it; what it does not have is None."""

    id: int | None = None
    joined: dict[str, dict[str, Any]] | None = None
    c: str | None = None
    o: int | None = None
    d: Any = None
    at: str | None = None
    gap: str | None = None
    from_: int | None = None
    to: int | None = None
    why: str | None = None
    left: str | None = None
    in_: str | None = None
    out: str | None = None
    m: str | None = None
    i: Any = None
    count: int | None = None
    presence: dict[str, Any] | str | None = None
    error: str | None = None
    retry: float | None = None


_frame_decoder: Final = msgspec.json.Decoder(Frame)


def decode_frame(message: str | bytes) -> Frame:
    """Return what a server says; the payload of a binary message is in `d`.

    Raises:
        InvalidEnvelope: it makes no sense (1007), or has no end that is near (1008).
    """
    payload = None
    if isinstance(message, bytes):
        message, payload = _split(message)
    try:
        frame = _frame_decoder.decode(message)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise InvalidEnvelope(_INVALID_DATA, "not a frame") from None
    if payload is not None:
        frame.d = payload
    return frame
