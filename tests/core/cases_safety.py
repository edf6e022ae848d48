"""The end of the interpreter, with readers, channels and loops that are still there, for test_safety.py.

What must not live here: tests.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

from tests.core.recorder import Recorder, text
from tidegate.asyncio.server import serve

kept: list[tuple[Recorder, Any]] = []
tasks: list[asyncio.Task[Any]] = []


class Late:
    """Uses all of them when it goes, as late as a module of the interpreter's own."""

    def __del__(self) -> None:
        for channel, awaitable in kept:
            channel.feed(text("late"))
            try:
                awaitable.send(None)
            except BaseException:
                pass


async def begin() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(5):
        channel = Recorder(loop, high=None)
        awaitable: Any = channel.recv()
        awaitable.send(None).add_done_callback(print, context=None)
        channel.feed(text("a", fin=False))
        kept.append((channel, awaitable))
    tasks.append(asyncio.create_task(channel.recv()))
    async with serve(print, "127.0.0.1", 0):  # type: ignore[arg-type]
        await asyncio.sleep(0)


def end(loop: str) -> None:
    sys.late = Late()  # type: ignore[attr-defined]
    (uvloop.run if loop == "uvloop" else asyncio.run)(begin())
