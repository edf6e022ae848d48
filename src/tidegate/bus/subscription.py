"""An iterator over a channel's messages, for handlers and tasks.

It holds a bounded number of messages. One that is read too slowly leaves, and joins again from where it stopped: with
history it gets everything all the same, without it is told that something is missing. What must not live here: joins
and repairs (topic.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from ..channels import Channel, Gap, Joined, Message, Position, PresenceEvent
from ..exceptions import BusDown, BusError
from .tail import OVERHEAD

if TYPE_CHECKING:
    from .members import Member
    from .order import Counts
    from .topic import Done

__all__ = ["Subscription"]

QUEUE_MESSAGES: Final = 1000
QUEUE_BYTES: Final = 2**20


class _Bus(Protocol):
    """What it needs of the bus."""

    @property
    def counts(self) -> Counts: ...
    def start_join(
        self, member: Member, channel: str, done: Done, since: Position | str | None = None, last: int = 0
    ) -> None: ...
    def leave(self, member: Member, channel: str, *, returns: bool = ..., removed: bool = ...) -> None: ...
    def drained(self, member: Member, channel: str) -> None: ...
    def enter(self, subscription: Subscription) -> None: ...
    def exit(self, subscription: Subscription) -> None: ...
    def name_sender(self) -> str: ...


class Subscription:
    """An iterator over a channel's messages; in place of what is missing there is a `Gap`.

        async with bus.subscribe("chat:7") as messages:
            async for message in messages:
                if message.gap is None:
                    print(message.data)

    Attributes:
        channel: its name.
        joined: how the channel was joined.
        sender: its name as a member, for `publish(..., exclude=messages)`.
    """

    joined: Joined

    def __init__(self, bus: _Bus, channel: str, since: Position | str | None, last: int, policy: Channel) -> None:
        self.channel = channel
        self.sender = bus.name_sender()
        self._bus = bus
        self._since = since
        self._last = last
        self._history = policy.history > 0
        self._latest = policy.recover == "latest"
        self._queue: deque[Message | Gap] = deque()
        self._bytes = 0
        self._at: Position | None = None  # after what was queued
        self._left = False  # too slow: to be joined again
        self._missed = False  # too slow: something is missing
        self._blocked = False  # the topic waits for room
        self._error: BaseException | None = None
        self._wanted: asyncio.Event = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._bus.enter(self)
        try:
            self.joined = await self._join(self._since, self._last)
        except BaseException:
            self._bus.exit(self)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(BusError("the subscription is over"))
        self._bus.exit(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        """Return the next message, or what is told in place of messages that are missing.

        Raises:
            BusError: the bus was closed.
        """
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._missed:
                self._missed = False
                return Gap(self.channel, None, None, "slow")
            if self._left:
                await self._come_back()
            elif self._blocked:
                self._blocked = False
                self._bus.drained(self, self.channel)
            else:
                self._wanted.clear()
                await self._wanted.wait()
        item = self._queue.popleft()
        if isinstance(item, Message):
            self._bytes -= len(item.payload) + OVERHEAD
        return item

    async def _join(self, since: Position | str | None, last: int, back: bool = False) -> Joined:
        answer: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()

        def done(result: Joined | BusError) -> None:
            if isinstance(result, BusError):
                if not answer.done():
                    answer.set_exception(result)
                return
            if back and result.retry_after is not None:
                self._bus.leave(self, self.channel)  # what it was not given may still be there
            else:
                if back and result.resumed == "failed":
                    self._queue.append(Gap(self.channel, self._at, result.position, "slow"))
                self._at = result.position
            if not answer.done():
                answer.set_result(result)

        self._bus.start_join(self, self.channel, done, since, last)
        return await answer

    async def _come_back(self) -> None:
        """Join again, from where it stopped; if that is not stored any more, it is told by a gap."""
        retry_after: float | None
        try:
            retry_after = (await self._join(self._at, 0, back=True)).retry_after
        except BusDown as exc:
            retry_after = exc.retry_after
        if retry_after is None:
            self._left = False
        else:
            await asyncio.sleep(retry_after)

    # What a member does.

    def can_take(self, message: Message) -> bool:
        """Return True: it has one channel, which waits after `deliver` has said that there is no room."""
        return True

    def deliver(self, message: Message) -> bool:
        """Queue a message, if there is room."""
        size = len(message.payload) + OVERHEAD
        full = len(self._queue) >= QUEUE_MESSAGES or (self._bytes + size > QUEUE_BYTES and bool(self._queue))
        if full and not self._latest:
            if self._history:
                self._left = True
                self._bus.leave(self, self.channel)
            else:
                self._missed = True
                self._bus.counts.dropped += 1
            return True
        self._queue.append(message)
        self._bytes += size
        self._at = message.position
        self._wanted.set()
        self._blocked = self._latest or len(self._queue) >= QUEUE_MESSAGES // 2 or self._bytes >= QUEUE_BYTES // 2
        return not self._blocked

    def gap(self, gap: Gap) -> None:
        """Queue a notice; of several without history one is enough."""
        if gap.position is None and self._queue and self._queue[-1].gap is not None:
            return
        self._queue.append(gap)
        self._at = gap.position
        self._wanted.set()

    def presence(self, event: PresenceEvent) -> None:
        """Say nothing of it: an iterator gives messages, and `presence()` says who is there."""

    def remove(self, channel: str) -> None:
        """End the iteration: the channel is to have this member no more."""
        self.end(BusError(f"{channel} has been left: its members were removed"))
        self._bus.leave(self, channel, removed=True)

    def close(self, code: int, reason: str) -> None:
        """End the iteration: the members of the channel are closed."""
        self.end(BusError(f"{self.channel} was closed to its members: {reason}" if reason else "it was closed"))

    def end(self, error: BaseException) -> None:
        """Raise an error once what is queued was read."""
        self._error = self._error or error
        self._wanted.set()
