"""One channel on one worker: its members, and those who join it or are given what they missed.

    Joining     asks to become a member
    Topic       `Order` with members

Members proper are in a table, which is given each message as it comes. All others have a seat: who waits for the
subscription or for a read, and who has no room for more. A seat has a place of its own in the channel, and gets to the
table when that is the topic's position. What waits for it is in the tail, or is read again: there is no queue per
member. What must not live here: subscriptions, turns to read (topics.py), the order of messages (order.py).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ..channels import Channel, Gap, Joined, Message, Position
from ..exceptions import BusError
from .base import SLICE_BYTES, SLICE_MESSAGES, Slice
from .order import FAILURES, RETRY, Desk, Order
from .tail import offset_of, place_before

if TYPE_CHECKING:
    import asyncio

    from .members import Member, Members

__all__ = ["Done", "Joining", "Topic", "Wanted", "settle"]

Done = Callable[[Joined | BusError], None]
"""Takes the answer to a join, before the first message of it."""

PATIENCE: Final = 1.0
"""Seconds for which a join waits for an engine that is away: a hub that was killed is back sooner."""

JOIN_TIMEOUT: Final = 5.0
"""Seconds for which a join waits for reads; then it is failed, and may be tried again with the same position."""

TRIES: Final = 3
"""Reads for one join before it is failed: the channel moves faster than it is read."""

RETRY_AFTER: Final = 1.0
"""Seconds after which a join that was failed for that may be tried again."""

GLANCE: Final = 0.5
"""Seconds between two looks at joins that wait, so that many of them are one look."""

Resumed = Literal["new", "full", "partial", "failed"]


class Wanted(NamedTuple):
    """A read that the topic wants.

    Attributes:
        after: the place to read from; None for the newest.
        limit: messages at most.
        repairs: whether it is the topic's own.
    """

    after: Position | None
    limit: int
    repairs: bool


class _Stage(enum.Enum):
    """What a seat waits for."""

    SUBSCRIPTION = enum.auto()
    CHECK = enum.auto()  # whether the engine knows a place that the topic does not
    READ = enum.auto()  # what comes after its place
    LAST = enum.auto()  # the last messages
    ROOM = enum.auto()  # until the member can take more
    TURN = enum.auto()  # of the event loop, for others had this one


class Joining:
    """A member that is not in the table.

    Args:
        member: who joins.
        since: the place after which it has missed messages; a token, too, whatever it says; None if it is new.
        last: how many of the last messages it wants when it is new, or cannot have all.
        done: takes the answer.
    """

    __slots__ = (
        "at",
        "checked",
        "done",
        "expires",
        "last",
        "member",
        "pending",
        "place",
        "since",
        "stage",
        "tries",
        "verdict",
        "waits_until",
    )

    def __init__(self, member: Member, since: Position | str | None, last: int, done: Done | None) -> None:
        self.member = member
        self.since = since
        self.place: Position | None = None  # that `since` stands for
        self.last = last
        self.done = done
        self.stage = _Stage.SUBSCRIPTION
        self.at: Position | None = None
        self.pending: Sequence[Message] = ()
        self.checked = False
        self.tries = 0
        self.verdict: Resumed = "new"
        self.expires = 0.0
        self.waits_until = 0.0  # for an engine that is away


class Topic(Order):
    """One channel on one worker.

    Attributes:
        policy: the channel's.
        members: who is given each message as it comes.
    """

    __slots__ = ("_expiry", "_pause", "_seats", "members", "policy")

    def __init__(self, channel: str, policy: Channel, desk: Desk, members: Members) -> None:
        super().__init__(channel, desk, policy.recover == "latest")
        self.policy = policy
        self.members = members
        self._seats: dict[Member, Joining] = {}
        self._expiry: float | None = None  # when to look for joins that have waited too long
        self._pause: float | None = None  # until when nothing is read for seats, after a read that failed

    def __len__(self) -> int:
        return len(self.members) + len(self._seats)

    def __contains__(self, member: object) -> bool:
        return member in self._seats or member in self.members

    def joined(self) -> list[Member]:
        """Return who has joined: whether or not it has room for more."""
        return [*self.members, *(seat.member for seat in self._seats.values() if seat.done is None)]

    # Joins and leaves.

    def take_seats(self, other: Topic) -> None:
        """Take over who joins from a topic that has ended."""
        self._seats, other._seats = other._seats, {}
        for seat in self._seats.values():
            seat.stage = _Stage.SUBSCRIPTION

    def join(self, joining: Joining, subscribed: bool, now: float) -> None:
        """Seat who joins, and answer as soon as what it missed is there; joining again begins anew."""
        earlier = self._seats.get(joining.member)
        if earlier is not None and earlier.done is not None:
            joining.done = _both(earlier.done, joining.done)
        self.leave(joining.member, quietly=True)
        self._seats[joining.member] = joining
        joining.expires, joining.waits_until = now + JOIN_TIMEOUT, now + PATIENCE
        if subscribed:
            self._admit(joining)
            self._expect(joining.expires)

    def leave(self, member: Member, quietly: bool = False) -> bool:
        """Remove a member; return whether it was there."""
        seat = self._seats.pop(member, None)
        if seat is None:
            return self.members.discard(member)
        if seat.done is not None and not quietly:
            self._refuse(seat, BusError(f"{self.channel} was left before it was joined"))
        return True

    def subscribed(self, top: Position | None, now: float) -> None:
        """Begin: the engine has confirmed the subscription."""
        self.begin(top)
        for seat in list(self._seats.values()):
            seat.expires = now + JOIN_TIMEOUT
            if self._is_seated(seat):
                self._admit(seat)
        self._expect(now + JOIN_TIMEOUT)

    def refuse(self, error: BusError, now: float | None = None) -> float | None:
        """Answer those who join that it is not possible; all, or those who have waited for long enough at a time.

        Returns:
            When the next one of the others has.
        """
        for seat in [seat for seat in self._seats.values() if seat.done is not None]:
            if self._is_seated(seat) and (now is None or seat.waits_until <= now):
                del self._seats[seat.member]
                self._refuse(seat, error)
        return min((seat.waits_until for seat in self._seats.values() if seat.done is not None), default=None)

    def drained(self, member: Member) -> None:
        """Take it that a member has room for more."""
        seat = self._seats.get(member)
        if seat is not None and seat.stage is _Stage.ROOM:
            if self.latest:
                seat.pending = ()  # there may be a later one
            self._go_on(seat)

    def next_wake(self) -> float | None:
        """Return when `wake` is to be called next."""
        times = [when for when in (self._retry_at, self._pause, self._expiry) if when is not None]
        return min(times, default=None)

    def wake(self, now: float) -> None:
        """Do what is due."""
        super().wake(now)
        if self._pause is not None and self._pause <= now:
            self._pause = None
            self.desk.want(self)
        if self._expiry is not None and self._expiry <= now:
            self._expiry = None
            self._expire(now)

    def _expect(self, when: float) -> None:
        """See to it that who joins does not wait for longer."""
        if self._seats and self._expiry is None:
            self._expiry = when
            self.desk.later(when, self)

    def _expire(self, now: float) -> None:
        waiting = [seat for seat in self._seats.values() if seat.done and seat.stage is not _Stage.SUBSCRIPTION]
        for seat in waiting:
            if seat.expires <= now and self._is_seated(seat):
                self._answer(seat, "failed", self.position, (), retry_after=RETRY_AFTER)
        left = [seat.expires for seat in waiting if seat.done is not None]
        if left:
            self._expect(max(min(left), now + GLANCE))

    def _is_seated(self, seat: Joining) -> bool:
        return self._seats.get(seat.member) is seat

    def _refuse(self, seat: Joining, error: BusError) -> None:
        done, seat.done = seat.done, None
        if done is not None:
            done(error)

    def _admit(self, seat: Joining) -> None:
        """Find out what a member missed."""
        position, since = self.position, seat.since
        if position is None or self.tail is None:
            self._answer(seat, "new" if since is None else "failed", None, ())
            return
        if since is None:
            self._give_last(seat, "new")
            return
        place = seat.place = _parse(since)
        if place is None:
            self._give_last(seat, "failed")
        elif place.epoch != position.epoch or place.offset > position.offset:
            # Unknown, or this worker is behind. The engine knows, and is asked once for all who wait.
            if seat.checked:
                self._give_last(seat, "failed")
            else:
                seat.stage = _Stage.CHECK
                self.repair()
        elif self.latest and place != position:
            self._give_last(seat, "full")
        else:
            messages = self.tail.after(place)
            if messages is not None:
                self._answer(seat, "full", place, messages)
            else:
                self._want(seat, _Stage.READ, place)

    def _give_last(self, seat: Joining, verdict: Resumed) -> None:
        """Give a member the last messages that it is to get, though not all that it may have missed."""
        assert self.tail is not None
        count = 1 if self.latest else seat.last
        if verdict == "failed" and count and not self.latest:
            verdict = "partial"
        messages = self.tail.last(count) if count else []
        if messages is None:
            seat.verdict = verdict
            self._want(seat, _Stage.LAST, self.position)
        else:
            self._answer_last(seat, verdict, messages)

    def _answer_last(self, seat: Joining, verdict: Resumed, messages: Sequence[Message]) -> None:
        epoch = self.position.epoch if self.position is not None else None
        if verdict == "full" and (not messages or seat.place is None or seat.place.epoch != epoch):
            verdict = "failed"  # nothing is stored, or the epoch ended while it was read
        elif verdict == "partial" and not messages:
            verdict = "failed"
        self._answer(seat, verdict, place_before(messages[0]) if messages else self.position, messages)

    def _answer(
        self,
        seat: Joining,
        resumed: Resumed,
        at: Position | None,
        messages: Sequence[Message],
        retry_after: float | None = None,
    ) -> None:
        """Answer a join, and give what the member missed."""
        if self.latest:
            messages = messages[-1:]
        elif resumed == "full" and _too_much(messages):
            self._give_last(seat, "failed")
            return
        done, seat.done = seat.done, None
        seat.at, seat.pending = at, messages
        if done is not None:
            counts = self.desk.counts
            counts.resumes[resumed] += 1
            counts.resumed_messages += len(messages)
            done(Joined(self.channel, at, resumed, len(messages), retry_after))
        if self._is_seated(seat):
            self._go_on(seat)

    # What seats are given.

    def _want(self, seat: Joining, stage: _Stage, at: Position | None) -> None:
        seat.stage = stage
        seat.at = at
        seat.tries += 1
        self.desk.want(self)

    def _go_on(self, seat: Joining) -> None:
        """Give a member what is there for it, until it has no room, or has all and gets to the table."""
        while self._give(seat):
            if seat.at == self.position:
                del self._seats[seat.member]
                self.members.add(seat.member)
                return
            assert self.tail is not None
            assert seat.at is not None
            messages = self.tail.last(1) if self.latest else self.tail.after(seat.at)
            if messages is None:
                self._want(seat, _Stage.LAST if self.latest else _Stage.READ, seat.at)
                return
            if not messages:
                seat.at = self.position
            seat.pending = messages

    def _give(self, seat: Joining) -> bool:
        """Give a member what is pending; return whether it was given all, and has room for more."""
        pending = seat.pending
        for number, message in enumerate(pending):
            if self.desk.turn <= 0:
                seat.stage = _Stage.TURN
                self.desk.turns.append(functools.partial(self._take_turn, seat))
                return False
            if number == 0 and not seat.member.can_take(message):  # other channels of the member took the room
                seat.stage = _Stage.ROOM
                return False
            self.desk.turn -= 1
            seat.at = message.position
            seat.pending = pending[number + 1 :] if number + 1 < len(pending) else ()
            if message.exclude and message.sender == seat.member.sender:
                continue
            self.desk.counts.delivered += 1
            room = seat.member.deliver(message)
            if not self._is_seated(seat):
                return False
            if not room:
                seat.stage = _Stage.ROOM
                return False
        return True

    def _take_turn(self, seat: Joining) -> None:
        if self._is_seated(seat) and seat.stage is _Stage.TURN:
            self._go_on(seat)

    # What comes.

    def accept(self, message: Message) -> None:
        """Give a message to the members."""
        latest = self.latest and message.position is not None
        full = self.members.fan_out(message, latest)
        self.desk.counts.delivered += len(self.members)
        if full:
            self.desk.counts.delivered -= sum(not taken for taken in full.values())
        if latest:
            for member, taken in full.items():
                if self.members.discard(member):
                    seat = Joining(member, None, 0, None)
                    seat.stage, seat.at = _Stage.ROOM, self.position if taken else place_before(message)
                    self._seats[member] = seat

    def tell(self, gap: Gap) -> None:
        """Give a notice to the members, and to those who were still given what they missed: they go on with all."""
        self.members.tell(gap)
        for seat in list(self._seats.values()):
            if seat.done is None and self._is_seated(seat):
                self._lose(seat, gap.position, gap.reason)
                if seat.stage is not _Stage.ROOM and self._is_seated(seat):
                    self._go_on(seat)

    def _lose(self, seat: Joining, place: Position | None, reason: str) -> None:
        """Tell a member that is given what it missed that it cannot be, and go on at a place."""
        gap = Gap(self.channel, seat.at, place, reason)
        seat.at, seat.pending = place, ()
        if not self.latest or reason == "epoch":
            seat.member.gap(gap)

    # Reads.

    def next_read(self) -> Wanted | None:
        """Return what is to be read, as the read is begun: the repair comes first, then the oldest place."""
        if self.position is None:
            return None
        if self.repair_is_due():
            for seat in self._seats.values():
                seat.checked = seat.checked or seat.stage is _Stage.CHECK
            return Wanted(self.begin_repair(), SLICE_MESSAGES, True)
        if self._pause is not None:
            return None
        places = [seat.at for seat in self._seats.values() if seat.stage is _Stage.READ and seat.at is not None]
        if places:
            return Wanted(min(places, key=lambda place: place.offset), SLICE_MESSAGES, False)
        counts = [max(1, seat.last) for seat in self._seats.values() if seat.stage is _Stage.LAST]
        if counts:
            return Wanted(None, min(max(counts), SLICE_MESSAGES), False)
        return None

    def read(self, wanted: Wanted, part: Slice, now: float) -> None:
        """Take what was read: it repairs, and it serves every seat whose place is in it."""
        assert self.position is not None
        if wanted.repairs:
            self.repaired(part, now)
        elif part.top.epoch != self.position.epoch:
            self.repair()
        for seat in list(self._seats.values()):
            if self._is_seated(seat):
                if seat.stage is _Stage.READ and wanted.after is not None:
                    self._resume(seat, part, wanted.after)
                elif seat.stage is _Stage.LAST and wanted.after is None:
                    self._take_last(seat, part)
        if not self.repairing:
            self._check_again()
        self.desk.want(self)

    def _check_again(self) -> None:
        """Admit those who wait for a repair: what the engine knows the topic knows, if it was read since they came."""
        for seat in list(self._seats.values()):
            if seat.stage is _Stage.CHECK and self._is_seated(seat):
                self._admit(seat)

    def read_failed(self, wanted: Wanted, now: float, down: bool) -> None:
        """Take it that a read failed; the repair goes on when the engine is back."""
        if wanted.repairs and not down:
            self.unread(now)
        self._pause = now + RETRY * (0.5 + self.desk.random())
        self.desk.later(self._pause, self)
        for seat in list(self._seats.values()):
            waits = seat.stage is (_Stage.LAST if wanted.after is None else _Stage.READ)
            waits = waits or (wanted.repairs and seat.stage is _Stage.CHECK)
            if not waits or not self._is_seated(seat):
                continue
            if down:
                continue  # it is read again when the engine is back, if the seat has not expired by then
            if seat.done is not None:
                self._answer(seat, "failed", self.position, (), retry_after=RETRY_AFTER)
            else:
                seat.tries += 1
                if seat.tries > FAILURES:
                    self._miss(seat, (), "unread")
        self.desk.want(self)

    def _resume(self, seat: Joining, part: Slice, after: Position) -> None:
        """Give a member what was read, if that reaches from its place to the topic's."""
        place, position = seat.at, self.position
        assert place is not None
        assert position is not None
        assert self.tail is not None
        if place.epoch != after.epoch or place.offset < after.offset or place.epoch == position.epoch != part.top.epoch:
            return  # the next read is for it, or the repair of the epoch, which tells all members where it goes on
        if place.epoch != position.epoch or place.offset > part.top.offset:
            self._miss(seat, (), "epoch")
            return
        messages = [one for one in part.messages if place.offset < offset_of(one) <= position.offset]
        if not self._covers(part, place, after):
            self._miss(seat, messages, "trimmed")
            return
        end = messages[-1].position if messages else place
        if not messages and (not part.messages or offset_of(part.messages[-1]) > place.offset):
            # Nothing is between the two places, whatever their offsets.
            end = seat.at = max(place, min(part.top, position))
        assert end is not None
        rest = self.tail.after(end)
        if rest is not None:
            self._serve(seat, [*messages, *rest])
        elif seat.done is None and messages:
            self._serve(seat, messages)
        elif part.messages and part.messages[-1].position != part.top:
            if place == after:
                self._miss(seat, (), "trimmed")  # more than one read gives; else the next one begins at its place
        elif seat.tries >= TRIES:
            self._miss(seat, (), "trimmed")
        else:
            seat.tries += 1

    def _covers(self, part: Slice, place: Position, after: Position) -> bool:
        """Return whether a slice has all that came after a place that is not before the one it was read from."""
        if part.complete or place == part.top:
            return True
        if place == after or not part.messages:
            return False
        first = part.messages[0]
        return offset_of(first) <= place.offset or self.desk.follows(place, first)

    def _serve(self, seat: Joining, messages: Sequence[Message]) -> None:
        if seat.done is not None:
            self._answer(seat, "full", seat.at, messages)
        else:
            seat.pending, seat.tries = messages, 0
            self._go_on(seat)

    def _miss(self, seat: Joining, messages: Sequence[Message], reason: str) -> None:
        """Tell a member that not all is there any more, and give what is."""
        if seat.done is not None:
            self._give_last(seat, "failed")
            return
        self._lose(seat, place_before(messages[0]) if messages else self.position, reason)
        if self._is_seated(seat):
            seat.pending = messages
            self._go_on(seat)

    def _take_last(self, seat: Joining, part: Slice) -> None:
        """Give a member the last messages, as they were read."""
        assert self.position is not None
        if self.latest and part.top.epoch == self.position.epoch:
            for message in part.messages:  # what is newer than the topic is so for all
                if offset_of(message) > self.position.offset:
                    self.arrive(message)
        position = self.position
        assert self.tail is not None
        messages: list[Message] = []
        rest: Sequence[Message] | None = None
        if part.top.epoch == position.epoch:
            messages = [one for one in part.messages if offset_of(one) <= position.offset]
            end = messages[-1].position if messages else min(part.top, position)
            assert end is not None
            rest = self.tail.after(end)
        if rest is None:
            if seat.tries < TRIES:
                seat.tries += 1
                return
            messages, rest = [], []
        messages = [*messages, *rest][-max(1, seat.last) :]
        if seat.done is not None:
            self._answer_last(seat, seat.verdict, messages)
            return
        newer = [one for one in messages if seat.at is not None and offset_of(one) > seat.at.offset]
        seat.at, seat.pending = position, newer
        self._go_on(seat)


def _parse(since: Position | str) -> Position | None:
    """Return the place that a client gave, or None if it is none."""
    try:
        return Position.parse(str(since))
    except ValueError:
        return None


def _too_much(messages: Sequence[Message]) -> bool:
    size = sum(len(message.payload) for message in messages)
    return len(messages) > SLICE_MESSAGES or (size > SLICE_BYTES and len(messages) > 1)


def _both(first: Done, second: Done | None) -> Done:
    def done(answer: Joined | BusError) -> None:
        first(answer)
        if second is not None:
            second(answer)

    return done


def settle(future: asyncio.Future[Joined], answer: Joined | BusError) -> None:
    """Give who waits for it the answer to a join."""
    if future.done():
        return
    if isinstance(answer, BusError):
        future.set_exception(answer)
    else:
        future.set_result(answer)
