"""Tests of tidegate.bus.watch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.nats_server import NatsServer, nats_server
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer, Relay
from tidegate._core.counters import Row, use
from tidegate.bus import nats_link, redis_link
from tidegate.bus.base import Broker
from tidegate.bus.nats import NatsBroker
from tidegate.bus.policies import Policies
from tidegate.bus.redis import RedisBroker
from tidegate.bus.watch import TICKS, Backoff, Watch, end

SILENCE = 0.04


class Link:
    """What is watched: writes down what happens, and may answer probes."""

    def __init__(self, answers: bool) -> None:
        self.answers = answers
        self.probes = 0
        self.reasons: list[str] = []
        self.happened = asyncio.Event()
        self.watch = Watch(self.probe, self.lose, SILENCE)

    def probe(self) -> None:
        self.probes += 1
        self.happened.set()
        if self.answers:
            asyncio.get_running_loop().call_soon(self.watch.heard)

    def lose(self, reason: str) -> None:
        self.reasons.append(reason)
        self.happened.set()

    async def next(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.happened.wait()
        self.happened.clear()


async def test_silence_is_probed_and_an_answer_ends_it() -> None:
    link = Link(answers=True)
    for number in range(1, 4):
        await link.next()
        assert (link.probes, link.reasons) == (number, [])
    link.watch.stop()


async def test_how_long_a_probe_takes_is_recorded_once_whatever_comes_before_it() -> None:
    row = Row()
    before = use(row)
    try:
        link = Link(answers=False)
        link.watch.probed()  # nobody has asked for it
        await link.next()
        for _ in range(3 * TICKS):  # the messages of others keep the link
            link.watch.heard()
            await asyncio.sleep(SILENCE / TICKS)
        assert not any(row.words("bus_probe"))
        assert link.watch.is_probing
        link.watch.probed()
        link.watch.probed()
        link.watch.stop()
    finally:
        use(before)
    *buckets, ticks = row.words("bus_probe")
    assert sum(buckets) == 1
    assert ticks / 1e9 > 3 * SILENCE / 2


async def test_a_probe_without_answer_is_a_lost_link_once() -> None:
    link = Link(answers=False)
    await link.next()
    assert (link.probes, link.reasons) == (1, [])
    await link.next()
    assert link.reasons == ["nothing has come for 0.08 seconds, not even what this process published"]
    await asyncio.sleep(4 * SILENCE)
    assert (link.probes, len(link.reasons)) == (1, 1)


@pytest.mark.parametrize(
    ("engine", "link", "broker"),
    [(lambda folder: RedisServer(), redis_link, RedisBroker), (nats_server, nats_link, NatsBroker)],
    ids=["redis", "nats"],
)
async def test_engines_say_when_a_probe_has_come(
    engine: Callable[[Path], contextlib.AbstractContextManager[RedisServer | NatsServer]],
    link: ModuleType,
    broker: Callable[[str, Policies], Broker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "SILENCE", 0.1)
    row = Row()
    before = use(row)
    try:
        with engine(tmp_path) as server:
            async with Relay(server.port) as relay:
                scheme = server.url.partition("://")[0]
                one = broker(f"{scheme}://127.0.0.1:{relay.port}", Policies())
                await one.start(lambda messages: None, lambda state: None)
                relay.delay = 0.02
                async with asyncio.timeout(PATIENCE):
                    while sum(row.words("bus_probe")[:-1]) < 2:
                        await asyncio.sleep(0.01)
                await one.close()
    finally:
        use(before)
    *buckets, ticks = row.words("bus_probe")
    assert 0.02 < ticks / 1e9 / sum(buckets) < PATIENCE


async def test_where_messages_come_nothing_is_probed() -> None:
    link = Link(answers=False)
    for _ in range(5 * TICKS):
        await asyncio.sleep(SILENCE / TICKS / 2)
        link.watch.heard()
    link.watch.stop()
    assert (link.probes, link.reasons) == (0, [])


async def test_a_busy_event_loop_is_no_silence() -> None:
    """What had come while the process was busy is read before the link is called lost."""
    link = Link(answers=True)
    for _ in range(3):
        time.sleep(4 * SILENCE)  # noqa: ASYNC251 - a handler that blocks
        await asyncio.sleep(0)
    await link.next()
    assert link.reasons == []
    link.watch.stop()


def test_attempts_are_further_and_further_apart() -> None:
    backoff = Backoff(0.1, 1.0)
    for most in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert most / 2 <= backoff.next() <= most
    backoff.reset()
    assert backoff.next() <= 0.1


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = asyncio.Event()

    async def life() -> None:
        while True:
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                if lost.is_set():
                    raise
                lost.set()

    task = asyncio.create_task(life())
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await end(task)
    assert task.cancelled()
    assert lost.is_set()
