"""The engine `redis://`, as one process sees it: verbs, over one link after the other.

    RedisBroker    the verbs

A message with history is stored and published by one script, and kept here until the server has acknowledged it: on the
next link it is sent again with the same sequence, by which the server stores it once. Each names the one before it that
is on its way, too, so that none overtakes. On a link to another server, or to one that was restarted, it is checked
first whether that has everything that this process has seen; then what is subscribed is confirmed, then a message must
come, and only then is the state up.

What must not live here: the connections (redis_connection.py), finding and checking a server (redis_link.py), what runs
within it (redis_scripts.py), the layout of messages (redis_messages.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import secrets
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import hiredis

from ..channels import Message, Position
from ..exceptions import BusBusy, BusDown, BusError
from .base import SLICE_BYTES, SLICE_MESSAGES, Broker, Deliver, Presence, Publication, Slice, State, Tell, new_epoch
from .link_state import Call, give_up
from .policies import Policies
from .redis_connection import DEADLINE, QUEUE_BYTES, Refused, give
from .redis_link import BATCH, Link, Server, is_down
from .redis_messages import Entry, RedisChannel, RedisChannels, flags_of, from_entry, pack, unpack
from .redis_presence import Roster, merge
from .redis_scripts import APPEND, LOOK, PRESENT, READ, REMEMBERED, Script
from .redis_url import parse
from .watch import PROBE_CHANNEL, Backoff, end

__all__ = ["RedisBroker"]

logger = logging.getLogger("tidegate.bus")

RETRY: Final = (0.05, 3.0)
"""Seconds between attempts to connect: at first, and at most."""

LASTING: Final = 30.0
"""Seconds after which a link has lasted: the next one is tried at once."""

EARLY: Final = SLICE_MESSAGES
EARLY_BYTES: Final = 4 * SLICE_BYTES
"""Messages, and bytes, that are kept while a link is opened. With more, all go: they came before the notice, which says
so, and before the check, which finds what is stored."""

WAIT_MILLISECONDS: Final = 2000
"""For how long the replicas are waited for."""

COMPLAINTS: Final = 10.0
"""Seconds between two complaints of the same kind in the log."""


class RedisBroker(Broker):
    """The engine `redis://` of one process.

    Parameters:
        url: of the server, or of its sentinels.
        policies: of the channels.
    """

    def __init__(self, url: str, policies: Policies) -> None:
        self._url = parse(url)
        self._name = secrets.token_urlsafe(9)
        self._channels = RedisChannels(self._url, policies)
        self._service = self._channels.get(f"{PROBE_CHANNEL}{self._name}")
        self._roster = Roster(self._url, self._name)
        self._snapshot: Mapping[str, Presence] = {}
        self._sequence = itertools.count(1)
        self._epochs = (f"{epoch}{number:x}" for epoch in [new_epoch()] for number in itertools.count())
        self._unacknowledged: dict[int, Entry] = {}
        self._unacknowledged_bytes = 0
        self._stored: list[Entry] = []  # that replicas are to have, and that no WAIT was sent for yet
        self._room: list[asyncio.Future[None]] = []
        self._link: Link | None = None  # while it is up
        self._server: Server | None = None  # of the last link
        self._generation = 0
        self._reason = "it is not started, or closed"
        self._retry_after = 1.0
        self._early: list[Message] | None = None  # while a link is opened
        self._flushed: asyncio.Future[None] | None = None  # of close()
        self._life: asyncio.Task[None] | None = None
        self._strange = 0  # messages that made no sense since the last complaint
        self._complained = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._deliver: Deliver
        self._tell: Tell

    @property
    def queued(self) -> int:
        return self._unacknowledged_bytes

    # Links.

    async def start(self, deliver: Deliver, tell: Tell) -> None:
        """Connect; afterwards there is one link after the other."""
        self._deliver, self._tell = deliver, tell
        self._loop = asyncio.get_running_loop()
        try:
            link = await self._begin()
        except BusDown as error:
            self._reason = error.reason
            raise
        self._life = self._loop.create_task(self._live(link), name="link to Redis")
        self._life.add_done_callback(self._died)

    async def close(self) -> None:
        """Wait until what was published is acknowledged, and disconnect."""
        life, self._life = self._life, None
        if life is None:
            return
        if self._unacknowledged:
            self._flushed = self._loop.create_future()
            await asyncio.wait([self._flushed], timeout=DEADLINE)
        link = self._link
        if link is not None:
            with contextlib.suppress(BusError):
                link.commands.send(_nothing, *self._roster.end())
                await link.commands.ask(b"PING")  # what was sent before it is done
        await end(life)
        for entry in list(self._unacknowledged.values()):
            self._settle(entry, BusDown("it is closed", uncertain=entry.sent))
        self._down("it is closed")

    def _died(self, life: asyncio.Task[None]) -> None:
        """Tell it if nothing connects again any more: by an error that ends the process, too."""
        if not life.cancelled() and life.exception() is not None:
            self._down(f"its task has ended: {life.exception()!r}")

    async def _live(self, link: Link | None) -> None:
        """Be linked, again and again."""
        backoff = Backoff(*RETRY)
        while True:
            try:
                if link is None:
                    link = await self._begin()
                began = self._loop.time()
                reason = await asyncio.shield(link.ended)
                if self._loop.time() - began > LASTING:
                    backoff.reset()
            except BusDown as error:
                reason = error.reason
            except BusError as error:
                reason = str(error)
            except Exception as error:
                logger.exception("the link to Redis failed")
                reason = f"{type(error).__name__}: {error}"
            finally:
                if link is not None:
                    link.fail("it is closed")
            link = None
            delay = backoff.next()
            self._down(reason, delay)
            await asyncio.sleep(delay)

    async def _begin(self) -> Link:
        """Return the next link, once it has all that there was on the last one, and delivers."""
        link = Link(
            self._url,
            f"tidegate:{os.getpid()}:{self._name}",
            self._service.wire,
            self._receive,
            lambda: pack(Publication(self._service.name, b"")),
        )
        # What was seen before: while it is checked, the other server's messages come under the same numbers, perhaps.
        seen = [(channel, channel.epoch, channel.offset, channel.time) for channel in self._channels if channel.epoch]
        self._early = []
        try:
            await link.open()
            wires = [self._service.wire, *self._channels.subscribed]
            await link.subscribe(wires)
            if self._server is not None and link.server != self._server:
                for start in range(0, len(seen), BATCH):
                    await self._look(link, seen[start : start + BATCH])
            await link.unsubscribe([wire for wire in wires[1:] if wire not in self._channels.subscribed])
            await link.confirm()
        except BaseException:
            link.fail("it could not be opened")
            self._early = None
            raise
        self._link, self._server = link, link.server
        self._generation += 1
        for entry in self._unacknowledged.values():
            self._append(entry)
        self._roster.forget()
        if self._snapshot:
            for words in self._roster.commands(self._snapshot):
                link.commands.send(_nothing, *words)
        self._tell(State("again" if self._generation > 1 else "up", self._generation))
        early, self._early = self._early, None
        if early:
            self._deliver(early)
        return link

    def _down(self, reason: str, retry_after: float = 1.0) -> None:
        """Tell that there is no link; what is not acknowledged waits for the next one."""
        link, self._link = self._link, None
        self._reason, self._retry_after = reason, retry_after
        if link is not None:
            link.fail(reason)
            self._tell(State("down", self._generation, reason, retry_after))
        self._make_room()

    def _linked(self) -> Link:
        if self._link is None or self._life is None:
            raise BusDown(self._reason, self._retry_after)
        return self._link

    # What comes.

    def _receive(self, received: list[tuple[bytes, bytes]]) -> None:
        """Take what has come with one read."""
        subscribed = self._channels.subscribed
        messages: list[Message] = []
        for wire, data in received:
            channel = subscribed.get(wire)
            if channel is not None:
                try:
                    message = unpack(channel, data)
                except (ValueError, struct.error) as error:
                    self._complain(channel, error)
                    continue
                if message.position is None and channel.policy.history:
                    self._complain(channel, ValueError("it is not stored: its publisher declares other channels"))
                messages.append(message)
        if not messages:
            return
        if self._early is not None:
            self._early += messages
            if len(self._early) > EARLY or sum(len(message.payload) for message in self._early) > EARLY_BYTES:
                self._early = []
        else:
            self._deliver(messages)

    def _complain(self, channel: RedisChannel, error: Exception) -> None:
        """Log that there is something on the bus's channels that is not to be there; not each time."""
        self._strange += 1
        now = self._loop.time()
        if now - self._complained > COMPLAINTS:
            logger.warning(
                "%d messages are not as they should be, the last one in %s: %s", self._strange, channel.name, error
            )
            self._complained, self._strange = now, 0

    # Scripts.

    async def _evaluate(
        self, link: Link, script: Script, calls: Sequence[tuple[Sequence[bytes], Sequence[bytes | str | int]]]
    ) -> list[Any]:
        """Run a script for each call, and return the answers."""
        futures: list[asyncio.Future[Any]] = []
        for keys, words in calls:
            future: asyncio.Future[Any] = self._loop.create_future()
            futures.append(future)
            link.evaluate(functools.partial(give, future), script, keys, words)
        try:
            return await link.commands.answers(futures)
        except Refused as error:
            raise self._refused(link, error.words) from None

    def _refused(self, link: Link, words: str) -> BusError:
        """Return what an error of the server means; if it is of no use any more, the link ends."""
        if is_down(words):
            link.fail(f"Redis answers: {words}")
            return BusDown(f"Redis answers: {words}")
        return Refused(words)

    def _begin_words(
        self, channel: RedisChannel, epoch: bytes = b"", offset: int = 0, when: int = 0
    ) -> tuple[str, bytes, int, int | bytes, int]:
        """Return what each script begins with: what was seen of a channel, without which its epoch ends."""
        return (next(self._epochs), epoch, offset, when or b"", channel.meta_milliseconds)

    async def _look(self, link: Link, seen: Sequence[tuple[RedisChannel, bytes, int, int]]) -> list[Position]:
        """Return where channels stand; what was seen of them ends their epoch if the server does not have it."""
        calls = []
        for channel, epoch, offset, when in seen:
            calls.append(((channel.meta, channel.stream), self._begin_words(channel, epoch, offset, when)))
        positions = []
        for (channel, *_), (epoch, top, when) in zip(seen, await self._evaluate(link, LOOK, calls), strict=True):
            channel.reached(epoch, top, int(when))
            positions.append(channel.position(epoch, top))
        return positions

    async def _tops(self, link: Link, channels: Sequence[RedisChannel]) -> list[Position | None]:
        stored = [channel for channel in channels if channel.policy.history]
        found = await self._look(link, [(channel, channel.epoch, channel.offset, 0) for channel in stored])
        tops = dict(zip(stored, found, strict=True))
        return [tops.get(channel) for channel in channels]

    # Verbs.

    async def subscribe(self, channels: Sequence[str]) -> Sequence[Position | None]:
        """Subscribe; what is published after the server has confirmed it comes."""
        link = self._linked()
        wanted = [self._channels.get(name) for name in channels]
        new = [channel for channel in dict.fromkeys(wanted) if not channel.subscribed]
        for channel in new:
            self._channels.subscribe(channel)
        try:
            async with asyncio.timeout(DEADLINE):
                await link.subscribe([channel.wire for channel in dict.fromkeys(wanted)])
                return await self._tops(link, wanted)
        except BaseException as error:
            for channel in new:
                self._channels.unsubscribe(channel)
            link.subscriber.request(b"UNSUBSCRIBE", [channel.wire for channel in new])
            if isinstance(error, TimeoutError):
                raise BusDown(f"Redis has not confirmed it within {DEADLINE:g} seconds") from None
            raise

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Unsubscribe; nothing comes from now on."""
        known = [channel for channel in map(self._channels.get, dict.fromkeys(channels)) if channel.subscribed]
        for channel in known:
            self._channels.unsubscribe(channel)
        if self._link is not None:
            with contextlib.suppress(BusError):
                await self._link.unsubscribe([channel.wire for channel in known])

    async def tops(self, channels: Sequence[str]) -> Sequence[Position | None]:
        """Return the positions; a channel that is new begins."""
        return await self._tops(self._linked(), [self._channels.get(name) for name in channels])

    async def read(
        self, channel: str, after: Position | None, limit: int = SLICE_MESSAGES, before: Position | None = None
    ) -> Slice:
        """Read what is stored, from one moment."""
        link, known = self._linked(), self._channels.get(channel)
        if not known.policy.history:
            raise BusError(f"{channel}: the channel has no history")
        mode = "after" if after is not None else "before" if before is not None else "newest"
        place = after or before or Position("", 0)
        words: list[bytes | str | int] = [*self._begin_words(known)]
        words += [mode, place.epoch, place.offset, max(0, min(limit, SLICE_MESSAGES)), SLICE_BYTES]
        words.append(int(known.policy.keep * 1e6))
        (reply,) = await self._evaluate(link, READ, [((known.meta, known.stream), words)])
        epoch, top, complete, entries = reply
        position = known.position(epoch, top)
        messages = [from_entry(known, position.epoch, entry) for entry in entries]
        return Slice(messages if after is not None else messages[::-1], position, complete == 1)

    # Publishing.

    async def publish(self, batch: Sequence[Publication], wait: float) -> Sequence[Position | BusError | None]:
        """Publish: what has history is stored by the same step."""
        if self._life is None:
            raise BusDown(self._reason)
        call = Call(len(batch))
        deadline = self._loop.time() + wait
        entries: list[Entry] = []
        try:
            for index, publication in enumerate(batch):
                if not self._has_room() and not await self._wait_for_room(deadline):
                    call.results[index] = BusBusy(publication.channel, wait)
                    continue
                channel = self._channels.get(publication.channel)
                link = self._link if self._link is not None and not self._link.ended.done() else None
                if link is None and (not channel.policy.history or wait <= 0):
                    call.results[index] = BusDown(self._reason, self._retry_after)
                elif channel.policy.history:
                    entries.append(self._store(channel, publication, call, index))
                elif link is not None:
                    link.commands.send(self._published, b"PUBLISH", channel.wire, pack(publication))
            if call.missing:
                # Longer than that, a retry would not be known.
                left = min(deadline - self._loop.time(), 0.8 * REMEMBERED) if wait > 0 else DEADLINE
                await call.wait(max(0.0, left))
        finally:
            why = self._reason if self._link is None else "Redis has not acknowledged it in time"
            for entry in entries:
                if entry.sequence in self._unacknowledged:
                    self._settle(entry, BusDown(why, self._retry_after, uncertain=entry.sent))
        return list(call.results)  # type: ignore[arg-type]

    def _published(self, reply: Any) -> None:
        """Take the answer to what was published without history, for which no call waits."""
        if isinstance(reply, hiredis.ReplyError):
            self._complain(self._service, BusError(f"Redis refuses what is published: {reply}"))

    def _store(self, channel: RedisChannel, publication: Publication, call: Call, index: int) -> Entry:
        """Send a message until it is acknowledged."""
        entry = Entry(channel, publication, next(self._sequence), call, index)
        call.missing += 1
        self._unacknowledged[entry.sequence] = entry
        self._unacknowledged_bytes += entry.size
        if self._link is not None:
            self._append(entry)
        return entry

    def _append(self, entry: Entry) -> None:
        link, channel, publication = self._link, entry.channel, entry.publication
        assert link is not None
        if self._url.replicas:
            if not self._stored:
                self._loop.call_soon(self._wait_for_replicas, link)  # with the same write
            self._stored.append(entry)
        policy = channel.policy
        keys = [channel.meta, channel.stream, channel.wire]
        keys.append(f"{self._url.prefix}s:{channel.name}:{self._name}".encode())
        if publication.key is not None:
            keys.append(f"{self._url.prefix}k:{channel.name}:{publication.key}".encode())
        before = entry.before.sequence if entry.before is not None else 0
        words = (
            *self._begin_words(channel, channel.epoch, channel.offset),
            *(publication.payload, flags_of(publication), publication.sender),
            *(entry.sequence, before, policy.history, channel.trim),
            *(max(1, int(policy.keep * 1000)), policy.history_bytes, REMEMBERED),
        )
        entry.sent = True
        link.evaluate(functools.partial(self._on_append, link, entry), APPEND, keys, words)

    def _on_append(self, link: Link, entry: Entry, reply: Any) -> None:
        """Take where a message is stored, or why it is not; without a link it is sent again on the next one."""
        if entry.sequence not in self._unacknowledged or isinstance(reply, BusDown):
            return
        if not isinstance(reply, hiredis.ReplyError):
            epoch, offset, when = reply
            entry.channel.reached(epoch, offset, int(when))
            entry.position = entry.channel.position(epoch, offset)
            if not self._url.replicas:
                self._settle(entry, entry.position)
        elif str(reply).startswith("ORDER"):
            self._append(entry)  # the one before it was refused, or comes again
        else:
            error = self._refused(link, str(reply))
            if not isinstance(error, BusDown):
                self._settle(entry, error)

    def _wait_for_replicas(self, link: Link) -> None:
        """Acknowledge what was stored in this turn of the loop once the replicas have it."""
        stored, self._stored = self._stored, []
        wanted = self._url.replicas

        def settle(reply: Any) -> None:
            for entry in stored:
                if entry.sequence not in self._unacknowledged or isinstance(reply, BusDown):
                    continue
                if entry.position is None:  # it had to be sent again
                    if not self._stored:
                        self._loop.call_soon(self._wait_for_replicas, link)
                    self._stored.append(entry)
                elif isinstance(reply, int) and reply >= wanted:
                    self._settle(entry, entry.position)
                else:
                    why = f"{reply} of {wanted} replicas have what is published"
                    self._settle(entry, BusDown(why, uncertain=True))

        link.commands.send(settle, b"WAIT", wanted, WAIT_MILLISECONDS)

    def _settle(self, entry: Entry, result: Position | BusError) -> None:
        del self._unacknowledged[entry.sequence]
        self._unacknowledged_bytes -= entry.size
        entry.settle(result)
        if self._flushed is not None and not self._unacknowledged:
            give_up(self._flushed)
        self._make_room()

    def _has_room(self) -> bool:
        if self._unacknowledged_bytes >= QUEUE_BYTES:
            return False
        return self._link is None or not self._link.commands.full

    def _make_room(self) -> None:
        if self._room and self._unacknowledged_bytes < QUEUE_BYTES:
            waiting, self._room = self._room, []
            for future in waiting:
                give_up(future)

    async def _wait_for_room(self, deadline: float) -> bool:
        """Wait until something can be sent; return whether it can, in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not self._has_room():
                    if self._link is not None and self._link.commands.full:
                        await self._link.commands.wait_for_room()
                    else:
                        future: asyncio.Future[None] = self._loop.create_future()
                        self._room.append(future)
                        try:
                            await future
                        finally:
                            if future in self._room:
                                self._room.remove(future)
        return self._has_room()

    # Who is where.

    async def beat(self, snapshot: Mapping[str, Presence]) -> None:
        """Tell who is in which channel; the server is told what has changed."""
        link = self._linked()
        self._snapshot = snapshot
        for words in self._roster.commands(snapshot):
            if link.commands.full:
                await link.commands.wait_for_room()
            link.commands.send(_nothing, *words)
        try:
            await link.commands.ask(b"PING")
        except Refused as error:
            raise self._refused(link, error.words) from None

    async def present(self, channel: str) -> Presence:
        """Return who is in a channel."""
        keys = [self._roster.key(channel)]
        (said,) = await self._evaluate(self._linked(), PRESENT, [(keys, [self._roster.leases])])
        return merge(said)


def _nothing(_: Any) -> None:
    """Take an answer that no call waits for."""
