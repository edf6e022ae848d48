"""What frames other than a publish ask the hub for: channels, reads, where a channel stands, who is in it.

    Requests    the links' frames, and what is known of the processes at their other ends

A frame that makes no sense raises ValueError: its link ends, and is told why. What can be asked and cannot be granted
is refused. What must not live here: publishes (_core/switch.pyx), sockets and time (main.py).
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from .._core.hub_link import Link
from .._core.journal import Journal, JournalError
from .._core.switch import Switch
from .._core.topic import Topic
from ..bus.link import (
    NAME_LIMIT,
    VERSION,
    Count,
    Flag,
    Hello,
    Kind,
    LinkError,
    Policy,
    Search,
    Snapshot,
    Top,
    Welcome,
    pack_json,
    unpack_json,
)
from ..channels import LISTED, UNLISTED

__all__ = ["Party", "Requests"]

logger = logging.getLogger("tidegate.hub")

MESSAGES = 1000
"""Messages of an excerpt."""

EXCERPT_BYTES = 1 << 20
"""Bytes of an excerpt, but for one message."""

PREFIX = 256
"""Bytes of key and sender, which go before a message and do not count as its own."""

SNAPSHOT_BYTES = 64 << 20
"""Bytes of one process's snapshot, in all its frames."""

LEASE = 30.0
"""Seconds for which a snapshot is in force."""

NAMES_LEASE = 15.0
"""Seconds for which the names in it are, after the end of its link: who was there is about to connect again."""

ENDED = 64
"""Links that have ended whose names are kept, at most, and within the bytes of one snapshot."""

NO_POLICY = Policy()

NO_POLICIES = "no worker has said yet which channels there are; try again"


@dataclass
class Party:
    """The process at the other end of a link.

    Attributes:
        worker: whether it is one of the daemon's, by whose policies the hub goes.
        snapshot: who of it is where.
        beaten_at: when it said so.
        building: the frames of the next snapshot, so far.
        size: their bytes, and after the last one those of the snapshot.
        linked_at: when the link began.
        hello: what it said before there were policies; it waits for them.
        generation: of the policies that it has declared.
    """

    worker: bool
    snapshot: dict[str, Count] = field(default_factory=dict)
    beaten_at: float = 0.0
    building: dict[str, Count] | None = None
    size: int = 0
    linked_at: float = field(default_factory=time.monotonic)
    hello: Hello | None = None
    generation: int | None = None


class Requests:
    """The frames of all links of a switch.

    Parameters:
        journal: where messages are stored.
        message_limit: bytes that one may have.

    Attributes:
        switch: the links.
        on_lost: told how many messages were dropped on a link, when it has ended.
    """

    def __init__(self, journal: Journal, message_limit: int = 1 << 20) -> None:
        self._message_limit = message_limit
        self.switch = Switch(journal, self.on_frame, self.on_end, message_limit + PREFIX)
        self.on_lost: Callable[[int], object] = lambda messages: None
        self._journal = journal
        self._ended: list[tuple[float, Party]] = []  # processes that have ended, until when their names are kept
        self._declared: dict[int, list[tuple[str, Policy]]] = {}  # by generation; the longest prefix first
        self._actions: dict[int, Callable[[Link, int, int, int, int, bytes], None]] = {
            Kind.OPEN: self._open,
            Kind.SHUT: self._shut,
            Kind.SUBSCRIBE: self._subscribe,
            Kind.UNSUBSCRIBE: self._unsubscribe,
            Kind.READ: self._read,
            Kind.LOOK: self._look,
            Kind.BEAT: self._beat,
            Kind.COUNT: self._count,
        }

    def on_frame(
        self, link: Link, kind: int, flags: int, channel: int, offset: int, sequence: int, payload: bytes
    ) -> None:
        """Do what a frame asks for; unknown kinds are skipped."""
        if not link.greeted:
            self._hello(link, kind, payload)
            return
        action = self._actions.get(kind)
        if action is not None:
            action(link, flags, channel, offset, sequence, payload)

    def on_end(self, link: Link) -> None:
        """Keep the names of the process for a while, and tell the log if it has ended for a reason."""
        party: Party = link.data
        names = {name: Count(0, found.members) for name, found in party.snapshot.items() if found.members}
        if names:
            until = min(time.monotonic() + NAMES_LEASE, party.beaten_at + LEASE)
            self._ended.append((until, Party(False, names, size=party.size)))
            while len(self._ended) > ENDED or sum(ended.size for _, ended in self._ended) > SNAPSHOT_BYTES:
                del self._ended[0]
        self._withdraw()
        self.on_lost(link.lost)
        if link.ended:
            logger.warning("the link to %s ends: %s", link.name or "a process", link.ended)

    # The first frame, and policies.

    def _hello(self, link: Link, kind: int, payload: bytes) -> None:
        if kind != Kind.HELLO:
            raise LinkError(f"the first frame must be HELLO ({Kind.HELLO:d}), not kind {kind}")
        hello = unpack_json(payload, Hello)
        party: Party = link.data
        if party.hello is not None:
            raise LinkError("the answer to the first frame must be waited for")
        if party.worker and hello.channels is not None:
            self._declare(party, hello.generation, hello.channels)
        if not self._declared:
            party.hello = msgspec.structs.replace(hello, channels=None)
            return
        self._greet(link, hello)
        for other in list(self.switch.links.values()):
            early: Hello | None = other.data.hello
            if early is not None and other.ended is None and not other.greeted:
                self._greet(other, early)
                self.switch.touch(other)

    def _greet(self, link: Link, hello: Hello) -> None:
        """Let a process use the hub."""
        for other in self.switch.links.values():
            if other.publisher is not None and other.publisher.id == hello.publisher:
                other.end("its process has another link")  # which came first: the end of this one is still to be read
                self.switch.touch(other)
        link.name = hello.name
        link.greet(self._journal.publisher(hello.publisher))
        link.send(Kind.WELCOME, payload=pack_json(Welcome(VERSION, 1, self._message_limit)))

    def end_ungreeted(self, since: float) -> None:
        """End links of processes other than workers that began before a time and are not in use; a worker may block."""
        for link in self.switch.links.values():
            party: Party = link.data
            if not link.greeted and not party.worker and party.linked_at < since:
                link.end(NO_POLICIES if party.hello is not None else "it has not said in time who it is")
                self.switch.touch(link)

    def _declare(self, party: Party, generation: int, channels: dict[str, Policy]) -> None:
        """Go by these policies as well, for channels that there are, too.

        Of generations that differ, the one that keeps more is right: a reload may fail, or is not over.
        """
        party.generation = generation
        policies = sorted(channels.items(), key=lambda item: len(item[0]), reverse=True)
        self._go_by({**self._in_use(), generation: policies})

    def _withdraw(self) -> None:
        """Go no longer by policies of workers that have all ended, unless those are the last ones."""
        self._go_by(self._in_use() or self._declared)

    def _in_use(self) -> dict[int, list[tuple[str, Policy]]]:
        """Return the policies of the generations that are linked."""
        linked = {link.data.generation for link in self.switch.links.values()}
        return {generation: policies for generation, policies in self._declared.items() if generation in linked}

    def _go_by(self, declared: dict[int, list[tuple[str, Policy]]]) -> None:
        if declared == self._declared:
            return
        self._declared = declared
        for topic in list(self._journal.topics.values()):
            if topic.name is not None:
                before = topic.epoch
                self._set_policy(topic)
                if topic.epoch != before:
                    self.switch.announce(topic, Kind.TOP, _top(topic))

    def _set_policy(self, topic: Topic) -> None:
        name = topic.name
        assert name is not None
        policy = functools.reduce(
            _wider,
            (
                next((policy for prefix, policy in policies if name.startswith(prefix)), NO_POLICY)
                for policies in self._declared.values()
            ),
            NO_POLICY,
        )
        self._journal.set_policy(topic, policy.history, int(policy.keep * 1e6), policy.history_bytes)

    # Channels.

    def _open(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        name = _name_in(payload)
        if not 0 < len(payload) <= NAME_LIMIT:
            raise LinkError(f"the name of a channel must have 1 to {NAME_LIMIT} bytes, not {len(payload)}")
        try:
            topic = self._journal.topic(name)
        except JournalError as error:  # requests for it will be refused
            logger.warning("%s cannot open a channel: %s", link.name, error)
            return
        if not topic.users:
            self._set_policy(topic)
        link.open(channel, topic)

    def _shut(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        link.shut(channel)

    def _subscribe(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        if self._topic(link, channel, sequence) is not None:
            _answer(link, channel, sequence, link.subscribe(channel))

    def _unsubscribe(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        link.unsubscribe(channel)
        link.send(Kind.DONE, 0, channel, 0, sequence)

    def _look(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        topic = self._topic(link, channel, sequence)
        if topic is not None:
            _answer(link, channel, sequence, topic)

    def _read(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        search = Search.unpack(payload)
        topic = self._topic(link, channel, sequence)
        if topic is not None:
            size = min(search.size, EXCERPT_BYTES)
            found = topic.read(channel, offset, min(search.messages, MESSAGES), size, bool(flags & Flag.BACKWARD))
            link.send(Kind.EXCERPT, 0, channel, 0, sequence, _top(topic) + found)

    def _topic(self, link: Link, channel: int, sequence: int) -> Topic | None:
        """Return a channel by its number; refuse the request if there is none."""
        topic = link.topic(channel)
        if topic is None:
            link.send(Kind.REFUSED, 0, channel, 0, sequence, f"channel number {channel} is not open".encode())
        return topic

    # Who is where.

    def _beat(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        party: Party = link.data
        if flags & Flag.FIRST or party.building is None:
            party.building, party.size = {}, 0
        party.size += len(payload)
        if party.size > SNAPSHOT_BYTES:
            raise LinkError(f"a snapshot has at most {SNAPSHOT_BYTES} bytes")
        party.building.update(unpack_json(payload, Snapshot).channels)
        if flags & Flag.LAST:
            party.snapshot, party.building = party.building, None
            party.beaten_at = time.monotonic()
            if sequence:
                link.send(Kind.DONE, sequence=sequence)

    def _count(self, link: Link, flags: int, channel: int, offset: int, sequence: int, payload: bytes) -> None:
        link.send(Kind.COUNTED, 0, channel, 0, sequence, pack_json(self.count(_name_in(payload))))

    def count(self, name: str) -> Count:
        """Return who is in a channel, by all snapshots that are in force."""
        now = time.monotonic()
        self._ended = [(until, party) for until, party in self._ended if until > now]
        parties = [party for _, party in self._ended]
        parties += [link.data for link in self.switch.links.values() if link.data.beaten_at > now - LEASE]
        connections = 0
        members: dict[str, msgspec.Raw] | None = None
        for party in parties:
            found = party.snapshot.get(name)
            if found is not None:
                connections += found.connections
                if found.members is not None:
                    members = {**(members or {}), **found.members}
        if members is not None and (UNLISTED in members or len(members) > LISTED):
            members = {UNLISTED: msgspec.Raw(b"null")}
        return Count(connections, members)


def _wider(one: Policy, other: Policy) -> Policy:
    """Return the policy that keeps all that one of two keeps; 0 messages are none, and 0 seconds or bytes no limit."""
    if not one.history or not other.history:
        return one if one.history else other
    keep, size = (
        0 if 0 in pair else max(pair) for pair in ((one.keep, other.keep), (one.history_bytes, other.history_bytes))
    )
    return Policy(max(one.history, other.history), keep, int(size))


def _name_in(payload: bytes) -> str:
    """Return the name of the channel that a request is about."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise LinkError("the name of a channel must be UTF-8") from None


def _top(topic: Topic) -> bytes:
    return Top(topic.epoch, topic.top, topic.first).pack()


def _answer(link: Link, channel: int, sequence: int, topic: Topic) -> None:
    """Answer with where a channel stands."""
    link.send(Kind.TOP, 0, channel, topic.top, sequence, _top(topic))
