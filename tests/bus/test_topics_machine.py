"""Every interleaving of joins, publishes, losses and repairs, against a list per channel (model.py).

What holds, checked at each step by the members themselves: messages come in order and once; what a member is not given
it is told of, and it is told only of what the engine does not have any more; and when all is quiet nothing is missing.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.bus.model import Engine, Listener
from tidegate.bus import order, tail, topic, topics
from tidegate.bus.base import Broker, State
from tidegate.bus.policies import Policies
from tidegate.bus.topics import Request, Topics
from tidegate.channels import Channel, Position
from tidegate.exceptions import BusDown

POLICIES = {
    "all": Channel(history=6),
    "deep": Channel(history=30),
    "latest": Channel(history=1, recover="latest"),
    "plain": Channel(),
}
SLICE = 8

INDEX = st.integers(0, 20)


def follows(previous: Position, message: Any) -> bool:
    return Broker.follows(None, previous, message)  # type: ignore[arg-type]


class Bus(RuleBasedStateMachine):
    """One worker, its engine, and what is between them."""

    # How many channels there are in a run: a single one sees more.
    names = st.sampled_from([["all"], ["all"], ["deep"], ["latest"], ["all", "plain"], ["all", "deep", "latest"]])

    @initialize(names=names, steps=st.sampled_from([[1], [1, 3, 2]]), full=st.booleans(), published=st.integers(0, 9))
    def begin(self, names: list[str], steps: list[int], full: bool, published: int) -> None:
        """Each channel has a member, and has had messages before it came."""
        self.now = 0.0
        self.names = names
        self.stored = [name for name in names if POLICIES[name].history]
        policies = {name: POLICIES[name] for name in names}
        self.engine = Engine(policies, steps, SLICE)
        self.topics = Topics(Policies(policies), follows)
        self.listeners: list[Listener] = []
        self.asked: list[Request] = []  # that the engine has not got yet
        self.answers: list[tuple[Request, Any]] = []  # that have not come back yet
        self.old: list[Any] = []  # messages that were on the wire
        for index, _ in enumerate(names):
            self.publish(index, published, 0, False)
            self.join(index, 0, 0, full, 0)
        self.work()

    # The engine and those who publish.

    @rule(index=INDEX, count=st.integers(1, 3), by=INDEX, exclude=st.booleans())
    def publish(self, index: int, count: int, by: int, exclude: bool) -> None:
        channel = self.names[index % len(self.names)]
        here = [one for one in self.listeners if one.channel == channel]
        sender = here[by % len(here)].sender if here else "somebody"
        for _ in range(count):
            self.engine.publish(channel, sender, exclude)

    @rule(index=INDEX)
    def lose_history(self, index: int) -> None:
        self.engine.lose_history(self.stored[index % len(self.stored)])

    @rule(index=INDEX)
    def trim(self, index: int) -> None:
        self.engine.trim(self.stored[index % len(self.stored)])

    # The wire.

    @precondition(lambda self: self.engine.wire)
    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        messages, self.engine.wire = self.engine.wire[:count], self.engine.wire[count:]
        self.old += [message for message in messages if message.position]
        self.topics.deliver(messages)

    @rule(index=INDEX, count=st.integers(1, 3))
    def talk(self, index: int, count: int) -> None:
        """Messages that come at once."""
        self.publish(index, count, 0, False)
        while self.engine.wire:
            self.deliver(5)

    @precondition(lambda self: self.engine.wire)
    @rule(index=INDEX)
    def lose(self, index: int) -> None:
        wire = self.engine.wire
        self.old.append(wire.pop(index % len(wire)))

    @precondition(lambda self: any(message.position for message in self.old))
    @rule(index=INDEX, to=INDEX)
    def repeat(self, index: int, to: int) -> None:
        old = [message for message in self.old if message.position]
        wire = self.engine.wire
        wire.insert(to % (len(wire) + 1), old[index % len(old)])

    @precondition(lambda self: len(self.engine.wire) > 1)
    @rule(index=INDEX, to=INDEX)
    def reorder(self, index: int, to: int) -> None:
        wire = self.engine.wire
        wire.insert(to % len(wire), wire.pop(index % len(wire)))

    @precondition(lambda self: self.engine.up)
    @rule()
    def cut(self) -> None:
        self.engine.up = False
        self.engine.wire = []
        self.topics.told(State("down", reason="cut"), self.now)

    @precondition(lambda self: not self.engine.up)
    @rule()
    def again(self) -> None:
        self.engine.up = True
        self.topics.told(State("again"), self.now)

    # Requests, their answers, and the time.

    @rule()
    def ask(self) -> None:
        self.topics.serve()
        self.asked += self.topics.take()

    @precondition(lambda self: self.asked)
    @rule(index=INDEX)
    def process(self, index: int) -> None:
        request = self.asked.pop(index % len(self.asked))
        if self.engine.up:
            self.answers.append((request, self.engine.result(request)))
        else:
            self.answers.append((request, BusDown("cut")))

    @precondition(lambda self: self.answers)
    @rule(index=INDEX)
    def answer(self, index: int) -> None:
        request, result = self.answers.pop(index % len(self.answers))
        self.topics.done(request, result, self.now)

    @precondition(lambda self: self.asked)
    @rule(index=INDEX)
    def fail(self, index: int) -> None:
        self.topics.done(self.asked.pop(index % len(self.asked)), BusDown("late"), self.now)

    @precondition(lambda self: self.answers)
    @rule(index=INDEX)
    def come_too_late(self, index: int) -> None:
        """The engine did it, and nobody heard of it."""
        request, _ = self.answers.pop(index % len(self.answers))
        self.topics.done(request, BusDown("late"), self.now)

    @rule()
    def work(self) -> None:
        """Everything that is asked is answered at once."""
        self.ask()
        while self.asked:
            self.process(0)
        while self.answers:
            self.answer(0)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.topics.tick(self.now)

    # Members.

    @rule(index=INDEX, kind=INDEX, last=st.sampled_from([0, 0, 0, 2, 5]), full=st.booleans(), back=st.integers(0, 9))
    def join(self, index: int, kind: int, last: int, full: bool, back: int) -> None:
        channel = self.names[index % len(self.names)]
        listener = Listener(self.engine, self.topics, channel, len(self.listeners))
        listener.full = full
        self.listeners.append(listener)
        listener.join(self.since(channel, kind, back), last, self.now)

    @precondition(lambda self: self.listeners)
    @rule(index=INDEX, kind=INDEX, back=INDEX)
    def join_again(self, index: int, kind: int, back: int) -> None:
        listener = self.listeners[index % len(self.listeners)]
        if listener.present and listener.joined is None:
            return  # two answers to one listener would be compared with one question
        listener.join(self.since(listener.channel, kind, back), 0, self.now)

    def since(self, channel: str, kind: int, back: int) -> Position | str | None:
        """A place that a client may give: of this epoch, an older one, of the future, or none."""
        stored = self.engine.channels.get(channel)
        if kind < 5 or stored is None:
            return None
        if kind == 5:
            return "nonsense"
        if kind == 6:
            return Position(stored.epoch, stored.top.offset + 1 + back)
        if kind == 7:
            return Position("e0", back)
        past = [one for one in self.engine.past.values() if not one.messages or one.messages[0].channel == channel]
        stored = stored if kind < 17 else past[back % len(past)]
        places = [Position(stored.epoch, 0), *(message.position for message in stored.messages)]
        return places[-1 - back % len(places)]

    @precondition(lambda self: self.listeners)
    @rule(index=INDEX)
    def leave(self, index: int) -> None:
        self.listeners[index % len(self.listeners)].leave(self.now)

    @precondition(lambda self: self.listeners)
    @rule(index=INDEX)
    def be_fickle(self, index: int) -> None:
        self.listeners[index % len(self.listeners)].fickle = True

    @precondition(lambda self: self.listeners)
    @rule(index=INDEX, full=st.booleans())
    def drain(self, index: int, full: bool) -> None:
        without = [listener for listener in self.listeners if listener.full and listener.present] or self.listeners
        listener = without[index % len(without)]
        listener.full = full
        if not full:
            self.topics.drained(listener.channel, listener)

    # What holds.

    @invariant()
    def bounded(self) -> None:
        if not hasattr(self, "topics"):
            return
        for one in self.topics._topics.values():
            assert len(one._held) <= order.HELD_MESSAGES
            assert one._held_bytes == sum(len(message.payload) + tail.OVERHEAD for message in one._held)
        assert 0 <= self.topics._reading <= 16

    def teardown(self) -> None:
        if not hasattr(self, "topics"):
            return
        self.settle()
        for listener in self.listeners:
            note(f"{listener.sender} {listener.channel} at {listener.at}: {listener.log}")
        for listener in self.listeners:
            listener.check_complete()
        assert self.topics._reading == 0
        assert self.engine.subscribed >= {one.channel for one in self.listeners if one.present}

    def settle(self) -> None:
        """Let everything come that is to come: the engine is up, and nothing is lost any more."""
        if not self.engine.up:
            self.again()
        for listener in self.listeners:
            listener.full = False
            self.topics.drained(listener.channel, listener)
        for _ in range(200):
            while self.engine.wire:
                self.deliver(5)
            while self.answers:
                self.answer(0)
            self.ask()
            while self.asked:
                self.process(0)
            self.wait(0.5)
        # No answer is owed.
        assert [one for one in self.listeners if one.present and one.joined is None] == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a short run reaches."""
    monkeypatch.setattr(tail, "TAIL_MESSAGES", 4)
    monkeypatch.setattr(topics, "TURN", 3)
    monkeypatch.setattr(order, "HELD_MESSAGES", 5)
    monkeypatch.setattr(order, "SLICE_MESSAGES", SLICE)
    monkeypatch.setattr(topic, "SLICE_MESSAGES", SLICE)


@pytest.mark.usefixtures("small")
def test_every_member_is_given_everything_in_order_once_or_told() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Bus,
        settings=settings(max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=checks),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_many_more_of_them() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Bus,
        settings=settings(max_examples=1500, stateful_step_count=80, deadline=None, suppress_health_check=checks),
    )
