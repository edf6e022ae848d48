"""A channel of NATS that is subscribed: how far it has come, and its messages in the order in which they are stored.

A server stores what several publish in one order, and gives it on in nearly that order: two messages may change places
for a moment. So one whose predecessor has not come waits for it, shortly: if that is lost, the topic reads it. What
must not live here: timers, subscriptions (nats.py), what is read (nats_reads.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..channels import Message
from .nats_reads import Place
from .nats_streams import Stream
from .tail import offset_of

__all__ = ["HELD", "NatsChannel"]

HELD: Final = 100
"""Messages that wait for one that is missing, at most."""


class NatsChannel:
    """A channel.

    Attributes:
        name: the channel's.
        stream: that stores it; None without history.
        subject: its own one in that, or its own one.
        sid: the number of its subscription on this link.
        told: its offset, as far as it was told; negative until it is known.
        verified: the sequence up to which nothing came after that.
    """

    __slots__ = ("_came", "_epoch", "_held", "name", "sid", "stream", "subject", "told", "verified")

    def __init__(self, name: str, stream: Stream | None, subject: str) -> None:
        self.name = name
        self.stream = stream
        self.subject = subject
        self.sid = 0
        self.told = -1
        self.verified = 0
        self._epoch = stream.epoch if stream is not None else ""  # in which that is so
        self._came = -1  # the sequence of the last message that was given on
        self._held: list[Message] = []

    @property
    def place(self) -> Place | None:
        """How far it has come, if that is known."""
        return None if self.told < 0 else Place(self.told, self.verified)

    def tell(self, place: Place) -> None:
        """Take it that it has come so far."""
        if self.told < 0:
            self._came = max(self._came, place.told)
        self.told = max(self.told, place.told)
        self.verified = max(self.verified, place.verified)

    def renew(self) -> list[Message]:
        """Begin on a new link, perhaps in another epoch; return what still waited on the last one."""
        held = self.release()
        self._came = -1
        if self.stream is not None and self.stream.epoch != self._epoch:
            self._epoch, self.told, self.verified = self.stream.epoch, -1, 0
        return held

    def take(self, message: Message) -> Sequence[Message]:
        """Take a message as it comes, and return what is to be given on."""
        sequence, previous = offset_of(message), message.previous
        self.told = max(self.told, sequence)
        if self._came >= 0 and previous is not None and previous > self._came:
            self._held.append(message)
            return self.release() if len(self._held) > HELD else ()
        self._came = max(self._came, sequence)
        return [message, *self._follow()] if self._held else (message,)

    def _follow(self) -> list[Message]:
        """Return what waited for what has come."""
        ready = []
        self._held.sort(key=offset_of)
        while self._held and (self._held[0].previous or 0) <= self._came:
            ready.append(self._held.pop(0))
            self._came = max(self._came, offset_of(ready[-1]))
        return ready

    @property
    def waits(self) -> bool:
        """Whether a message waits for another one."""
        return bool(self._held)

    def release(self) -> list[Message]:
        """Return what has waited for long enough."""
        held, self._held = sorted(self._held, key=offset_of), []
        if held:
            self._came = max(self._came, offset_of(held[-1]))
        return held
