"""`memory://`: the engine within one process, for the library without a daemon, and for tests.

    Store           channels, their histories, and which brokers have subscribed them
    MemoryBroker    the verbs; those of one event loop with the same URL share a store, until the last one closes

History is limited by number, age and bytes, what is on its way by bytes. What must not live here: anything that another
process could see.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple
from weakref import WeakKeyDictionary

from ..channels import Channel, Message, Position
from ..exceptions import BusBusy, BusDown, BusError
from .base import SLICE_BYTES, SLICE_MESSAGES, Broker, Deliver, Presence, Publication, Slice, State, Tell, new_epoch
from .policies import Policies
from .tail import OVERHEAD, offset_of

__all__ = ["MemoryBroker"]

QUEUE_BYTES: Final = 2**23
"""Bytes on their way to the members; more are published once those have got there."""

REMEMBERED: Final = 2**16
"""Channels without stored messages and subscribers, whose numbers go on all the same."""

LEASE: Final = 30.0
"""Seconds for which names are in force that a broker has told before it ended."""

KEY_SECONDS: Final = 300.0
KEYS: Final = 1000
"""Keys of publishers that a channel remembers."""


class _Key(NamedTuple):
    time: float
    position: Position


class _Stored:
    """One channel with history."""

    __slots__ = ("bytes", "epoch", "keys", "messages", "top")

    def __init__(self) -> None:
        self.epoch = new_epoch()
        self.top = 0
        self.messages: deque[tuple[float, Message]] = deque()
        self.bytes = 0
        self.keys: OrderedDict[str, _Key] = OrderedDict()

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.top)

    def append(self, message: Message, policy: Channel, now: float) -> None:
        self.messages.append((now, message))
        self.bytes += len(message.payload)
        self.trim(policy, now)

    def trim(self, policy: Channel, now: float) -> None:
        """Let go of what is too much or too old; the last message is not too much."""
        messages = self.messages
        while messages and (
            len(messages) > policy.history
            or (self.bytes > policy.history_bytes and len(messages) > 1)
            or messages[0][0] <= now - policy.keep
        ):
            self.bytes -= len(messages.popleft()[1].payload)
        while self.keys and (len(self.keys) > KEYS or next(iter(self.keys.values())).time <= now - KEY_SECONDS):
            self.keys.popitem(last=False)


class Store:
    """Channels of one process."""

    def __init__(self) -> None:
        self.subscribers: dict[str, dict[MemoryBroker, None]] = {}
        self.brokers: dict[MemoryBroker, None] = {}
        self.left: list[tuple[float, dict[str, Presence]]] = []  # last snapshots of brokers that have ended, until when
        self._channels: OrderedDict[str, _Stored] = OrderedDict()  # least recently used first

    def channel(self, name: str) -> _Stored:
        """Return a channel with history; one that was not used for long may be forgotten for it."""
        stored = self._channels.get(name)
        if stored is None:
            stored = self._channels[name] = _Stored()
        self._channels.move_to_end(name)
        return stored

    def forget(self, policies: Policies, now: float) -> None:
        """Let go of what is too old in the channels that were not used for longest, and of some that are empty."""
        for _ in range(2):
            name, stored = next(iter(self._channels.items()))
            stored.trim(policies.of(name), now)
            if not stored.messages and name not in self.subscribers and len(self._channels) > REMEMBERED:
                del self._channels[name]
            else:
                self._channels.move_to_end(name)


_STORES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Store]] = WeakKeyDictionary()


class MemoryBroker(Broker):
    """The engine within one process.

    Args:
        url: `memory://` or `memory://NAME`.
        policies: of the channels.
    """

    gapless: ClassVar[bool] = True

    def __init__(self, url: str, policies: Policies) -> None:
        self._url = url
        self._policies = policies
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop
        self._deliver: Deliver
        self._queue: list[Message] = []
        self._queued = 0
        self._snapshot: dict[str, Presence] = {}
        self._told_at = 0.0

    async def start(self, deliver: Deliver, tell: Tell) -> None:
        """Share the store of the URL; the state is up until the end."""
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        stores = _STORES.setdefault(self._loop, {})
        self._store = stores.setdefault(self._url, Store())
        self._store.brokers[self] = None
        tell(State("up", 1))

    async def close(self) -> None:
        """Deliver what is on its way, and leave the store, which ends with its last broker."""
        store, self._store = self._store, None
        if store is None:
            return
        self._flush()
        for subscribers in store.subscribers.values():
            subscribers.pop(self, None)
        store.brokers.pop(self)
        store.left.append((self._told_at + LEASE, self._snapshot))
        if not store.brokers:
            _STORES[self._loop].pop(self._url, None)

    @property
    def _open(self) -> Store:
        if self._store is None:
            raise BusDown("it is not started, or closed")
        return self._store

    async def subscribe(self, channels: Sequence[str]) -> Sequence[Position | None]:
        """Subscribe; what is published from now on is delivered."""
        for channel in channels:
            self._open.subscribers.setdefault(channel, {})[self] = None
        return await self.tops(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Unsubscribe; what is on its way is not delivered any more."""
        if self._store is None:
            return
        gone = set(channels)
        for channel in gone:
            subscribers = self._store.subscribers.get(channel, {})
            subscribers.pop(self, None)
            if not subscribers:
                self._store.subscribers.pop(channel, None)
        self._queue = [message for message in self._queue if message.channel not in gone]

    async def publish(self, batch: Sequence[Publication], wait: float) -> Sequence[Position | BusError | None]:
        """Store and queue, in one step."""
        results: list[Position | BusError | None] = []
        for publication in batch:
            store = self._open
            if any(broker._queued > QUEUE_BYTES for broker in store.subscribers.get(publication.channel, ())):
                if wait <= 0:
                    results.append(BusBusy(publication.channel, wait))
                    continue
                await asyncio.sleep(0)  # what is queued is delivered
            results.append(self._publish(store, publication))
        return results

    def _publish(self, store: Store, publication: Publication) -> Position | None:
        channel = publication.channel
        policy = self._policies.of(channel)
        position: Position | None = None
        stored: _Stored | None = None
        now = time.monotonic()
        if policy.history:
            stored = store.channel(channel)
            stored.trim(policy, now)
            if publication.key is not None:
                known = stored.keys.get(publication.key)
                if known is not None:
                    return known.position
            stored.top += 1
            position = stored.position
            if publication.key is not None:
                stored.keys[publication.key] = _Key(now, position)
        message = Message(
            channel,
            publication.payload,
            publication.text,
            position,
            publication.sender,
            time.time(),
            publication.json,
            publication.exclude,
        )
        if stored is not None:
            stored.append(message, policy, now)
            store.forget(self._policies, now)
        for broker in store.subscribers.get(channel, ()):
            broker._push(message)
        return position

    def _push(self, message: Message) -> None:
        if not self._queue:
            self._loop.call_soon(self._flush)
        self._queue.append(message)
        self._queued += len(message.payload) + OVERHEAD

    def _flush(self) -> None:
        queue, self._queue, self._queued = self._queue, [], 0
        if queue:
            self._deliver(queue)

    async def read(
        self, channel: str, after: Position | None, limit: int = SLICE_MESSAGES, before: Position | None = None
    ) -> Slice:
        """Read what is stored; a channel without history has nothing."""
        stored = self._open.channel(channel)
        stored.trim(self._policies.of(channel), time.monotonic())
        top = stored.position
        limit = min(limit, SLICE_MESSAGES)
        messages = [message for _, message in stored.messages]
        first = top.offset - len(messages)  # the place before the first that is stored
        if after is not None:
            if after.epoch != top.epoch or after.offset > top.offset:
                return Slice([], top, False)
            return Slice(_some(messages[max(0, after.offset - first) :], limit), top, after.offset >= first)
        if before is not None:
            if before.epoch != top.epoch:
                return Slice([], top, False)
            messages = [message for message in messages if offset_of(message) < before.offset]
        newest = _some(reversed(messages), limit)[::-1]
        return Slice(newest, top, first == 0 and len(newest) == len(messages))

    async def tops(self, channels: Sequence[str]) -> Sequence[Position | None]:
        """Return the positions; a channel that is new begins."""
        store = self._open
        return [store.channel(one).position if self._policies.of(one).history else None for one in channels]

    async def beat(self, snapshot: Mapping[str, Presence]) -> None:
        """Tell who is in which channel."""
        self._snapshot = dict(snapshot) if self._open else {}
        self._told_at = time.monotonic()

    async def present(self, channel: str) -> Presence:
        """Return who is in a channel."""
        store, now = self._open, time.monotonic()
        store.left = [(until, snapshot) for until, snapshot in store.left if until > now]
        here = [found for broker in store.brokers if (found := broker._snapshot.get(channel)) is not None]
        gone = [found for _, snapshot in store.left if (found := snapshot.get(channel)) is not None]
        members: dict[str, bytes] = {}
        for one in (*gone, *here):
            members.update(one.members or {})
        return Presence(sum(one.connections for one in here), members or None)


def _some(messages: Iterable[Message], limit: int) -> list[Message]:
    """Return the first messages, by number and bytes; at least one."""
    some: list[Message] = []
    size = 0
    for message in messages:
        size += len(message.payload)
        if len(some) >= limit or (some and size > SLICE_BYTES):
            break
        some.append(message)
    return some
