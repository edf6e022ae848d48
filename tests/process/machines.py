"""Two daemons that share an engine, as two machines do, and a room whose clients live through what becomes of it.

    two_daemons            with two workers each
    restarts               the engine's server ends, and is started again
    clients                of both
    check_all_is_there     nothing is lost, whatever happens
    check_gaps_are_told    what is lost is told

What must not live here: tests, an engine's servers (tests/support/).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.process.test_bus import Client, Publisher, members
from tests.support.harness import Daemon
from tests.support.nats_server import NatsServer
from tests.support.redis_server import RedisServer

Event = Callable[[], object]

PAUSE = 0.005
"""Seconds between two messages: a client that is away for seconds misses no more than it may be given."""


@contextmanager
def two_daemons(url: str, application: Path, *options: str, **arguments: Any) -> Iterator[list[Daemon]]:
    """Daemons that have the URL of their bus from their environment."""
    arguments = {"target": "application:app", "workers": 2, "env": {"TIDEGATE_BUS": url}, "wait": False, **arguments}
    with ExitStack() as stack:
        found = [stack.enter_context(Daemon(application, *options, **arguments)) for _ in range(2)]
        for daemon in found:
            daemon.wait_ready()
        yield found


def restarts(server: RedisServer | NatsServer, *numbers: int) -> list[Event]:
    """End the server by each of these signals, and start it again."""

    def restart(number: int) -> None:
        server.end(number)
        server.start()

    return [functools.partial(restart, number) for number in numbers]


@asynccontextmanager
async def clients(found: list[Daemon], number: int) -> AsyncIterator[list[Client]]:
    """So many clients of each daemon."""
    async with AsyncExitStack() as stack:
        yield [client for daemon in found for client in await stack.enter_async_context(members(daemon, "h:1", number))]


def gaps(client: Client) -> int:
    """How often a client was told that messages are missing."""
    return client.log.count("GAP") + client.resumed.count("failed")


@asynccontextmanager
async def publishing(daemon: Daemon) -> AsyncIterator[Publisher]:
    """A publisher that publishes number after number, and each until it is stored."""
    publisher, stop = Publisher(daemon, "h:1"), asyncio.Event()

    async def publish() -> None:
        while not stop.is_set():
            await publisher.publish()
            await asyncio.sleep(PAUSE)

    task = asyncio.create_task(publish())
    yield publisher
    stop.set()
    await task
    await publisher.close()


async def check_all_is_there(found: list[Daemon], number: int, events: Sequence[Event]) -> None:
    """Have things happen; each client has everything, in order, once, and hears of no gap."""
    async with clients(found, number) as everyone:
        async with publishing(found[0]) as publisher:
            for event in [*events, None]:
                seen = publisher.sent
                await everyone[-1].until(lambda client, seen=seen: len(client.log) > seen + 20)  # type: ignore[misc]
                if event is not None:
                    await asyncio.to_thread(event)
        expected = [str(number) for number in range(1, publisher.sent + 1)]
        for client in everyone:
            await client.until(lambda client: len(client.log) >= len(expected))
            assert client.log == expected
            assert {*client.resumed} <= {"new", "full"}


async def check_gaps_are_told(found: list[Daemon], number: int, losses: Sequence[Event]) -> None:
    """Have the engine forget; what is between two notices is complete, in order, once, and never another's.

    With its keys forgotten, a message whose answer was lost is published again: it may come once more after a notice.
    """
    async with clients(found, number) as everyone:
        async with publishing(found[1]) as publisher:
            for lose in losses:
                seen, before = len(everyone[0].log), [gaps(client) for client in everyone]
                await everyone[0].until(lambda client, seen=seen: len(client.log) > seen + 20)  # type: ignore[misc]
                await asyncio.to_thread(lose)
                for client, count in zip(everyone, before, strict=True):
                    await client.until(lambda client, count=count: gaps(client) > count)  # type: ignore[misc]
        last = str(publisher.sent)
        for client in everyone:
            await client.until(lambda client: client.log[-1] == last)
            told = [int(each) for each in client.log if each != "GAP"]
            assert told == sorted(told)
            runs = sum(after != before + 1 for before, after in itertools.pairwise(told))
            assert runs <= gaps(client)
