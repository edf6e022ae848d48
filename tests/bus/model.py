"""The bus as a list per channel: an engine that forgets, a wire that loses, members that write down what they are told.

    Engine      what was published, what is stored, who is subscribed, what is on the wire
    Listener    a member that checks each message and notice against what was published

What must not live here: what happens when (test_topics_machine.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tidegate.bus.base import Slice
from tidegate.bus.topics import Read, Request, Subscribe, Topics, Tops, Unsubscribe
from tidegate.channels import Channel, Gap, Joined, Message, Position
from tidegate.exceptions import BusError


@dataclass
class Stored:
    """One channel of the engine: everything that ever was in this epoch, and from which message on it is stored."""

    epoch: str
    messages: list[Message] = field(default_factory=list)
    first: int = 0  # index

    @property
    def top(self) -> Position:
        position = self.messages[-1].position if self.messages else None
        return position or Position(self.epoch, 0)


class Engine:
    """What all engines are alike in, without a process.

    Args:
        policies: by the names of channels.
        steps: what offsets grow by, in turn; other than 1 is an engine whose messages name the one before.
        slice_messages: how much a read gives.
    """

    def __init__(self, policies: dict[str, Channel], steps: list[int], slice_messages: int) -> None:
        self.policies = policies
        self.steps = steps
        self.slice_messages = slice_messages
        self.epochs = 0
        self.published = 0
        self.channels: dict[str, Stored] = {}
        self.past: dict[str, Stored] = {}  # by epoch, the present ones too
        self.subscribed: set[str] = set()
        self.wire: list[Message] = []
        self.up = True
        for channel, policy in policies.items():
            if policy.history:
                self.lose_history(channel)

    def lose_history(self, channel: str) -> None:
        """Begin another epoch."""
        self.epochs += 1
        stored = Stored(f"e{self.epochs}")
        self.channels[channel] = self.past[stored.epoch] = stored

    def publish(self, channel: str, sender: str = "", exclude: bool = False) -> None:
        self.published += 1
        payload = str(self.published).encode()
        message = Message(channel, payload, sender=sender, exclude=exclude)
        if stored := self.channels.get(channel):
            step = self.steps[self.published % len(self.steps)]
            position = Position(stored.epoch, stored.top.offset + step)
            previous = None if self.steps == [1] else stored.top.offset
            message = Message(
                channel, payload, position=position, previous=previous, sender=sender, exclude=exclude, text=True
            )
            stored.messages.append(message)
            stored.first = max(stored.first, len(stored.messages) - self.policies[channel].history)
        if self.up and channel in self.subscribed:
            self.wire.append(message)

    def trim(self, channel: str) -> None:
        """Let all but the last message be too old."""
        stored = self.channels[channel]
        stored.first = max(stored.first, len(stored.messages) - 1)

    def read(self, channel: str, after: Position | None, limit: int) -> Slice:
        stored = self.channels[channel]
        limit = min(limit, self.slice_messages)
        kept = stored.messages[stored.first :]
        if after is None:
            return Slice(kept[-limit:], stored.top, stored.first == 0 and len(kept) <= limit)
        if after.epoch != stored.epoch or after.offset > stored.top.offset:
            return Slice([], stored.top, False)
        gone = stored.messages[stored.first - 1].position if stored.first else None
        newer = [message for message in kept if message.position and message.position.offset > after.offset]
        return Slice(newer[:limit], stored.top, gone is None or gone.offset <= after.offset)

    def top(self, channel: str) -> Position | None:
        stored = self.channels.get(channel)
        return stored.top if stored else None

    def result(self, request: Request) -> Any:
        """Do what a request asks for, and return its result."""
        if isinstance(request, Subscribe):
            self.subscribed.update(request.channels)
            return [self.top(channel) for channel in request.channels]
        if isinstance(request, Unsubscribe):
            self.subscribed.difference_update(request.channels)
            return None
        if isinstance(request, Read):
            return self.read(request.channel, request.after, request.limit)
        assert isinstance(request, Tops)
        return [self.top(channel) for channel in request.channels]

    def between(self, after: Position, to: Position | None, sender: str) -> list[Message]:
        """Everything that somebody was to get of an epoch after one place, up to another."""
        return [
            message
            for message in self.past[after.epoch].messages
            if message.position
            and message.position.offset > after.offset
            and (to is None or message.position.offset <= to.offset)
            and not (message.exclude and message.sender == sender)
        ]

    def gave(self, place: Position) -> bool:
        """Whether a client can have got a place: it is the beginning, or that of a message."""
        past = self.past.get(place.epoch)
        return past is not None and (not place.offset or any(one.position == place for one in past.messages))

    def has(self, message: Message) -> bool:
        """Whether a message is stored."""
        stored = self.channels[message.channel]
        return any(message is one for one in stored.messages[stored.first :])


class Listener:
    """A member of one channel. It fails the test at once when it is given what it must not be given.

    Attributes:
        at: the place after which its next message is; None before it has joined.
        full: whether it has no room for more messages.
        fickle: whether it leaves when it is given the next message.
    """

    def __init__(self, engine: Engine, topics: Topics, channel: str, number: int) -> None:
        self.engine = engine
        self.topics = topics
        self.channel = channel
        self.sender = f"w.{number}"
        self.policy = engine.policies[channel]
        self.since: Position | str | None = None
        self.last = 0
        self.was_given = False  # `since` is a place that the engine had when it was asked for
        self.present = False
        self.joined: Joined | None = None
        self.at: Position | None = None
        self.value: Message | None = None
        self.told: Gap | None = None
        self.full = False
        self.fickle = False
        self.log: list[object] = []

    def join(self, since: Position | str | None, last: int, now: float) -> None:
        self.since, self.last, self.present, self.joined = since, last, True, None
        self.value = None
        self.was_given = isinstance(since, Position) and self.engine.gave(since)
        self.log.append(("join", since, last))
        self.topics.join(self.channel, self, self.done, now, since, last)

    def leave(self, now: float) -> None:
        self.present, self.joined = False, None
        self.topics.leave(self.channel, self, now)

    def done(self, answer: Joined | BusError) -> None:
        self.log.append(answer)
        if isinstance(answer, BusError):
            self.present = False
            return
        assert self.present
        assert self.joined is None
        self.joined = answer
        self.at = answer.position
        if self.policy.history:
            assert answer.position is not None
            assert (answer.resumed == "new") == (self.since is None and answer.retry_after is None) or (
                answer.resumed == "failed"
            )
            self.check_answer(answer)
        else:
            assert answer.position is None

    def check_answer(self, answer: Joined) -> None:
        stored = self.engine.channels[self.channel]
        if answer.resumed == "full" and self.policy.recover == "latest":
            assert isinstance(self.since, Position)
            assert answer.position is not None
            assert answer.position.epoch == self.since.epoch
            assert answer.position.offset >= self.since.offset
        elif answer.resumed == "full":
            assert str(answer.position) == str(self.since)
        elif answer.resumed == "failed" and answer.retry_after is None and self.was_given:
            assert isinstance(self.since, Position)
            if self.since.epoch != stored.epoch:
                return
            missed = self.engine.between(self.since, None, "")
            if self.policy.recover == "latest":
                missed = missed[-1:]
            needless = all(self.engine.has(message) for message in missed)
            assert not needless or len(missed) > self.engine.slice_messages

    def can_take(self, message: Message) -> bool:
        return not self.full

    def deliver(self, message: Message) -> bool:
        self.log.append(message)
        assert self.present
        assert self.joined is not None
        if not self.policy.history:
            assert message.position is None
        else:
            assert message.position is not None
            assert self.at is not None
            assert message.position.epoch == self.at.epoch
            assert message.position.offset > self.at.offset
            assert not (message.exclude and message.sender == self.sender)
            if self.policy.recover == "all":
                assert self.engine.between(self.at, message.position, self.sender) == [message]
            self.at = message.position
            self.value = message
        if self.fickle:
            self.fickle = False
            self.leave(0.0)
            return True
        return not self.full

    def gap(self, gap: Gap) -> None:
        self.log.append(gap)
        assert self.present
        assert self.joined is not None
        assert gap.channel == self.channel
        if gap.position is None:
            assert (gap.reason, gap.after) == ("link", None)
            return
        assert self.at is not None
        assert gap.after is not None
        assert gap.after.epoch == self.at.epoch
        assert gap.after.offset >= self.at.offset
        if self.policy.recover == "all":
            assert self.engine.between(self.at, gap.after, self.sender) == []
        if gap.reason == "trimmed":
            lost = self.engine.between(gap.after, gap.position, "")
            assert any(not self.engine.has(message) for message in lost)
            assert not self.engine.has(lost[-1])
        elif gap.reason == "epoch":
            assert gap.position.epoch != gap.after.epoch
        else:
            assert gap.reason == "unread"
        self.at = gap.position

    def close(self, code: int, reason: str) -> None:
        raise AssertionError

    def check_complete(self) -> None:
        """Check that nothing is missing, once everything has come."""
        assert self.present == (self in self.topics.members_of(self.channel))
        if not self.present or not self.policy.history:
            return
        assert self.joined is not None
        assert self.at is not None
        stored = self.engine.channels[self.channel]
        assert self.at.epoch == stored.epoch
        missing = self.engine.between(self.at, None, self.sender)
        if self.policy.recover == "latest":
            missing = [one for one in missing if one is stored.messages[-1]]  # else the latest is its own
        assert missing == []
