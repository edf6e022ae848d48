"""Two daemons with two workers each and one engine between them, while the engine ends, forgets and hangs.

In channels with history each page is complete, or told `failed`, and never wrong; without, it is told that something
may be missing. TIDEGATE_TRIALS=5 is a thousand pages and a minute. What must not live here: the hub of one daemon
(test_bus_events.py), an engine by itself (tests/bus/).
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.process.pages import Page, Publisher, until
from tests.process.trial import TIMES, check, check_order, present
from tests.support.harness import APPLICATIONS, Daemon
from tests.support.nats_server import NatsServer
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer
from tidegate.bus.bus import Bus
from tidegate.channels import Channel
from tidegate.exceptions import BusDown

PAGES = round(200 * TIMES)
SECONDS = 12 * TIMES
RATE = 200
HISTORY = [f"h:{number}" for number in range(10)]
PLAIN = [f"plain:{number}" for number in range(2)]

Event = Callable[[], object]


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
async def everything(url: str, folder: Path) -> AsyncIterator[tuple[list[Page], Resender]]:
    """Two daemons, pages of both, and a publisher that is none of their processes."""
    async with AsyncExitStack() as stack:
        pages = []
        for name in "ab":
            daemon = Daemon(
                APPLICATIONS / "channels.py",
                *("--control", f"{folder}/{name}", "--bus", url),
                target="application:app",
                workers=2,
                drain=0.2,
            )
            await asyncio.to_thread(stack.enter_context, daemon)
            for number in range(PAGES // 2):
                plain = [PLAIN[number % len(PLAIN)]] if number % 5 == 0 else []
                pages.append(Page(daemon.port, [HISTORY[number % len(HISTORY)], *plain]))
        policies = {"h:": Channel(history=100_000, history_bytes=2**24)}
        bus = await stack.enter_async_context(Bus(url, channels=policies))
        await stack.enter_async_context(present(pages, PATIENCE * TIMES))
        yield pages, Resender(bus, [*HISTORY, *PLAIN], RATE)


async def live_through(url: str, folder: Path, events: Sequence[Event], complete: bool) -> None:
    """Publish all the time while these things happen to the engine, one after the other."""
    async with everything(url, folder) as (pages, publisher):
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
        await until(lambda: all(page.is_there for page in pages), "all joins")
        # What is published now gets to all, whatever was lost: so each log has its end.
        for channel in sent:
            sent[channel] += 1
            await publisher._publish(channel, sent[channel])
        await until(lambda: all(log[-1:] == [sent[name]] for page in pages for name, log in page.logs.items()), "ends")
    check_order(pages)
    told = Counter(gap["why"] for page in pages for gap in page.told if "gap" in gap)
    print(f"{len(pages)} pages, {sum(sent.values())} published, told {dict(told)}, {publisher.longest:.1f} s at most")
    for page in pages:
        plain = [name for name in page.logs if name in PLAIN]
        assert len([gap for gap in page.told if gap.get("gap") in plain]) >= (1 if plain else 0)
    if complete:
        for page in pages:
            page.told = [gap for gap in page.told if gap.get("gap") not in PLAIN]
            page.logs = {name: log for name, log in page.logs.items() if name not in PLAIN}
            page.resumed["new"] = min(page.resumed["new"], len(page.logs))
        check(pages, sent)


def restarts(server: RedisServer | NatsServer, number: int) -> Event:
    def restart() -> None:
        server.end(number)
        server.start()

    return restart


@pytest.mark.slow
async def test_redis_with_its_log_loses_nothing(tmp_path: Path) -> None:
    with RedisServer("appendonly yes", "appendfsync no", "enable-debug-command yes") as server:
        events: list[Event] = [
            restarts(server, signal.SIGKILL),
            restarts(server, signal.SIGTERM),
            lambda: server.command("CLIENT", "KILL", "TYPE", "pubsub"),
            lambda: server.command("DEBUG", "SLEEP", 6),
        ]
        await live_through(server.url, tmp_path, events, complete=True)


@pytest.mark.slow
async def test_redis_without_its_log_is_told(tmp_path: Path) -> None:
    with RedisServer("enable-debug-command yes") as server:

        def evict() -> None:
            """Nothing is lost by that, but all links end by the next check."""
            server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            server.command("CLIENT", "KILL", "TYPE", "normal")
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

        events: list[Event] = [restarts(server, signal.SIGKILL), lambda: server.command("FLUSHALL"), evict]
        await live_through(server.url, tmp_path, events, complete=False)


@pytest.mark.slow
async def test_nats_with_its_folder_loses_nothing(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        events = [restarts(server, signal.SIGKILL), restarts(server, signal.SIGTERM)]
        await live_through(server.url, tmp_path, events, complete=True)
    finally:
        server.end()


@pytest.mark.slow
async def test_nats_without_its_folder_is_told(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()

    def forget() -> None:
        server.end(signal.SIGKILL)
        shutil.rmtree(server.store)
        server.start()

    try:
        await live_through(server.url, tmp_path, [forget], complete=False)
    finally:
        server.end()
