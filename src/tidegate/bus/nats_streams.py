"""One JetStream stream per policy: that it is there and as it must be, which history it is, and what it stores.

    Api         asks JetStream
    Stream      the stream of one policy, over one link after the other
    Stored      a message as it is stored

A stream stores one message more than the policy's history of each channel, and for longer than the policy keeps it:
what a place is followed by is known as long as anything is stored that is not after it. *Marks*, messages of no
channel, see to it that there is. What is given of it is what the policy says (nats_reads.py). A stream's name for its
birth is in the subjects on which it gives what it stores, so that two streams of one name are never taken for one;
with the time of that it is the epoch. What must not live here: subscriptions, what a read gives.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from ..channels import Channel
from ..exceptions import BusDown, BusError
from .base import new_epoch
from .nats_link import NatsLink, Reply
from .nats_url import Settings
from .nats_words import Words, find

__all__ = ["DEADLINE", "Api", "Info", "Stored", "Stream", "StreamLost"]

DEADLINE: Final = 5.0
"""Seconds for an answer."""

DUPLICATES: Final = 300.0
"""Seconds for which what is published again with the same identity is not stored: that of publishers' keys."""

MARKS: Final = 8
"""Marks within the time for which a stream stores; the oldest one is older than seven eighths of that, nearly."""

NOT_FOUND: Final = 404
UNAVAILABLE: Final = 503
NOT_ENABLED: Final = (10039, 10076)  # for the account, or in the server: not only now
STREAM_NOT_FOUND: Final = 10059
NAME_IN_USE: Final = 10058

UNFINISHED: Final = 1 << 62

_SECOND: Final = 10**9
_SINCE: Final = re.compile(r"tidegate: since (\d+):")


class StreamLost(Exception):
    """A stream is not what it was; all is to be begun anew, on a new link. Its text says what happened."""


class Info(NamedTuple):
    """What a stream is.

    Attributes:
        created: when, as the server says it.
        first, last: sequences of the first message that is stored, and of the last one that ever was.
        config: its settings.
        subjects: how many messages are stored of those that were asked for.
    """

    created: str
    first: int
    last: int
    config: Mapping[str, Any]
    subjects: Mapping[str, int]

    @property
    def since(self) -> int:
        """The sequence after which as much is stored of each channel as is now."""
        found = _SINCE.match(self.config.get("description") or "")
        return int(found[1]) if found is not None else 0

    def has_all(self, count: int, place: int) -> bool:
        """Return whether nothing of a channel is missing after a place after which it has so many messages."""
        return place >= self.since and count < self.config["max_msgs_per_subject"]


class Stored(NamedTuple):
    """A message as it is stored."""

    sequence: int
    time: float
    headers: bytes
    payload: bytes


class Api:
    """Asks JetStream, on one link."""

    def __init__(self, link: NatsLink) -> None:
        self.link = link

    async def answer(self, future: asyncio.Future[Reply]) -> Reply:
        """Return what the server answers.

        Raises:
            BusDown: nothing in time.
            LinkEnded, NoResponders: as for `NatsLink.call`.
        """
        try:
            async with asyncio.timeout(DEADLINE):
                return await future
        except TimeoutError:
            raise self.link.silent(DEADLINE) from None

    async def ask(self, name: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask, and return the answer.

        Raises:
            NoResponders: there is no JetStream.
            BusDown, LinkEnded: there is no answer, or it is that JetStream cannot be used now.
        """
        payload = b"" if request is None else msgspec.json.encode(request)
        reply = await self.answer(self.link.call(f"$JS.API.{name}", payload))
        try:
            found = msgspec.json.decode(reply.payload, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise BusDown(f"JetStream's answer to {name} makes no sense") from None
        error = found.get("error")
        if isinstance(error, dict) and error.get("code") == UNAVAILABLE and error.get("err_code") not in NOT_ENABLED:
            raise BusDown(f"JetStream says: {error.get('description')}")  # as while a cluster has no leader
        return found


def _error(answer: Mapping[str, Any]) -> tuple[int, str]:
    """Return JetStream's number and words of an error; 0 if there is none."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return 0, ""
    return int(error.get("err_code") or error.get("code") or 1), str(error.get("description", "it failed"))


class Stream:
    """The stream of one policy.

    Attributes:
        name: the stream's.
        policy: what it stores for how long.
        subject: what subjects begin with that it stores.
        live: what subjects begin with on which it gives that.
        epoch: which history it is; empty until it is known.
        floor: the highest sequence that is known to have been used.
        is_exact: whether it stores as much as the policy says, and no more.
    """

    def __init__(self, prefix: str, policy: Channel, words: Words, settings: Settings) -> None:
        self.prefix = prefix
        self.policy = policy
        self.name = words.stream(prefix)
        self.subject = words.stored(prefix)
        self.live = ""
        self.epoch = ""
        self.floor = 0
        self.is_exact = False
        self._words = words
        self._settings = settings
        self._birth = re.compile(re.escape(words.live(prefix, "")[:-1]) + r"([A-Za-z0-9_-]+)\.>")

    @property
    def _age(self) -> float:
        """Seconds for which it stores: longer than the policy says, and than what is published twice is noticed."""
        return self.policy.keep * 1.5 + DUPLICATES

    def wanted(self) -> dict[str, Any]:
        """Return the settings that it must have."""
        return {
            "name": self.name,
            "subjects": [f"{self.subject}>"],
            "retention": "limits",
            "discard": "old",
            "storage": self._settings.storage,
            "num_replicas": self._settings.replicas,
            "max_age": int(self._age * _SECOND),
            "max_msgs_per_subject": self.policy.history + 1,
            "duplicate_window": int(DUPLICATES * _SECOND),
            "allow_direct": True,
        }

    # Its being there.

    async def ensure(self, api: Api, in_force: bool) -> None:
        """Have the stream as it must be, and know its epoch.

        Args:
            api: asks.
            in_force: whether the policy is; if not, nothing is thrown away that is stored by another one.

        Raises:
            BusError: it cannot be so; the message says what would be right.
            BusDown, LinkEnded: there is no answer.
        """
        info = await self.info(api)
        while info is None:
            birth = new_epoch()
            created = {
                **self.wanted(),
                "description": self._description(0),
                "republish": {"src": f"{self.subject}>", "dest": f"{self._words.live(self.prefix, birth)}>"},
                "max_consumers": -1,
                "max_msgs": -1,
                "max_bytes": -1,
                "max_msg_size": -1,
            }
            number, words = _error(await api.ask(f"STREAM.CREATE.{self.name}", created))
            if number and number != NAME_IN_USE:  # another process may have been first
                raise self._refused("create", number, words)
            info = await self.info(api)
        birth = self._check(info)
        await self._update(api, info, in_force)
        epoch = _epoch(birth, info.created)
        if epoch != self.epoch:
            self.epoch, self.live, self.floor = epoch, self._words.live(self.prefix, birth), 0
        await self._check_end(api, info)
        await self.mark(api)

    async def info(self, api: Api, subject: str | None = None) -> Info | None:
        """Return what the stream is; None if there is none.

        Args:
            api: asks.
            subject: whose messages are to be counted.
        """
        request = None if subject is None else {"subjects_filter": subject}
        found = await api.ask(f"STREAM.INFO.{self.name}", request)
        number, words = _error(found)
        if number == STREAM_NOT_FOUND:
            return None
        if number:
            raise BusDown(f"JetStream says of {self.name}: {words}")
        state = found["state"]
        first, last = int(state["first_seq"]), int(state["last_seq"])
        return Info(found["created"], first, last, found["config"], state.get("subjects") or {})

    async def look(self, api: Api, subject: str | None = None) -> Info:
        """Return what the stream is, which is what it was.

        Raises:
            StreamLost: it is gone, or another.
        """
        floor = self.floor  # what comes while this is asked is not in the answer
        info = await self.info(api, subject)
        if info is None:
            raise StreamLost(f"the stream {self.name} was deleted")
        if _epoch(self._birth_of(info), info.created) != self.epoch:
            raise StreamLost(f"the stream {self.name} was made anew")
        if info.last < floor:
            raise StreamLost(f"the stream {self.name} has lost its end")
        self.floor = max(self.floor, info.last)
        return info

    def _birth_of(self, info: Info) -> str:
        republish = info.config.get("republish")
        found = None
        if isinstance(republish, dict) and republish.get("src") == f"{self.subject}>":
            found = self._birth.fullmatch(str(republish.get("dest")))
        return found[1] if found is not None else ""

    def _check(self, info: Info) -> str:
        """Return the name of a stream's birth, if it is one of ours and can be used."""
        config = info.config
        birth = self._birth_of(info)
        wrong = None
        if not birth or config.get("subjects") != [f"{self.subject}>"]:
            wrong = f"stores {config.get('subjects')} and isn't one of tidegate's: delete it, or name another bus"
        elif config.get("retention") != "limits" or config.get("sealed") or config.get("no_ack"):
            wrong = "is sealed, or a queue, or acknowledges nothing: delete it"
        elif config.get("storage") != self._settings.storage:
            stored = config.get("storage")
            wrong = (
                f"is stored in {stored}, and the URL says {self._settings.storage}: delete it, or say storage={stored}"
            )
        if wrong is not None:
            raise BusError(f"the stream {self.name} {wrong}")
        return birth

    def _description(self, since: int) -> str:
        """Return what operators read of the stream, and processes: since when it stores so much of each channel."""
        return f"tidegate: since {since}: history of channels that begin with {self.prefix!r}"[:1024]

    async def _update(self, api: Api, info: Info, in_force: bool) -> None:
        """Have it store what it must. When that becomes more of each channel, it is noted since when.

        Until it is known at which sequence that was, the note says UNFINISHED, also if this process ends meanwhile.
        """
        config, wanted = info.config, self.wanted()
        if not in_force:
            for name in ("max_age", "max_msgs_per_subject"):
                wanted[name] = max(wanted[name], config[name])
        since = UNFINISHED if wanted["max_msgs_per_subject"] > config["max_msgs_per_subject"] else info.since
        last = info.last
        if any(config.get(name) != value for name, value in wanted.items()):
            last = await self._change(api, {**config, **wanted, "description": self._description(since)})
        if since >= UNFINISHED:
            await self._change(api, {**config, **wanted, "description": self._description(last)})
        self.is_exact = in_force

    async def _change(self, api: Api, config: Mapping[str, Any]) -> int:
        """Change its settings, and return the last sequence that was used before."""
        answer = await api.ask(f"STREAM.UPDATE.{self.name}", config)
        number, words = _error(answer)
        if number:
            raise self._refused("change", number, words)
        return int(answer["state"]["last_seq"])

    def _refused(self, verb: str, number: int, words: str) -> BusError:
        return BusError(f"JetStream does not {verb} the stream {self.name}: {words} ({number})")

    async def _check_end(self, api: Api, info: Info) -> None:
        """See to it that no sequence is used twice: a server that lost power may have lost the end of a stream.

        All that is stored goes then, and sequences go on above all that any process has seen: of a place before that
        the stream can say nothing about what follows.
        """
        if info.last < self.floor:
            number, words = _error(await api.ask(f"STREAM.PURGE.{self.name}", {"seq": self.floor + 2}))
            if number:
                raise self._refused("purge", number, words)
            self.floor += 1
        self.floor = max(self.floor, info.last)

    async def mark(self, api: Api) -> None:
        """Store a mark, unless there is a new one."""
        interval = self._age / MARKS
        now = time.time()
        slot = int(now // interval) % MARKS
        subject = f"{self.subject}~{slot}"
        last = await self.last(api, subject)
        if last is None or last.time < now - interval:
            # The time names it: of several processes that do this at once, one does.
            headers = f"NATS/1.0\r\nNats-Msg-Id: ~{int(now // interval)}\r\n\r\n".encode()
            await api.answer(api.link.call(subject, b"", headers))

    def is_whole(self, info: Info, place: int) -> bool:
        """Return whether nothing that came after a place has been too old, or purged: the oldest goes first."""
        return info.first <= place + 1

    # What it stores.

    async def last(self, api: Api, subject: str) -> Stored | None:
        """Return the last message of a subject."""
        return self._stored(await api.answer(self.ask(api, {"last_by_subj": subject})))

    async def next(self, api: Api, subject: str, sequence: int) -> Stored | None:
        """Return the first message of a subject that has at least a sequence."""
        return self._stored(await api.answer(self.ask(api, {"seq": sequence, "next_by_subj": subject})))

    async def lasts(self, api: Api, subjects: list[str]) -> list[Stored | None]:
        """Return the last message of each subject."""
        futures = [self.ask(api, {"last_by_subj": subject}) for subject in subjects]
        return [self._stored(await api.answer(future)) for future in futures]

    def ask(self, api: Api, request: Mapping[str, Any]) -> asyncio.Future[Reply]:
        """Ask for a message. Of several servers the leader is asked: others may not have it yet."""
        direct = self._settings.replicas == 1
        return api.link.call(
            f"$JS.API.{'DIRECT.GET' if direct else 'STREAM.MSG.GET'}.{self.name}", msgspec.json.encode(request)
        )

    def _stored(self, reply: Reply) -> Stored | None:
        if reply.status == NOT_FOUND:
            return None
        try:
            if self._settings.replicas == 1:
                sequence = find(reply.headers, b"\r\nNats-Sequence: ")
                when = find(reply.headers, b"\r\nNats-Time-Stamp: ")
                assert sequence is not None
                assert when is not None
                return Stored(int(sequence), _seconds(when.decode()), reply.headers, reply.payload)
            found = msgspec.json.decode(reply.payload, type=dict[str, Any])
            if _error(found)[0]:
                if found["error"].get("code") == NOT_FOUND:
                    return None
                raise BusDown(f"JetStream says of {self.name}: {_error(found)[1]}")
            message = found["message"]
            headers, payload = b64decode(message.get("hdrs", "")), b64decode(message.get("data", ""))
            return Stored(int(message["seq"]), _seconds(message["time"]), headers, payload)
        except (AssertionError, ValueError, KeyError, msgspec.MsgspecError):
            raise BusDown(f"JetStream's answer about {self.name} makes no sense: {reply.headers[:64]!r}") from None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _epoch(birth: str, created: str) -> str:
    """Return the epoch of a stream; one that is made anew from saved settings has another."""
    return urlsafe_b64encode(hashlib.sha256(f"{birth} {created}".encode()).digest()[:6]).decode()
