"""Clients that connect, and stay connected, to a daemon that changes: what each of them saw.

    Crowd     some that stay, and come back whenever they are closed; others that come, talk and go, so many a second

What must not live here: what a test makes of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.patience import PATIENCE


class Crowd:
    """Clients of a server, as an asynchronous context manager.

    Parameters:
        uri: where it is.
        staying: how many stay.
        rate: how many come and go, each second.

    Attributes:
        went: of those that come and go, how many were served.
        closed: close code -> how often a client that stayed was closed with it.
        refused: in words -> how often a client could not connect, or was cut.
    """

    def __init__(self, uri: str, *, staying: int = 0, rate: float = 0.0) -> None:
        self.uri, self.staying, self.rate = uri, staying, rate
        self.went = 0
        self.closed: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.open = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._going: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for _ in range(self.staying):
            self._begin(self._stay(), self._tasks)
        if self.rate:
            self._begin(self._come_and_go(), self._tasks)
        await self.all_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if kind is None:
            await self.gone()
        for task in self._going:
            task.cancel()

    async def all_open(self) -> None:
        """Wait until everybody who stays is connected."""
        await self._until(lambda: self.open == self.staying)

    async def gone(self) -> None:
        """Wait until those who are on their way have gone."""
        while self._going:
            await asyncio.wait(set(self._going))

    async def seen(self, closes: int) -> None:
        """Wait until those who stay were closed so many times, and are back."""
        await self._until(lambda: self.closed.total() >= closes and self.open == self.staying)

    async def _until(self, condition: object) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(condition)  # type: ignore[arg-type]

    def _begin(self, work: Awaitable[None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _stay(self) -> None:
        while True:
            try:
                async with connect(self.uri, compression=None, open_timeout=PATIENCE, proxy=None) as websocket:
                    await self._note(1)
                    try:
                        await websocket.wait_closed()
                    finally:
                        await self._note(-1)
                    self.closed[websocket.close_code or 0] += 1
            except Exception as exc:
                self.refused[f"stays: {type(exc).__name__} {exc}"] += 1
                await asyncio.sleep(0.05)
            await self._note(0)

    async def _note(self, more: int) -> None:
        async with self._changed:
            self.open += more
            self._changed.notify_all()

    async def _come_and_go(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._begin(self._go(), self._going)
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _go(self) -> None:
        try:
            async with connect(self.uri, compression=None, open_timeout=PATIENCE, proxy=None) as websocket:
                try:
                    await websocket.send("hello")
                    assert await websocket.recv() == "hello"
                except ConnectionClosed as exc:
                    if exc.rcvd is None or exc.rcvd.code != 1001:
                        raise  # else it came to a worker that drained a moment later, and was told so
            self.went += 1
        except Exception as exc:
            self.refused[f"goes: {type(exc).__name__} {exc}"] += 1
