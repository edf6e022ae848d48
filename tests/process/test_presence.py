"""Who is in a channel of a daemon, while its workers are replaced and killed.

What must not live here: presence in one process (tests/bus/).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect

from tests.process.machines import two_daemons
from tests.process.test_bus import AWAY, kill_hub, kill_worker, reload, upgrade
from tests.support.harness import APPLICATIONS, Daemon
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer

APPLICATION = APPLICATIONS / "presence.py"


class Client:
    """One with a name, that comes back whenever it is away.

    Attributes:
        here: who was there when it was told last, and those who came and went since.
        events: that it was told.
        joins: how often it has joined.
        workers: the processes where it was.
    """

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.uri = f"{daemon.uri}{name}"
        self.name = name
        self.here: set[str] = set()
        self.events: list[str] = []
        self.joins = 0
        self.workers: list[str] = []
        self.changed = asyncio.Event()

    async def live(self) -> None:
        while True:
            try:
                async with connect(self.uri, compression=None, open_timeout=PATIENCE) as socket:
                    async for message in socket:
                        self.take(str(message))
            except AWAY:
                await asyncio.sleep(0.05)  # it would try all the time

    def take(self, message: str) -> None:
        kind, *names = message.split()
        if kind == "here":
            self.workers.append(names.pop(0))
            self.here = set(names)
            self.joins += 1
        else:
            self.events.append(message)
            (self.here.add if kind == "in" else self.here.discard)(names[0])
        self.changed.set()

    async def until(self, condition: Callable[[Client], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def clients_of(daemon: Daemon, *names: str) -> AsyncIterator[list[Client]]:
    """Clients that have joined, and know of each other."""
    clients = [Client(daemon, name) for name in names]
    tasks = [asyncio.create_task(client.live()) for client in clients]
    for client in clients:
        await client.until(lambda client: client.here >= set(names))
        client.events.clear()
    yield clients
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_come_back(daemon: Daemon, clients: list[Client], event: Callable[[Daemon], None]) -> None:
    """Have something happen, and wait until those whose worker has ended are back, on workers that stay."""
    names = {client.name for client in clients}
    before, ends = set(daemon.workers()), {kill_hub: 0, kill_worker: 1}.get(event, 2)
    await asyncio.to_thread(event, daemon)
    async with asyncio.timeout(PATIENCE):
        while True:
            workers = set(daemon.workers())
            there = {int(client.workers[-1]) for client in clients}
            if len(workers) == 2 and len(before - workers) == ends and there <= workers:
                break
            await asyncio.sleep(0.05)
    for client in clients:
        assert client.here == names


@pytest.mark.slow
async def test_nothing_is_told_while_all_come_back_and_then_who_has_gone_is() -> None:
    names = [f"user{number}" for number in range(12)]
    with Daemon(APPLICATION, target="application:app", workers=2, drain=1) as daemon:
        async with clients_of(daemon, *names) as clients:
            assert len({client.workers[-1] for client in clients}) == 2
            for event in (reload, upgrade, kill_worker, kill_hub, reload, kill_worker):
                await all_come_back(daemon, clients, event)
            assert all(client.joins >= 4 for client in clients)
            async with clients_of(daemon, "guest"):
                for client in clients:
                    await client.until(lambda client: client.events)
            for client in clients:
                await client.until(lambda client: len(client.events) > 1)
            await asyncio.sleep(20)  # names that nobody came back for would go now
            for client in clients:
                assert client.events == ["in guest", "out guest"]
                assert client.here == set(names)
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_who_was_on_a_worker_that_was_killed_and_does_not_come_back_goes() -> None:
    with Daemon(APPLICATION, target="application:app", workers=2) as daemon:
        async with clients_of(daemon, *(f"stays{number}" for number in range(6))) as clients:
            workers = {client.workers[-1] for client in clients}
            assert len(workers) == 2
            gone = Client(daemon, "gone")
            task = asyncio.create_task(gone.live())
            await gone.until(lambda client: client.joins)
            for client in clients:
                await client.until(lambda client: client.events == ["in gone"])
            daemon.signal(9, int(gone.workers[-1]))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for client in clients:
                await client.until(lambda client: "out gone" in client.events or "gone" not in client.here)
                assert [event for event in client.events if not event.endswith("gone")] == []


@pytest.mark.slow
async def test_a_rolling_update_of_two_daemons_is_no_news() -> None:
    with RedisServer() as server, two_daemons(server.url, APPLICATION, drain=1) as daemons:
        names = [[f"{which}{number}" for number in range(6)] for which in ("one", "two")]
        async with clients_of(daemons[0], *names[0]) as ones, clients_of(daemons[1], *names[1]) as twos:
            everybody = {*names[0], *names[1]}
            for client in (*ones, *twos):
                await client.until(lambda client: client.here == everybody)
                client.events.clear()
            for daemon, clients in zip(daemons, (ones, twos), strict=True):
                assert await asyncio.to_thread(daemon.stop) == 0
                await asyncio.to_thread(daemon.start)
                await asyncio.to_thread(daemon.wait_ready)
                for client in clients:
                    await client.until(lambda client: client.joins == 2)
            async with clients_of(daemons[0], "guest"):
                for client in (*ones, *twos):
                    await client.until(lambda client: "in guest" in client.events)
            await asyncio.sleep(20)  # names that nobody came back for would go now
            for client in (*ones, *twos):
                await client.until(lambda client: "out guest" in client.events)
                assert client.events == ["in guest", "out guest"]
                assert client.here == everybody
