"""Tasks that wait for one event of a connection: that it is closed, that its buffer is drained.

What must not live here: the native future that recv() waits on (`_core.waiter`), deadlines.
"""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """Futures that are done by the same event, in the order in which tasks began to wait."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the event. A wait that is cancelled leaves nothing behind."""
        waiter: asyncio.Future[None] = loop.create_future()
        self._futures[waiter] = None
        try:
            await waiter
        finally:
            del self._futures[waiter]

    def wake(self) -> None:
        """Wake all waiters: the event has happened."""
        for waiter in self._futures:
            if not waiter.done():
                waiter.set_result(None)
