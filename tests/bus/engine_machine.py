"""Any order of verbs on real brokers, against a list per channel: for the test modules of engines.

    check_engine    run it

What holds: a subscriber is given each message above the top that it was told, in order and once; what is read is what
was published; a key is published once. What must not live here: losses (model.py, test_topics_machine.py), which real
engines do not have on demand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.bus.contract import Connect, Peer
from tidegate.bus.base import Publication
from tidegate.channels import Message, Position

__all__ = ["check_engine"]

HISTORY = 20  # of "h:" in the contract's policies
CHANNELS = ("h:1", "h:2", "plain")
INDEX = st.integers(0, 30)
CHANNEL = st.sampled_from(CHANNELS)
STORED = st.sampled_from(CHANNELS[:2])
PEER = st.integers(0, 1)

T = TypeVar("T")


class _Brokers(RuleBasedStateMachine):
    """Two brokers of one engine."""

    connecting: Callable[[], AbstractAsyncContextManager[Connect]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.context = type(self).connecting()
        self.connect = self.do(self.context.__aenter__())
        self.peers: list[Peer] = [self.do(self.connect()) for _ in range(2)]
        self.published: dict[str, list[tuple[Position | None, bytes]]] = {channel: [] for channel in CHANNELS}
        self.keys: dict[tuple[str, str], Position] = {}
        # What each peer is to have got, by channel while it is subscribed; and what it got before that.
        self.expected: list[dict[str, list[bytes]]] = [{}, {}]
        self.start = {channel: self.do(self.peers[0].place(channel)) for channel in CHANNELS[:2]}
        self.number = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @rule(peer=PEER, channel=CHANNEL, count=st.integers(1, 25), key=st.none() | st.sampled_from("ab"))
    def publish(self, peer: int, channel: str, count: int, key: str | None) -> None:
        batch = []
        for _ in range(count):
            self.number += 1
            batch.append(Publication(channel, str(self.number).encode(), key=key if channel != "plain" else None))
        for publication, position in zip(batch, self.do(self.peers[peer].broker.publish(batch, 5.0)), strict=True):
            if channel == "plain":
                assert position is None
            else:
                assert isinstance(position, Position)
                first = self.keys.get((channel, publication.key)) if publication.key else None
                if first is not None:
                    assert position == first
                    continue
                if publication.key:
                    self.keys[channel, publication.key] = position
                before = self.published[channel][-1][0] if self.published[channel] else self.start[channel]
                assert before is not None
                assert (position.epoch, position.offset > before.offset) == (before.epoch, True)
            self.published[channel].append((position, publication.payload))
            for expected in self.expected:
                if channel in expected:
                    expected[channel].append(publication.payload)

    @rule(peer=PEER, channels=st.lists(CHANNEL, min_size=1, max_size=4))
    def subscribe(self, peer: int, channels: list[str]) -> None:
        self.check()
        tops = self.do(self.peers[peer].broker.subscribe(channels))
        for channel, top in zip(channels, tops, strict=True):
            assert self.is_top(channel, top)
            self.expected[peer].setdefault(channel, [])

    @rule(peer=PEER, channels=st.lists(CHANNEL, min_size=1, max_size=3))
    def unsubscribe(self, peer: int, channels: list[str]) -> None:
        self.check()
        self.do(self.peers[peer].broker.unsubscribe(channels))
        for channel in channels:
            self.expected[peer].pop(channel, None)
        self.peers[peer].messages.clear()
        for expected in self.expected[peer].values():
            expected.clear()

    @rule(peer=PEER)
    def tops(self, peer: int) -> None:
        tops = self.do(self.peers[peer].broker.tops(CHANNELS))
        assert all(map(self.is_top, CHANNELS, tops))

    @rule(peer=PEER, channel=STORED, back=INDEX, limit=st.integers(1, 40))
    def read_after(self, peer: int, channel: str, back: int, limit: int) -> None:
        published = self.published[channel]
        index = max(0, len(published) - back)
        place = published[index - 1][0] if index else self.start[channel]
        part = self.do(self.peers[peer].broker.read(channel, place, limit))
        assert self.is_top(channel, part.top)
        kept = published[-HISTORY:] if HISTORY else []
        assert part.complete == (index >= len(published) - len(kept))
        expected = [one for one in published[index:] if one in kept][:limit]
        assert self.content(part.messages) == expected

    @rule(peer=PEER, channel=STORED, back=st.none() | INDEX, limit=st.integers(1, 40))
    def read_newest(self, peer: int, channel: str, back: int | None, limit: int) -> None:
        published = self.published[channel]
        kept = published[-HISTORY:]
        before = None
        if back is not None and published:
            index = max(0, len(published) - 1 - back)
            before = published[index][0]
            kept = [one for one in published[:index] if one in kept]
        part = self.do(self.peers[peer].broker.read(channel, None, limit, before))
        assert self.content(part.messages) == kept[-limit:]

    @precondition(lambda self: any(self.expected))
    @rule()
    def check(self) -> None:
        """All that was to come has come, and nothing else."""
        for peer, expected in zip(self.peers, self.expected, strict=True):
            self.do(peer.until(sum(map(len, expected.values()))))
            got: dict[str, list[bytes]] = {channel: [] for channel in expected}
            for message in peer.messages:
                got[message.channel].append(message.payload)
            assert got == expected

    def is_top(self, channel: str, top: Position | None) -> bool:
        """Whether it is the channel's position; in one without messages numbers may be another channel's."""
        if channel == "plain":
            return top is None
        if self.published[channel]:
            return top == self.published[channel][-1][0]
        start = self.start[channel]
        return top is not None and start is not None and top.epoch == start.epoch and top.offset >= start.offset

    def content(self, messages: Any) -> list[tuple[Position | None, bytes]]:
        found: list[Message] = list(messages)
        return [(message.position, message.payload) for message in found]

    def teardown(self) -> None:
        try:
            self.check()
        finally:
            self.do(self.context.__aexit__(None, None, None))
            self.runner.close()


def check_engine(
    connecting: Callable[[], AbstractAsyncContextManager[Connect]], examples: int, steps: int = 30
) -> None:
    """Run it.

    Parameters:
        connecting: what gives a contract's `connect`, each time of an engine that has nothing yet.
        examples, steps: how often, and how long.
    """
    machine = type("Brokers", (_Brokers,), {"connecting": staticmethod(connecting)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
