"""Who is in which channel: tells the engine of this process, and asks it for those of all.

    Attendance    runs what presence.py wants, beside the bus

What must not live here: what is to be told and read, and when (presence.py), the channels themselves (bus.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..channels import LISTED, UNLISTED, Identity, PresenceEvent
from ..exceptions import BusDown, BusError, TooManyMembers
from .base import VERB_DEADLINE, Broker, Presence, Publication
from .orders import Order
from .policies import CONTROL, PRESENCE, Policies
from .presence import HAND_OVER, PROCESSES, Presences
from .records import Records
from .topics import Topics

if TYPE_CHECKING:
    from .members import Member

__all__ = ["Attendance"]

READS: Final = 16
"""Reads at once."""

NUDGED: Final = 500
"""Channels that one message says to have other names."""

RETRY: Final = 1.0
"""Seconds after a failure that was not expected."""

ENCODING: Final = 3.0
"""What an engine takes for a snapshot, in times of what it takes to make it."""


class Attendance:
    """Who is in the channels of a bus.

    Args:
        broker: a started one, within `run()`.
        topics: the channels of this process.
        policies: of channels.
        name: of this process; no other one has it.
        records: of the bus.

    Attributes:
        members_here: members of this process, once for each channel, as they were told last.
    """

    def __init__(self, broker: Broker, topics: Topics, policies: Policies, name: str, records: Records) -> None:
        self._broker = broker
        self._topics = topics
        self._policies = policies
        self._records = records
        self.members_here = 0
        self._loop = asyncio.get_running_loop()
        self._presences = Presences(name, self._tell, self._loop.time(), policies.has_presence, broker.settles)
        self._counts: dict[str, int] = {}  # as they were told last
        self._told = False
        self._wake = asyncio.Event()
        self._read_done = asyncio.Event()

    # Members of this process.

    def opens(self, channel: str) -> bool:
        """Watch a channel that is about to get a member, if it has presence; return whether it has."""
        if not self._policies.of(channel).presence:
            return False
        self._presences.open(channel, self._loop.time())
        self.changed()
        return True

    def enter(self, channel: str, member: Member, identity: Identity) -> None:
        """Give a member of a channel a name."""
        self._presences.enter(channel, member, identity, self._loop.time())
        self._wake.set()

    def leave(self, channel: str, member: Member, *, returns: bool = False, removed: bool = False) -> None:
        """Take it that a member has left.

        Args:
            channel: its name.
            member: who.
            returns: whether it is expected to come back, to another process.
            removed: whether it is not wanted back.
        """
        policy = self._policies.of(channel)
        if policy.presence:
            grace = max(policy.presence_grace, HAND_OVER) if returns else policy.presence_grace
            self._presences.leave(channel, member, self._loop.time(), None if removed else grace)
            if not self._topics.members(channel):
                self._presences.shut(channel)
        self.changed()

    def changed(self) -> None:
        """Take it that there are more or fewer members than before."""
        self._presences.changed(self._loop.time())
        self._wake.set()

    def name_of(self, channel: str, member: Member) -> str | None:
        """Return the name of a member of a channel, if it has one."""
        return self._presences.name_of(channel, member)

    def _tell(self, event: PresenceEvent, but: object) -> None:
        for member in self._topics.members_of(event.channel):
            if member is not but:
                member.presence(event)

    # Questions.

    async def members(self, channel: str) -> int:
        """Return how many members a channel has in all processes.

        Raises:
            BusDown: the engine is away.
        """
        present = await self._broker.present(channel)
        here = self._topics.members(channel) - self._counts.get(channel, 0)
        return max(0, present.connections + here)

    async def names(self, channel: str) -> dict[str, bytes]:
        """Return who is in a channel in all processes: for one that has members here, as they are told.

        Raises:
            TooManyMembers: there are more than are listed.
            BusDown: the engine is away.
        """
        presences = self._presences
        try:
            async with asyncio.timeout(VERB_DEADLINE):
                while presences.is_watched(channel) and not presences.is_loaded(channel):
                    self._read_done.clear()
                    await self._read_done.wait()
        except TimeoutError:
            raise BusDown("who is there could not be read in time") from None
        if presences.is_watched(channel):
            names = presences.names(channel)
        else:
            present = await self._broker.present(channel)
            names = {**(present.members or {}), **presences.names_here(channel)}
        if names is None or UNLISTED in names or len(names) > LISTED:
            raise TooManyMembers(channel, await self.members(channel), LISTED)
        return names

    # Its life.

    async def run(self) -> None:
        """Tell and ask, until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except Exception:
                self._records.logger.error("who is in channels cannot be told or asked", exc_info=True)
                await asyncio.sleep(RETRY)
            delay = self._presences.deadline() - self._loop.time()
            if delay > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()

    async def _turn(self) -> None:
        """Do what is due."""
        loop, presences = self._loop, self._presences
        presences.tick(loop.time())
        if presences.is_beat_due(loop.time()):
            if self._told and self._policies.has_presence:
                await self._check()  # before it is told again: it would not be known what was lost
            await self._beat()
        if presences.is_check_due(loop.time()):
            await self._check()
        if channels := presences.reads(loop.time()):
            await self._read(channels)

    async def end(self) -> None:
        """Tell the engine who may be back at other processes; others are gone."""
        if self._told:
            with contextlib.suppress(BusError, TimeoutError):
                async with asyncio.timeout(VERB_DEADLINE):
                    await self._broker.beat(self._presences.farewell())

    def again(self) -> None:
        """Take it that the engine is there again, and may have lost what it was told."""
        self._presences.again(self._loop.time())
        self._wake.set()

    def nudged(self, channels: Sequence[str]) -> None:
        """Take it that the engine has other names of channels."""
        self._presences.nudged(channels, self._loop.time())
        self._wake.set()

    # The engine.

    async def _beat(self) -> None:
        """Tell who is here, and then others that there is news."""
        loop, presences = self._loop, self._presences
        started = loop.time()
        counts = self._topics.snapshot()
        self.members_here = sum(counts.values()) - sum(counts.get(own, 0) for own in (CONTROL, PRESENCE))
        snapshot = presences.snapshot(counts, started)
        took = (loop.time() - started) * ENCODING
        try:
            async with asyncio.timeout(VERB_DEADLINE):
                await self._broker.beat(snapshot)
        except (BusError, TimeoutError) as exc:
            self._records.heard(getattr(exc, "reason", str(exc)) or "it does not answer in time")
            presences.not_told(loop.time())
            return
        self._records.heard()
        self._counts, self._told = counts, True
        changed = presences.told(loop.time(), took)
        for first in range(0, len(changed), NUDGED):
            if not await self._nudge(some := changed[first : first + NUDGED]):
                presences.say_again(some, loop.time())

    async def _nudge(self, channels: Sequence[str]) -> bool:
        publication = Publication(PRESENCE, Order(seen=list(channels)).encode(), True)
        try:
            async with asyncio.timeout(VERB_DEADLINE):
                (result,) = await self._broker.publish([publication], 1.0)
        except (BusError, TimeoutError):
            return False
        return not isinstance(result, BaseException)

    async def _present(self, channel: str) -> Presence | None:
        try:
            async with asyncio.timeout(VERB_DEADLINE):
                return await self._broker.present(channel)
        except (BusError, TimeoutError):
            return None

    async def _check(self) -> bool:
        """Look which processes there are; return whether the engine knows this one."""
        for channel in self._presences.watched():
            if not self._topics.members(channel):
                self._presences.shut(channel)
        present = await self._present(PROCESSES)
        known = self._presences.have_checked(present, self._loop.time())
        if present is not None and self._told and not known:
            self._records.logger.info("the bus has lost who is in which channel, and is told again")
            with contextlib.suppress(BusError, TimeoutError):
                async with asyncio.timeout(VERB_DEADLINE):
                    await self._broker.beat({})  # engines are told what has changed: now it is all
            self.again()
        return known

    async def _read(self, channels: Sequence[str]) -> None:
        """Read who is in channels."""
        presences = self._presences
        turns = asyncio.Semaphore(READS)

        async def read(channel: str) -> Presence | None:
            async with turns:
                return await self._present(channel)

        found = dict(zip(channels, await asyncio.gather(*map(read, channels)), strict=True))
        doubtful = {one for one, present in found.items() if present is not None and presences.misses(one, present)}
        known = not doubtful or await self._check()
        for channel, present in found.items():
            presences.have_read(channel, present, channel not in doubtful or known, self._loop.time())
        self._read_done.set()
