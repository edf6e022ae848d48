"""Channel layer of Django Channels over the bus: groups on all workers and machines, without Redis.

    CHANNEL_LAYERS = {"default": {"BACKEND": "tidegate.django.ChannelLayer"}}

The application needs channels for it: ``App(get_asgi_application(), channels={"django:": Channel()})``. A group is a
channel of the bus, and so is what is sent to the consumers of one process. What must not live here: the bus.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from .asyncio.channels import publish, subscribe
from .exceptions import BusError

try:
    from channels.exceptions import ChannelFull
    from channels.layers import BaseChannelLayer
except ImportError as error:
    raise ImportError("tidegate.django needs Django Channels: pip install channels") from error

__all__ = ["ChannelLayer"]

GROUP, PROCESS = "django:group:", "django:process:"

SWEEP_FROM = 1000
"""From so many queues on, a process looks for those of channels that are read no more."""


class ChannelLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer, as CHANNEL_LAYERS names it.

    Parameters:
        expiry: seconds after which a message that is not received is dropped.
        capacity: messages that may wait in a channel.
        channel_capacity: by pattern of the channel's name, another capacity.
    """

    extensions = ("groups", "flush")

    def __init__(
        self, expiry: float = 60, capacity: int = 100, channel_capacity: Mapping[Any, int] | None = None
    ) -> None:
        super().__init__(expiry, capacity)
        self.channel_capacity: Any = self.compile_capacities(channel_capacity or {})
        self._here: WeakKeyDictionary[asyncio.AbstractEventLoop, _Process] = WeakKeyDictionary()

    @property
    def _process(self) -> _Process:
        loop = asyncio.get_running_loop()
        found = self._here.get(loop)
        if found is None:
            found = self._here[loop] = _Process(self)
        return found

    # Channels.

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel, which this process receives."""
        process = self._process
        await process.listen(PROCESS + process.name)
        return f"{prefix}.{process.name}!{uuid.uuid4().hex}"

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel, of whatever process.

        Raises:
            ChannelFull: too many messages wait in it; it is known of channels of this process.
            TypeError, ValueError: the name is none, or of no process.
        """
        self.require_valid_channel_name(channel)
        name = _process_of(channel)
        if name != self._process.name:
            await publish(PROCESS + name, msgspec.msgpack.encode({"channel": channel, "message": message}))
        elif not self._process.put(channel, message):
            raise ChannelFull

    async def receive(self, channel: str) -> dict[str, Any]:
        """Receive the next message of a channel of this process."""
        self.require_valid_channel_name(channel)
        if _process_of(channel) != self._process.name:
            raise ValueError(f"{channel} is of another process, which receives its messages")
        return await self._process.receive(channel)

    # Groups.

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group; once it returns, the channel gets what is sent to the group."""
        await self._group("add", group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group."""
        await self._group("discard", group, channel)

    async def _group(self, verb: str, group: str, channel: str) -> None:
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        name = _process_of(channel)
        if name == self._process.name:
            await self._process.change(verb, group, channel)
        else:
            await publish(PROCESS + name, msgspec.msgpack.encode({"verb": verb, "group": group, "channel": channel}))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to all channels of a group. One in which too many wait does not get it."""
        self.require_valid_group_name(group)
        await publish(GROUP + group, msgspec.msgpack.encode({"message": message}))

    # The end.

    async def flush(self) -> None:
        """Forget the channels and groups of this process."""
        await self._process.close()
        del self._here[asyncio.get_running_loop()]

    close = flush


def _process_of(channel: str) -> str:
    """Return the name of the process that receives a channel.

    Raises:
        ValueError: it is of none.
    """
    before, mark, _ = channel.partition("!")
    if not mark:
        raise ValueError(f"{channel} is of no process: channels of workers need a queue, as channels_redis has it")
    return before.rpartition(".")[2]


class _Queue:
    """Messages of one channel that wait.

    Parameters:
        capacity: how many may wait.
        expiry: seconds that they do.
    """

    def __init__(self, capacity: int, expiry: float) -> None:
        self._capacity, self._expiry = capacity, expiry
        self._messages: deque[tuple[float, dict[str, Any]]] = deque()
        self._arrived = asyncio.Event()
        self._readers = 0

    def put(self, message: dict[str, Any]) -> bool:
        """Add a message; return False if there are too many."""
        if len(self._messages) >= self._capacity:
            return False
        self._messages.append((monotonic() + self._expiry, message))
        self._arrived.set()
        return True

    @property
    def is_dead(self) -> bool:
        """Whether what waits has expired: the channel is read no more."""
        return bool(self._messages) and self._messages[0][0] < monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits in it or for it."""
        return not self._messages and not self._readers

    async def get(self) -> dict[str, Any]:
        """Take the next message, once there is one."""
        self._readers += 1
        try:
            while True:
                while self._messages:
                    until, message = self._messages.popleft()
                    if until >= monotonic():
                        return message
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            self._readers -= 1


class _Process:
    """Channels and groups of one event loop.

    Parameters:
        layer: whose they are.

    Attributes:
        name: by which other processes know it.
    """

    def __init__(self, layer: ChannelLayer) -> None:
        self._layer = layer
        self.name = uuid.uuid4().hex
        self._queues: dict[str, _Queue] = {}
        self._sweep_from = SWEEP_FROM
        self._groups: dict[str, dict[str, None]] = {}  # members of this process
        self._listening: dict[str, tuple[asyncio.Task[None], asyncio.Future[None]]] = {}  # by channel of the bus

    def queue(self, channel: str) -> _Queue:
        """Return the queue of a channel."""
        found = self._queues.get(channel)
        if found is None:
            if len(self._queues) >= self._sweep_from:  # one may have come after its channel was read for the last time
                self._queues = {name: queue for name, queue in self._queues.items() if not queue.is_dead}
                self._sweep_from = max(SWEEP_FROM, 2 * len(self._queues))
            found = self._queues[channel] = _Queue(self._layer.get_capacity(channel), self._layer.expiry)
        return found

    async def receive(self, channel: str) -> dict[str, Any]:
        """Receive the next message of a channel; a queue is there as long as something waits."""
        queue = self.queue(channel)
        try:
            return await queue.get()
        finally:
            if queue.is_idle and self._queues.get(channel) is queue:
                del self._queues[channel]

    def put(self, channel: str, message: dict[str, Any]) -> bool:
        """Add a message to a channel; forget a channel that is read no more."""
        if self.queue(channel).is_dead:
            del self._queues[channel]
            for group in [group for group, members in self._groups.items() if channel in members]:
                self._discard(group, channel)
            return True
        return self.queue(channel).put(message)

    async def change(self, verb: str, group: str, channel: str) -> None:
        """Add a channel to a group, or discard it."""
        if verb == "add":
            self._groups.setdefault(group, {})[channel] = None
            try:
                await self.listen(GROUP + group)
            except BaseException:
                self._discard(group, channel)
                raise
        else:
            self._discard(group, channel)

    def _discard(self, group: str, channel: str) -> None:
        members = self._groups.get(group, {})
        members.pop(channel, None)
        if not members:
            self._groups.pop(group, None)
            task, _ = self._listening.pop(GROUP + group, (None, None))
            if task is not None:
                task.cancel()

    async def listen(self, channel: str) -> None:
        """Get what is published to a channel of the bus from now on; idempotent."""
        found = self._listening.get(channel)
        if found is None or found[0].done():
            joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            found = self._listening[channel] = asyncio.create_task(self._listen(channel, joined)), joined
        await asyncio.shield(found[1])

    async def _listen(self, channel: str, joined: asyncio.Future[None]) -> None:
        try:
            async with subscribe(channel) as messages:
                joined.set_result(None)
                async for message in messages:
                    if message.gap is None:
                        await self._take(channel, msgspec.msgpack.decode(message.payload))
        except BaseException as error:
            if not joined.done():
                joined.set_exception(error if isinstance(error, Exception) else BusError("the channel was left"))
                joined.exception()  # it may be that no task waits for it
            elif not isinstance(error, BusError):  # the bus is closed: so is the worker
                raise

    async def _take(self, channel: str, told: dict[str, Any]) -> None:
        if channel.startswith(GROUP):
            for member in list(self._groups.get(channel.removeprefix(GROUP), ())):
                self.put(member, told["message"].copy())
        elif "verb" in told:
            with suppress(BusError):
                await self.change(told["verb"], told["group"], told["channel"])
        else:
            self.put(told["channel"], told["message"])

    async def close(self) -> None:
        """Leave all channels of the bus."""
        tasks = [task for task, _ in self._listening.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
