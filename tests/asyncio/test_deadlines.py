"""One coarse timer for many deadlines: in order, never early, at most a little late, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from tidegate.asyncio.deadlines import SHORTEST_QUANTUM, Deadlines


class Bounded:
    """What has deadlines; tells when they pass."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self.passed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def _on_deadline(self, now: float) -> None:
        self.passed.set_result(now)


async def test_a_deadline_passes_once_it_is_due() -> None:
    loop = asyncio.get_running_loop()
    deadlines, bounded = Deadlines(loop), Bounded()
    start = loop.time()
    deadlines.set(bounded, 0.05)
    assert await bounded.passed >= start + 0.05 - SHORTEST_QUANTUM
    assert bounded._deadline is None
    assert not deadlines._due


async def test_deadlines_pass_in_their_order() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    later, sooner = Bounded(), Bounded()
    deadlines.set(later, 0.06)
    deadlines.set(sooner, 0.01)
    assert await sooner.passed < await later.passed


async def test_a_new_deadline_replaces_the_old_one() -> None:
    deadlines, bounded, other = Deadlines(asyncio.get_running_loop()), Bounded(), Bounded()
    deadlines.set(bounded, 0.01)
    deadlines.set(bounded, 3600)
    deadlines.set(other, 0.02)
    await other.passed
    assert not bounded.passed.done()
    deadlines.clear(bounded)
    assert bounded._deadline is None


@pytest.mark.parametrize("delay", [None, "clear"])
async def test_a_deadline_that_is_forgotten(delay: float | None) -> None:
    deadlines, bounded, other = Deadlines(asyncio.get_running_loop()), Bounded(), Bounded()
    deadlines.set(bounded, 0.01)
    if delay is None:
        deadlines.set(bounded, None)
    else:
        deadlines.clear(bounded)
    deadlines.set(other, 0.02)
    await other.passed
    assert not bounded.passed.done()


async def test_a_delay_of_nothing_is_for_the_next_moment() -> None:
    deadlines, bounded = Deadlines(asyncio.get_running_loop()), Bounded()
    deadlines.set(bounded, 0)
    assert not bounded.passed.done()
    await bounded.passed


async def test_many_deadlines_share_few_entries_of_the_schedule() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    many = [Bounded() for _ in range(1000)]
    for number, bounded in enumerate(many):
        deadlines.set(bounded, 20 + number / 1000)
    assert len(deadlines._due) <= 3
    for bounded in many:
        assert bounded._deadline is not None
        assert 0 <= bounded._deadline - loop.time() - 20 <= 1 + 20 / 8
        deadlines.clear(bounded)
    assert not any(deadlines._due.values())


async def test_one_that_sets_its_next_deadline_while_it_passes() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    done = asyncio.get_running_loop().create_future()

    class Again(Bounded):
        times = 0

        def _on_deadline(self, now: float) -> None:
            self.times += 1
            if self.times < 3:
                deadlines.set(self, 0.001)
            else:
                done.set_result(self.times)

    deadlines.set(Again(), 0.001)
    assert await done == 3


async def test_one_that_clears_another_of_the_same_moment() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    first, second = Bounded(), Bounded()
    end = Bounded()
    calls = []

    def clear_both(now: float) -> None:
        calls.append(now)
        deadlines.clear(first)
        deadlines.clear(second)

    first._on_deadline = second._on_deadline = clear_both  # type: ignore[method-assign]
    deadlines.set(first, 0.01)
    deadlines.set(second, 0.01)
    assert first._deadline == second._deadline
    deadlines.set(end, 0.1)
    await end.passed
    assert len(calls) == 1


class NoMemory:
    """A loop that has no memory to be told anything."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        self.timers = [callback]
        return self

    def cancel(self) -> None:
        self.timers = []

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise MemoryError


def test_deadlines_pass_though_one_fails_and_that_cannot_be_told() -> None:
    """The timer goes on, and the others of the same moment have their turn."""
    passed = []

    class Item:
        def __init__(self, fails: bool) -> None:
            self._deadline: float | None = None
            self.fails = fails

        def _on_deadline(self, now: float) -> None:
            passed.append(self)
            if self.fails:
                raise MemoryError

    loop = NoMemory()
    deadlines = Deadlines(cast(asyncio.AbstractEventLoop, loop))
    group = [Item(number % 2 == 1) for number in range(10)]
    later = Item(False)
    for item in group:
        deadlines.set(item, 1)
    deadlines.set(later, 2)
    loop.now += 1.2
    raised = 0
    while len(passed) < len(group):
        (sweep,) = loop.timers
        try:
            sweep()
        except MemoryError:
            raised += 1
    assert raised == 5
    assert set(passed) == set(group)
    loop.now += 2
    (sweep,) = loop.timers
    sweep()
    assert passed[-1] is later
    assert deadlines._timer is None
