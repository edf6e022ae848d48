"""A worker's topics beside the model's engine, with everything done in turn: for tests of one chapter each.

What must not live here: interleavings (test_topics_machine.py), a real engine (contract.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.bus.model import Engine
from tests.support.patience import PATIENCE
from tidegate.bus.base import Broker, State
from tidegate.bus.bus import Bus
from tidegate.bus.policies import Policies
from tidegate.bus.topics import Read, Request, Subscribe, Topics
from tidegate.channels import Channel, Gap, Identity, Joined, Message, Position, PresenceEvent
from tidegate.exceptions import BusError

__all__ = ["Listener", "Member", "Worker"]


def follows(previous: Position, message: Message) -> bool:
    """What an engine says without its own link."""
    return Broker.follows(None, previous, message)  # type: ignore[arg-type]


class Member:
    """Writes down what it is given.

    Attributes:
        got: offsets of messages, or their payloads in a channel without history, and notices.
        answer: to the join.
        room: whether it can take more than the message it is given.
        waits: whether it can take none of those that it missed.
    """

    def __init__(self, sender: str = "me") -> None:
        self.sender = sender
        self.got: list[Any] = []
        self.answer: Joined | BusError | None = None
        self.room = True
        self.waits = False

    def done(self, answer: Joined | BusError) -> None:
        assert self.answer is None
        self.answer = answer

    def can_take(self, message: Message) -> bool:
        return not self.waits

    def deliver(self, message: Message) -> bool:
        self.got.append(message.position.offset if message.position else message.payload)
        return self.room

    def gap(self, gap: Gap) -> None:
        self.got.append(gap)

    def presence(self, event: PresenceEvent) -> None:
        self.got.append(event)

    def remove(self, channel: str) -> None:
        self.got.append(channel)

    def close(self, code: int, reason: str) -> None:
        self.got.append((code, reason))

    @property
    def joined(self) -> Joined:
        assert isinstance(self.answer, Joined)
        return self.answer


class Listener(Member):
    """A member that writes down who comes and goes, and can be waited for."""

    def __init__(self, bus: Bus, identity: Identity | None = None) -> None:
        super().__init__(bus.name_sender())
        self.bus = bus
        self.identity = identity
        self.events: list[tuple[str, str]] = []
        self.changed = asyncio.Event()

    def presence(self, event: PresenceEvent) -> None:
        self.events.append((event.kind, event.member))
        self.changed.set()

    def remove(self, channel: str) -> None:
        self.bus.leave(self, channel, removed=True)

    async def join(self, channel: str) -> Listener:
        await self.bus.join(self, {channel: None}, identity=self.identity)
        return self

    async def until(self, *events: tuple[str, str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.events != list(events):
                self.changed.clear()
                await self.changed.wait()


class Worker:
    """Topics and an engine with one channel, "c"."""

    def __init__(self, policy: Channel | None = None, slice_messages: int = 1000, **options: Any) -> None:
        self.policy = policy or Channel(history=100)
        policies = {"c": self.policy}
        self.engine = Engine(policies, [1], slice_messages)
        self.topics = Topics(Policies(policies), follows, **options)
        self.now = 100.0
        self.asked: list[Request] = []
        self.turns = 0  # of the event loop, that were not enough

    @property
    def reads(self) -> list[Read]:
        return [request for request in self.asked if isinstance(request, Read)]

    def place(self, offset: int) -> Position:
        return Position(self.engine.channels["c"].epoch, offset)

    def publish(self, count: int = 1, lost: bool = False, **options: Any) -> None:
        for _ in range(count):
            self.engine.publish("c", **options)
        if lost:
            self.engine.wire = []

    def deliver(self) -> None:
        wire, self.engine.wire = self.engine.wire, []
        self.topics.deliver(wire)

    def work(self, seconds: float = 0.0) -> None:
        """Answer everything that is asked, for a while."""
        end = self.now + seconds
        while True:
            while (more := self.topics.serve()) | bool(requests := self.topics.take()):
                self.turns += more
                self.asked += requests
                for request in requests:
                    self.topics.done(request, self.engine.result(request), self.now)
            deadline = self.topics.deadline()
            if deadline is None or deadline > end:
                break
            self.now = deadline
            self.topics.tick(self.now)
        self.now = end

    def wait(self, seconds: float) -> list[Request]:
        """Let time go by, and return what is asked."""
        self.now += seconds
        self.topics.tick(self.now)
        return self.topics.take()

    def fail(self, requests: list[Request], error: BusError) -> None:
        for request in requests:
            self.topics.done(request, error, self.now)

    def join(self, since: Any = None, last: int = 0, member: Member | None = None, work: bool = True) -> Member:
        member = member or Member()
        member.answer = None
        self.topics.join("c", member, member.done, self.now, since, last)
        if work:
            self.work()
        return member

    def subscribes(self) -> int:
        return sum(isinstance(request, Subscribe) for request in self.asked)

    def again(self) -> None:
        self.topics.told(State("down", reason="cut"), self.now)
        self.topics.told(State("again"), self.now)
