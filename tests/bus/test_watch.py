"""Tests of tidegate.bus.watch."""

from __future__ import annotations

import asyncio
import time

from tests.support.patience import PATIENCE
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


async def test_a_probe_without_answer_is_a_lost_link_once() -> None:
    link = Link(answers=False)
    await link.next()
    assert (link.probes, link.reasons) == (1, [])
    await link.next()
    assert link.reasons == ["nothing has come for 0.08 seconds, not even what this process published"]
    await asyncio.sleep(4 * SILENCE)
    assert (link.probes, len(link.reasons)) == (1, 1)


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
