"""The last messages of a channel, so that most resumes and all catching up cost the engine nothing.

What must not live here: what is stored, which the engine has; who is given what (topic.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ..channels import Message, Position

__all__ = ["OVERHEAD", "Tail", "offset_of", "place_before"]

TAIL_MESSAGES: Final = 64
TAIL_BYTES: Final = 2**18
"""Of each channel, in each worker: most of those who come back missed a few, and a worker may have a million channels.
What is not here is read, once for all who miss it; so this is no setting."""

OVERHEAD: Final = 64
"""Bytes that a message takes beside its payload, about; so that empty ones count, too."""


class Tail:
    """The messages after one place, each following the one before; the oldest ones go, by number and by bytes.

    Attributes:
        start: the place after which it has everything.
    """

    __slots__ = ("_bytes", "_messages", "start")

    def __init__(self, start: Position) -> None:
        self.start = start
        self._messages: deque[Message] | None = None  # an empty one takes 600 bytes, and most channels are idle
        self._bytes = 0

    def append(self, message: Message) -> None:
        """Add the message that follows the last one."""
        messages = self._messages
        if messages is None:
            messages = self._messages = deque()
        messages.append(message)
        self._bytes += len(message.payload) + OVERHEAD
        while len(messages) > TAIL_MESSAGES or (self._bytes > TAIL_BYTES and len(messages) > 1):
            gone = messages.popleft()
            self._bytes -= len(gone.payload) + OVERHEAD
            assert gone.position is not None
            self.start = gone.position

    def after(self, place: Position) -> list[Message] | None:
        """Return all that came after a place, or None if some of it is gone."""
        if place.epoch != self.start.epoch or place.offset < self.start.offset:
            return None
        return [message for message in self._messages or () if offset_of(message) > place.offset]

    def last(self, count: int) -> list[Message] | None:
        """Return the last messages, or None if there may be more of them that are wanted."""
        messages = self._messages or ()
        if len(messages) < count and self.start.offset:
            return None
        return list(messages)[-count:]


def offset_of(message: Message) -> int:
    """Return the offset of a message in a channel with history."""
    assert message.position is not None
    return message.position.offset


def place_before(message: Message) -> Position:
    """Return the place that a message follows."""
    assert message.position is not None
    epoch, offset = message.position
    return Position(epoch, offset - 1 if message.previous is None else message.previous)
