"""Connections as members of channels: joins, leaves, and the messages of channels in their write buffers.

    ConnectionMember    one connection, in all its channels
    ConnectionTable     the members of one channel, most of which are connections: each message is framed once

What must not live here: order and repairs (bus/), the envelope for browsers (enveloped.py).
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypedDict

from .._core.members import Participant, Table
from ..bus.members import MemberTable
from ..channels import Gap, Identity, Joined, Message, Position, PresenceEvent
from ..exceptions import ConnectionClosed, ProtocolError, TooManyChannels
from ..frames import CloseCode, Opcode
from ..protocol import State

if TYPE_CHECKING:
    from ..bus.bus import Bus
    from ..bus.members import Member
    from .connection import Connection

__all__ = ["ConnectionMember", "ConnectionTable", "JoinHow", "OnGap", "OnPresence"]

OnGap = Callable[[Any, Gap], Awaitable[None] | None]
"""What a handler does about missing messages: called with the connection and the notice."""

OnPresence = Callable[[Any, PresenceEvent], Awaitable[None] | None]
"""What a handler does when a member comes or goes: called with the connection and the notice."""


class JoinHow(TypedDict, total=False):
    """How channels are joined: see `ServerConnection.join()`."""

    last: int
    on_gap: OnGap | None
    member: str | None
    info: Any
    on_presence: OnPresence | None


RETURNING: Final = frozenset({CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER})
"""Codes by which a server sends clients to another process, or to come again: they are not gone."""


class ConnectionMember(Participant):
    """A connection as a member of channels.

    Args:
        connection: an open one.
        bus: of its server.

    Attributes:
        enveloped: whether the client is sent frames of the subprotocol instead of what was published.
    """

    enveloped: ClassVar[bool] = False

    __slots__ = (
        "_behind",
        "_behind_bytes",
        "_catching_up",
        "_channels",
        "_on_presence",
        "_tasks",
        "_waiting",
        "_waiting_task",
        "bus",
    )

    if TYPE_CHECKING:
        connection: Connection

    def __init__(self, connection: Connection, bus: Bus) -> None:
        super().__init__(connection, bus.name_sender(), bus.limits.member)
        self.bus = bus
        self._channels: dict[str, OnGap | None] = {}
        # Most never need these, and they are larger than all the rest.
        self._behind: deque[tuple[str, Opcode, bytes]] | None = None  # waits for the end of a fragmented message
        self._behind_bytes = 0
        self._catching_up: asyncio.Task[None] | None = None
        self._waiting: dict[str, None] = {}  # channels that wait for room in the write buffer
        self._waiting_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] | None = None
        self._on_presence: dict[str, OnPresence] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that it has joined, or is joining."""
        return tuple(self._channels)

    async def join(
        self,
        channels: Mapping[str, Position | str | None],
        last: int,
        on_gap: OnGap | None,
        identity: Identity | None = None,
    ) -> dict[str, Joined]:
        """Join channels; all of them, or none.

        Raises:
            InvalidChannel, TooManyChannels: it is not possible.
            BusDown: the engine is away.
        """
        new = [channel for channel in channels if channel not in self._channels]
        limit = self.bus.limits.per_connection
        if len(self._channels) + len(new) > limit:
            raise TooManyChannels(limit, "a connection")
        self._channels.update(dict.fromkeys(channels, on_gap))
        try:
            return await self.bus.join(self, channels, last, identity)
        except BaseException:
            for channel in channels:
                self._channels.pop(channel, None)
                self.heed(channel, None)
            raise

    def identify(
        self, channels: Collection[str], member: str | None, info: Any, on_presence: OnPresence | None
    ) -> Identity | None:
        """Return as whom it joins channels, if that is given, and take note of what is to be called.

        Raises:
            BusError: none of them has presence.
            TypeError, ValueError: for a wrong member or info.
        """
        named = member is not None or info is not None
        if named or on_presence is not None:
            self.bus.must_have_presence(channels)
        identity = Identity(member, info) if named else None  # type: ignore[arg-type]  # it says what is wrong
        for channel in channels:
            self.heed(channel, on_presence)
        return identity

    def heed(self, channel: str, on_presence: OnPresence | None) -> None:
        """Call a function whenever a member comes to a channel or goes; None: no longer."""
        if on_presence is not None:
            self._on_presence = {**(self._on_presence or {}), channel: on_presence}
        elif self._on_presence is not None:
            self._on_presence.pop(channel, None)

    def leave(self, channel: str) -> None:
        """Leave a channel; one that was not joined is left already."""
        self._leave(channel)

    def remove(self, channel: str) -> None:
        """Leave a channel: it is to have this member no more."""
        self._leave(channel, removed=True)

    def _leave(self, channel: str, *, returns: bool = False, removed: bool = False) -> None:
        self._channels.pop(channel, None)
        self.heed(channel, None)
        self.bus.leave(self, channel, returns=returns, removed=removed)

    def end(self) -> None:
        """Leave all: the connection is closing."""
        closing = self.connection._closing
        sent = closing.sent if closing is not None and closing.rcvd is None else None
        returns = sent is not None and sent.code in RETURNING
        for channel in list(self._channels):
            self._leave(channel, returns=returns)
        for task in self._tasks or ():
            task.cancel()
        self._behind = None

    # What a member does.

    def deliver(self, message: Message) -> bool:
        """Write a message, without waiting; close a client that is too slow."""
        return self.write(message.channel, *self.frame(message))

    def frame(self, message: Message) -> tuple[Opcode, bytes]:
        """Return what a client is sent for a message; the same for all of its kind."""
        return Opcode.TEXT if message.text else Opcode.BINARY, message.payload

    def write(self, channel: str, opcode: Opcode, payload: bytes) -> bool:
        """Write a message of a channel, or one that is of none (""); return False if there is no room for more."""
        connection = self.connection
        if connection.state is not State.OPEN:
            return True
        if self._behind or connection._sending:
            self._put_behind(channel, opcode, payload)
        elif not self._fits(payload):
            self._too_slow(channel)
            return True
        else:
            try:
                connection.send_broadcast(opcode, payload)
            except Exception:
                connection.logger.error("failed to write a channel's message", exc_info=True)
                connection.transport.abort()
                return True
            if not connection.paused:
                return True
        if channel:
            self.wait_for_room(channel)
        return False

    def can_take(self, message: Message) -> bool:
        """Return whether a message can be written now; if not, the bus is told when that may be."""
        connection = self.connection
        if connection.state is not State.OPEN:
            return True
        if not self._behind and not connection._sending and self._fits(self.frame(message)[1]):
            return True
        self.wait_for_room(message.channel)
        return False

    def _fits(self, payload: bytes) -> bool:
        connection = self.connection
        return not connection.paused or connection.transport.get_write_buffer_size() + len(payload) <= self.limit

    def wait_for_room(self, channel: str) -> None:
        """Tell the bus when there is room for more of a channel."""
        self._waiting[channel] = None
        if self._waiting_task is None:
            self._waiting_task = self._run(self._wait_for_room())

    def gap(self, gap: Gap) -> None:
        """Tell the handler, or close: a client that knows nothing of positions must not believe that it has all."""
        on_gap = self._channels.get(gap.channel)
        if on_gap is not None:
            self._call("on_gap", on_gap, gap)
        elif gap.position is not None:
            self.bus.counts.closes["gap"] += 1
            self.close(CloseCode.TRY_AGAIN_LATER, _short(f"missed messages in {gap.channel}"))

    def presence(self, event: PresenceEvent) -> None:
        """Tell the handler, if it asked for that: the client gets what is published, and nothing else."""
        on_presence = None if self._on_presence is None else self._on_presence.get(event.channel)
        if on_presence is not None:
            self._call("on_presence", on_presence, event)

    def _call(self, name: str, function: Callable[[Any, Any], Awaitable[None] | None], notice: object) -> None:
        try:
            result = function(self.connection, notice)
        except Exception:
            self.connection.logger.error("%s failed", name, exc_info=True)
            return
        if inspect.isawaitable(result):
            self._run(self._await(name, result))

    def close(self, code: int, reason: str) -> None:
        """Close the connection, and do not wait."""
        try:
            self.connection.start_closing(code, reason)
        except ProtocolError as exc:
            self.connection.logger.warning("members cannot be closed so: %s", exc)

    def _too_slow(self, channel: str) -> None:
        self.bus.records.slow()
        self.close(CloseCode.TRY_AGAIN_LATER, _short(f"too slow for {channel}" if channel else "too slow"))

    # What waits.

    def _run(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.connection.loop.create_task(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _await(self, name: str, result: Awaitable[None]) -> None:
        try:
            await result
        except Exception:
            self.connection.logger.error("%s failed", name, exc_info=True)

    async def _wait_for_room(self) -> None:
        connection = self.connection
        try:
            while self._waiting:
                # One by one: what a channel is given may take the room of the next one.
                if self._catching_up is not None:
                    await asyncio.wait({self._catching_up})
                while connection._send_done is not None:
                    await asyncio.shield(connection._send_done)
                await connection._drain()
                channel = next(iter(self._waiting))
                del self._waiting[channel]
                self.bus.drained(self, channel)
        except ConnectionClosed:
            return
        finally:
            self._waiting_task = None

    def _put_behind(self, channel: str, opcode: Opcode, payload: bytes) -> None:
        """Keep a message until the fragmented one that is being sent ends."""
        self._behind_bytes += len(payload)
        if self._behind_bytes > self.limit:
            self._too_slow(channel)
            return
        if self._behind is None:
            self._behind = deque()
        self._behind.append((channel, opcode, payload))
        self._mark()
        if len(self._behind) == 1:
            self._catching_up = self._run(self._catch_up(self._behind))

    async def _catch_up(self, behind: deque[tuple[str, Opcode, bytes]]) -> None:
        try:
            while behind:
                channel, opcode, payload = behind[0]
                if not channel or channel in self._channels:
                    await self.connection.send(payload, text=opcode == Opcode.TEXT)
                behind.popleft()
                self._behind_bytes -= len(payload)
            self._mark()
        except ConnectionClosed:
            return

    def _mark(self) -> None:
        """Have tables know whether something waits that must come before the next message."""
        self.is_behind = bool(self._behind)


class ConnectionTable:
    """The members of one channel. Connections that can take a message at once get it from native code."""

    __slots__ = ("_enveloped", "_others", "_plain")

    def __init__(self) -> None:
        self._plain: Table[ConnectionMember] = Table()
        self._enveloped: Table[ConnectionMember] = Table()
        self._others = MemberTable()

    def _table_of(self, member: Member) -> Table[Any] | MemberTable:
        if isinstance(member, ConnectionMember):
            return self._enveloped if member.enveloped else self._plain
        return self._others

    def add(self, member: Member) -> None:
        """Add a member that is not there."""
        self._table_of(member).add(member)

    def discard(self, member: Member) -> bool:
        """Remove a member; return whether it was there."""
        return self._table_of(member).discard(member)

    def fan_out(self, message: Message, latest: bool) -> dict[Member, bool]:
        """Give a message to all, but for its sender if that is excluded; return those who have no room for more."""
        full: dict[Member, bool] = {}
        for table in (self._plain, self._enveloped):
            if table.first is not None:
                full |= _give(table, table.first, message, latest)
        if len(self._others):
            full |= self._others.fan_out(message, latest)
        return full

    def tell(self, gap: Gap) -> None:
        """Give a notice to all."""
        for table in (self._plain, self._enveloped):
            for member in table:
                member.gap(gap)
        self._others.tell(gap)

    def __contains__(self, member: object) -> bool:
        return member in self._plain or member in self._enveloped or member in self._others

    def __iter__(self) -> Iterator[Member]:
        yield from self._plain
        yield from self._enveloped
        yield from self._others

    def __len__(self) -> int:
        return len(self._plain) + len(self._enveloped) + len(self._others)


def _give(
    table: Table[ConnectionMember], first: ConnectionMember, message: Message, latest: bool
) -> dict[Member, bool]:
    """Give a message to members that are sent the same; see `Members.fan_out()`."""
    opcode, payload = first.frame(message)
    taken, slowly, failed = table.give(opcode, payload, message.sender if message.exclude else None, latest)
    for connection, reason in failed:
        connection.logger.warning("failed to write a channel's message: %s", reason)
    for member in taken:
        member.wait_for_room(message.channel)
    full: dict[Member, bool] = dict.fromkeys(taken, True)
    for member in slowly:
        if member not in table:
            continue
        if latest and not member.can_take(message):
            full[member] = False
        elif not member.deliver(message):
            full[member] = True
    return full


def _short(reason: str) -> str:
    """Return a reason that fits a close frame."""
    return reason.encode()[:120].decode(errors="ignore")
