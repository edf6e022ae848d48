"""Connections that use the subprotocol `tidegate.v1` as members of channels: what they are sent are frames of it.

    EnvelopedMember    one connection, in all its channels
    FrameCache         frames of messages, each made once for all members
    make_member        the member that a connection is, by its subprotocol

What must not live here: what clients ask for and who may (channel_handler.py), how frames look (bus/envelope.py).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakKeyDictionary

from ..bus.envelope import SUBPROTOCOL, event_frame, gap_frame, joined_frame, left_frame, message_frame
from ..channels import Gap, Identity, Joined, Message, Position, PresenceEvent
from ..exceptions import BusError, TooManyChannels
from ..frames import Opcode
from ..protocol import State
from .membership import ConnectionMember, OnGap

if TYPE_CHECKING:
    from ..bus.bus import Bus
    from .connection import Connection

__all__ = ["EnvelopedMember", "FrameCache", "make_member"]

CACHED_FRAMES: Final = 256
CACHED_BYTES: Final = 2**20
"""Frames that are kept, so that members who are given the same messages in turn share them; the last one always is."""

Answer = Joined | BusError | str


class FrameCache:
    """Frames of the latest messages of a bus."""

    __slots__ = ("_bytes", "_frames", "_notice")

    def __init__(self) -> None:
        self._frames: dict[int, tuple[Message, Opcode, bytes]] = {}  # by the message's id(), which it keeps alive
        self._bytes = 0
        self._notice: tuple[PresenceEvent | None, bytes] = (None, b"")

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, message: Message, whole: bool) -> tuple[Opcode, bytes]:
        """Return the frame of a message.

        Args:
            message: from the bus.
            whole: whether it has the whole position.
        """
        known = self._frames.get(id(message))
        if known is not None:
            return known[1:]
        payload, text = message_frame(message, whole)
        opcode = Opcode.TEXT if text else Opcode.BINARY
        self._frames[id(message)] = message, opcode, payload
        self._bytes += len(payload)
        while len(self._frames) > CACHED_FRAMES or (self._bytes > CACHED_BYTES and len(self._frames) > 1):
            self._bytes -= len(self._frames.pop(next(iter(self._frames)))[2])
        return opcode, payload

    def notice(self, event: PresenceEvent) -> bytes:
        """Return the frame of a notice that a member came or went."""
        if self._notice[0] is not event:
            self._notice = event, event_frame(event)
        return self._notice[1]


_CACHES: WeakKeyDictionary[Bus, FrameCache] = WeakKeyDictionary()


def _cache_of(bus: Bus) -> FrameCache:
    """Return the cache that all members of the channels of a bus share."""
    cache = _CACHES.get(bus)
    if cache is None:
        cache = _CACHES[bus] = FrameCache()
    return cache


class _JoinCommand:
    """A join that is not answered for all its channels."""

    __slots__ = ("answers", "id", "told", "waiting")

    def __init__(self, id: int | None, waiting: set[str], told: asyncio.Future[None] | None) -> None:
        self.id = id
        self.waiting = waiting
        self.answers: dict[str, Answer] = {}  # that the client has not been told
        self.told = told


class EnvelopedMember(ConnectionMember):
    """A connection that uses the subprotocol, as a member of channels.

    Args:
        connection: an open one.
        bus: of its server.
    """

    __slots__ = ("_cache", "_untold")

    enveloped: ClassVar[bool] = True

    def __init__(self, connection: Connection, bus: Bus) -> None:
        super().__init__(connection, bus)
        self._cache = _cache_of(bus)
        self._untold: dict[_JoinCommand, None] = {}  # with answers that wait for others of the same command

    def start_join(
        self,
        channels: Mapping[str, Position | str | None],
        last: int,
        id: int | None,
        refused: Mapping[str, Answer] | None = None,
        told: asyncio.Future[None] | None = None,
        identities: Mapping[str, Identity] | None = None,
    ) -> dict[str, Answer]:
        """Join channels, each for itself, without waiting: the client is told how, in one frame where that is possible.

        An answer comes before the first message of its channel: if that cannot wait, before those of the others.

        Args:
            channels, last: as for `join()`.
            id: of the command.
            refused: answers for other channels, which are not to be joined.
            told: gets a result when all are answered.
            identities: who the member is, in channels with presence.

        Returns:
            The answers, which are complete when all are told.
        """
        command = _JoinCommand(id, set(channels), told)
        limit = self.bus.limits.per_connection
        answers: dict[str, Answer] = dict(refused or {})
        command.answers.update(answers)
        for channel, since in channels.items():
            answer = functools.partial(self._answer, command, answers, channel)
            if channel not in self._channels and len(self._channels) >= limit:
                answer(TooManyChannels(limit, "a connection"))
                continue
            self._channels[channel] = None
            try:
                self.bus.start_join(self, channel, answer, since, last, (identities or {}).get(channel))
            except BusError as exc:
                answer(exc)
        if not channels:
            self._tell(command)
        return answers

    async def join(
        self,
        channels: Mapping[str, Position | str | None],
        last: int,
        on_gap: OnGap | None,
        identity: Identity | None = None,
    ) -> dict[str, Joined]:
        """Join channels for the client, who is told; all of them, or none. It is told of gaps, too, before `on_gap` is.

        Raises:
            InvalidChannel, TooManyChannels: it is not possible.
            BusDown: the engine is away.
        """
        told = self.connection.loop.create_future()
        identities = dict.fromkeys(channels, identity) if identity is not None else None
        answers = self.start_join(channels, last, None, None, told, identities)
        for channel in channels:
            if channel in self._channels:
                self._channels[channel] = on_gap
        try:
            await told
            joined = {channel: answer for channel, answer in answers.items() if isinstance(answer, Joined)}
            for answer in answers.values():
                if isinstance(answer, BusError):
                    raise answer
        except BaseException:
            for channel in channels:
                self.leave(channel)
            raise
        return joined

    def leave(self, channel: str) -> None:
        """Leave a channel that the client did not ask to leave: it is told."""
        if channel in self._channels:
            self.drop(channel)
            if self.connection.state is State.OPEN:
                self.send_frame(left_frame(channel, "left"))

    def remove(self, channel: str) -> None:
        """Leave a channel that is to have this member no more: the client is told."""
        if channel in self._channels:
            super().remove(channel)
            self.send_frame(left_frame(channel, "removed"))

    def drop(self, channel: str) -> None:
        """Leave a channel that the client asked to leave."""
        super().leave(channel)

    def send_frame(self, frame: bytes) -> None:
        """Write a frame that is no message of a channel."""
        self.write("", Opcode.TEXT, frame)

    # What a member does.

    def deliver(self, message: Message) -> bool:
        """Write a message, without waiting; close a client that is too slow."""
        self._tell_all()
        return super().deliver(message)

    def frame(self, message: Message) -> tuple[Opcode, bytes]:
        """Return the frame of a message; it is made once."""
        # Members of a channel whose messages count one by one are told by a notice that the epoch is another.
        return self._cache.frame(message, self.bus.policy_of(message.channel).recover == "latest")

    def gap(self, gap: Gap) -> None:
        """Tell the client, and the handler if it asked for that."""
        self._tell_all()
        self.write(gap.channel, Opcode.TEXT, gap_frame(gap))
        if self._channels.get(gap.channel) is not None:
            super().gap(gap)

    def presence(self, event: PresenceEvent) -> None:
        """Tell the client, and the handler if it asked for that."""
        self._tell_all()
        self.send_frame(self._cache.notice(event))
        super().presence(event)

    # Answers to joins.

    def _answer(
        self, command: _JoinCommand, answers: dict[str, Answer], channel: str, answer: Joined | BusError
    ) -> None:
        if isinstance(answer, BusError):
            self._channels.pop(channel, None)
        answers[channel] = command.answers[channel] = answer
        command.waiting.discard(channel)
        if command.waiting:
            self._untold[command] = None
            self._mark()
        else:
            self._tell(command)

    def _tell(self, command: _JoinCommand) -> None:
        self._untold.pop(command, None)
        self._mark()
        self.send_frame(joined_frame(command.answers, command.id))
        command.answers = {}
        if not command.waiting and command.told is not None and not command.told.done():
            command.told.set_result(None)

    def _tell_all(self) -> None:
        for command in list(self._untold):
            self._tell(command)

    def _mark(self) -> None:
        self.is_behind = bool(self._behind or self._untold)


def make_member(connection: Connection, bus: Bus) -> ConnectionMember:
    """Return a connection as a member of channels: with the subprotocol it is sent frames, else what is published."""
    kind = EnvelopedMember if connection.subprotocol == SUBPROTOCOL else ConnectionMember
    return kind(connection, bus)
