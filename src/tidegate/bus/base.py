"""What an engine promises to the bus: nine verbs, the state of its link, and the values that they carry.

    Publication     what is to be published
    Slice           what is stored of a channel
    State           whether messages come
    Broker          the verbs

Everything that engines would otherwise do four times is above them, in the topics: reference counts, delayed
unsubscribing, joins, repairs, caches. Engines know no members, no frames of WebSocket, no policy of who may do what;
every engine passes the one contract suite. What must not live here: an engine.
"""

from __future__ import annotations

import abc
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple

import msgspec

from ..channels import Message, Position
from ..exceptions import BusError

__all__ = [
    "SLICE_BYTES",
    "SLICE_MESSAGES",
    "VERB_DEADLINE",
    "Broker",
    "Deliver",
    "Presence",
    "Publication",
    "Slice",
    "State",
    "Tell",
]

SLICE_MESSAGES: Final = 1000
"""Messages that a `read` gives at most, whatever its limit."""

SLICE_BYTES: Final = 2**20
"""Bytes of payload after which a `read` adds no message; the first one comes whatever its size."""

VERB_DEADLINE: Final = 6.0
"""Seconds for a verb of an engine; engines have a shorter deadline of their own."""

EPOCH_BYTES: Final = 6


class Publication(msgspec.Struct, frozen=True, gc=False):
    """What is to be published; names and sizes are checked already.

    Attributes:
        channel: its name.
        payload: bytes of the message.
        text: whether they are a text.
        sender: identifies who publishes; at most 32 characters of ASCII.
        json: whether the payload is JSON.
        exclude: whether the sender is not to get it.
        key: of two publications of a channel with the same key within 5 minutes the second is not stored, and gets the
            position of the first; only with history.
    """

    channel: str
    payload: bytes
    text: bool = False
    sender: str = ""
    json: bool = False
    exclude: bool = False
    key: str | None = None


class Slice(NamedTuple):
    """What is stored of a channel between two places, from one moment.

    Attributes:
        messages: in order, each following the one before.
        top: the position of the channel at that moment; if nothing is missing and there are no messages, nothing is
            between the place that was asked for and this, though its offset may be greater.
        complete: whether nothing is missing between the place that was asked for and the first of `messages`, or `top`
            if there are none. False if the place is in another epoch than `top`, or above it.
    """

    messages: Sequence[Message]
    top: Position
    complete: bool


class State(NamedTuple):
    """Whether messages come. A broker tells each change, at once, and tells `up` as the first one.

    Attributes:
        kind: `"up"`; `"down"`: nothing comes, and verbs raise BusDown; `"again"`: up, and what was sent before may not
            have come, though all is subscribed again that was: each channel's position is to be checked.
        generation: grows with every link to the engine.
        reason: of being down, in words for an operator.
        retry_after: seconds until it is tried again.
    """

    kind: str
    generation: int = 0
    reason: str = ""
    retry_after: float = 1.0


class Presence(NamedTuple):
    """Who is in a channel.

    Attributes:
        connections: how many.
        members: names and what is known of them, as JSON, where members are listed. Some of them may have gone a short
            while ago. A name that several processes have is one, with what one of them says. An engine may give
            UNLISTED alone in place of more than LISTED.
    """

    connections: int
    members: Mapping[str, bytes] | None = None


Deliver = Callable[[Sequence[Message]], None]
"""Takes what came, in the order in which it came; synchronous, raises nothing, never waits for a member.

It is never called from within itself, nor from within a verb: a member may publish as soon as it is given something.
"""

Tell = Callable[[State], None]
"""Takes a change of the state; synchronous, raises nothing."""


class Broker(abc.ABC):
    """An engine as one process sees it. Made with its URL and the policies; not yet started.

    All verbs but `start` and `close` raise BusDown while the engine is away, and never wait longer than a deadline of
    the engine's own (5 s). A verb that is cancelled may have had its effect. Verbs may be called at the same time.
    """

    gapless: ClassVar[bool] = False
    """Whether no message is ever lost while the state is up, so that positions need no checks from time to time."""

    message_limit: int | None = None
    """Bytes of a message that the engine takes, if it has told."""

    settles: ClassVar[float] = 0.0
    """Seconds from the start after which `present` has what the other processes have told before."""

    @property
    def queued(self) -> int:
        """Bytes that wait to be written, or to be acknowledged."""
        return 0

    @abc.abstractmethod
    async def start(self, deliver: Deliver, tell: Tell) -> None:
        """Connect, and return once the state is up; afterwards connect again and again by itself.

        What comes is given to `deliver`, until `close` returns.

        Raises:
            BusError: the engine is there and cannot be used; the message says why and what would be right.
            BusDown: it is not there; `start` may be called again.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Flush what was accepted, within the deadline, and disconnect. Closing again does nothing."""

    @abc.abstractmethod
    async def subscribe(self, channels: Sequence[str]) -> Sequence[Position | None]:
        """Subscribe, and return once the engine has confirmed it: each channel's top, None without history.

        Each message above that top is delivered, before or after the return. A channel that the engine does not know
        gets an epoch by this, and keeps it. The broker subscribes again by itself after a loss of the link. Subscribing
        twice is subscribing once.

        Raises:
            BusDown: then none of them is subscribed.
        """

    @abc.abstractmethod
    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Unsubscribe, and return once the engine has confirmed it: nothing of them is delivered after that.

        Never raises BusDown: without a link there is nothing to end.
        """

    @abc.abstractmethod
    async def publish(self, batch: Sequence[Publication], wait: float) -> Sequence[Position | BusError | None]:
        """Publish in order, and return each one's position, or None in a channel without history, or what failed.

        With history it is stored before this returns: storing and publishing are one step. Without, it is accepted
        in the queue to the engine. What an engine gets twice, because a link broke before it was acknowledged, it
        stores once.

        Args:
            batch: what to publish.
            wait: seconds to wait for a place in the queue, then BusBusy, and to be acknowledged, then BusDown with
                `uncertain`; 0 does not wait for a place.
        """

    @abc.abstractmethod
    async def read(
        self, channel: str, after: Position | None, limit: int = SLICE_MESSAGES, before: Position | None = None
    ) -> Slice:
        """Read what is stored of a channel with history, subscribed or not.

        Args:
            channel: its name.
            after: the oldest after this place, or, with None, the newest.
            limit: messages at most; SLICE_MESSAGES and SLICE_BYTES limit them as well.
            before: with `after` None, the newest that come before this place. Of another epoch: none, incomplete.

        Raises:
            BusDown: no answer within the deadline, too.
        """

    @abc.abstractmethod
    async def tops(self, channels: Sequence[str]) -> Sequence[Position | None]:
        """Return the positions of channels, from a moment after the call; None without history."""

    @abc.abstractmethod
    async def beat(self, snapshot: Mapping[str, Presence]) -> None:
        """Tell who of this process is in which channel; in force for 30 s, or until the next one.

        The names of the last one are in force beyond the end of the broker, even if its process was killed: for 15 s at
        least, and for the 30 s at most. So who has to connect again, because a process ends, is there all the time. Its
        connections end with it as soon as that is known. Who ends for good tells that no member is left, and closes.
        """

    @abc.abstractmethod
    async def present(self, channel: str) -> Presence:
        """Return who is in a channel, from the last snapshots of all living processes."""

    def follows(self, previous: Position, message: Message) -> bool:
        """Return whether no message is missing between a place and a message; both in one epoch."""
        assert message.position is not None
        if message.previous is not None:
            return message.previous == previous.offset
        return message.position.offset == previous.offset + 1


def new_epoch() -> str:
    """Return a name for a history that begins: 48 random bits, for it must never be the name of an older one."""
    return secrets.token_urlsafe(EPOCH_BYTES)
