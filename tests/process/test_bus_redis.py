"""One room over several daemons that share a Redis server, whatever becomes of the server.

What must not live here: one daemon and its hub (test_bus.py), what the engine promises (tests/bus/).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest

from tests.process.test_bus import ROOM, Client, Publisher, kill_worker, members, reload
from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer

SECRET = "s3cr3t-of-redis"
AOF = ("appendonly yes", "appendfsync no")


@contextmanager
def daemons(url: str) -> Iterator[list[Daemon]]:
    """Two daemons with two workers each, which have the URL from their environment."""
    options = {"target": "application:app", "workers": 2, "env": {"TIDEGATE_BUS": url}, "wait": False}
    with Daemon(ROOM, **options) as one, Daemon(ROOM, **options) as two:  # type: ignore[arg-type]
        for daemon in (one, two):
            daemon.wait_ready()
        yield [one, two]


@asynccontextmanager
async def clients(found: list[Daemon], number: int) -> AsyncIterator[list[Client]]:
    """So many clients of each daemon."""
    async with AsyncExitStack() as stack:
        yield [client for daemon in found for client in await stack.enter_async_context(members(daemon, "h:1", number))]


def gaps(client: Client) -> int:
    """How often a client was told that messages are missing."""
    return client.log.count("GAP") + client.resumed.count("failed")


async def publish(publisher: Publisher, until: asyncio.Event) -> None:
    while not until.is_set():
        await publisher.publish()


@pytest.mark.slow
async def test_daemons_share_a_room_through_restarts_of_a_server_with_its_log() -> None:
    with (
        RedisServer(*AOF, f"requirepass {SECRET}") as server,
        daemons(f"redis://:{SECRET}@127.0.0.1:{server.port}") as both,
    ):
        async with clients(both, 6) as everyone:
            publisher, stop = Publisher(both[0], "h:1"), asyncio.Event()
            publishing = asyncio.create_task(publish(publisher, stop))
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                seen = publisher.sent
                await everyone[-1].until(lambda client, seen=seen: len(client.log) > seen + 20)  # type: ignore[misc]
                await asyncio.to_thread(server.end, number)
                await asyncio.to_thread(server.start)
            seen = publisher.sent
            await everyone[-1].until(lambda client: len(client.log) > seen + 20)
            stop.set()
            await publishing
            await publisher.close()
            expected = [str(number) for number in range(1, publisher.sent + 1)]
            for client in everyone:
                await client.until(lambda client: len(client.log) >= len(expected))
                assert client.log == expected
                assert {*client.resumed} <= {"new", "full"}
        for daemon in both:
            assert "tidegate: hub" not in daemon.titles().values()
            assert SECRET not in str(daemon.titles())
            assert daemon.stop() == 0
            assert "the bus is down: the connection to Redis has ended" in daemon.log
            assert SECRET not in daemon.log


@pytest.mark.slow
async def test_daemons_share_a_room_whatever_happens_to_links_and_workers() -> None:
    """Each client has everything, in order, once, and hears of no gap."""
    with RedisServer(*AOF, "enable-debug-command yes") as server, daemons(server.url) as both:

        def restart() -> None:
            server.end(signal.SIGKILL)
            server.start()

        events: list[Callable[[], object]] = [
            lambda: server.command("CLIENT", "KILL", "TYPE", "pubsub"),
            lambda: kill_worker(both[0]),
            restart,
            lambda: server.command("CLIENT", "KILL", "TYPE", "normal"),
            lambda: reload(both[1]),
            lambda: server.command("DEBUG", "SLEEP", 6),
            lambda: server.command("SCRIPT", "FLUSH"),
        ]
        async with clients(both, 10) as everyone:
            publishers, stop = [Publisher(daemon, "h:1") for daemon in both], asyncio.Event()
            publishing = asyncio.create_task(publish(publishers[0], stop))
            for event in events:
                seen = publishers[0].sent
                await everyone[-1].until(lambda client, seen=seen: len(client.log) > seen + 10)  # type: ignore[misc]
                await asyncio.to_thread(event)
            seen = publishers[0].sent
            await everyone[-1].until(lambda client: len(client.log) > seen + 10)
            stop.set()
            await publishing
            for publisher in publishers:
                await publisher.close()
            expected = [str(number) for number in range(1, publishers[0].sent + 1)]
            for client in everyone:
                await client.until(lambda client: len(client.log) >= len(expected))
                assert client.log == expected
                assert {*client.resumed} <= {"new", "full"}


@pytest.mark.slow
async def test_a_server_that_is_not_there_at_the_start_and_comes_later() -> None:
    server = RedisServer()
    with Daemon(ROOM, target="application:app", workers=2, env={"TIDEGATE_BUS": server.url}, wait=False) as daemon:
        wait_until(lambda: "no connection to Redis" in daemon.log, "a worker that has looked for it")
        with server:
            async with members(daemon, "h:1", 4) as everyone:
                publisher = Publisher(daemon, "h:1")
                await publisher.publish()
                await publisher.close()
                for client in everyone:
                    await client.until(lambda client: client.log == ["1"])
            assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_a_server_without_its_log_is_told_as_a_gap() -> None:
    """What is between two notices is complete, in order and once; nothing is ever under a number that was another's."""
    with RedisServer() as server, daemons(server.url) as both:
        async with clients(both, 4) as everyone:
            publisher, stop = Publisher(both[1], "h:1"), asyncio.Event()
            publishing = asyncio.create_task(publish(publisher, stop))
            for event in (lambda: server.end(signal.SIGKILL), lambda: server.command("FLUSHALL")):
                seen, before = len(everyone[0].log), [gaps(client) for client in everyone]
                await everyone[0].until(lambda client, seen=seen: len(client.log) > seen + 20)  # type: ignore[misc]
                await asyncio.to_thread(event)
                if server.process is None:
                    await asyncio.to_thread(server.start)
                for client, count in zip(everyone, before, strict=True):
                    await client.until(lambda client, count=count: gaps(client) > count)  # type: ignore[misc]
            stop.set()
            await publishing
            await publisher.close()
            last = str(publisher.sent)
            for client in everyone:
                await client.until(lambda client: client.log[-1] == last)
                told = [int(each) for each in client.log if each != "GAP"]
                assert told == sorted(set(told))
                runs = sum(after != before + 1 for before, after in itertools.pairwise(told))
                assert runs <= gaps(client)


@pytest.mark.slow
def test_passwords_of_the_url_are_shown_nowhere() -> None:
    with RedisServer(f"requirepass {SECRET}") as server:
        url = f"redis://:{SECRET}@127.0.0.1:{server.port}?bus=b"
        with Daemon(ROOM, target="application:app", workers=1, env={"TIDEGATE_BUS": url}) as daemon:
            for command in (
                ["check", "--print", "application:app"],
                ["check", "application:app"],
                ["status", "--json"],
            ):
                done = subprocess.run(
                    [sys.executable, "-m", "tidegate", *command],
                    cwd=daemon.directory,
                    env={**os.environ, "TIDEGATE_BUS": url, "TIDEGATE_CONTROL": ""},
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=PATIENCE,
                )
                assert SECRET not in done.stdout + done.stderr
                assert ("redis://***@127.0.0.1" in done.stdout) == (command[0] == "serve")
            daemon.stop()
            assert SECRET not in daemon.log
        wrong = url.replace(SECRET, "another-s3cr3t")
        with Daemon(ROOM, target="application:app", env={"TIDEGATE_BUS": wrong}, wait=False) as daemon:
            assert daemon.process is not None
            assert daemon.process.wait(PATIENCE) != 0
            assert "Redis refuses the user or the password in the URL of the bus" in daemon.log
            assert "s3cr3t" not in daemon.log
