"""The programs of the guides, as they are there, with clients on two workers.

    migrating.md    the chat and the counter in their forms for several processes

What must not live here: whether other blocks run at all (tests/deploy/test_guides.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.support.harness import ROOT, Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate import ClientConnection, connect


def program(guide: str, function: str) -> str:
    """The program of a guide that has a function of that name."""
    text = (ROOT / "deploy" / "guides" / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if f"def {function}(" in block)
    return found


@asynccontextmanager
async def clients(daemon: Daemon, least: int) -> AsyncIterator[list[ClientConnection]]:
    """So many connections, and as many more as it takes until each worker has one."""
    async with AsyncExitStack() as stack:
        found: list[ClientConnection] = []
        while len(found) < least or not all(
            value for _, value in daemon.metrics().select("tidegate_connections", state="open")
        ):
            found.append(await stack.enter_async_context(connect(daemon.uri)))
        yield found


async def received(client: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE):
        return json.loads(await client.recv())


@pytest.mark.slow
async def test_chat() -> None:
    """The chat reaches clients on both workers, with what was said before they came."""
    with Daemon(program("migrating.md", "chat"), target="application:app", workers=2) as daemon:
        async with clients(daemon, 4) as found:
            for nonsense in ("no JSON", "1", "{}"):
                await found[0].send(nonsense)
                assert await received(found[0]) == {"error": "Invalid message"}
            said = {"user": "Ann", "message": "hello"}
            await found[0].send(json.dumps(said))
            for client in found:
                assert await received(client) == said
            async with connect(daemon.uri) as later:
                assert await received(later) == said


class Counter:
    """A client of the counter: what it was told last of each kind."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._told: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def read(self) -> None:
        async for message in self._connection:
            event: dict[str, Any] = json.loads(message)
            kind = event.pop("type")
            self._told[kind] = next(iter(event.values()))
            self._changed.set()

    async def until(self, kind: str, value: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self._told.get(kind) != value:
                self._changed.clear()
                await self._changed.wait()

    async def click(self, action: str, times: int = 1) -> None:
        for _ in range(times):
            await self._connection.send(json.dumps({"action": action}))


@asynccontextmanager
async def counters(daemon: Daemon) -> AsyncIterator[list[Counter]]:
    """Clients of the counter on both workers, which read."""
    async with clients(daemon, 4) as connections, asyncio.TaskGroup() as group:
        found = [Counter(connection) for connection in connections]
        tasks = [group.create_task(client.read()) for client in found]
        yield found
        for task in tasks:
            task.cancel()


@pytest.mark.slow
async def test_counter() -> None:
    """Clients on both workers click at the same time, and no click is lost, nor when a worker and the hub die."""
    with Daemon(program("migrating.md", "counter"), target="application:app", workers=2) as daemon:
        async with counters(daemon) as found:
            async with asyncio.TaskGroup() as group:
                for client in found:
                    group.create_task(client.click("plus", 50))
                    group.create_task(client.click("minus", 20))
            value = 30 * len(found)
            for client in found:
                await client.until("users", len(found))
                await client.until("state", value)
            await found[0].click("times")
            await asyncio.to_thread(wait_until, lambda: "unsupported event" in daemon.log, "a line of the log")
        hub = next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub")
        before = daemon.workers()
        for pid in (hub, before[0]):
            daemon.signal(signal.SIGKILL, pid)
        await asyncio.to_thread(wait_until, lambda: len({*daemon.workers()} - {before[0]}) == 2, "another worker")
        async with counters(daemon) as found:
            for client in found:
                await client.until("state", value)
            await found[0].click("minus")
            for client in found:
                await client.until("state", value - 1)
                await client.until("users", len(found))
