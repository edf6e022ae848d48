"""Two daemons with two workers each and one engine between them, while the engine ends, forgets and hangs.

In channels with history each page is complete, or told `failed`, and never wrong; without, it is told that something
may be missing. TIDEGATE_TRIALS=5 is a thousand pages and a minute. What must not live here: the hub of one daemon
(test_bus_events.py), an engine by itself (tests/bus/).
"""

from __future__ import annotations

import asyncio
import functools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.process.machines import Event, restarts, two_daemons
from tests.process.pages import Page, Publisher, until
from tests.process.trial import TIMES, check_order, present
from tests.support.harness import APPLICATIONS, Daemon
from tests.support.nats_server import nats_server
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer
from tidegate.bus.bus import Bus
from tidegate.channels import Channel
from tidegate.exceptions import BusDown

PAGES = round(200 * TIMES)
SECONDS = 12 * TIMES
RATE = 200
HISTORY = [f"h:{number}" for number in range(10)]
CHANNELS = APPLICATIONS / "channels.py"
PLAIN = [f"plain:{number}" for number in range(2)]


class Resender(Publisher):
    """It publishes what may not have been stored again, with the same key."""

    async def _publish(self, channel: str, number: int) -> None:
        key = f"{channel}-{number}" if channel.startswith("h:") else None
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.bus.publish(channel, number, key=key, wait=1)
                    return
                except BusDown:
                    await asyncio.sleep(0.05)  # it would try all the time


@asynccontextmanager
async def everything(url: str, daemons: list[Daemon]) -> AsyncIterator[tuple[list[Page], Resender]]:
    """Pages of both daemons, and a publisher that is none of their processes."""
    pages = []
    for daemon in daemons:
        for number in range(PAGES // 2):
            plain = [PLAIN[number % len(PLAIN)]] if number % 5 == 0 else []
            pages.append(Page(daemon.port, [HISTORY[number % len(HISTORY)], *plain]))
    policies = {"h:": Channel(history=100_000, history_bytes=2**24)}
    async with Bus(url, channels=policies) as bus, present(pages, PATIENCE * TIMES):
        yield pages, Resender(bus, [*HISTORY, *PLAIN], RATE)


async def live_through(url: str, daemons: list[Daemon], events: Sequence[Event]) -> list[Page]:
    """Publish all the time while these things happen, one after the other; return pages, all of which have the end."""
    async with everything(url, daemons) as (pages, publisher):
        publisher.start()
        for event in events:
            before = publisher.total
            done = asyncio.create_task(asyncio.sleep(SECONDS / (len(events) + 1)))  # the load's time, not a wait
            await until(lambda before=before: publisher.total >= before + RATE // 2, "publications")
            await done
            await asyncio.to_thread(event)
        before = publisher.total
        await until(lambda: publisher.total >= before + RATE, "publications")
        await publisher.stop()
        sent = publisher.sent
        await until(lambda: all(page.is_there for page in pages), "all joins", PATIENCE * TIMES)
        # What is published now gets to all, whatever was lost: so each log has its end.
        for channel in sent:
            sent[channel] += 1
            await publisher._publish(channel, sent[channel])
        await until(lambda: all(log[-1:] == [sent[name]] for page in pages for name, log in page.logs.items()), "ends")
    told = Counter(gap["why"] for page in pages for gap in page.told if "gap" in gap)
    print(f"{len(pages)} pages, {sum(sent.values())} published, told {dict(told)}, {publisher.longest:.1f} s at most")
    return pages


def check_complete(pages: list[Page]) -> None:
    """In channels with history nothing is missing, and no page was told that anything is."""
    for page in pages:
        assert [gap for gap in page.told if gap.get("gap", gap.get("failed")) not in PLAIN] == []
        for name in HISTORY:
            log = page.logs.get(name, [])
            assert log == list(range(1, len(log) + 1))


def check_told(pages: list[Page], forgets: bool = False) -> None:
    """All is in order; in channels without history each page was told that something may be missing, where it is."""
    check_order(pages, forgets)
    for page in pages:
        for name in set(PLAIN) & set(page.logs):
            assert [gap for gap in page.told if gap.get("gap") == name]


@pytest.mark.slow
async def test_redis_with_its_log_loses_nothing() -> None:
    with (
        RedisServer("appendonly yes", "appendfsync no", "enable-debug-command yes") as server,
        two_daemons(server.url, CHANNELS, drain=0.2) as daemons,
    ):
        events: list[Event] = [
            *restarts(server, signal.SIGKILL, signal.SIGTERM),
            lambda: server.command("CLIENT", "KILL", "TYPE", "pubsub"),
            lambda: server.command("DEBUG", "SLEEP", 6),
        ]
        pages = await live_through(server.url, daemons, events)
        check_complete(pages)
        check_told(pages)


@pytest.mark.slow
async def test_redis_without_its_log_is_told() -> None:
    with RedisServer("enable-debug-command yes") as server, two_daemons(server.url, CHANNELS, drain=0.2) as daemons:

        def evict() -> None:
            """Nothing is lost by that, but all links end by the next check."""
            server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            server.command("CLIENT", "KILL", "TYPE", "normal")
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

        events: list[Event] = [*restarts(server, signal.SIGKILL), lambda: server.command("FLUSHALL"), evict]
        pages = await live_through(server.url, daemons, events)
        check_told(pages, forgets=True)
        assert all(page.told for page in pages)


@pytest.mark.slow
async def test_nats_with_its_folder_loses_nothing(tmp_path: Path) -> None:
    with nats_server(tmp_path / "nats") as server, two_daemons(server.url, CHANNELS, drain=0.2) as daemons:
        pages = await live_through(server.url, daemons, restarts(server, signal.SIGKILL, signal.SIGTERM))
        check_complete(pages)
        check_told(pages)


@pytest.mark.slow
async def test_nats_without_its_folder_is_told(tmp_path: Path) -> None:
    with nats_server(tmp_path / "nats") as server, two_daemons(server.url, CHANNELS, drain=0.2) as daemons:
        pages = await live_through(server.url, daemons, [server.forget])
        check_told(pages, forgets=True)
        assert all(page.told for page in pages)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["redis", "nats"])
async def test_a_rolling_update_loses_nothing(engine: str, tmp_path: Path) -> None:
    """One daemon after the other ends, and another one comes in its place."""
    with ExitStack() as stack:
        made = RedisServer() if engine == "redis" else nats_server(tmp_path / "nats")
        server = stack.enter_context(made)  # type: ignore[arg-type]
        daemons = stack.enter_context(two_daemons(server.url, CHANNELS, drain=0.2))

        def roll(daemon: Daemon) -> None:
            assert daemon.stop() == 0
            daemon.start()
            daemon.wait_ready()

        events = [functools.partial(roll, daemon) for daemon in daemons]
        pages = await live_through(server.url, daemons, events)
        check_complete(pages)
        resumed = sum((page.resumed for page in pages), Counter[str]())
        assert resumed["full"] >= len(pages)
