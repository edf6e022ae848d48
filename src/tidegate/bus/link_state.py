"""What a process has on its link to the hub: channels with their numbers, and calls that wait for answers.

    NumberedChannel, Numbers    channels that are open; all of it is opened again on the next link
    Call                        what a verb waits for
    Unacknowledged              a message that is sent until it is acknowledged
    give_up                     wakes up who waits for a future

What must not live here: frames, and when they are sent (local.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from ..channels import Position
from ..exceptions import BusError
from .link import Frame, epoch_text

__all__ = ["Call", "NumberedChannel", "Numbers", "Unacknowledged", "give_up"]

IDLE_CHANNELS: Final = 4096
"""Channels that keep a number although they are not subscribed: those that are published to."""


class NumberedChannel:
    """A channel with a number on the link.

    Attributes:
        name, number: its name and number.
        subscribed: whether messages are wanted.
        epoch, text: of its offsets, as number and as text; 0 without history.
        waiting: requests and messages without answer.
    """

    __slots__ = ("epoch", "name", "number", "subscribed", "text", "waiting")

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.subscribed = False
        self.epoch, self.text = 0, ""
        self.waiting = 0

    def position(self, epoch: int, offset: int) -> Position:
        """Return a position in this channel, by the hub's number of the epoch."""
        if epoch != self.epoch:
            self.epoch, self.text = epoch, epoch_text(epoch & (1 << 48) - 1)
        return Position(self.text, offset)


class Call:
    """What a call waits for: results, in the order of what was asked."""

    __slots__ = ("future", "missing", "results")

    def __init__(self, size: int) -> None:
        self.results: list[Position | BusError | Frame | None] = [None] * size
        self.missing = 0
        self.future: asyncio.Future[None] | None = None

    def settle(self, index: int, result: Position | BusError | Frame | None) -> None:
        self.results[index] = result
        self.missing -= 1
        if self.missing == 0 and self.future is not None and not self.future.done():
            self.future.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Return once nothing is missing, or after so many seconds; whether nothing is."""
        if self.missing:
            loop = asyncio.get_running_loop()
            self.future = loop.create_future()
            timer = loop.call_later(seconds, give_up, self.future)
            try:
                await self.future
            finally:
                timer.cancel()
        return self.missing == 0


def give_up(future: asyncio.Future[None]) -> None:
    """Wake up who waits for a future."""
    if not future.done():
        future.set_result(None)


class Unacknowledged:
    """A message that is sent until it is acknowledged."""

    __slots__ = ("batch", "channel", "flags", "index", "payload")

    def __init__(self, channel: NumberedChannel, flags: int, payload: bytes, batch: Call, index: int) -> None:
        self.channel, self.flags, self.payload = channel, flags, payload
        self.batch, self.index = batch, index


class Numbers:
    """The channels that are open, by name and by number."""

    def __init__(self) -> None:
        self._by_name: dict[str, NumberedChannel] = {}
        self._by_number: list[NumberedChannel | None] = []
        self._free: list[int] = []
        self._idle: OrderedDict[NumberedChannel, None] = OrderedDict()

    def __iter__(self) -> Iterator[NumberedChannel]:
        return iter(self._by_name.values())

    def get(self, name: str) -> NumberedChannel | None:
        """Return the channel of that name, if it is open."""
        return self._by_name.get(name)

    def at(self, number: int) -> NumberedChannel | None:
        """Return the channel with that number, if there is one."""
        return self._by_number[number] if number < len(self._by_number) else None

    def hold(self, name: str) -> tuple[NumberedChannel, bool]:
        """Return a channel, which stays open until `release()`, and whether it is to be opened now."""
        channel = self._by_name.get(name)
        is_new = channel is None
        if channel is None:
            number = self._free.pop() if self._free else len(self._by_number)
            channel = self._by_name[name] = NumberedChannel(name, number)
            self._by_number[number : number + 1] = [channel]
        elif not channel.waiting and not channel.subscribed:
            self._idle.pop(channel, None)
        channel.waiting += 1
        return channel, is_new

    def release(self, channel: NumberedChannel) -> NumberedChannel | None:
        """End one hold; return a channel that is to be shut, since it has been idle for the longest of too many."""
        channel.waiting -= 1
        if channel.waiting or channel.subscribed:
            return None
        self._idle[channel] = None
        if len(self._idle) <= IDLE_CHANNELS:
            return None
        oldest, _ = self._idle.popitem(last=False)
        del self._by_name[oldest.name]
        self._by_number[oldest.number] = None
        self._free.append(oldest.number)
        return oldest
