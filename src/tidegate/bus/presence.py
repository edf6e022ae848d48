"""Who is in which channel, by name: what a process tells of itself, what it knows of all, what its members are told.

    Presences    takes joins, leaves, what was read of the engine, and the time

Each process tells the engine the names that it has, those included that have gone a short while ago: a member that
comes back in time, to whatever process, was there all the time, and no other has to know why it was away. What the
engine has of all processes is the truth; each process reads it for the channels that it has members in, and tells those
the difference to what it had read before. Names come at once, and go only when it is certain: not while processes may
not have told the engine again, after it was lost.

No I/O; time is an argument. What must not live here: asking and telling the engine (attendance.py), counts of
connections without names (topics.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from ..channels import LISTED, RESERVED, UNLISTED, Identity, PresenceEvent
from .base import Presence

__all__ = ["BEAT", "HAND_OVER", "PROCESSES", "Presences"]

PROCESSES: Final = f"{RESERVED}processes"
"""A channel that each process is in by its own name."""

BEAT: Final = 10.0
"""Seconds between two snapshots, though nothing changed."""

SOON: Final = 0.25
"""Seconds from a change to the snapshot that has it, at least."""

COST: Final = 20.0
"""Times the duration of a snapshot that pass before the next one: so they take a twentieth of a processor at most."""

RETRY: Final = 1.0
"""Seconds after a snapshot that failed."""

HAND_OVER: Final = 15.0
"""Seconds for which one is still there whom the server itself has sent to another process."""

SLACK: Final = 0.5
"""Seconds for which one who has gone is there beyond its grace: so long others may take to tell that it is back."""

SETTLE: Final = BEAT + 2.0
"""Seconds after which each process has told the engine again what it had lost."""

IDLE: Final = 60.0
"""Seconds after which a channel is read though nothing is known to have changed."""

PACE: Final = 0.001
"""Seconds between two reads of a channel, for each name in it; and SOON at least."""

NAMES_BYTES: Final = 2**24
"""Bytes of names and what is known of them that a process tells; channels beyond that are not listed."""

RELISTED: Final = LISTED * 9 // 10
"""Names at which a channel is listed again, which had too many."""

READS: Final = 256
"""Channels that are read in one go."""

Tell = Callable[[PresenceEvent, object], None]
"""Takes an event for the members of its channel in this process, and the one of them who is not to be told, or None."""


class _Name:
    """One name in this process: how many connections have it; once none has, until when it is there."""

    __slots__ = ("connections", "info", "until")

    def __init__(self, info: bytes) -> None:
        self.connections = 0
        self.info = info
        self.until = 0.0


_CROWD: Final[Mapping[str, bytes]] = {UNLISTED: b"null"}


class _Here:
    """The names of one channel in this process.

    Attributes:
        members: the name of each member.
        names: what is known of each name.
        listed: names as they are told, if they are as they were.
        size: bytes of those.
    """

    __slots__ = ("listed", "members", "names", "size")

    def __init__(self) -> None:
        self.members: dict[object, str] = {}
        self.names: dict[str, _Name] = {}
        self.listed: Mapping[str, bytes] | None = None
        self.size = 0

    def told(self) -> Mapping[str, bytes]:
        if self.listed is None:
            if len(self.names) > LISTED:
                self.listed, self.size = _CROWD, 0
            else:
                self.listed = {name: each.info for name, each in self.names.items()}
                self.size = sum(len(name) + len(info) for name, info in self.listed.items())
        return self.listed


class _View:
    """The names of one channel in all processes, as far as its members in this process are told.

    Attributes:
        names: what is known of each.
        loaded: whether it was read.
        crowded: whether there are too many.
        certain: whether it was read when all processes had told of themselves.
        reading: whether it is being read.
        wanted: when it is to be read after that.
        read_at: when it was read last.
    """

    __slots__ = ("certain", "crowded", "loaded", "names", "read_at", "reading", "wanted")

    def __init__(self) -> None:
        self.names: dict[str, bytes] = {}
        self.loaded = self.crowded = self.certain = self.reading = False
        self.wanted: float | None = None
        self.read_at = float("-inf")


class Presences:
    """Who is where, as one process tells and knows it.

    Args:
        name: of this process; no other one has it.
        tell: takes events.
        now: the time.
        watching: whether there may be channels with presence: else there are counts alone.
        settles: seconds until the engine can be asked who is there.
    """

    def __init__(self, name: str, tell: Tell, now: float, watching: bool = True, settles: float = 0.0) -> None:
        self.name = name
        self._ready_at = now + settles
        self._watching = watching
        self._tell = tell
        self._here: dict[str, _Here] = {}
        self._views: dict[str, _View] = {}
        self._leaving: list[tuple[float, str, str]] = []  # when a name may have to go: a heap
        self._unsaid: dict[str, None] = {}  # channels whose names are others than was told
        self._saying: dict[str, None] = {}
        self._spacing = SOON
        self._beat_at = now
        self._due: dict[str, float] = {}  # when to read
        self._settled_at = now
        self._check_at = now if watching else float("inf")
        self._processes: Collection[str] = ()

    # Members of this process.

    def enter(self, channel: str, member: object, identity: Identity, now: float) -> None:
        """Give a member of a channel a name; another one, if it has one."""
        here = self._here.setdefault(channel, _Here())
        name, info = identity.member, identity.payload
        before = here.members.get(member)
        if before is not None and before != name:
            self.leave(channel, member, now, None)
            here = self._here.setdefault(channel, _Here())
        known = here.names.get(name)
        if known is None:
            known = here.names[name] = _Name(info)
            self._say(channel, now)
        elif known.info != info:
            known.info = info
            self._say(channel, now)
        if before != name:
            here.members[member] = name
            known.connections += 1
        view = self._views.get(channel)
        if view is None or not view.loaded or view.crowded:
            return
        is_new = name not in view.names
        view.names[name] = info
        if len(view.names) > LISTED:
            self._crowd(channel, view)
        elif is_new:
            self._tell(PresenceEvent(channel, "in", name, info), member)

    def leave(self, channel: str, member: object, now: float, grace: float | None) -> None:
        """Take a member's name away, if it has one; the name stays for as long as the grace lasts.

        Args:
            channel: its name.
            member: who.
            now: the time.
            grace: seconds; None lets the name go at once.
        """
        here = self._here.get(channel)
        name = here.members.pop(member, None) if here is not None else None
        if here is None or name is None:
            return
        known = here.names[name]
        known.connections -= 1
        if known.connections:
            return
        if grace is None:
            self._remove(channel, here, name, now)
        else:
            known.until = now + grace + SLACK
            heapq.heappush(self._leaving, (known.until, channel, name))

    def _remove(self, channel: str, here: _Here, name: str, now: float) -> None:
        del here.names[name]
        if not here.names:
            del self._here[channel]
        self._say(channel, now)

    def _say(self, channel: str, now: float) -> None:
        """Take it that the names of a channel in this process are others, and are to be told."""
        here = self._here.get(channel)
        was_crowded = here is not None and here.listed is _CROWD
        if here is not None:
            here.listed = None
        if not was_crowded or here is None or here.told() is not _CROWD:
            self._unsaid[channel] = None
        self.changed(now)

    def name_of(self, channel: str, member: object) -> str | None:
        """Return the name of a member of a channel, if it has one."""
        here = self._here.get(channel)
        return None if here is None else here.members.get(member)

    # What the engine is told.

    def changed(self, now: float) -> None:
        """Take it that something is to be told soon."""
        self._beat_at = min(self._beat_at, now + self._spacing)

    def is_beat_due(self, now: float) -> bool:
        """Return whether the engine is to be told now."""
        return now >= self._beat_at

    def snapshot(self, counts: Mapping[str, int], now: float) -> dict[str, Presence]:
        """Return what the engine is to be told; `told` or `not_told` takes what becomes of it.

        Args:
            counts: of connections in each channel.
            now: the time.
        """
        self._saying, self._unsaid = self._unsaid, {}
        self._beat_at = now + BEAT
        snapshot = {channel: Presence(count) for channel, count in counts.items()}
        size = 0
        for channel, here in self._here.items():
            names = here.told() if size < NAMES_BYTES else _CROWD
            size += here.size
            snapshot[channel] = Presence(counts.get(channel, 0), names)
        if self._watching:
            snapshot[PROCESSES] = Presence(1, {self.name: b"null"})
        return snapshot

    def told(self, now: float, took: float) -> list[str]:
        """Take it that the engine has the snapshot, which took so many seconds; return channels with other names."""
        self._spacing = min(BEAT, max(SOON, COST * took))
        self._beat_at = max(min(self._beat_at, now + BEAT), now + self._spacing)
        said, self._saying = self._saying, {}
        return list(said)

    def say_again(self, channels: Iterable[str], now: float) -> None:
        """Take it that others could not be told which channels have other names."""
        self._unsaid.update(dict.fromkeys(channels))
        self._beat_at = min(self._beat_at, now + RETRY)

    def not_told(self, now: float) -> None:
        """Take it that the engine does not have the snapshot."""
        self._unsaid = {**self._saying, **self._unsaid}
        self._saying = {}
        self._beat_at = now + RETRY

    def farewell(self) -> dict[str, Presence]:
        """Return what the engine is to be told at the end: those who may be back at another process in time."""
        snapshot: dict[str, Presence] = {}
        for channel, here in self._here.items():
            snapshot[channel] = Presence(0, here.told())
        if snapshot:
            snapshot[PROCESSES] = Presence(0, {self.name: b"null"})
        return snapshot

    # What members are told.

    def open(self, channel: str, now: float) -> None:
        """Watch a channel, which has a member in this process."""
        if channel not in self._views:
            self._views[channel] = _View()
            self._due[channel] = max(now, self._ready_at)

    def shut(self, channel: str) -> None:
        """Watch a channel no more."""
        self._views.pop(channel, None)
        self._due.pop(channel, None)

    def watched(self) -> list[str]:
        """Return the channels that are watched."""
        return list(self._views)

    def names(self, channel: str) -> dict[str, bytes] | None:
        """Return who is in a channel, as its members are told; None if it is not loaded, or there are too many."""
        view = self._views.get(channel)
        return None if view is None or not view.loaded or view.crowded else dict(view.names)

    def is_loaded(self, channel: str) -> bool:
        """Return whether it is known who is in a channel, or that these are too many."""
        view = self._views.get(channel)
        return view is not None and view.loaded

    def names_here(self, channel: str) -> Mapping[str, bytes]:
        """Return the names in this process; UNLISTED, if they are too many."""
        here = self._here.get(channel)
        return {} if here is None else here.told()

    def is_watched(self, channel: str) -> bool:
        """Return whether a channel is watched."""
        return channel in self._views

    # What is read of the engine.

    def nudged(self, channels: Iterable[str], now: float) -> None:
        """Take it that the engine has other names of channels."""
        for channel in channels:
            view = self._views.get(channel)
            if view is not None:
                names = LISTED if view.crowded else len(view.names)
                self._want(channel, view, max(now, view.read_at + max(SOON, PACE * names)))

    def _want(self, channel: str, view: _View, when: float) -> None:
        when = max(when, self._ready_at)
        if view.reading:
            view.wanted = when if view.wanted is None else min(when, view.wanted)
        else:
            self._due[channel] = min(when, self._due.get(channel, when))

    def again(self, now: float) -> None:
        """Take it that the engine may have lost what processes have told it; they will tell it again."""
        self._settled_at = now + SETTLE
        self._beat_at = now
        for channel, view in self._views.items():
            self._want(channel, view, self._settled_at)

    def is_check_due(self, now: float) -> bool:
        """Return whether PROCESSES is to be read now."""
        return now >= self._check_at

    def have_checked(self, present: Presence | None, now: float) -> bool:
        """Take which processes there are, None if that cannot be read; return whether this one is among them.

        When one has gone, so may its names have.
        """
        if present is None:
            self._check_at = now + RETRY
            return False
        processes = present.members or {}
        self._check_at = now + BEAT
        if any(process not in processes for process in self._processes):
            self.nudged(self._views, now)
        self._processes = processes.keys()
        for channel, view in self._views.items():
            if view.read_at < now - IDLE:
                self._want(channel, view, now)
        return self.name in processes or UNLISTED in processes

    def reads(self, now: float) -> list[str]:
        """Return the channels that are to be read now; `have_read` takes each result."""
        due = [channel for channel, when in self._due.items() if when <= now][:READS]
        for channel in due:
            del self._due[channel]
            self._views[channel].reading = True
        return due

    def misses(self, channel: str, present: Presence) -> bool:
        """Return whether a result lacks a name: it is right if this process is in PROCESSES afterwards."""
        view = self._views.get(channel)
        if view is None or not view.loaded or view.crowded:
            return False
        return not view.names.keys() <= ((present.members or {}).keys() | self.names_here(channel).keys())

    def have_read(self, channel: str, present: Presence | None, certain: bool, now: float) -> None:
        """Take who is in a channel, and tell its members what is new.

        Args:
            channel: its name.
            present: the result; None if it cannot be read.
            certain: whether the engine has what this process has told: what it lacks of others has gone.
            now: the time.
        """
        view = self._views.get(channel)
        if view is None or not view.reading:
            return
        view.reading = False
        wanted, view.wanted = view.wanted, None
        if wanted is not None:
            self._want(channel, view, wanted)
        if present is None:
            self._want(channel, view, now + RETRY)
            return
        view.read_at = now
        names = {**(present.members or {}), **self.names_here(channel)}
        if UNLISTED in names or len(names) > (RELISTED if view.crowded else LISTED):
            self._crowd(channel, view)
            return
        certain = certain and now >= self._settled_at
        if not certain:
            # Whom it lacks may not have been told again; of whom it has nothing is known to be new.
            self._want(channel, view, max(self._settled_at, now + SOON))
            names = {**view.names, **names}
        self._tell_difference(channel, view, names, certain)

    def _tell_difference(self, channel: str, view: _View, names: dict[str, bytes], certain: bool) -> None:
        before, view.names = view.names, names
        loaded, view.loaded = view.loaded, True
        crowded, view.crowded = view.crowded, False
        was_certain, view.certain = view.certain, certain or (view.certain and loaded)
        if not loaded:
            return
        if crowded:
            self._tell(PresenceEvent(channel, "changed"), None)
        elif not was_certain:
            if names.keys() != before.keys():
                self._tell(PresenceEvent(channel, "changed"), None)
        else:
            for name in before.keys() - names.keys():
                self._tell(PresenceEvent(channel, "out", name), None)
            for name, info in names.items():
                if name not in before:
                    self._tell(PresenceEvent(channel, "in", name, info), None)

    def _crowd(self, channel: str, view: _View) -> None:
        """Take it that there are too many names."""
        before = view.loaded and not view.crowded
        view.names, view.loaded, view.crowded = {}, True, True
        if before:
            self._tell(PresenceEvent(channel, "changed"), None)

    # Time.

    def deadline(self) -> float:
        """Return when something is due next."""
        times = [self._beat_at, self._check_at, *self._due.values()]
        if self._leaving:
            times.append(self._leaving[0][0])
        return min(times)

    def tick(self, now: float) -> None:
        """Let names go whose members have not come back."""
        while self._leaving and self._leaving[0][0] <= now:
            until, channel, name = heapq.heappop(self._leaving)
            here = self._here.get(channel)
            known = here.names.get(name) if here is not None else None
            if here is not None and known is not None and not known.connections and known.until == until:
                self._remove(channel, here, name, now)
