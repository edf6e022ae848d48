"""The engine local:// as a worker, or another process, sees it: one link to the hub.

    LocalBroker    the verbs, over one link after the other

What is published is written once a turn of the event loop. A message with history is kept until the hub has
acknowledged it, and sent again on the next link with the same sequence, by which the hub stores it once. When a link
ends, the broker asks for another, opens its channels, subscribes again, repeats what is not acknowledged, and tells
that messages may be missing. Members of this process get a message from the hub like all others, in the same order.

What must not live here: the layout of frames (link.py), how bytes come and go (link_protocol.py), numbers of
channels (link_state.py), where links come from (links.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from ..channels import Channel, Message, Position
from ..exceptions import BusBusy, BusDown, BusError
from .base import SLICE_BYTES, SLICE_MESSAGES, Broker, Deliver, Presence, Publication, Slice, State, Tell
from .link import (
    VERSION,
    Count,
    Excerpt,
    Flag,
    Frame,
    Hello,
    Kind,
    LinkError,
    Policy,
    Search,
    Snapshot,
    Top,
    Welcome,
    acknowledgements,
    pack_json,
    pack_message,
    unpack_json,
    unpack_message,
)
from .link_protocol import LinkProtocol, RawFrame
from .link_state import Call, NumberedChannel, Numbers, Unacknowledged, give_up
from .links import Connect, Links
from .links import find as links_to_hub
from .policies import Policies
from .tail import OVERHEAD
from .watch import Backoff, end

__all__ = ["LocalBroker"]

logger = logging.getLogger("tidegate.bus")

DEADLINE: Final = 5.0
"""Seconds for an answer, and for a link that begins."""

QUEUE_BYTES: Final = 8 << 20
"""Bytes that wait to be written, and bytes that wait to be acknowledged: many messages of the highest limit, and of
small ones more than a hub takes in the time that a publisher waits. So this is no setting."""

SNAPSHOT_BYTES: Final = 1 << 20
"""Bytes after which a snapshot goes on in another frame; one channel's names come nowhere near to a frame's limit."""

# Plain numbers: those of an enumeration take longer than all the rest of a message.
_MESSAGE: Final = int(Kind.MESSAGE)
_PUBLISH: Final = int(Kind.PUBLISH)
_LOST: Final = int(Kind.LOST)
_TEXT, _JSON, _STORED, _EXCLUDE = int(Flag.TEXT), int(Flag.JSON), int(Flag.STORED), int(Flag.EXCLUDE)
_ECHO, _PREFIXED = int(Flag.ECHO), int(Flag.SENDER | Flag.KEYED)

RETRY: Final = (0.05, 2.0)
"""Seconds between attempts to connect: at first, and at most."""


class LocalBroker(Broker):
    """The engine local:// of one process.

    Parameters:
        url: local:// in a worker, or local:///PATH of a daemon's socket in another process, which goes by the policies
            that workers have declared.
        policies: of a worker's channels.
        connect: gives links to the hub, in place of what the URL says.
    """

    gapless = True

    def __init__(self, url: str, policies: Policies, connect: Connect | None = None) -> None:
        self._path = unquote(urlsplit(url).path)
        self._connect = connect
        self._links: Links | None = None
        self._policies = policies if not self._path else None
        self._hello = Hello(VERSION, secrets.randbits(32))
        # Greater than that of any earlier process that had the same number.
        self._sequence = time.time_ns() // 1000
        self._request = itertools.count(1)
        self._requests: dict[int, tuple[NumberedChannel | None, Call, int]] = {}
        self._numbers = Numbers()
        self._unacknowledged: dict[int, Unacknowledged] = {}
        self._unacknowledged_bytes = 0
        self._room: list[asyncio.Future[None]] = []
        self._snapshot: Mapping[str, Presence] = {}
        self._link: LinkProtocol | None = None  # while it is up
        self._generation = 0
        self._reason = "there is no link to the hub"
        self._flushed: asyncio.Future[None] | None = None  # of close(), which waits for acknowledgements
        self._greeting: asyncio.Future[None]
        self._takers: dict[int, Callable[[Frame], None]] = {
            Kind.STORED: self._on_stored,
            Kind.REFUSED: self._on_refused,
            Kind.WELCOME: self._on_welcome,
            Kind.TROUBLE: self._on_trouble,
            Kind.TOP: self._on_top,
        }
        self._up = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._deliver: Deliver
        self._tell: Tell

    @property
    def queued(self) -> int:
        # What is not written is not acknowledged either, but for messages without history.
        return max(self._unacknowledged_bytes, self._link.waiting if self._link is not None else 0)

    # Links.

    async def start(self, deliver: Deliver, tell: Tell) -> None:
        self._deliver, self._tell = deliver, tell
        if self._connect is None:
            self._connect, self._links = links_to_hub(self._path)
        if self._policies is not None:
            channels = {prefix: _policy(channel) for prefix, channel in self._policies.declared.items()}
            self._hello = msgspec.structs.replace(self._hello, channels=channels)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    link = await self._begin()
                    break
            except (OSError, LinkError, TimeoutError) as error:
                self._down(str(error) or self._reason)
                # A worker is given another link if the hub has just ended; at a path, there may never be one.
                if self._path or loop.time() + RETRY[0] > deadline:
                    raise BusDown(self._reason) from None
            await asyncio.sleep(RETRY[0])
        self._life = loop.create_task(self._live(link), name="link to the hub")

    async def close(self) -> None:
        deadline = time.monotonic() + DEADLINE
        if self._unacknowledged and self._life is not None:
            self._flushed = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._flushed], timeout=DEADLINE)
        if self._link is not None:
            await self._link.drain(max(0.0, deadline - time.monotonic()))
        await self._end()

    async def _end(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            await end(life)
        if self._link is not None:
            self._link.abort()  # as the task does, unless it was cancelled before it began
            await asyncio.sleep(0)  # in which the loop closes the socket
        self._down("it is closed")

    async def _live(self, link: LinkProtocol | None) -> None:
        """Be linked, again and again."""
        backoff = Backoff(*RETRY)
        while True:
            try:
                if link is None:
                    link = await self._begin()
                backoff.reset()
                reason = await link.ended()
            except (OSError, LinkError, TimeoutError) as error:
                reason = str(error) or "the hub does not answer"
            except Exception as error:
                logger.exception("the link to the hub failed")
                reason = f"{type(error).__name__}: {error}"
            finally:
                if link is not None:
                    link.abort()
            link = None
            delay = backoff.next()
            self._down(reason, delay)
            await asyncio.sleep(delay)

    async def _begin(self) -> LinkProtocol:
        """Return the next link, once the hub has confirmed on it what was subscribed before."""
        assert self._connect is not None
        sock = await self._connect()
        sock.setblocking(False)
        link = LinkProtocol(self._on_frames, self._fail_requests, QUEUE_BYTES)
        try:
            async with asyncio.timeout(DEADLINE):
                await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
                if self._links is not None:
                    name, generation = self._links.name, self._links.generation
                    self._hello = msgspec.structs.replace(self._hello, name=name, generation=generation)
                link.send(Kind.HELLO, payload=pack_json(self._hello))
                self._greeting = asyncio.get_running_loop().create_future()
                link.fail_at_end(self._greeting)
                await self._greeting
                self._link = link
                confirmed = self._restore(link)
                await confirmed.wait(DEADLINE)
                if link.is_ended or confirmed.missing:
                    raise LinkError("the hub has ended")
        except BaseException:
            self._link = None
            link.abort()
            raise
        self._generation += 1
        self._up.set()
        self._tell(State("again" if self._generation > 1 else "up", self._generation))
        return link

    def _restore(self, link: LinkProtocol) -> Call:
        """Have on a new link what there was on the last one; return what confirms the subscriptions."""
        subscribed = [channel for channel in self._numbers if channel.subscribed]
        for channel in self._numbers:
            link.send(Kind.OPEN, 0, channel.number, payload=channel.name.encode())
        batch = self._ask(Kind.SUBSCRIBE, subscribed)
        for sequence, each in self._unacknowledged.items():
            link.send(Kind.PUBLISH, each.flags, each.channel.number, sequence=sequence, payload=each.payload)
        if self._snapshot:
            self._send_snapshot(link)
        return batch

    def _down(self, reason: str, retry_after: float = 1.0) -> None:
        """Tell that there is no link; messages that are not acknowledged wait for the next one."""
        was_up = self._up.is_set()
        self._link = None
        self._up.clear()
        self._reason = reason = reason or "the hub has ended"
        self._fail_requests(reason, retry_after)
        if was_up:
            self._tell(State("down", self._generation, reason, retry_after))

    def _fail_requests(self, reason: str, retry_after: float = 1.0) -> None:
        """Fail what waits for an answer on a link that has ended."""
        requests, self._requests = self._requests, {}
        for channel, batch, index in requests.values():
            if channel is not None:
                self._release(channel)
            batch.settle(index, BusDown(reason, retry_after))

    def _linked(self) -> LinkProtocol:
        if self._link is None or not self._up.is_set():
            raise BusDown(self._reason)
        return self._link

    # What comes.

    def _on_frames(self, frames: list[RawFrame]) -> None:
        """Take what has come with one read."""
        messages: list[Message] = []
        for raw in frames:
            if raw[0] == _MESSAGE:
                channel = self._numbers.at(raw[2])
                if channel is not None and channel.subscribed:
                    messages.append(_message(raw, channel))
            elif raw[0] == _LOST:
                self._hand_on(messages)
                messages = []
                self._on_lost()
            else:
                frame = Frame(*raw)
                self._takers.get(frame.kind, self._on_answer)(frame)
        self._hand_on(messages)

    def _hand_on(self, messages: list[Message]) -> None:
        """Give messages, but for those that come before it is told that some are missing: they are, then, as well."""
        if messages and self._up.is_set():
            self._deliver(messages)

    def _on_lost(self) -> None:
        if self._up.is_set():
            self._generation += 1
            self._tell(State("again", self._generation, "messages came faster than they were read"))

    def _on_welcome(self, frame: Frame) -> None:
        self.message_limit = unpack_json(frame.payload, Welcome).message_limit
        if not self._greeting.done():
            self._greeting.set_result(None)

    def _on_trouble(self, frame: Frame) -> None:
        raise LinkError(frame.payload.decode(errors="replace"))

    def _on_stored(self, frame: Frame) -> None:
        for sequence, epoch, offset in acknowledgements(frame.payload):
            each = self._unacknowledged.pop(sequence, None)
            if each is not None:
                channel = each.channel
                self._acknowledged(each, channel.position(epoch, offset) if epoch else None)

    def _acknowledged(self, each: Unacknowledged, result: Position | BusError | None) -> None:
        self._unacknowledged_bytes -= len(each.payload) + OVERHEAD
        self._release(each.channel)
        each.batch.settle(each.index, result)
        if self._flushed is not None and not self._unacknowledged:
            give_up(self._flushed)
        if self._room and self._unacknowledged_bytes < QUEUE_BYTES:
            waiting, self._room = self._room, []
            for future in waiting:
                give_up(future)

    def _on_refused(self, frame: Frame) -> None:
        why = BusError(frame.payload.decode(errors="replace"))
        each = self._unacknowledged.pop(frame.sequence, None)
        if each is not None:
            self._acknowledged(each, why)
        else:
            self._settle(frame, why)

    def _on_answer(self, frame: Frame) -> None:
        self._settle(frame, frame)

    def _on_top(self, frame: Frame) -> None:
        """Take where a channel stands: an answer, or, with request 0, news of another epoch."""
        channel = self._numbers.at(frame.channel)
        if channel is not None:
            channel.position(Top.unpack(frame.payload).epoch, 0)
        self._settle(frame, frame)

    def _settle(self, frame: Frame, result: Frame | BusError) -> None:
        """Give a request its answer."""
        channel, batch, index = self._requests.pop(frame.sequence, (None, None, 0))
        if batch is None:  # for which no call waits
            return
        if channel is not None:
            self._release(channel)
        batch.settle(index, result)

    # Requests.

    def _channel(self, name: str) -> NumberedChannel:
        """Return a channel, open on the link; hold it until `_release()`."""
        channel, is_new = self._numbers.hold(name)
        if is_new and self._link is not None:
            self._link.send(Kind.OPEN, 0, channel.number, payload=name.encode())
        return channel

    def _release(self, channel: NumberedChannel) -> None:
        """Let go of a channel, whose number is taken back if it has not been needed for the longest."""
        shut = self._numbers.release(channel)
        if shut is not None and self._link is not None:
            self._link.send(Kind.SHUT, 0, shut.number)

    def _ask(
        self, kind: Kind, channels: Sequence[NumberedChannel], flags: int = 0, offset: int = 0, payload: bytes = b""
    ) -> Call:
        """Send a request for each channel, which is held until it is answered."""
        assert self._link is not None
        batch = Call(len(channels))
        batch.missing = len(channels)
        for index, channel in enumerate(channels):
            request = next(self._request)
            self._numbers.hold(channel.name)
            self._requests[request] = (channel, batch, index)
            self._link.send(kind, flags, channel.number, offset, request, payload)
        return batch

    async def _answers(self, batch: Call) -> list[Frame]:
        """Return all answers."""
        if not await batch.wait(DEADLINE):
            raise BusDown(f"the hub has not answered within {DEADLINE:g} seconds")
        frames = []
        for result in batch.results:
            if isinstance(result, BusError):
                raise result
            assert isinstance(result, Frame)
            frames.append(result)
        return frames

    async def _about(
        self, kind: Kind, names: Sequence[str], flags: int = 0, offset: int = 0, payload: bytes = b""
    ) -> list[tuple[NumberedChannel, Frame]]:
        """Ask about channels; return them with their answers."""
        self._linked()
        channels = [self._channel(name) for name in names]
        try:
            return list(
                zip(channels, await self._answers(self._ask(kind, channels, flags, offset, payload)), strict=True)
            )
        finally:
            for channel in channels:
                self._release(channel)

    async def subscribe(self, channels: Sequence[str]) -> Sequence[Position | None]:
        self._linked()
        held = [self._channel(name) for name in channels]
        before = [channel.subscribed for channel in held]
        for channel in held:
            channel.subscribed = True
        try:
            answers = await self._about(Kind.SUBSCRIBE, channels)
        except BaseException:
            for channel, was in zip(held, before, strict=True):
                channel.subscribed = was
                if not was and self._link is not None:
                    self._link.send(Kind.UNSUBSCRIBE, 0, channel.number)
            raise
        finally:
            for channel in held:
                self._release(channel)
        return [_position(channel, Top.unpack(frame.payload)) for channel, frame in answers]

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        known = [channel for name in channels if (channel := self._numbers.get(name)) and channel.subscribed]
        for channel in known:
            channel.subscribed = False
        if self._link is None:
            for channel in known:
                self._release(self._channel(channel.name))
            return
        with contextlib.suppress(BusDown):
            await self._answers(self._ask(Kind.UNSUBSCRIBE, known))

    async def tops(self, channels: Sequence[str]) -> Sequence[Position | None]:
        answers = await self._about(Kind.LOOK, channels)
        return [_position(channel, Top.unpack(frame.payload)) for channel, frame in answers]

    async def read(
        self, channel: str, after: Position | None, limit: int = SLICE_MESSAGES, before: Position | None = None
    ) -> Slice:
        place = after if after is not None else before
        flags = Flag.BACKWARD if after is None else 0
        search = Search(max(0, min(limit, SLICE_MESSAGES)), SLICE_BYTES).pack()
        offset = place.offset if place is not None else 0
        if before is not None and after is None and offset <= 1:
            search = Search(0, 0).pack()  # there is nothing before; the hub takes 0 for the newest
        ((known, frame),) = await self._about(Kind.READ, [channel], flags, offset, search)
        excerpt = Excerpt.unpack(frame.payload)
        top = _position(known, excerpt.top)
        if top is None:
            raise BusError(f"{channel}: the channel has no history")
        if place is not None and (place.epoch != top.epoch or (after is not None and place.offset > top.offset)):
            return Slice([], top, False)
        messages = [_message(each, known) for each in excerpt.messages]
        if after is not None:
            return Slice(messages, top, after.offset + 1 >= excerpt.top.first)
        first = excerpt.messages[0].offset if messages else (offset or top.offset + 1)
        return Slice(messages, top, first <= 1)

    # Publishing.

    async def publish(self, batch: Sequence[Publication], wait: float) -> Sequence[Position | BusError | None]:
        results = Call(len(batch))
        deadline = time.monotonic() + wait
        sent: list[int] = []
        for index, publication in enumerate(batch):
            if not self._has_room() and not await self._wait_for_room(deadline):
                results.results[index] = BusBusy(publication.channel, wait)
                continue
            sent.append(self._publish(publication, results, index))
        if results.missing:
            # Without a link and without patience there is nothing to wait for.
            patient = wait > 0 or not self._up.is_set()
            if not await results.wait(max(0.0, deadline - time.monotonic()) if patient else DEADLINE):
                return self._uncertain(sent, results)
        return results.results  # type: ignore[return-value]

    def _uncertain(self, sent: Sequence[int], results: Call) -> Sequence[Position | BusError | None]:
        """Return results, some of which are missing: those messages may be stored, and will be if there is a link."""
        why = self._reason if not self._up.is_set() else "the hub has not acknowledged it in time"
        for each in filter(None, map(self._unacknowledged.get, sent)):
            results.results[each.index] = BusDown(why, uncertain=True)
        return list(results.results)  # type: ignore[arg-type]

    def _publish(self, publication: Publication, results: Call, index: int) -> int:
        """Send a message; one with history until it is acknowledged. Return its sequence, or 0."""
        stored = self._policies is None or self._policies.of(publication.channel).history > 0
        if not stored and (self._link is None or self._link.is_ended or not self._up.is_set()):
            results.results[index] = BusDown(self._reason)
            return 0
        payload = publication.payload
        flags = _TEXT if publication.text else 0
        if publication.json:
            flags |= _JSON
        if publication.exclude:
            flags |= _EXCLUDE
        if publication.sender or publication.key is not None:
            key = publication.key.encode() if publication.key is not None else None
            more, payload = pack_message(payload, key, publication.sender.encode("ascii"))
            flags |= more
        channel = self._channel(publication.channel)
        sequence = 0
        if stored:
            self._sequence = sequence = self._sequence + 1
            self._unacknowledged[sequence] = Unacknowledged(channel, flags, payload, results, index)
            self._unacknowledged_bytes += len(payload) + OVERHEAD
            results.missing += 1
        else:
            self._release(channel)
            if channel.subscribed:
                flags |= _ECHO
        if self._link is not None:
            self._link.send(_PUBLISH, flags, channel.number, 0, sequence, payload)
        return sequence

    def _has_room(self) -> bool:
        if self._unacknowledged_bytes >= QUEUE_BYTES:
            return False
        return self._link is None or not self._link.full

    async def _wait_for_room(self, deadline: float) -> bool:
        """Wait until something can be sent; return whether it can, in time."""
        loop = asyncio.get_running_loop()
        while (left := deadline - time.monotonic()) > 0:
            future = loop.create_future()
            (self._room if self._link is None or not self._link.full else self._link.room).append(future)
            timer = loop.call_later(left, give_up, future)
            try:
                await future
            finally:
                timer.cancel()
            if self._has_room():
                return True
        return self._has_room()

    # Who is where.

    async def beat(self, snapshot: Mapping[str, Presence]) -> None:
        link = self._linked()
        self._snapshot = snapshot
        call = self._call()
        self._send_snapshot(link, call[0])
        await self._answers(call[1])

    def _call(self) -> tuple[int, Call]:
        """Return the number of a request about no channel, and what its answer settles."""
        call = Call(1)
        call.missing = 1
        request = next(self._request)
        self._requests[request] = (None, call, 0)
        return request, call

    def _send_snapshot(self, link: LinkProtocol, request: int = 0) -> None:
        flags, size = int(Flag.FIRST), 0
        part: dict[str, Count] = {}
        for name, presence in self._snapshot.items():
            part[name] = count = _count(presence)
            size += len(name) + 20 + sum(len(who) + len(info) + 10 for who, info in (count.members or {}).items())
            if size >= SNAPSHOT_BYTES:
                link.send(Kind.BEAT, flags, payload=pack_json(Snapshot(part)))
                part, flags, size = {}, 0, 0
        link.send(Kind.BEAT, flags | Flag.LAST, sequence=request, payload=pack_json(Snapshot(part)))

    async def present(self, channel: str) -> Presence:
        link = self._linked()
        request, call = self._call()
        link.send(Kind.COUNT, sequence=request, payload=channel.encode())
        (frame,) = await self._answers(call)
        count = unpack_json(frame.payload, Count)
        members = {name: bytes(info) for name, info in count.members.items()} if count.members is not None else None
        return Presence(count.connections, members)


def _message(frame: RawFrame, channel: NumberedChannel) -> Message:
    """Return the message of a frame."""
    _, flags, _, _, offset, time, _, payload = frame
    sender = ""
    if flags & _PREFIXED:
        who, payload = unpack_message(flags, payload)
        sender = who.decode("ascii", "replace")
    return Message(
        channel.name,
        payload,
        flags & _TEXT != 0,
        Position(channel.text, offset) if flags & _STORED else None,
        sender,
        time / 1e6,
        flags & _JSON != 0,
        flags & _EXCLUDE != 0,
    )


def _policy(channel: Channel) -> Policy:
    return Policy(channel.history, channel.keep, channel.history_bytes)


def _count(presence: Presence) -> Count:
    if presence.members is None:
        return Count(presence.connections)
    return Count(presence.connections, {name: msgspec.Raw(info) for name, info in presence.members.items()})


def _position(channel: NumberedChannel, top: Top) -> Position | None:
    return channel.position(top.epoch, top.top) if top.epoch else None
