"""The words of the bus: a channel's policy, positions in it, its messages, and what a member is told.

    Channel          policy of the channels with one prefix
    ChannelLimits    limits of all channels, and of the connections that join them
    Position         place in a channel, `epoch.offset`, held by clients
    Message          what was published
    Joined           answer to a join
    Gap              notice that messages are missing
    Identity         who a member is, where a channel has presence
    PresenceEvent    notice that a member came or went

Values only. What must not live here: engines, and what holds channels (bus/), the encoding for
browsers (the envelope).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec

__all__ = ["Channel", "ChannelLimits", "Gap", "Identity", "Joined", "Message", "Position", "PresenceEvent"]

OFFSETS: Final = 2**63
"""Offsets are below this: engines have signed integers of 64 bits."""

NAME_BYTES: Final = 255
"""Bytes of a channel's name in UTF-8; Redis and NATS take more, an index of names does not want to."""

MESSAGE_LIMIT: Final = 2**21
"""The highest limit of a message: a frame between processes holds 1 MiB that is read, and one message."""

TOPICS_LIMIT: Final = 1_000_000
"""The highest limit of a process's channels: a link to the hub has numbers for few more."""

GRACE_SECONDS: Final = 3600
"""Seconds for which a member that has gone is taken to be there, at most."""

RESERVED: Final = "tg:"
"""Channels that begin with this are the bus's own."""

LISTED: Final = 1000
"""Names of a channel that are listed, where there is presence; with more, each change would be told to as many."""

UNLISTED: Final = ""
"""Stands for all names where there are more; it is the name of none."""

MEMBER_BYTES: Final = 128
"""Bytes of a member's name in UTF-8."""

INFO_BYTES: Final = 1024
"""Bytes of what is known of a member, as JSON: all members are told of it."""

_POSITION = re.compile(r"([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,18})", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Position(NamedTuple):
    """A place in a channel with history: after the message of that offset.

    Its text is one token that a client can keep anywhere, and give back as `since`. Offsets grow within an epoch; an
    engine that has lost what it had begins another one.

    Attributes:
        epoch: which history it is; 1 to 32 letters, digits, `-` and `_`.
        offset: the number of the last message; before the first, 0 or a number that another channel has.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that a token stands for.

        Where a position is asked for a token is taken as well, and an unknown one makes a resume that failed: there is
        no need to parse it before.

        Raises:
            ValueError: if it is none.
        """
        found = _POSITION.fullmatch(text)
        if found is None or (offset := int(found[2])) >= OFFSETS:
            raise ValueError(f"{text[:64]!r} isn't a position, such as 'Kd83aQ2f.1041'")
        return cls(found[1], offset)


@dataclass(frozen=True, slots=True)
class Channel:
    """Policy of the channels whose names begin with one prefix; declared once, where the application is.

        channels = {"chat:": Channel(history=200, keep=600.0), "price:": Channel(history=1, recover="latest")}
        app = App(handler, channels=channels)

    Without `history` messages are not stored, and a member that is away misses them.

    Parameters:
        history: messages that are stored of each channel; 0 stores none.
        keep: seconds for which they are.
        history_bytes: bytes of each channel's messages that are stored; the last message is, whatever its size.
        recover: `"all"` gives a member each message; `"latest"` the last one at every join, and only the newest of
            those that it was too slow for.
        presence: whether members have names, for `tidegate.presence()`, and are told who comes and goes.
        presence_grace: seconds for which one is still there after its last connection has gone, since it may come back.
            If it was the server that sent it away, because it ends, they are at least 15.

    Raises:
        TypeError, ValueError: a parameter is not what it must be.
    """

    _: KW_ONLY
    history: int = 0
    keep: float = 600.0
    history_bytes: int = 2**18
    recover: Literal["all", "latest"] = "all"
    presence: bool = False
    presence_grace: float = 2.0

    def __post_init__(self) -> None:
        for name, unit in _UNITS.items():
            value = getattr(self, name)
            if not isinstance(value, int if unit != "seconds" else int | float) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number of {unit}, not {value!r}")
        if not 0 <= self.history <= 2**20:
            raise ValueError(f"history must be 0 to {2**20} messages, not {self.history}")
        if self.history_bytes < 1:
            raise ValueError(f"history_bytes must be at least 1, not {self.history_bytes}")
        if not 0 < self.keep <= 2**31:
            raise ValueError(f"keep must be more than 0 and at most {2**31} seconds, not {self.keep}")
        if self.recover not in ("all", "latest"):
            raise ValueError(f"recover must be 'all' or 'latest', not {self.recover!r}")
        if self.recover == "latest" and not self.history:
            raise ValueError("recover='latest' needs history=1 or more: the last message is what a member gets")
        if not isinstance(self.presence, bool):
            raise TypeError(f"presence must be a bool, not {self.presence!r}")
        if not 0 <= self.presence_grace <= GRACE_SECONDS:
            raise ValueError(f"presence_grace must be 0 to {GRACE_SECONDS} seconds, not {self.presence_grace}")


_UNITS = {"history": "messages", "history_bytes": "bytes", "keep": "seconds", "presence_grace": "seconds"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """Limits of all channels of a process, and of the connections that join them; the daemon has a setting for each.

        serve(handler, ..., channels={"chat:": Channel()}, channel_limits=ChannelLimits(per_connection=1000))

    Parameters:
        message: bytes of a message, up to 2 MiB; larger ones are not published.
        member: bytes that wait for a client to read them, above which a channel's message closes it with code 1013: it
            comes back and resumes. Where only the latest message counts, older ones are left out before.
        per_connection: channels that a connection may join.
        per_process: channels that all connections of a process may join.
        commands: commands a second of a client of `channel_handler()`, and at once after a rest; the next one is read
            later.

    Raises:
        TypeError, ValueError: a parameter is not what it must be.
    """

    message: int = 2**20
    member: int = 2**20
    per_connection: int = 128
    per_process: int = TOPICS_LIMIT
    commands: tuple[float, int] = (20.0, 100)

    def __post_init__(self) -> None:
        for name, high in _HIGHEST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a whole number, not {value!r}")
            if not 1 <= value <= high:
                raise ValueError(f"{name} must be 1 to {high}, not {value}")
        match self.commands:
            case (int() | float() as rate, int(burst)) if rate > 0 and burst > 0:
                pass
            case _:
                raise ValueError(f"commands must be a rate and a number, such as (20.0, 100), not {self.commands!r}")


_HIGHEST = {"message": MESSAGE_LIMIT, "member": 2**48, "per_connection": 100_000, "per_process": TOPICS_LIMIT}


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of a channel, as it came from the engine; one object for all members of a worker.

    Attributes:
        channel: its name.
        payload: bytes that were published.
        text: whether they are a text.
        position: the place of this message; None if the channel has no history.
        sender: identifies the connection or the task that published; empty if it is not known.
        time: seconds since 1970 when the engine took it.
        json: whether the payload is JSON that an envelope can embed.
        exclude: whether the sender is not to get it.
        previous: the offset of the message before this one, where offsets do not grow by one; None where they do.
    """

    channel: str
    payload: bytes
    text: bool = False
    position: Position | None = None
    sender: str = ""
    time: float = 0.0
    json: bool = False
    exclude: bool = False
    previous: int | None = None

    @property
    def data(self) -> str | bytes:
        """What was published: str for a text, bytes for a binary message."""
        return self.payload.decode() if self.text else self.payload

    @property
    def gap(self) -> Gap | None:
        """None: there is a message. An iterator over messages may give a `Gap` in its place."""
        return None


class Gap(NamedTuple):
    """A notice in place of messages that are missing, and that the engine cannot give any more.

    Attributes:
        channel: the channel's name.
        after: the place after which they are missing; None if it is not known.
        position: the place after which messages go on; None in a channel without history.
        reason: `"trimmed"` (not stored any more), `"epoch"` (the engine lost its history), `"link"` (messages without
            history were sent while the worker could not hear the engine), `"slow"` (the reader was).
    """

    channel: str
    after: Position | None
    position: Position | None
    reason: str

    @property
    def gap(self) -> Gap:
        """The notice itself, so that it is told apart from a `Message` by one attribute."""
        return self


class Joined(NamedTuple):
    """The answer to a join.

    Attributes:
        channel: the channel's name.
        position: the place after which the member's messages begin; None in a channel without history.
        resumed: `"new"` without a `since`; `"full"` if nothing is missing after it; `"partial"` if something is, and
            the last messages come as it was asked; `"failed"` if something is or may be missing.
        missed: messages that come now although they are older than the join.
        retry_after: seconds after which the same `since` may succeed, because the engine did not answer in time.
    """

    channel: str
    position: Position | None
    resumed: Literal["new", "full", "partial", "failed"]
    missed: int = 0
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a member of a channel with presence is.

    Parameters:
        member: a name that is its own, such as the id of a user: 1 to 128 bytes of UTF-8, no control characters. All
            connections with this name are one member.
        info: what others are told of it: anything that makes at most 1 KiB of JSON. If connections of one member have
            different ones, it is that of one of them.

    Raises:
        TypeError, ValueError: a parameter is not what it must be.
    """

    member: str
    info: Any = None
    payload: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.member, str):
            raise TypeError(f"member must be a str, not {type(self.member).__qualname__}")
        try:
            size = len(self.member.encode())
        except UnicodeEncodeError:
            raise ValueError("member must be Unicode text") from None
        if not 1 <= size <= MEMBER_BYTES:
            raise ValueError(f"member must have 1 to {MEMBER_BYTES} bytes in UTF-8, not {size}")
        if _CONTROL.search(self.member):
            raise ValueError(f"member must have no control characters, as {self.member!r} has")
        try:
            payload = msgspec.json.encode(self.info)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise TypeError(f"info of {self.member!r} must be what JSON can say: {exc}") from None
        if len(payload) > INFO_BYTES:
            raise ValueError(f"info of {self.member!r} must be at most {INFO_BYTES} bytes of JSON, not {len(payload)}")
        object.__setattr__(self, "payload", payload)


class PresenceEvent(msgspec.Struct, frozen=True, gc=False):
    """A notice to members of a channel with presence that a member came or went. One may be lost: the list is right.

    Attributes:
        channel: the channel's name.
        kind: `"in"`: a member's first connection, of all processes, has joined; `"out"`: its last one has gone, and has
            not come back; `"changed"`: the list is another one, and single changes are not told, since there are, or
            were, more than 1,000 members: ask for it again.
        member: the name of who came or went; empty for `"changed"`.
        payload: what is known of who came, as JSON.
    """

    channel: str
    kind: Literal["in", "out", "changed"]
    member: str = ""
    payload: bytes = b"null"

    @property
    def info(self) -> Any:
        """What is known of who came."""
        return msgspec.json.decode(self.payload)


@functools.lru_cache(maxsize=1024)  # most messages are for few channels
def name_fault(name: str) -> str | None:
    """Return what is wrong with the name of a channel, or None."""
    if not name:
        return "it is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it isn't Unicode text"
    if size > NAME_BYTES:
        return f"it has {size} bytes, and {NAME_BYTES} are the limit"
    if name[0].isspace() or name[-1].isspace():
        return "it begins or ends with a space"
    if _CONTROL.search(name):
        return "it has control characters"
    if name.startswith(RESERVED):
        return f"{RESERVED!r} is reserved"
    return None


def check_channels(channels: Any) -> None:
    """Check what an application declares: a `Channel` for each prefix.

    Raises:
        TypeError, ValueError: what is wrong with it.
    """
    if not isinstance(channels, Mapping):
        raise TypeError(f"channels must be a dict of prefixes and Channels, not {type(channels).__qualname__}")
    for prefix, policy in channels.items():
        if not isinstance(prefix, str):
            raise TypeError(f"channels must have prefixes of names as keys, not {prefix!r}")
        if not isinstance(policy, Channel):
            raise TypeError(f"channels[{prefix!r}] must be a Channel, not {policy!r}")
        # "" is the default of the rest; a prefix may end with a space, though a name may not.
        fault = name_fault(prefix.rstrip(" ")) if prefix else None
        if fault is not None:
            raise ValueError(f"channels: {prefix!r} is no prefix of a name: {fault}")
