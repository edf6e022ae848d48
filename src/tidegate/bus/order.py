"""One channel's messages in order: each once, and what was lost on the way read again before members notice.

    Desk      what the channels of a worker share
    Counts    what happened
    Order     position, tail, what is held while a hole is repaired

Offsets are compared within an epoch; what follows what the engine says. Time is an argument. What must not live here:
members and joins (topic.py), subscriptions, and when which channel may read (topics.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..channels import Gap, Message, Position
from .base import SLICE_BYTES, SLICE_MESSAGES
from .tail import OVERHEAD, Tail, offset_of, place_before

if TYPE_CHECKING:
    from .base import Slice

__all__ = ["FAILURES", "RETRY", "TURN", "Counts", "Desk", "Order"]

HELD_MESSAGES: Final = SLICE_MESSAGES
HELD_BYTES: Final = SLICE_BYTES
"""Of each channel, while the hole before it is read: no more than the next read brings, which brings the rest. So this
is no setting."""

ATTEMPTS: Final = 3
"""Reads that bring nothing new before what was delivered is believed more than what is read."""

FAILURES: Final = 5
"""Reads that fail, while the engine is up, before members are told of the hole: some 6 seconds and the deadlines."""

RETRY: Final = 0.2
"""Seconds before the second read; twice as long before each one after that."""


TURN: Final = 500
"""Messages that were missed and are given in one turn of the event loop, of all channels: some milliseconds. When all
clients resume at once, others do not wait until they have."""


@dataclass(slots=True)
class Counts:
    """What happened to the channels of a worker; metrics have it.

    Attributes:
        changes: of the engine's state.
        published: messages that were stored, or accepted.
        failures: of publications, by reason.
        received: messages from the engine.
        delivered: messages to members.
        duplicates: messages that came twice, and were dropped.
        repaired: times that members got what had been lost on the way, and never noticed.
        told: times that the members of a channel were told that messages are missing.
        resumed_messages: that members got when they joined.
        resumes: joins, by what became of them.
        reads: of what the engine stores.
        dropped: messages that an iterator was not there to take.
        closes: members that were closed, by reason.
    """

    changes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("up", "down", "again"), 0))
    published: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("busy", "down", "uncertain", "refused"), 0))
    received: int = 0
    delivered: int = 0
    duplicates: int = 0
    repaired: int = 0
    told: int = 0
    resumed_messages: int = 0
    resumes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("new", "full", "partial", "failed"), 0))
    reads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "failed"), 0))
    dropped: int = 0
    closes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("slow", "gap", "asked"), 0))


@dataclass(slots=True)
class Desk:
    """What the channels of a worker share.

    Attributes:
        follows: whether no message is missing between a place and a message, as the engine says.
        want: asks for a turn to read; `Topic.next_read` says then what.
        later: asks to be woken at a time.
        random: returns a number from 0 to 1, so that workers do not do the same at the same moment.
        counts: what happened.
        turn: messages that were missed and may still be given in this turn of the event loop.
        turns: what waits for the next one, to be called.
    """

    follows: Callable[[Position, Message], bool]
    want: Callable[[Order], None]
    later: Callable[[float, Order], None]
    random: Callable[[], float]
    counts: Counts = field(default_factory=Counts)
    turn: int = TURN
    turns: deque[Callable[[], None]] = field(default_factory=deque)


class Order:
    """One channel's messages in order.

    Attributes:
        channel: its name.
        position: the place of the last message that was given to members; None without history.
        tail: the last messages.
        latest: whether only the newest message matters: what is before it need not come.
        repairing: whether the engine is to be read from `position` on.
        active: whether something came since it was set to False.
    """

    __slots__ = (
        *("_asked", "_attempts", "_failures", "_held", "_held_bytes", "_known", "_overflow", "_retry_at"),
        *("active", "channel", "desk", "latest", "position", "repairing", "tail"),
    )

    def __init__(self, channel: str, desk: Desk, latest: bool = False) -> None:
        self.channel = channel
        self.latest = latest
        self.desk = desk
        self.position: Position | None = None
        self.tail: Tail | None = None
        self.repairing = False
        self.active = False
        self._held: list[Message] = []
        self._held_bytes = 0
        self._overflow = False  # something was dropped that is above what is held
        self._attempts = 0
        self._failures = 0
        self._retry_at: float | None = None
        # When the read that repairs was begun: the position, and what was held.
        self._asked: Position | None = None
        self._known: list[Message] = []

    # What is done with messages and notices.

    def accept(self, message: Message) -> None:
        """Give a message to the members."""
        raise NotImplementedError

    def tell(self, gap: Gap) -> None:
        """Give a notice to the members."""
        raise NotImplementedError

    # Messages.

    def hold(self, message: Message) -> None:
        """Keep a message until it is known what comes before it."""
        size = len(message.payload) + OVERHEAD
        if len(self._held) >= HELD_MESSAGES or self._held_bytes + size > HELD_BYTES:
            self._overflow = True  # the read that follows brings it
            return
        self._held.append(message)
        self._held_bytes += size

    def begin(self, top: Position | None) -> None:
        """Begin at a place, that of the subscription; what came since is held."""
        self.position = top
        if top is None:
            self._held, self._held_bytes, self._overflow = [], 0, False
            return
        self.tail = Tail(top)
        self._drain()
        if self._held or self._overflow:
            self.repair()

    def arrive(self, message: Message) -> None:
        """Take a message as it comes from the engine: give it, drop it, or hold it and repair."""
        self.active = True
        place = message.position
        if place is None:
            self.accept(message)
            return
        if self.position is None:
            # Another process declares a history for the channel, and this one has yet to be told.
            self.position = place_before(message)
            self.tail = Tail(self.position)
            self._advance(message)
            return
        if place.epoch == self.position.epoch:
            if place.offset <= self.position.offset:
                self.desk.counts.duplicates += 1
                return
            if self.latest or self.desk.follows(self.position, message):
                self._advance(message)
                if self._held:
                    self._drain()
                return
        self.hold(message)
        self.repair()

    def _advance(self, message: Message) -> None:
        assert self.tail is not None
        self.position = message.position
        self.tail.append(message)
        self.accept(message)

    def _skip(self, place: Position, reason: str) -> None:
        """Go on at a place that does not follow, and tell it, unless only the newest message matters."""
        gap = Gap(self.channel, self.position, place, reason)
        self.position = place
        self.tail = Tail(place)
        if self.latest and reason != "epoch":
            return
        self.desk.counts.told += 1
        self.tell(gap)

    def _drain(self) -> None:
        """Give what is held, as far as nothing is missing; what is of other epochs stays."""
        held, self._held, self._held_bytes = self._held, [], 0
        if not held:
            return
        assert self.position is not None
        epoch = self.position.epoch
        for message in sorted((one for one in held if one.position and one.position.epoch == epoch), key=offset_of):
            if offset_of(message) <= self.position.offset:
                self.desk.counts.duplicates += 1
            elif self.latest or self.desk.follows(self.position, message):
                self._advance(message)
            else:
                self.hold(message)
        for message in held:
            if message.position and message.position.epoch != epoch:
                self.hold(message)

    # Repairs.

    def repair(self) -> None:
        """Read the engine from the position on; asking again while that is under way changes nothing."""
        if not self.repairing:
            self.repairing = True
            self._attempts = self._failures = 0
            self._retry_at = None
            self.desk.want(self)

    def repair_is_due(self) -> bool:
        """Return whether a read is to be begun."""
        return self.repairing and self._retry_at is None

    def begin_repair(self) -> Position:
        """Return the place to read from, as the read is begun."""
        assert self.position is not None
        self._asked = self.position
        self._known = list(self._held)
        self._overflow = False  # what was dropped is stored by now
        return self.position

    def repaired(self, part: Slice, now: float) -> None:
        """Take what was read."""
        assert self.position is not None
        assert self._asked is not None
        self._failures = 0
        told = self.desk.counts.told
        moved = self._take(part)
        self._forget_stale()
        self._drain()
        behind = part.top.epoch == self.position.epoch and self.position.offset < part.top.offset
        if not self._held and not self._overflow and not behind:
            self._finish(moved and self.desk.counts.told == told)
        elif moved or self._overflow:
            self._attempts = 0
            self.desk.want(self)
        else:
            self._attempts += 1
            if self._attempts < ATTEMPTS:
                self._retry(now, self._attempts)
            else:
                self._believe("trimmed")

    def _forget_stale(self) -> None:
        """Drop what is held since before the read and is of another epoch than the engine now has: it is old."""
        assert self.position is not None
        epoch = self.position.epoch
        known = {id(message) for message in self._known}
        self._known = []
        fresh = [one for one in self._held if id(one) not in known or (one.position and one.position.epoch == epoch)]
        self.desk.counts.duplicates += len(self._held) - len(fresh)
        self._held = fresh

    def _take(self, part: Slice) -> bool:
        """Give what was read, and skip what cannot be; return whether the position moved."""
        assert self.position is not None
        assert self._asked is not None
        before = self.position
        top = part.top
        if top.epoch != before.epoch:
            self._skip(Position(top.epoch, 0), "epoch")
            return True
        if top.offset < self._asked.offset:
            # The engine lost its end, and numbers are used again: what it has now is another history.
            self._skip(top, "epoch")
            return True
        for message in part.messages:
            if offset_of(message) > self.position.offset:
                if not self.desk.follows(self.position, message):
                    self._skip(place_before(message), "trimmed")
                self._advance(message)
        if not part.messages and top.offset > self.position.offset:
            if part.complete:
                self.position = top  # where offsets are not the channel's alone: nothing is between them
            else:
                self._skip(top, "trimmed")
        return self.position != before

    def unread(self, now: float) -> None:
        """Take it that the read failed."""
        self._failures += 1
        if self._failures < FAILURES:
            self._retry(now, self._failures)
        elif self._held:
            self._believe("unread")
        else:
            self._finish(False)

    def _retry(self, now: float, times: int) -> None:
        self._retry_at = now + RETRY * 2 ** (times - 1) * (0.5 + self.desk.random())
        self.desk.later(self._retry_at, self)

    def _believe(self, reason: str) -> None:
        """Go on with what is held, and tell what is missing before it."""
        while self._held:
            first = self._first_held()
            assert first.position is not None
            assert self.position is not None
            place = place_before(first)
            if place.epoch != self.position.epoch:
                reason = "epoch"
            self._skip(place, reason)
            self._drain()
        self._finish(False)
        if self._overflow:
            self.repair()

    def _first_held(self) -> Message:
        assert self.position is not None
        epoch = self.position.epoch
        same = [one for one in self._held if one.position and one.position.epoch == epoch]
        return min(same, key=offset_of) if same else self._held[0]

    def _finish(self, repaired: bool) -> None:
        self.repairing = False
        self._retry_at = None
        if repaired:
            self.desk.counts.repaired += 1

    def next_wake(self) -> float | None:
        """Return when `wake` is to be called next."""
        return self._retry_at

    def wake(self, now: float) -> None:
        """Do what is due."""
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
            if self.repairing:
                self.desk.want(self)
