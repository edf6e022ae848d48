"""Waiting for one event: in order, and without a trace of those who gave up."""

from __future__ import annotations

import asyncio

from tidegate.asyncio.waiters import Waiters


async def test_all_are_woken_in_their_order() -> None:
    waiters, woken, loop = Waiters(), [], asyncio.get_running_loop()

    async def wait(number: int) -> None:
        await waiters.wait(loop)
        woken.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(wait(number))
        await asyncio.sleep(0)
        assert len(waiters) == 5
        waiters.wake()
    assert woken == [0, 1, 2, 3, 4]
    assert len(waiters) == 0


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    tasks = [asyncio.create_task(waiters.wait(loop)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert len(waiters) == 2
    tasks[0].cancel()
    waiters.wake()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, True, False]
    assert len(waiters) == 0
