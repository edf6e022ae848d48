"""Messages as Redis has them, and what a process knows of the channels that they are in.

    RedisChannel     a channel: names of its keys, how far it has come, what is published and not acknowledged
    RedisChannels    all of a process; those that are neither subscribed nor published to are forgotten at some time
    Entry            a publication that is sent until the server has stored it
    pack, unpack     what is published on Redis's channels: a head, then the payload
    from_entry       a message of a stream

The head is written by the script that stores messages, too (redis_scripts.py). What must not live here: connections.
"""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..channels import Channel, Message, Position
from ..exceptions import BusError
from .base import Publication
from .link_state import Call
from .policies import Policies
from .redis_url import RedisUrl
from .tail import OVERHEAD

__all__ = ["Entry", "RedisChannel", "RedisChannels", "flags_of", "from_entry", "pack", "unpack"]

IDLE_CHANNELS: Final = 2**16
"""Channels that are known though not subscribed; how far they have come is what a failover is checked by."""

META_SECONDS: Final = 86400
"""Seconds for which a channel keeps its epoch after its last message, or longer, if messages are kept longer."""

EXACT: Final = 100
"""Messages of history up to which no older ones are kept; with more, Redis removes whole nodes, which is cheaper."""

_HEAD = struct.Struct(">BBQQBB")  # version, flags, offset, time in microseconds, bytes of the epoch, of the sender
_VERSION: Final = 1
_TEXT, _JSON, _EXCLUDE = 1, 2, 4


class RedisChannel:
    """A channel.

    Attributes:
        name: its name.
        wire: the name of Redis's channel.
        meta, stream: the names of its keys.
        policy: the channel's.
        subscribed: whether its messages are wanted.
        epoch, offset, time: of the highest message that is known; the epoch as bytes, empty if there is none.
        epoch_text: the epoch, so that one text is made per epoch and not per message.
        last: the newest publication that is not acknowledged.
    """

    __slots__ = (
        *("epoch", "epoch_text", "meta", "last", "name", "offset", "policy", "stream", "subscribed", "time"),
        *("wire",),
    )

    def __init__(self, name: str, url: RedisUrl, policy: Channel) -> None:
        self.name = name
        self.policy = policy
        self.wire = f"{url.channel_prefix}{name}".encode()
        self.meta = f"{url.prefix}m:{name}".encode()
        self.stream = f"{url.prefix}h:{name}".encode()
        self.subscribed = False
        self.epoch, self.offset, self.time, self.epoch_text = b"", 0, 0, ""
        self.last: Entry | None = None

    def position(self, epoch: bytes, offset: int) -> Position:
        """Return a position."""
        return Position(self.epoch_text if epoch == self.epoch else epoch.decode("ascii"), offset)

    def reached(self, epoch: bytes, offset: int, when: int) -> None:
        """Take it that the channel has come so far."""
        if epoch != self.epoch:
            self.epoch, self.epoch_text = epoch, epoch.decode("ascii")
        elif offset <= self.offset:
            return
        self.offset, self.time = offset, when

    @property
    def meta_milliseconds(self) -> int:
        """For how long its meta data are kept."""
        return 1000 * int(max(META_SECONDS, 2 * self.policy.keep))

    @property
    def trim(self) -> bytes:
        """How exactly its history is limited by number."""
        return b"=" if self.policy.history <= EXACT else b"~"


class Entry:
    """A publication that is sent until the server has stored it.

    Attributes:
        channel, publication, sequence: what it is.
        call, index: where its result goes.
        before, after: the ones of its channel that are not acknowledged either; each is sent with the sequence of the
            one before it, which is to be stored first.
        position: where it is stored, once that is known.
        sent: whether it may have got to a server.
    """

    __slots__ = ("after", "before", "call", "channel", "index", "position", "publication", "sent", "sequence")

    def __init__(self, channel: RedisChannel, publication: Publication, sequence: int, call: Call, index: int) -> None:
        self.channel, self.publication, self.sequence = channel, publication, sequence
        self.call, self.index = call, index
        self.position: Position | None = None
        self.sent = False
        self.before: Entry | None = channel.last
        self.after: Entry | None = None
        if self.before is not None:
            self.before.after = self
        channel.last = self

    @property
    def size(self) -> int:
        """What it takes, about; an empty message is not nothing."""
        return len(self.publication.payload) + OVERHEAD

    def settle(self, result: Position | BusError) -> None:
        """Give the result; it is not sent any more."""
        if self.before is not None:
            self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before
        if self.channel.last is self:
            self.channel.last = self.before
        self.before = self.after = None
        self.call.settle(self.index, result)


class RedisChannels:
    """The channels of a process.

    Parameters:
        url: with the prefixes of names.
        policies: of the channels.
    """

    def __init__(self, url: RedisUrl, policies: Policies) -> None:
        self._url, self._policies = url, policies
        self._by_name: dict[str, RedisChannel] = {}
        self._idle: OrderedDict[str, RedisChannel] = OrderedDict()  # longest idle first
        self.subscribed: dict[bytes, RedisChannel] = {}  # by their names on the wire

    def __iter__(self) -> Iterator[RedisChannel]:
        return iter(self._by_name.values())

    def get(self, name: str) -> RedisChannel:
        """Return the channel of that name."""
        channel = self._by_name.get(name)
        if channel is None:
            channel = self._by_name[name] = RedisChannel(name, self._url, self._policies.of(name))
            self._rest(channel)
        elif not channel.subscribed:
            self._idle.move_to_end(name)
        return channel

    def subscribe(self, channel: RedisChannel) -> None:
        """Have the messages of a channel."""
        channel.subscribed = True
        self.subscribed[channel.wire] = channel
        self._idle.pop(channel.name, None)

    def unsubscribe(self, channel: RedisChannel) -> None:
        """Have them no more."""
        channel.subscribed = False
        if self.subscribed.pop(channel.wire, None) is not None:
            self._rest(channel)

    def _rest(self, channel: RedisChannel) -> None:
        self._idle[channel.name] = channel
        if len(self._idle) > IDLE_CHANNELS:
            name, oldest = self._idle.popitem(last=False)
            if oldest.last is not None:
                self._idle[name] = oldest
            else:
                del self._by_name[name]


def flags_of(publication: Publication) -> int:
    """Return the flags of a publication."""
    return (
        (_TEXT if publication.text else 0)
        | (_JSON if publication.json else 0)
        | (_EXCLUDE if publication.exclude else 0)
    )


def pack(publication: Publication) -> bytes:
    """Return what is published in a channel without history."""
    sender = publication.sender.encode("ascii")
    now = int(time.time() * 1e6)
    return _HEAD.pack(_VERSION, flags_of(publication), 0, now, 0, len(sender)) + sender + publication.payload


def unpack(channel: RedisChannel, data: bytes) -> Message:
    """Return the message that came in a channel; if it is stored, the channel has come so far.

    Raises:
        ValueError, struct.error: it is none.
    """
    version, flags, offset, when, epoch_size, sender_size = _HEAD.unpack_from(data)
    start = 20 + epoch_size
    end = start + sender_size
    if version != _VERSION or len(data) < end:
        raise ValueError("it has another layout")
    position = None
    if epoch_size:
        channel.reached(data[20:start], offset, when)
        position = Position(channel.epoch_text, offset)
    return Message(
        channel.name,
        data[end:],
        flags & _TEXT != 0,
        position,
        data[start:end].decode("ascii") if sender_size else "",
        when / 1e6,
        flags & _JSON != 0,
        flags & _EXCLUDE != 0,
    )


def from_entry(channel: RedisChannel, epoch: str, entry: Sequence[Any]) -> Message:
    """Return a message as the script that reads gives it."""
    offset, payload, flags, when, sender = entry
    return Message(
        channel.name,
        payload,
        flags & _TEXT != 0,
        Position(epoch, offset),
        sender.decode("ascii"),
        when / 1e6,
        flags & _JSON != 0,
        flags & _EXCLUDE != 0,
    )
