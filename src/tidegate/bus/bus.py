"""`Bus`: the channels of one process on its event loop; asks the engine what topics.py wants to know.

One object for all: servers, handlers and other programs publish, subscribe and ask here, whatever the engine. What must
not live here: order, joins, repairs (topics.py), engines, connections (asyncio/membership.py).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from ..channels import Channel, ChannelLimits, Identity, Joined, Message, Position
from ..exceptions import BusDown, BusError
from .attendance import Attendance
from .base import SLICE_MESSAGES, VERB_DEADLINE, Publication, State
from .connect import connect
from .members import MemberTable
from .orders import Obedient, Order
from .policies import CONTROL, PRESENCE, Policies, check_key, check_name, check_payload, encode_message, sender_of
from .records import Records
from .subscription import Subscription
from .topic import settle
from .topics import Read, Request, Subscribe, Topics, Tops, Unsubscribe

if TYPE_CHECKING:
    from .members import Member, Members
    from .order import Counts
    from .topic import Done

__all__ = ["Bus"]

RETRY: Final = 1.0
"""Seconds between attempts to connect to an engine that was not there at the start."""


class Bus:
    """The channels of one process, over the engine that a URL names.

        async with Bus("memory://", channels={"chat:": Channel(history=200)}) as bus:
            await bus.publish("chat:7", "hello")

    Parameters:
        url: of the engine.
        channels: policy of the channels with each prefix, as for `App`.
        limits: of channels, for those who join here; of messages, as far as the engine has none of its own.
        members: makes the table of a channel's members.
        logger: "tidegate.bus" by default.

    Raises:
        TypeError, ValueError: at once, for a wrong URL or wrong channels.
    """

    def __init__(
        self,
        url: str,
        *,
        channels: Mapping[str, Channel] | None = None,
        limits: ChannelLimits | None = None,
        members: Callable[[], Members] = MemberTable,
        logger: logging.Logger | None = None,
    ) -> None:
        self.policies = Policies(channels)  # the engine's as well
        self.url = url
        self.channels = dict(channels or {})
        self.limits = limits or ChannelLimits()
        self.logger = logging.getLogger("tidegate.bus") if logger is None else logger
        self._broker = connect(url, self.policies)
        self._topics = Topics(
            self.policies,
            self._broker.follows,
            gapless=self._broker.gapless,
            members=members,
            random=random.random,
            limit=self.limits.per_process,
        )
        self.records = Records(self._topics.counts, self.logger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._linked = False  # the engine was there once, and is linked again and again by itself
        self._name = secrets.token_urlsafe(6)
        self._serials = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._publishing = 0
        self._subscribing = 0  # channels
        self._flushed = asyncio.Event()
        self._subscriptions: set[Subscription] = set()
        self._attendance: Attendance | None = None
        self.state = State("down", reason="it is not started")

    def __repr__(self) -> str:
        return f"<Bus {self.url.partition('://')[0]}:// {self.state.kind}>"

    @property
    def message_limit(self) -> int:
        """Bytes of a message at most."""
        return self._broker.message_limit or self.limits.message

    @property
    def counts(self) -> Counts:
        """What happened to the channels of this process."""
        return self._topics.counts

    @property
    def load(self) -> tuple[int, int, int, int]:
        """Members, as they were at most 10 s ago; channels; channels that are being subscribed; bytes to the engine."""
        own = sum(self._topics.members(channel) for channel in (CONTROL, PRESENCE))
        members = self._attendance.members_here if self._attendance is not None else 0
        return members, max(0, len(self._topics) - own), self._subscribing, self._broker.queued

    # Its life.

    async def start(self, *, required: bool = True) -> None:
        """Connect to the engine.

        Args:
            required: False starts the bus though the engine is not there: it is down until the engine comes.

        Raises:
            BusDown: it is not there.
            BusError: it cannot be used, or this was started before.
        """
        if self._loop is not None:
            raise BusError("the bus was started before: make another one")
        self._loop = asyncio.get_running_loop()
        attendance = Attendance(self._broker, self._topics, self.policies, self._name, self.records)
        self._attendance = attendance
        try:
            await self._connect()
        except BusDown as error:
            if required:
                await self.close()
                raise
            self._told(State("down", reason=error.reason, retry_after=error.retry_after))
            self._run(self._connect_later(str(error)))
        except BaseException:
            await self.close()
            raise
        self._run(attendance.run())

    async def _connect(self) -> None:
        if not self._linked:
            await self._broker.start(self._delivered, self._told)
            self._linked = True
        obedient = Obedient(self._topics, self._present.name_of, self._present.nudged, self.logger)
        await self.join(obedient, dict.fromkeys((CONTROL, PRESENCE) if self.policies.has_presence else (CONTROL,)))

    async def _connect_later(self, reason: str) -> None:
        """Try until the engine is there; log why not when that is another reason."""
        while True:
            await asyncio.sleep(RETRY * random.uniform(0.5, 1.0))
            try:
                await self._connect()
                return
            except Exception as error:
                if str(error) != reason:
                    reason = str(error)
                    self.logger.warning("%s; it is used as soon as it is there", reason)

    async def close(self) -> None:
        """Wait until what was published has got to the engine, and disconnect; closing again does nothing."""
        if self._closed or self._loop is None:
            return
        try:
            async with asyncio.timeout(VERB_DEADLINE):
                await self.flush()
        except TimeoutError:
            self.logger.warning("%d publications had not got to the bus when it was closed", self._publishing)
        self._closed = True
        self.state = State("down", reason="it is closed")
        error = BusError("the bus is closed")
        for subscription in list(self._subscriptions):
            subscription.end(error)
        self._topics.end(error)
        self.records.end()
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._attendance is not None:
            await self._attendance.end()
        await self._broker.close()

    async def flush(self) -> None:
        """Wait until all that is being published has got to the engine, or failed."""
        while self._publishing:
            self._flushed.clear()
            await self._flushed.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _present(self) -> Attendance:
        assert self._attendance is not None
        return self._attendance

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise BusError("the bus is closed")
        if self._loop is None:
            raise BusError("the bus is not started: use it within `async with`")
        return self._loop

    def policy_of(self, channel: str) -> Channel:
        """Return the policy of a channel."""
        return self.policies.of(channel)

    def use_table(self, members: Callable[[], Members]) -> None:
        """Have other tables of members from now on.

        Args:
            members: makes the table of a channel's members.
        """
        self._topics.make_members = members

    # Publishing.

    def name_sender(self) -> str:
        """Return a name for one that publishes: of this process, and never used again."""
        return f"{self._name}.{next(self._serials)}"

    async def publish(
        self,
        channel: str,
        message: Any,
        *,
        exclude: Any = None,
        key: str | None = None,
        json: bool = False,
        wait: float = 5.0,
    ) -> Position | None:
        """Publish a message to all members of a channel, in all processes.

        With history it returns once the message is stored, without once it is on its way.

        Args:
            channel: its name.
            message: str for a text, bytes-like for a binary message; anything else becomes a text of JSON.
            exclude: a connection or another member that is not to get it.
            key: makes publishing again within 5 minutes have no effect: the position of the first is returned.
            json: whether a str or bytes are JSON, for members that take that apart.
            wait: seconds to wait for the engine; 0 does not wait for a place in its queue.

        Returns:
            The message's position, or None in a channel without history.

        Raises:
            InvalidChannel, MessageTooBig: it cannot be published.
            BusBusy: the queue was full for too long; nothing was published.
            BusDown: the engine is away; with `uncertain`, it may have stored the message.
            TypeError, ValueError: for another wrong argument.
        """
        self._open()
        check_name(channel)
        check_key(key)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not wait >= 0:
            raise ValueError(f"wait must be a number of seconds, not {wait!r}")
        payload, text, json = encode_message(message, json)
        check_payload(channel, payload, self.message_limit)
        sender = "" if exclude is None else sender_of(exclude)
        return await self._publish(Publication(channel, payload, text, sender, json, bool(sender), key), wait)

    async def _publish(self, publication: Publication, wait: float) -> Position | None:
        began = time.monotonic()
        self._publishing += 1
        try:
            (result,) = await self._broker.publish([publication], wait)
        except BusError as exc:
            result = exc
        finally:
            self._publishing -= 1
            if not self._publishing:
                self._flushed.set()
        self.records.published(began, result)
        if isinstance(result, BaseException):
            raise result
        return result

    # Members.

    async def join(
        self,
        member: Member,
        channels: Mapping[str, Position | str | None],
        last: int = 0,
        identity: Identity | None = None,
    ) -> dict[str, Joined]:
        """Add a member to channels, and return how each was joined; all of them, or none.

        Args:
            member: who; one who is a member already begins anew.
            channels: names, each with the place after which it has missed messages, or None.
            last: how many of the last messages it is to get if it is new, or if not all can be given that it missed.
            identity: who it is, for the channels with presence.

        Raises:
            InvalidChannel, TooManyChannels: it is not possible.
            BusDown: the engine is away.
        """
        loop = self._open()
        answers: dict[str, asyncio.Future[Joined]] = {}
        try:
            for channel, since in channels.items():
                answers[channel] = loop.create_future()
                self.start_join(member, channel, functools.partial(settle, answers[channel]), since, last, identity)
            return {channel: await answer for channel, answer in answers.items()}
        except BaseException:
            for channel, answer in answers.items():
                self.leave(member, channel)
                if answer.done() and not answer.cancelled():
                    answer.exception()  # one of them is told
            raise

    def start_join(
        self,
        member: Member,
        channel: str,
        done: Done,
        since: Position | str | None = None,
        last: int = 0,
        identity: Identity | None = None,
    ) -> None:
        """Add a member to a channel, without waiting: `done` takes the answer, before the first message.

        Args:
            member, channel, since, last, identity: as for `join()`.
            done: called with a `Joined` or a `BusError`, perhaps before this returns.

        Raises:
            InvalidChannel, TooManyChannels: it is not possible.
        """
        loop = self._open()
        if channel not in (CONTROL, PRESENCE):
            check_name(channel)
        if self._present.opens(channel):
            done = functools.partial(self._answered, done, member, channel, identity)
        self._topics.join(channel, member, done, loop.time(), since, last)
        self._present.changed()
        self._soon()

    def _answered(
        self, done: Done, member: Member, channel: str, identity: Identity | None, answer: Joined | BusError
    ) -> None:
        """Give a member its answer, and then its name; who cannot join is not there."""
        done(answer)
        if isinstance(answer, BusError):
            self._present.leave(channel, member)
        elif identity is not None:
            self._present.enter(channel, member, identity)

    def leave(self, member: Member, channel: str, *, returns: bool = False, removed: bool = False) -> None:
        """Remove a member from a channel, if it is one.

        Args:
            member, channel: who, from where.
            returns: whether it is expected to join again, perhaps in another process.
            removed: whether it is not wanted back.
        """
        if self._loop is not None and self._topics.leave(channel, member, self._loop.time()):
            self._present.leave(channel, member, returns=returns, removed=removed)
            self._soon()

    def drained(self, member: Member, channel: str) -> None:
        """Take it that a member, whose `deliver` returned False, has room for more."""
        if not self._closed:
            self._topics.drained(channel, member)
            self._soon()

    def subscribe(self, channel: str, since: Position | str | None = None, last: int = 0) -> Subscription:
        """Return an iterator over a channel's messages, to be entered with `async with`.

        Args:
            channel: its name.
            since: the place after which messages were missed.
            last: how many of the last messages to begin with, if there is no such place or not all can be given.
        """
        check_name(channel)
        return Subscription(self, channel, since, last, self.policies.of(channel))

    def enter(self, subscription: Subscription) -> None:
        """Take note of a subscription, to end it with the bus."""
        self._open()
        self._subscriptions.add(subscription)

    def exit(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self._subscriptions.discard(subscription)
        self.leave(subscription, subscription.channel)

    async def close_members(self, channel: str, code: int = 1000, reason: str = "") -> None:
        """Close all members of a channel, in all processes.

        Args:
            channel: its name.
            code: close code of their connections.
            reason: text of at most 123 bytes in UTF-8.

        Raises:
            InvalidChannel, TypeError, ValueError: for a wrong argument.
            BusDown, BusBusy: they cannot be told.
        """
        self._open()
        check_name(channel)
        if not isinstance(code, int) or not 1000 <= code < 5000:
            raise ValueError(f"code must be a close code, 1000 to 4999, not {code!r}")
        if len(reason.encode()) > 123:
            raise ValueError("reason must have at most 123 bytes in UTF-8")
        payload = Order(channel, int(code), reason).encode()
        await self._publish(Publication(CONTROL, payload, True), 5.0)

    async def leave_members(self, channel: str, member: str | None = None) -> None:
        """Have members leave a channel, in all processes; their connections stay open.

        Args:
            channel: its name.
            member: the name of those who are to leave; None: all.

        Raises:
            InvalidChannel, TypeError, ValueError: for a wrong argument.
            BusError: the channel has no presence, so that members have no names.
            BusDown, BusBusy: they cannot be told.
        """
        self._open()
        check_name(channel)
        if member is not None:
            Identity(member)  # raises if it is none
            self.must_have_presence([channel])
        payload = Order(leave=channel, member=member).encode()
        await self._publish(Publication(CONTROL, payload, True), 5.0)

    # What there is.

    async def history(self, channel: str, *, limit: int = 50, before: Position | str | None = None) -> list[Message]:
        """Return what is stored of a channel, newest first.

        Args:
            channel: its name.
            limit: messages at most, up to 1,000; there may be fewer, of 1 MiB at most.
            before: the position of the last one of the page before; a page that is not known any more is empty.

        Raises:
            InvalidChannel, ValueError: for a wrong argument.
            BusError: the channel has no history.
            BusDown: the engine is away.
        """
        self._open()
        check_name(channel)
        if not isinstance(limit, int) or not 1 <= limit <= SLICE_MESSAGES:
            raise ValueError(f"limit must be 1 to {SLICE_MESSAGES} messages, not {limit!r}")
        if not self.policies.of(channel).history:
            raise BusError(f"{channel} has no history: declare a Channel(history=...) for its prefix")
        if before is not None:
            try:
                before = Position.parse(str(before))
            except ValueError:
                return []
        part = await self._broker.read(channel, None, limit, before)
        return list(reversed(part.messages))

    async def members(self, channel: str) -> int:
        """Return how many members a channel has in all processes; those of others as they were at most 10 s ago.

        Raises:
            InvalidChannel: it is no channel.
            BusDown: the engine is away.
        """
        self._open()
        check_name(channel)
        return await self._present.members(channel)

    async def presence(self, channel: str) -> dict[str, Any]:
        """Return who is in a channel, of all processes: the members' names, each with what is known of it.

        Raises:
            InvalidChannel: it is no channel.
            TooManyMembers: there are more than 1,000, of which there is no list.
            BusError: the channel has no presence.
            BusDown: the engine is away.
        """
        names = await self.names(channel)
        return {name: msgspec.json.decode(info) for name, info in names.items()}

    async def names(self, channel: str) -> dict[str, bytes]:
        """Return who is in a channel, as `presence()`, with what is known of each as JSON."""
        self._open()
        check_name(channel)
        self.must_have_presence([channel])
        return await self._present.names(channel)

    def must_have_presence(self, channels: Collection[str]) -> None:
        """Raise BusError if none of the channels has presence."""
        if channels and not any(self.policies.of(channel).presence for channel in channels):
            names = ", ".join(list(channels)[:3])
            raise BusError(f"{names}: there is no presence: declare a Channel(presence=True) for the prefix")

    # The engine.

    def _delivered(self, messages: Sequence[Message]) -> None:
        began = time.time()
        self._topics.deliver(messages)
        self.records.delivered(messages, began)
        self._soon()

    def _told(self, state: State) -> None:
        assert self._loop is not None
        if self._closed:
            return  # that the engine's link ends with it is no news
        self.records.told(state)
        self.state = state
        self._topics.told(state, self._loop.time())
        if state.kind == "again":
            self._present.again()
        self._soon()

    def _soon(self) -> None:
        """Ask the engine what is wanted, once for all that happens in this turn of the loop."""
        if not self._scheduled and not self._closed and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        if self._closed or self._loop is None:
            return
        if self._topics.serve():
            self._soon()
        for request in self._topics.take():
            self._run(self._ask(request))
        deadline = self._topics.deadline()
        if self._timer is not None and self._timer.when() != deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and deadline is not None:
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._topics.tick(self._loop.time())
        self._soon()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._open().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, request: Request) -> None:
        assert self._loop is not None
        result: Any
        try:
            async with asyncio.timeout(VERB_DEADLINE):
                result = await self._verb(request)
        except TimeoutError:
            result = BusDown("no answer in time")
        except BusError as exc:
            result = exc
        except Exception as exc:
            self.logger.error("a request to the bus failed", exc_info=True)
            result = BusDown(f"a request failed: {exc!r}")
        self._topics.done(request, result, self._loop.time())
        self._soon()

    async def _verb(self, request: Request) -> Any:
        broker = self._broker
        match request:
            case Subscribe():
                self._subscribing += len(request.channels)
                try:
                    return await broker.subscribe(request.channels)
                finally:
                    self._subscribing -= len(request.channels)
            case Unsubscribe():
                return await broker.unsubscribe(request.channels)
            case Read():
                return await broker.read(request.channel, request.after, request.limit)
            case Tops():
                return await broker.tops(request.channels)
