"""Presence in several processes over one engine: joins, leaves, hand-overs, crashes, lost news, an engine that forgets.

The model knows who is connected, since when, and until when one who has gone is not gone yet. Whatever happens: what
members are told makes up the list that they were given at first; nobody is told of one who has only been away for a
moment; and when it is quiet, everybody has the truth. Time is the model's. What must not live here: single steps
(test_presence.py), a real engine.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tidegate.bus.base import Presence
from tidegate.bus.presence import HAND_OVER, PROCESSES, SETTLE, Presences
from tidegate.channels import Identity, PresenceEvent

LEASE = 30.0
ENDED = 15.0
GRACE = 2.0
NAMES = ("ada", "bob", "eve")
CHANNEL = "c"


class Engine:
    """What the engine is told: snapshots, until when each is in force."""

    def __init__(self) -> None:
        self.snapshots: dict[str, tuple[float, dict[str, Presence]]] = {}

    def present(self, channel: str, now: float) -> Presence:
        names: dict[str, bytes] = {}
        for until, snapshot in self.snapshots.values():
            if until > now and channel in snapshot:
                names.update(snapshot[channel].members or {})
        return Presence(len(names), names)

    def end(self, process: str, now: float) -> None:
        if process in self.snapshots:
            until, snapshot = self.snapshots[process]
            self.snapshots[process] = min(until, now + ENDED), snapshot


class Member:
    """A connection with a name, and the list that it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.list: set[str] | None = None  # once it was given one


class Process:
    """A process, which does what is due when it is time."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.members: list[Member] = []
        self.presences = Presences(name, self.tell, world.now)
        self.told = False

    def tell(self, event: PresenceEvent, but: object) -> None:
        for member in self.members:
            if member is but or member.list is None:
                continue
            if event.kind == "in":
                assert event.member not in member.list
                member.list.add(event.member)
            elif event.kind == "out":
                assert event.member in member.list
                self.world.check_out(event.member)
                member.list.remove(event.member)
            else:
                member.list = None  # it asks again

    def turn(self) -> None:
        world, presences = self.world, self.presences
        presences.tick(world.now)
        if presences.is_beat_due(world.now):
            if self.told:
                self.check()
            self.told = True
            snapshot = presences.snapshot({CHANNEL: len(self.members)}, world.now)
            world.engine.snapshots[self.name] = world.now + LEASE, snapshot
            news = presences.told(world.now, 0.0)
            for process in world.processes if news and not world.losing else ():
                process.presences.nudged(news, world.now)
        if presences.is_check_due(world.now):
            self.check()
        for channel in presences.reads(world.now):
            present = world.engine.present(channel, world.now)
            certain = not presences.misses(channel, present) or self.check()
            presences.have_read(channel, present, certain, world.now)
        for member in self.members:
            if member.list is None and (names := presences.names(CHANNEL)) is not None:
                member.list = {*names, member.name}

    def check(self) -> bool:
        known = self.presences.have_checked(self.world.engine.present(PROCESSES, self.world.now), self.world.now)
        if not known:
            self.presences.again(self.world.now)
        return known


class World(RuleBasedStateMachine):
    """Processes, an engine and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.engine = Engine()
        self.processes: list[Process] = []
        self.losing = False
        self.numbers = itertools.count()
        self.stays: dict[str, float] = {}  # until when nobody is to be told that one has gone

    @initialize()
    def begin(self) -> None:
        for _ in range(2):
            self.start()

    def check_out(self, name: str) -> None:
        assert not any(member.name == name for process in self.processes for member in process.members)
        assert self.now >= self.stays[name]

    def live(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            process = min(self.processes, key=lambda one: one.presences.deadline())
            when = process.presences.deadline()
            if when > end:
                break
            self.now = max(self.now, when)
            process.turn()
        self.now = end

    # Processes.

    @precondition(lambda self: len(self.processes) < 4)
    @rule()
    def start(self) -> None:
        process = Process(self, f"process {next(self.numbers)}")
        self.processes.append(process)
        process.turn()

    @precondition(lambda self: len(self.processes) > 1)
    @rule(which=st.integers(0, 3), drain=st.sampled_from([0.0, 1.0, 40.0]))
    def hand_over(self, which: int, drain: float) -> None:
        """A process closes its connections, and ends; who is there comes back to others."""
        process = self.processes[which % len(self.processes)]
        others = [one for one in self.processes if one is not process]
        for number, member in enumerate(list(process.members)):
            self.leave_process(process, member, HAND_OVER)
            self.live(drain)
            if number % 2:
                self.connect(others[number % len(others)], member.name)
        snapshot = process.presences.farewell()
        self.engine.snapshots[process.name] = self.now + LEASE, snapshot
        self.engine.end(process.name, self.now)
        self.processes.remove(process)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(which=st.integers(0, 3), known=st.booleans())
    def crash(self, which: int, known: bool) -> None:
        """A process is killed, and the engine hears of it at once, or by its lease."""
        process = self.processes.pop(which % len(self.processes))
        if known:
            self.engine.end(process.name, self.now)
        until, told = self.engine.snapshots.get(process.name, (0.0, {}))
        for name in told.get(CHANNEL, Presence(0)).members or {}:
            self.stays[name] = max(self.stays.get(name, 0.0), until)

    @rule()
    def forget(self) -> None:
        """The engine loses everything; those that have ended, or wait to be back, with it."""
        self.engine.snapshots.clear()
        self.stays = dict.fromkeys(NAMES, 0.0)

    @rule()
    def lose_news(self) -> None:
        self.losing = not self.losing

    # Members.

    def connect(self, process: Process, name: str) -> Member:
        member = Member(name)
        process.presences.open(CHANNEL, self.now)
        process.presences.enter(CHANNEL, member, Identity(name), self.now)
        process.members.append(member)
        return member

    def leave_process(self, process: Process, member: Member, grace: float) -> None:
        process.members.remove(member)
        self.stays[member.name] = max(self.stays.get(member.name, 0.0), self.now + grace)
        process.presences.leave(CHANNEL, member, self.now, grace)
        if not process.members:
            process.presences.shut(CHANNEL)

    @rule(which=st.integers(0, 3), name=st.sampled_from(NAMES))
    def join(self, which: int, name: str) -> None:
        self.connect(self.processes[which % len(self.processes)], name)

    @rule(which=st.integers(0, 3), data=st.data())
    def leave(self, which: int, data: Any) -> None:
        process = self.processes[which % len(self.processes)]
        if process.members:
            self.leave_process(process, data.draw(st.sampled_from(process.members)), GRACE)

    @rule(which=st.integers(0, 3), to=st.integers(0, 3), data=st.data(), away=st.floats(0, GRACE - 0.1))
    def come_back(self, which: int, to: int, data: Any, away: float) -> None:
        process = self.processes[which % len(self.processes)]
        if process.members:
            member = data.draw(st.sampled_from(process.members))
            self.leave_process(process, member, GRACE)
            self.live(away)
            self.connect(self.processes[to % len(self.processes)], member.name)

    # Time.

    @rule(seconds=st.floats(0, 20))
    def go_on(self, seconds: float) -> None:
        self.live(seconds)

    @rule()
    def be_quiet(self) -> None:
        """After a while, news lost or not, everybody has the truth."""
        self.live(LEASE + SETTLE + 61.0)
        truth = {member.name for process in self.processes for member in process.members}
        for process in self.processes:
            for member in process.members:
                assert member.list == truth
            if process.members:
                assert set(process.presences.names(CHANNEL) or ()) == truth


TestPresence = World.TestCase
TestPresence.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
