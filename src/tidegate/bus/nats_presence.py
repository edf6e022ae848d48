"""Who is where, as processes tell each other on one subject: snapshots with leases, merged where it is asked.

    Snapshots       what this process tells, and what others have told

A process tells what changed since it told last, in numbered steps, and all of it if that is little, or when one
asks that has just come or has missed a step. A read asks no process: what there is, is here. A lease ends by
itself, so that a process that is killed is forgotten; names of one that ends stay until then, for who they are is about
to connect to another. JetStream has no part in this: it works without, nothing is written to a disk, and a reader would
have to read what is told here anyway. What must not live here: a connection; when it is told (presence.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ..channels import LISTED, UNLISTED
from .base import Presence

__all__ = ["ASK_AGAIN", "LEASE", "Snapshots"]

LEASE: Final = 30.0
"""Seconds for which a snapshot is in force."""

ASK_AGAIN: Final = 1.0
"""Seconds between two times that all is told, or asked for."""

GONE: Final = -1
"""In place of the number of connections to a channel that is not in a snapshot any more."""

PART_BYTES: Final = 2**17
"""Bytes of one message, about."""

WHOLE: Final = 100
"""Channels that are told as a whole each time."""

PROCESSES: Final = 10_000
"""Processes of which snapshots are kept."""


class _Entry(msgspec.Struct, array_like=True, gc=False):
    """What is told of a channel; members may be in several, of which each has the number of connections."""

    channel: str
    connections: int  # or GONE
    members: dict[str, msgspec.Raw] | None = None


class _Part(msgspec.Struct, omit_defaults=True, rename={"process": "w", "step": "s", "entries": "c"}):
    """What a process tells, or a part of it.

    Attributes:
        process: who tells.
        step: its number.
        entries: channels.
        full: whether it is all there is, not what changed since the step before.
        more: whether another part follows.
        ask: whether others are to tell all that they have.
        end: whether the process ends.
    """

    process: str
    step: int = 0
    entries: list[_Entry] = []
    full: bool = False
    more: bool = False
    ask: bool = False
    end: bool = False


class _Process:
    """What one process has told."""

    __slots__ = ("channels", "ended", "expires", "staged", "step")

    def __init__(self) -> None:
        self.step = -1
        self.ended = False
        self.channels: dict[str, Presence] = {}
        self.staged: dict[str, Presence] = {}  # of a step that has not come as a whole
        self.expires = 0.0


class Snapshots:
    """What this process tells, and what others have told. Time is an argument.

    Args:
        name: of this process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._step = 0
        self._mine: dict[str, Presence] = {}
        self._others: dict[str, _Process] = {}
        self._asked_at = float("-inf")

    # What is told.

    def ask(self, now: float) -> bytes | None:
        """Return what makes others tell all that they have; None if that was just asked for."""
        if now < self._asked_at + ASK_AGAIN:
            return None
        self._asked_at = now
        return msgspec.json.encode(_Part(self._name, self._step, ask=True))

    def change(self, snapshot: Mapping[str, Presence]) -> list[bytes]:
        """Take what there is now, and return what is to be told of it: all, unless that is much."""
        mine = dict(snapshot)
        changed = {channel: presence for channel, presence in mine.items() if self._mine.get(channel) != presence}
        changed.update((channel, Presence(GONE)) for channel in self._mine if channel not in mine)
        self._mine = mine
        self._step += 1
        whole = len(mine) <= WHOLE
        return self._parts(mine if whole else changed, full=whole)

    def all(self) -> list[bytes]:
        """Return all that there is, to be told."""
        return self._parts(self._mine, full=True)

    def end(self) -> bytes:
        """Return what tells that this process ends: its connections do, and names stay for the rest of the lease."""
        return msgspec.json.encode(_Part(self._name, self._step, end=True))

    def _parts(self, channels: Mapping[str, Presence], full: bool) -> list[bytes]:
        parts: list[_Part] = []
        size = PART_BYTES
        for channel, presence in channels.items():
            for entry in _entries(channel, presence):
                if size >= PART_BYTES:
                    parts.append(_Part(self._name, self._step, [], full=full, more=True))
                    size = 0
                parts[-1].entries.append(entry)
                size += (
                    len(channel) + sum(len(name) + len(info) + 8 for name, info in (entry.members or {}).items()) + 8
                )
        if not parts:
            parts = [_Part(self._name, self._step, full=full)]
        parts[-1].more = False
        return [msgspec.json.encode(part) for part in parts]

    # What others tell.

    def take(self, payload: bytes, now: float) -> str:
        """Take what another process tells; return what is to be done: `"tell"` all, `"ask"` for all, or nothing."""
        try:
            part = msgspec.json.decode(payload, type=_Part)
        except (msgspec.MsgspecError, RecursionError):
            return ""
        if part.process == self._name:
            return ""
        if part.end:
            if part.process in self._others:
                self._others[part.process].ended = True
            return ""
        if part.ask:
            return "tell"
        process = self._others.get(part.process)
        if process is None:
            self._forget(now)
            if len(self._others) >= PROCESSES:
                return ""
            process = self._others[part.process] = _Process()
        process.expires = now + LEASE
        return self._step_of(process, part)

    def _step_of(self, process: _Process, part: _Part) -> str:
        if part.step < process.step or (part.step == process.step and not part.full):
            return ""
        if not part.full and part.step != process.step + 1:
            return "ask"
        staged = process.staged
        for channel, connections, members in map(msgspec.structs.astuple, part.entries):
            known = {name: bytes(info) for name, info in members.items()} if members is not None else None
            if known is not None and channel in staged:
                known.update(staged[channel].members or {})
            staged[channel] = Presence(connections, known)
        if not part.more:
            channels = staged if part.full else {**process.channels, **staged}
            process.channels = {
                channel: presence for channel, presence in channels.items() if presence.connections != GONE
            }
            process.step, process.staged = part.step, {}
        return ""

    def _forget(self, now: float) -> None:
        for name in [name for name, process in self._others.items() if process.expires <= now]:
            del self._others[name]

    # What is known.

    def present(self, channel: str, now: float) -> Presence:
        """Return who is in a channel, in all processes, and the names of those that have just ended."""
        self._forget(now)
        connections = 0
        members: dict[str, bytes] = {}
        for process in sorted(self._others.values(), key=_is_living):
            found = process.channels.get(channel)
            if found is not None:
                connections += 0 if process.ended else found.connections
                members.update(found.members or {})
        mine = self._mine.get(channel)
        if mine is not None:
            connections += mine.connections
            members.update(mine.members or {})
        if UNLISTED in members or len(members) > LISTED:
            members = {UNLISTED: b"null"}
        return Presence(connections, members or None)


def _is_living(process: _Process) -> bool:
    return not process.ended


def _entries(channel: str, presence: Presence) -> Iterator[_Entry]:
    """Return what is told of a channel, in entries that are small enough."""
    if presence.members is None:
        yield _Entry(channel, presence.connections)
        return
    members: dict[str, msgspec.Raw] = {}
    size = 0
    for name, info in presence.members.items():
        members[name] = msgspec.Raw(info)
        size += len(name) + len(info)
        if size > PART_BYTES:
            yield _Entry(channel, presence.connections, members)
            members, size = {}, 0
    if members or not presence.members:
        yield _Entry(channel, presence.connections, members)
