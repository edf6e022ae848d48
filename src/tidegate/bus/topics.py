"""The channels of one worker, above whatever engine: what is subscribed, who may read when, what is checked.

    Topics        takes joins, messages, changes of the engine's state, results and the time
    Subscribe, Unsubscribe, Read, Tops      what it asks of the engine, and takes the results of

No I/O: `take()` gives what is to be asked of the engine, `done()` takes each result, `serve()` is called once a turn of
the event loop, time is an argument. What must not live here: one channel's members and order (topic.py), asking the
engine (bus.py).
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..channels import TOPICS_LIMIT, Gap, Message, Position
from ..exceptions import BusDown, BusError, TooManyChannels
from .base import Slice, State
from .members import MemberTable
from .order import TURN, Counts, Desk, Order
from .topic import Done, Joining, Topic, Wanted

if TYPE_CHECKING:
    from .members import Member, Members
    from .policies import Policies

__all__ = ["Read", "Request", "Subscribe", "Topics", "Tops", "Unsubscribe"]

LINGER: Final = 5.0
"""Seconds, give or take a fifth, for which a channel without members stays subscribed, as clients may reconnect."""

READS: Final = 16
"""Reads at once."""

BATCH: Final = 512
"""Channels in one request."""

CHECK: Final = 5.0
"""Seconds between checks of channels in which something came since the last one."""

IDLE_ROUNDS: Final = 12
"""Checks after which an idle channel is checked, too: once a minute."""

GLANCE: Final = 0.1
"""Seconds between two looks at joins that wait for an engine, so that many of them are one look."""

GRACE: Final = 1.0
"""Seconds for which a message that is stored may be on its way, before it is read."""


class Subscribe:
    """Subscribe channels; the result is their tops."""

    def __init__(self, topics: Sequence[_Subscribed], generation: int) -> None:
        self.topics = topics
        self.generation = generation
        self.channels = [topic.channel for topic in topics]


class Unsubscribe:
    """Unsubscribe channels; there is no result."""

    def __init__(self, topics: Sequence[_Subscribed]) -> None:
        self.topics = topics
        self.channels = [topic.channel for topic in topics]


class Read:
    """Read what is stored after a place, or the newest; the result is a `Slice`."""

    def __init__(self, topic: _Subscribed, wanted: Wanted) -> None:
        self.topic = topic
        self.wanted = wanted
        self.channel = topic.channel
        self.after = wanted.after
        self.limit = wanted.limit


class Tops:
    """Ask for the positions of channels; the result is those."""

    def __init__(self, topics: Sequence[_Subscribed], urgent: bool) -> None:
        self.topics = topics
        self.urgent = urgent
        self.channels = [topic.channel for topic in topics]
        self.positions = [topic.position for topic in topics]


Request = Subscribe | Unsubscribe | Read | Tops


class _Subscribed(Topic):
    """A topic with what is known of its subscription.

    Attributes:
        state: "subscribing", "subscribed" or "unsubscribing".
        leave_at: when it is unsubscribed, if no member joins.
        reading: the read under way.
        queued: whether it waits for a turn to read.
        ahead: what the engine had when it was checked, and when that must have come.
        patient_until: when to refuse those who have waited for long enough for an engine that is away.
        slot: the round of checks in which it is checked even if it is idle.
        wake_at: when its timer is due.
    """

    __slots__ = ("ahead", "leave_at", "patient_until", "queued", "reading", "slot", "state", "wake_at")

    def __init__(self, channel: str, policy: Any, desk: Desk, members: Members, slot: int) -> None:
        super().__init__(channel, policy, desk, members)
        self.state = "subscribing"
        self.leave_at: float | None = None
        self.reading: Read | None = None
        self.queued = False
        self.ahead: tuple[float, Position] | None = None
        self.slot = slot
        self.patient_until: float | None = None
        self.wake_at: float | None = None

    def next_wake(self) -> float | None:
        """Return when `wake` is to be called next."""
        times = [super().next_wake(), self.leave_at, self.patient_until, None if self.ahead is None else self.ahead[0]]
        return min((when for when in times if when is not None), default=None)


class Topics:
    """The channels of one worker.

    Attributes:
        make_members: makes the table of a channel's members.

    Args:
        policies: the channels' policies.
        follows: `Broker.follows` of the engine.
        gapless: whether the engine loses nothing while it is up.
        members: makes the table of a channel's members.
        random: returns a number from 0 to 1.
        limit: channels at most.
    """

    def __init__(
        self,
        policies: Policies,
        follows: Callable[[Position, Message], bool],
        *,
        gapless: bool = False,
        members: Callable[[], Members] = MemberTable,
        random: Callable[[], float] = lambda: 0.5,
        limit: int = TOPICS_LIMIT,
    ) -> None:
        self._policies = policies
        self._gapless = gapless
        self.make_members = members
        self._limit = limit
        self._desk = Desk(follows, self._want, self._later, random)
        self._topics: dict[str, _Subscribed] = {}
        self._out: list[Request] = []
        self._subscribing: dict[_Subscribed, None] = {}  # as soon as the engine is there
        self._unsubscribing: list[_Subscribed] = []
        self._readers: deque[_Subscribed] = deque()  # that wait for a turn
        self._reading = 0
        self._timers: list[tuple[float, int, _Subscribed]] = []
        self._number = itertools.count()
        self._state = State("up")
        self._links = 0  # how often it was up again
        self._suspects: dict[_Subscribed, None] = {}  # whose positions are to be checked as soon as possible
        self._slots: list[dict[_Subscribed, None]] = [{} for _ in range(IDLE_ROUNDS)]
        self._active: dict[_Subscribed, None] = {}
        self._round = 0
        self._check_at: float | None = None

    @property
    def counts(self) -> Counts:
        """What happened."""
        return self._desk.counts

    def __len__(self) -> int:
        return len(self._topics)

    def members(self, channel: str) -> int:
        """Return how many members a channel has in this worker, those who are joining included."""
        topic = self._topics.get(channel)
        return 0 if topic is None else len(topic)

    def position(self, channel: str) -> Position | None:
        """Return how far a channel has come in this worker; None if it is not known, or has no history."""
        topic = self._topics.get(channel)
        return None if topic is None else topic.position

    def members_of(self, channel: str) -> list[Member]:
        """Return the members of a channel in this worker that have joined."""
        topic = self._topics.get(channel)
        return [] if topic is None else topic.joined()

    def snapshot(self) -> dict[str, int]:
        """Return how many members each channel has in this worker, where there are any."""
        return {channel: len(topic) for channel, topic in self._topics.items() if len(topic)}

    # Members.

    def join(
        self,
        channel: str,
        member: Member,
        done: Done,
        now: float,
        since: Position | str | None = None,
        last: int = 0,
    ) -> None:
        """Make a listener a member of a channel; one that is already begins anew.

        Args:
            channel: its name, which is checked already.
            member: who.
            done: takes the answer, or BusDown, before the first message; perhaps before this returns. An engine that
                is away is waited for, for a moment.
            now: the time.
            since: the place after which it has missed messages, or a token, whatever it says; None if it is new.
            last: how many of the last messages it is to get if it is new, or if not all can be given that it missed.

        Raises:
            TooManyChannels: this worker has as many as it may.
        """
        topic = self._topics.get(channel)
        if topic is None:
            if len(self._topics) >= self._limit:
                raise TooManyChannels(self._limit, "a worker")
            slot = next(self._number) % IDLE_ROUNDS
            topic = _Subscribed(channel, self._policies.of(channel), self._desk, self.make_members(), slot)
            self._topics[channel] = topic
            self._subscribing[topic] = None
        topic.leave_at = None
        topic.join(Joining(member, since, last, done), topic.state == "subscribed", now)
        if topic.patient_until is None:
            self._be_patient(topic, now)
        self._abandoned(topic, now)

    def leave(self, channel: str, member: Member, now: float) -> bool:
        """Remove a member; return whether it was one."""
        topic = self._topics.get(channel)
        if topic is None or not topic.leave(member):
            return False
        self._abandoned(topic, now)
        return True

    def drained(self, channel: str, member: Member) -> None:
        """Take it that a member, whose `deliver` returned False, has room for more."""
        topic = self._topics.get(channel)
        if topic is not None:
            topic.drained(member)

    def end(self, error: BusError) -> None:
        """Answer all who join that it is over."""
        for topic in list(self._topics.values()):
            topic.refuse(error)

    def _abandoned(self, topic: _Subscribed, now: float) -> None:
        """Unsubscribe a channel without members, but not yet."""
        if not len(topic) and topic.leave_at is None:
            topic.leave_at = now + LINGER * (0.8 + 0.4 * self._desk.random())
            self._later(topic.leave_at, topic)

    # The engine.

    def deliver(self, messages: Iterable[Message]) -> None:
        """Take messages from the engine, in the order in which they came."""
        counts = self._desk.counts
        for message in messages:
            counts.received += 1
            topic = self._topics.get(message.channel)
            if topic is None:
                continue
            if topic.state == "subscribed":
                if not topic.active and not self._gapless:
                    self._active[topic] = None
                topic.arrive(message)
            elif topic.state == "subscribing" and message.position is not None:
                topic.hold(message)

    def told(self, state: State, now: float) -> None:
        """Take a change of the engine's state."""
        self._state = state
        if state.kind == "down":
            return
        if state.kind == "again":
            self._links += 1
            for topic in list(self._topics.values()):
                if topic.state == "subscribed":
                    self._suspect(topic)
            self._check()
        for topic in self._topics.values():
            if topic.state == "subscribed":
                self._want(topic)

    def _suspect(self, topic: _Subscribed) -> None:
        """Take it that messages may have been lost."""
        if topic.position is not None:
            self._suspects[topic] = None
        else:
            self._desk.counts.told += 1
            topic.tell(Gap(topic.channel, None, None, "link"))

    def take(self) -> list[Request]:
        """Return what is to be asked of the engine since the last call; its results go to `done()`."""
        if self._state.kind != "down":
            for batch in _batches(list(self._subscribing)):
                self._out.append(Subscribe(batch, self._links))
            self._subscribing = {}
        for batch in _batches(self._unsubscribing):
            self._out.append(Unsubscribe(batch))
        self._unsubscribing = []
        while self._readers and self._reading < READS and self._state.kind != "down":
            topic = self._readers.popleft()
            topic.queued = False
            wanted = topic.next_read() if topic.state == "subscribed" else None
            if wanted is not None:
                topic.reading = Read(topic, wanted)
                self._reading += 1
                self._out.append(topic.reading)
        out, self._out = self._out, []
        return out

    def serve(self) -> bool:
        """Give members what they missed, as much as one turn of the event loop is to take.

        Returns:
            Whether there is more: then it is to be called again in the next turn, and in any case once a turn.
        """
        desk = self._desk
        desk.turn = TURN
        while desk.turns and desk.turn > 0:
            desk.turns.popleft()()
        return bool(desk.turns)

    def done(self, request: Request, result: Any, now: float) -> None:
        """Take the result of a request, or the exception that it raised; each request has one result.

        Args:
            request: from `take()`.
            result: what the broker's verb returned, or the exception.
            now: the time.
        """
        failed = isinstance(result, BaseException)
        if isinstance(request, Read):
            self._have_read(request, result, now)
        elif isinstance(request, Subscribe):
            if failed:
                error = result if isinstance(result, BusError) else BusDown(f"subscribing failed: {result!r}")
                self._not_subscribed(request, error, now)
            else:
                self._are_subscribed(request, result, now)
        elif isinstance(request, Unsubscribe):
            self._are_unsubscribed(request, now)
        elif failed:
            if request.urgent:
                self._suspects.update(dict.fromkeys(request.topics))
                self._look(now + GRACE)
        else:
            self._have_tops(request, result, now)

    def _are_subscribed(self, request: Subscribe, tops: Sequence[Position | None], now: float) -> None:
        for topic, top in zip(request.topics, tops, strict=True):
            topic.state = "subscribed"
            topic.subscribed(top, now)
            if not self._gapless and topic.policy.history:
                self._slots[topic.slot][topic] = None
                self._look(now + CHECK)
            if request.generation != self._links:
                # It was confirmed by a link that is gone.
                self._suspect(topic)
            self._abandoned(topic, now)
        if request.generation != self._links:
            self._check()

    def _not_subscribed(self, request: Subscribe, error: BusError, now: float) -> None:
        for topic in request.topics:
            # The engine may have subscribed it, and the answer be lost: it is unsubscribed before anything else.
            topic.state = "unsubscribing"
            self._unsubscribing.append(topic)
            if self._state.kind == "down":
                self._be_patient(topic, now)
            else:
                topic.refuse(error)

    def _be_patient(self, topic: _Subscribed, now: float) -> None:
        """Refuse those who have waited for long enough for an engine that is away; the others wait for it."""
        topic.patient_until = None
        if self._state.kind != "down" or topic.state == "subscribed":
            return
        due = topic.refuse(BusDown(self._state.reason, self._state.retry_after), now)
        if due is not None:
            topic.patient_until = max(due, now + GLANCE)
            self._later(topic.patient_until, topic)
        elif topic in self._subscribing and not len(topic):
            del self._subscribing[topic]
            del self._topics[topic.channel]

    def _are_unsubscribed(self, request: Unsubscribe, now: float) -> None:
        for topic in request.topics:
            for topics in (self._suspects, self._active, self._slots[topic.slot]):
                topics.pop(topic, None)
            if self._topics.pop(topic.channel, None) is None or not len(topic):
                continue
            # A member joined in the meantime: it is another subscription, with its own beginning.
            again = _Subscribed(topic.channel, topic.policy, self._desk, self.make_members(), topic.slot)
            again.take_seats(topic)
            self._topics[topic.channel] = again
            self._subscribing[again] = None
            self._be_patient(again, now)

    # Reads.

    def _want(self, topic: Order) -> None:
        assert isinstance(topic, _Subscribed)
        if not topic.queued and topic.reading is None:
            topic.queued = True
            self._readers.append(topic)

    def _have_read(self, request: Read, result: Slice | BaseException, now: float) -> None:
        self._reading -= 1
        topic = request.topic
        topic.reading = None
        failed = isinstance(result, BaseException)
        self._desk.counts.reads["failed" if failed else "read"] += 1
        if topic.state != "subscribed":
            return
        if isinstance(result, BaseException):
            topic.read_failed(request.wanted, now, self._state.kind == "down")
        else:
            topic.read(request.wanted, result, now)

    # Checks.

    def _look(self, when: float) -> None:
        if self._check_at is None or when < self._check_at:
            self._check_at = when

    def _check(self) -> None:
        """Ask for the positions of those that are suspected, at once."""
        for batch in _batches(list(self._suspects)):
            self._out.append(Tops(batch, urgent=True))
        self._suspects = {}

    def _check_round(self, now: float) -> None:
        """Ask for the positions of those in which something came since, and of a part of the others."""
        self._check()
        if self._gapless:
            return
        self._round = (self._round + 1) % IDLE_ROUNDS
        due = {**self._active, **self._slots[self._round]}
        self._active = {}
        for topic in due:
            topic.active = False
        topics = [topic for topic in due if topic.state == "subscribed" and topic.position and not topic.repairing]
        if self._state.kind != "down":
            for batch in _batches(topics):
                self._out.append(Tops(batch, urgent=False))
        if any(self._slots):
            self._look(now + CHECK)

    def _have_tops(self, request: Tops, tops: Sequence[Position | None], now: float) -> None:
        for topic, top, asked in zip(request.topics, tops, request.positions, strict=True):
            position = topic.position
            if topic.state != "subscribed" or top is None or position is None or asked is None:
                continue
            if top.epoch != position.epoch or (top.offset < asked.offset and asked.epoch == top.epoch):
                topic.repair()
            elif top.offset > position.offset:
                if request.urgent:
                    topic.repair()
                else:
                    topic.ahead = now + GRACE, top
                    self._later(now + GRACE, topic)

    # Time.

    def _later(self, when: float, topic: Order) -> None:
        """Wake a topic at a time; each has one timer, that of the first thing that is due."""
        assert isinstance(topic, _Subscribed)
        if topic.wake_at is None or when < topic.wake_at:
            topic.wake_at = when
            heapq.heappush(self._timers, (when, next(self._number), topic))

    def deadline(self) -> float | None:
        """Return when `tick()` is to be called, or None."""
        times = [when for when in (self._check_at, self._timers[0][0] if self._timers else None) if when is not None]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        while self._timers and self._timers[0][0] <= now:
            when, _, topic = heapq.heappop(self._timers)
            if topic.wake_at == when and self._topics.get(topic.channel) is topic:
                topic.wake_at = None
                self._wake(topic, now)
                after = topic.next_wake()
                if after is not None:
                    self._later(after, topic)
        if self._check_at is not None and self._check_at <= now:
            self._check_at = None
            self._check_round(now)

    def _wake(self, topic: _Subscribed, now: float) -> None:
        topic.wake(now)
        if topic.patient_until is not None and topic.patient_until <= now:
            self._be_patient(topic, now)
        if topic.ahead is not None and topic.ahead[0] <= now:
            top, topic.ahead = topic.ahead[1], None
            if topic.position is not None and top.epoch == topic.position.epoch and topic.position.offset < top.offset:
                topic.repair()
        if topic.leave_at is not None and topic.leave_at <= now:
            topic.leave_at = None
            if topic.state == "subscribed" and not len(topic):
                topic.state = "unsubscribing"
                self._unsubscribing.append(topic)


def _batches(topics: Sequence[_Subscribed]) -> list[Sequence[_Subscribed]]:
    return [topics[start : start + BATCH] for start in range(0, len(topics), BATCH)]
