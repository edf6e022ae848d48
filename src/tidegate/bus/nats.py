"""The engine nats:// as one process sees it: the verbs, over one link after the other.

    NatsBroker      the verbs

A channel with history is a subject that a policy's JetStream stream stores, and gives again on another subject with
its sequence and that of the message before: a subscriber needs no consumer, and sees what it missed. A channel without
history is a subject. When a link ends, the broker connects again, to any of the servers, looks after the streams,
subscribes again and tells that messages may be missing. What is published while there is no link fails; what was under
way is sent again with the same identity, by which a stream stores it once.

What must not live here: the connection (nats_link.py), streams (nats_streams.py), reads (nats_reads.py), the layout of
subjects and heads (nats_words.py), snapshots (nats_presence.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple, TypeVar

import msgspec

from ..channels import Message, Position
from ..exceptions import BusBusy, BusDown, BusError, MessageTooBig
from .base import SLICE_MESSAGES, Broker, Deliver, Presence, Publication, Slice, State, Tell
from .nats_channel import NatsChannel
from .nats_link import LinkEnded, NatsLink, NoResponders, Refused, Reply
from .nats_presence import ASK_AGAIN, Snapshots
from .nats_reads import Place, read_after, read_newest, tops
from .nats_streams import DEADLINE, Api, Stream, StreamLost
from .nats_url import parse
from .nats_words import Words, encode, find, pack_head, unpack_head
from .policies import CONTROL, Policies
from .tail import OVERHEAD
from .watch import Backoff, end

__all__ = ["NatsBroker"]

logger = logging.getLogger("tidegate.bus")

T = TypeVar("T")

QUEUE_BYTES: Final = 2**23
"""Bytes that wait to be acknowledged."""

RETRY: Final = (0.1, 5.0)
"""Seconds between attempts to connect: at first, and at most."""

LOOK: Final = 5.0
"""Seconds between two looks at the streams."""

OVERTAKEN: Final = 0.05
"""Seconds for which a message waits for the one before it; then that is taken to be lost."""

LINK_ERRORS: Final = (LinkEnded, TimeoutError, NoResponders, StreamLost)

AWAY: Final = "JetStream is away, or a stream was deleted"


class _Sent(NamedTuple):
    """A message with history that is not acknowledged; `number` is its place in the batch."""

    number: int
    subject: str
    payload: bytes
    headers: bytes


class _Ack(msgspec.Struct):
    """What JetStream answers when it has stored a message."""

    seq: int = 0
    error: dict[str, object] | None = None


class NatsBroker(Broker):
    """The engine nats:// of one process.

    Args:
        url: nats:// or tls://, see nats_url.py.
        policies: of the channels.
    """

    settles: ClassVar[float] = 1.5 * ASK_AGAIN

    def __init__(self, url: str, policies: Policies) -> None:
        self._settings = parse(url)
        self._policies = policies
        self._name = secrets.token_urlsafe(9).replace("-", "a").replace("_", "b")
        self._words = Words(self._settings.bus, self._name)
        self._streams = {
            prefix: Stream(prefix, policy, self._words, self._settings)
            for prefix, policy in policies.declared.items()
            if policy.history
        }
        self._declares = any(prefix != CONTROL for prefix in self._streams)
        self._jetstream = True
        self._snapshots = Snapshots(self._name)
        self._channels: dict[str, NatsChannel] = {}
        self._by_sid: dict[int, NatsChannel] = {}
        self._presence_sid = 0
        self._queue: list[Message] = []
        self._waiting: dict[str, asyncio.TimerHandle] = {}  # channels in which a message waits for another
        self._sequence = itertools.count(1)
        self._unacknowledged_bytes = 0
        self._settled = asyncio.Event()
        self._link: NatsLink | None = None  # while it is up
        self._known: list[str] = []  # servers that a server named
        self._generation = 0
        self._reason = "it is not started"
        self._retry_after = 1.0
        self._up = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._deliver: Deliver
        self._tell: Tell

    @property
    def queued(self) -> int:
        return self._unacknowledged_bytes

    # Links.

    async def start(self, deliver: Deliver, tell: Tell) -> None:
        self._deliver, self._tell = deliver, tell
        self._loop = asyncio.get_running_loop()
        try:
            link = await self._begin()
        except Refused as error:
            raise BusError(f"NATS does not let this user in: {error}") from None
        except (LinkEnded, NoResponders, StreamLost) as error:
            self._reason = str(error) or AWAY
            raise BusDown(self._reason) from None
        self._life = self._loop.create_task(self._live(link), name="link to NATS")

    async def close(self) -> None:
        deadline = time.monotonic() + DEADLINE
        with contextlib.suppress(TimeoutError, LinkEnded):
            async with asyncio.timeout(DEADLINE):
                while self._unacknowledged_bytes:
                    self._settled.clear()
                    await self._settled.wait()
        if self._link is not None:
            self._link.publish(self._words.presence, self._snapshots.end())
            with contextlib.suppress(TimeoutError, LinkEnded):
                async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                    await self._link.confirm()
        life, self._life = self._life, None
        if life is not None:
            await end(life)
        self._down("it is closed")

    async def _live(self, link: NatsLink | None) -> None:
        """Be linked, again and again."""
        backoff = Backoff(*RETRY)
        while True:
            try:
                if link is None:
                    link = await self._begin()
                backoff.reset()
                reason = await self._look_after(link)
            except (BusError, LinkEnded, NoResponders, StreamLost) as error:
                reason = error.reason if isinstance(error, BusDown) else str(error)
            except Exception as error:
                logger.exception("the link to NATS failed")
                reason = f"{type(error).__name__}: {error}"
            finally:
                if link is not None:
                    link.abort("it is closed")
            delay = backoff.next()
            self._down(reason or AWAY, delay)
            if link is not None:
                await link.closed()
            link = None
            await asyncio.sleep(delay)

    async def _begin(self) -> NatsLink:
        """Return the next link, once all is on it that was on the last one."""
        servers = list(self._settings.servers)
        random.shuffle(servers)
        servers += [server for server in self._known if server not in servers]
        reasons = []
        for server in servers:
            link = NatsLink(self._words, self._take)
            try:
                await link.open(server, self._settings)
                async with asyncio.timeout(DEADLINE * 2):
                    await self._restore(link)
            except BaseException as error:
                self._link = None
                reason = str(error) or AWAY
                if isinstance(error, TimeoutError):
                    reason = f"{server}: {link.trouble or 'no answer'}"
                link.abort(reason)
                await link.closed()
                if isinstance(error, Refused) or not isinstance(error, LINK_ERRORS):
                    raise
                reasons.append(reason)
                continue
            self._known = link.others
            self._generation += 1
            self._link = link
            self._up.set()
            self._tell(State("again" if self._generation > 1 else "up", self._generation))
            return link
        raise LinkEnded("; ".join(reasons))

    async def _restore(self, link: NatsLink) -> None:
        """Have the streams, and on a new link what there was on the last one."""
        api = Api(link)
        await self._ensure(api)
        self._by_sid = {}
        self._presence_sid = link.subscribe(self._words.presence)
        for number, channel in enumerate(list(self._channels.values())):
            if self._channels.get(channel.name) is not channel:
                continue  # it was unsubscribed meanwhile
            self._push(channel.renew())
            self._subscribe(link, channel)
            if number % 1000 == 999:
                await link.confirm()
        await link.confirm()
        for part in self._snapshots.all():
            link.publish(self._words.presence, part)
        question = self._snapshots.ask(self._loop.time())
        if question is not None:
            link.publish(self._words.presence, question)

    async def _ensure(self, api: Api) -> None:
        """Have a stream for each policy with history, or none of them where JetStream is off and none is declared."""
        try:
            found = await api.ask("INFO")
            why = found["error"].get("description") if "error" in found else None
        except NoResponders:
            why = "it is not enabled in the server, which the option -js or a jetstream block does"
        self._jetstream = why is None
        if why is None:
            for stream in self._streams.values():
                await stream.ensure(api, self._policies.in_force)
        elif self._declares:
            prefixes = ", ".join(repr(prefix) for prefix in self._streams if prefix != CONTROL)
            raise BusError(f"channels with history ({prefixes}) need JetStream: {why}")

    def _subscribe(self, link: NatsLink, channel: NatsChannel) -> None:
        stream = channel.stream
        subject = channel.subject if stream is None else stream.live + encode(channel.name)
        channel.sid = link.subscribe(subject)
        self._by_sid[channel.sid] = channel

    def _down(self, reason: str, retry_after: float = 1.0) -> None:
        """Tell that there is no link."""
        was_up = self._up.is_set()
        self._link = None
        self._up.clear()
        self._reason, self._retry_after = reason, retry_after
        if was_up:
            self._tell(State("down", self._generation, reason, retry_after))

    async def _look_after(self, link: NatsLink) -> str:
        """Look at the streams from time to time; return why the link is over, once it is."""
        api = Api(link)
        while not link.ended.done():
            await asyncio.wait([link.ended], timeout=LOOK)
            if self._jetstream and not link.ended.done():
                for stream in self._streams.values():
                    await stream.look(api)
                    await stream.mark(api)
                    if self._policies.in_force and not stream.is_exact:
                        await stream.ensure(api, in_force=True)
        return link.ended.result()

    def _linked(self) -> NatsLink:
        if self._link is None or self._link.ended.done():
            raise BusDown(self._reason if self._link is None else self._link.ended.result(), self._retry_after)
        return self._link

    async def _asked(self, link: NatsLink, work: Awaitable[T]) -> T:
        """Return what a link answers, as a verb does: BusDown if it does not in time; a stream that is lost ends it."""
        try:
            async with asyncio.timeout(DEADLINE):
                return await work
        except TimeoutError:
            raise link.silent(DEADLINE) from None
        except (NoResponders, StreamLost) as error:
            reason = str(error) or AWAY
            link.abort(reason)
            raise BusDown(reason) from None
        except LinkEnded as error:
            raise BusDown(str(error)) from None

    # What comes.

    def _take(self, sid: int, payload: bytes, headers: bytes | None) -> None:
        """Take a message as it is read; they are delivered together, after all that are read at once."""
        channel = self._by_sid.get(sid)
        if channel is None:
            if sid == self._presence_sid:
                self._take_snapshot(payload)
            return
        message = self._message(channel, payload, headers)
        if message is None:
            return
        if channel.stream is None:
            self._push((message,))
            return
        self._push(channel.take(message))
        if channel.waits and channel.name not in self._waiting:
            self._waiting[channel.name] = self._loop.call_later(OVERTAKEN, self._release, channel)

    def _release(self, channel: NatsChannel) -> None:
        """Give on what waits for a message that has not come."""
        del self._waiting[channel.name]
        self._push(channel.release())

    def _push(self, messages: Sequence[Message]) -> None:
        if messages:
            if not self._queue:
                self._loop.call_soon(self._flush)
            self._queue += messages

    def _message(self, channel: NatsChannel, payload: bytes, headers: bytes | None) -> Message | None:
        text, json, exclude, when, sender = unpack_head(headers)
        stream = channel.stream
        if stream is None:
            return Message(channel.name, payload, text, None, sender, when, json, exclude)
        try:
            sequence = int(find(headers or b"", b"\r\nNats-Sequence: ") or b"")
            previous = int(find(headers or b"", b"\r\nNats-Last-Sequence: ") or b"")
        except ValueError:
            return None  # it does not come from the stream
        stream.floor = max(stream.floor, sequence)
        position = Position(stream.epoch, sequence)
        return Message(channel.name, payload, text, position, sender, when, json, exclude, previous)

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        if queue:
            self._deliver(queue)

    def follows(self, previous: Position, message: Message) -> bool:
        """Return whether no message is missing between a place and a message: the one before is not after the place."""
        assert message.previous is not None
        return message.previous <= previous.offset

    # Subscriptions.

    def _stream_of(self, channel: str) -> Stream | None:
        return self._streams.get(self._policies.prefix_of(channel)) if self._jetstream else None

    def _new_channel(self, name: str) -> NatsChannel:
        stream = self._stream_of(name)
        subject = self._words.plain(name) if stream is None else stream.subject + encode(name)
        return NatsChannel(name, stream, subject)

    async def subscribe(self, channels: Sequence[str]) -> Sequence[Position | None]:
        link = self._linked()
        new = [name for name in dict.fromkeys(channels) if name not in self._channels]
        for name in new:
            channel = self._channels[name] = self._new_channel(name)
            self._subscribe(link, channel)
        try:
            return await self._asked(link, self._confirmed(link, channels))
        except BaseException:
            self._forget(new)
            raise

    async def _confirmed(self, link: NatsLink, channels: Sequence[str]) -> Sequence[Position | None]:
        await link.confirm()
        return await self._tops(link, channels)

    def _forget(self, names: Sequence[str]) -> None:
        """End subscriptions, and deliver no more of what has come for them."""
        for name in names:
            channel = self._channels.pop(name, None)
            if channel is not None and self._by_sid.pop(channel.sid, None) is channel and self._link is not None:
                self._link.unsubscribe(channel.sid)
            if channel is not None and name in self._waiting:
                self._waiting.pop(name).cancel()
        gone = set(names)
        self._queue = [message for message in self._queue if message.channel not in gone]

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._forget(channels)
        with contextlib.suppress(BusDown):
            link = self._linked()
            await self._asked(link, link.confirm())

    async def tops(self, channels: Sequence[str]) -> Sequence[Position | None]:
        link = self._linked()
        return await self._asked(link, self._tops(link, channels))

    async def _tops(self, link: NatsLink, names: Sequence[str]) -> list[Position | None]:
        api = Api(link)
        found: dict[str, Position] = {}
        groups: dict[Stream, list[NatsChannel]] = {}
        for name in dict.fromkeys(names):
            channel = self._channels.get(name) or self._new_channel(name)
            if channel.stream is not None:
                groups.setdefault(channel.stream, []).append(channel)
        for stream, channels in groups.items():
            epoch = stream.epoch
            places = await tops(stream, api, [one.subject for one in channels], [one.place for one in channels])
            for channel, place in zip(channels, places, strict=True):
                channel.tell(place)
                found[channel.name] = Position(epoch, place.told)
        return [found.get(name) for name in names]

    async def read(
        self, channel: str, after: Position | None, limit: int = SLICE_MESSAGES, before: Position | None = None
    ) -> Slice:
        link = self._linked()
        known = self._channels.get(channel) or self._new_channel(channel)
        stream = known.stream
        if stream is None:
            raise BusError(f"{channel}: the channel has no history")
        api = Api(link)
        if after is None:
            told = max(0, known.told)
            return await self._asked(link, read_newest(stream, api, channel, known.subject, limit, before, told))
        part = await self._asked(link, read_after(stream, api, channel, known.subject, after, limit, known.place))
        if part.top.epoch == stream.epoch:
            known.tell(Place(part.top.offset, 0))
        return part

    # Publishing.

    async def publish(self, batch: Sequence[Publication], wait: float) -> Sequence[Position | BusError | None]:
        results: list[Position | BusError | None] = [None] * len(batch)
        deadline = time.monotonic() + wait
        sent: list[_Sent] = []
        answers: list[asyncio.Future[Reply]] = []
        try:
            for index, publication in enumerate(batch):
                if not self._has_room() and not await self._wait_for_room(deadline):
                    results[index] = BusBusy(publication.channel, wait)
                    continue
                if self._link is None or self._link.ended.done():
                    results[index] = BusDown(self._reason, self._retry_after)
                    continue
                one = self._pack(index, publication)
                if isinstance(one, BusError):
                    results[index] = one
                elif one is not None:
                    sent.append(one)
                    self._unacknowledged_bytes += len(one.payload) + OVERHEAD
                    answers.append(self._link.call(one.subject, one.payload, one.headers))
            if sent:
                await self._settle(sent, answers, results, deadline if wait else time.monotonic() + DEADLINE)
        finally:
            self._unacknowledged_bytes -= sum(len(one.payload) + OVERHEAD for one in sent)
            self._settled.set()
        return results

    def _pack(self, number: int, publication: Publication) -> _Sent | BusError | None:
        """Return what is to be acknowledged; what is not is sent."""
        assert self._link is not None
        name = publication.channel
        stream = self._stream_of(name)
        token = encode(name)
        identity = None
        if stream is not None:
            identity = f"{self._name}:{next(self._sequence)}"
            if publication.key is not None:
                identity = f"{token}={urlsafe_b64encode(publication.key.encode()).decode()}"
        headers = pack_head(publication, identity)
        limit = self._link.message_limit
        if len(headers) + len(publication.payload) > limit:
            return MessageTooBig(name, len(publication.payload), limit - len(headers))
        if stream is not None:
            return _Sent(number, stream.subject + token, publication.payload, headers)
        self._link.publish(self._words.plain(name), publication.payload, headers)
        return None

    async def _settle(
        self,
        sent: list[_Sent],
        answers: list[asyncio.Future[Reply]],
        results: list[Position | BusError | None],
        deadline: float,
    ) -> None:
        """Wait until messages are acknowledged; what a link's end leaves open is sent again on the next one."""
        open_ = list(zip(sent, answers, strict=True))
        epochs = {one.number: self._epoch_of(one) for one in sent}
        while open_:
            left = max(0.0, deadline - time.monotonic())
            await asyncio.wait([answer for _, answer in open_], timeout=left)
            again = []
            for one, answer in open_:
                if not answer.done():
                    answer.cancel()
                    results[one.number] = BusDown("JetStream has not acknowledged it in time", uncertain=True)
                elif isinstance(error := answer.exception(), LinkEnded | NoResponders):
                    again.append(one)
                    results[one.number] = BusDown(str(error) or AWAY, uncertain=True)
                    if isinstance(error, NoResponders) and self._link is not None:
                        self._link.abort(AWAY)
                else:
                    results[one.number] = _acknowledged(answer.result(), epochs[one.number])
            if not again or not await self._wait_for_link(deadline):
                return
            assert self._link is not None
            for one in again:
                epochs[one.number] = self._epoch_of(one)
            open_ = [(one, self._link.call(one.subject, one.payload, one.headers)) for one in again]

    def _epoch_of(self, one: _Sent) -> str:
        return next(stream.epoch for stream in self._streams.values() if one.subject.startswith(stream.subject))

    def _has_room(self) -> bool:
        return self._unacknowledged_bytes < QUEUE_BYTES and (self._link is None or not self._link.full)

    async def _wait_for_room(self, deadline: float) -> bool:
        """Wait until something can be sent; return whether it can, in time."""
        with contextlib.suppress(TimeoutError, LinkEnded):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                while not self._has_room():
                    if self._unacknowledged_bytes >= QUEUE_BYTES:
                        self._settled.clear()
                        await self._settled.wait()
                    elif self._link is not None:
                        await self._link.room()
        return self._has_room()

    async def _wait_for_link(self, deadline: float) -> bool:
        """Wait until there is a link on which something can be sent again; return whether there is, in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._up.wait()
                while self._link is None or self._link.ended.done():
                    await asyncio.sleep(RETRY[0] / 4)  # the end is about to be noticed
                    await self._up.wait()
                return True
        return False

    # Who is where.

    def _take_snapshot(self, payload: bytes) -> None:
        link, now = self._link, self._loop.time()
        verdict = self._snapshots.take(payload, now)
        if link is None:
            return
        if verdict == "ask":
            question = self._snapshots.ask(now)
            if question is not None:
                link.publish(self._words.presence, question)
        elif verdict == "tell" and self._telling is None:
            # When many come at once, all is told once to all of them.
            self._telling = self._loop.call_later(random.uniform(0.0, ASK_AGAIN), self._tell_all)

    def _tell_all(self) -> None:
        self._telling = None
        if self._link is not None and not self._link.ended.done():
            for part in self._snapshots.all():
                self._link.publish(self._words.presence, part)

    async def beat(self, snapshot: Mapping[str, Presence]) -> None:
        link = self._linked()
        for part in self._snapshots.change(snapshot):
            link.publish(self._words.presence, part)
        await self._asked(link, link.confirm())

    async def present(self, channel: str) -> Presence:
        link = self._linked()
        await self._asked(link, link.confirm())  # what others had told by now has come
        return self._snapshots.present(channel, self._loop.time())


def _acknowledged(reply: Reply, epoch: str) -> Position | BusError:
    """Return what JetStream says of a message that was published."""
    try:
        ack = msgspec.json.decode(reply.payload, type=_Ack)
    except msgspec.MsgspecError:
        return BusDown("JetStream's acknowledgement makes no sense", uncertain=True)
    if ack.error is not None or not ack.seq:
        why = (ack.error or {}).get("description", "it gives no reason")
        return BusDown(f"JetStream has not stored it: {why}")
    return Position(epoch, ack.seq)
