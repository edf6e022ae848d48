"""Channels while processes are killed, replaced and upgraded: every page has every message, once, in order.

TIDEGATE_TRIALS=5 makes so many times as many events. What must not live here: load and nonsense (test_bus_abuse.py).
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.process.pages import COMING_BACK, Page, Publisher, until
from tests.process.trial import TIMES, Trial, check, present
from tests.support.harness import Daemon
from tests.support.patience import PATIENCE
from tidegate.bus.bus import Bus
from tidegate.channels import Gap
from tidegate.exceptions import BusDown


async def members(bus: Bus, channel: str) -> int | None:
    """How many members a channel has; None while nobody knows."""
    try:
        return await bus.members(channel)
    except BusDown:
        return None


async def live_through(trial: Trial, events: list[Callable[[], None]], pages: int, channels: int, rate: float) -> str:
    """Publish all the time while these things happen; return figures."""
    names = [f"h:{number}" for number in range(channels)]
    everybody = [Page(trial.daemon.port, [names[number % channels]], trial.chance) for number in range(pages)]
    begun = time.monotonic()
    async with present(everybody), Bus(trial.address) as bus:
        publisher = Publisher(bus, names, rate)
        publisher.start()
        pauses: dict[str, float] = {}
        for event in events:
            before = publisher.total
            publisher.silence = 0.0
            await asyncio.to_thread(event)
            more = trial.chance.randrange(round(rate))
            await until(lambda before=before, more=more: publisher.total >= before + more, "publications")
            pauses[event.__name__] = round(max(pauses.get(event.__name__, 0.0), publisher.silence), 2)
        quiet = time.monotonic()
        for name in names:
            expected = sum(name in page.logs for page in everybody)
            while (found := await members(bus, name)) != expected:
                assert time.monotonic() < quiet + PATIENCE + COMING_BACK, f"{name}: {found}, not {expected}"
                await asyncio.sleep(0.1)
        counted = time.monotonic()
        await publisher.stop()
        sent = publisher.sent
        await until(
            lambda: all(len(page.logs[name]) >= sent[name] for page in everybody for name in page.logs), "the end"
        )
        check(everybody, sent)
    closed = sum((page.closed for page in everybody), Counter[int]())
    resumed = sum((page.resumed for page in everybody), Counter[str]())
    assert max(pauses.values()) < PATIENCE
    return (
        f"{len(events)} events in {counted - begun:.0f} s, {publisher.total} published, a publication took "
        f"{publisher.longest:.2f} s at most, pauses of all {pauses}, counts were right "
        f"after {counted - quiet:.1f} s, closed {dict(closed)}, resumed {dict(resumed)}"
    )


@pytest.mark.slow
async def test_nothing_is_lost_or_doubled_whatever_happens(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    with trial.daemon:
        events = trial.events(reload=4, upgrade=1, kill_hub=4, kill_worker=4)
        print(await live_through(trial, events, 400, 20, 200))
        assert await asyncio.to_thread(trial.daemon.stop) == 0


@pytest.mark.slow
async def test_one_worker_alone_loses_nothing_either(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 1)
    with trial.daemon:
        events = trial.events(reload=1, upgrade=1, kill_hub=2, kill_worker=2)
        print(await live_through(trial, events, 40, 4, 100))
        assert await asyncio.to_thread(trial.daemon.stop) == 0


@pytest.mark.slow
async def test_what_pages_publish_is_there_once_and_the_same_for_all(tmp_path: Path) -> None:
    """They publish again, with the same key, what they have heard nothing of."""
    trial = Trial(tmp_path, 2)
    stop = asyncio.Event()
    sent: dict[int, int] = {}

    async def publish(number: int, page: Page) -> None:
        sent[number] = 0
        while not stop.is_set():
            await page.publish("h:1", [number, sent[number] + 1], f"{number}-{sent[number] + 1}")
            sent[number] += 1
            await asyncio.sleep(0.05)

    with trial.daemon as daemon:
        pages = [Page(daemon.port, ["h:1"], trial.chance) for _ in range(20)]
        async with present(pages):
            publishing = [asyncio.create_task(publish(number, page)) for number, page in enumerate(pages)]
            for event in trial.events(reload=2, upgrade=1, kill_hub=4, kill_worker=2):
                before = sum(sent.values())
                await asyncio.to_thread(event)
                await until(lambda before=before: sum(sent.values()) >= before + 50, "publications")
            stop.set()
            await asyncio.gather(*publishing)
            expected = [[number, count] for number, total in sent.items() for count in range(1, total + 1)]
            await until(lambda: all(len(page.logs["h:1"]) >= len(expected) for page in pages), "all")
            for page in pages:
                assert page.told == []
                assert page.logs["h:1"] == pages[0].logs["h:1"]
            assert sorted(pages[0].logs["h:1"]) == sorted(expected)
        print(sent, sum((page.resumed for page in pages), Counter[str]()))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["file", "memory"])
async def test_after_a_stop_and_a_start_all_is_there_or_told(tmp_path: Path, kept: bool) -> None:
    options = ("--bus", f"local://{tmp_path}/history") if kept else ()
    trial = Trial(tmp_path, 2, *options)
    with trial.daemon as daemon:
        pages = [Page(daemon.port, [f"h:{number % 4}"], trial.chance) for number in range(40)]
        async with present(pages), Bus(trial.address) as bus:
            publisher = Publisher(bus, ["h:0", "h:1", "h:2", "h:3"], 100)
            publisher.start()
            for _ in range(max(1, round(2 * TIMES))):
                await until(lambda before=publisher.total: publisher.total > before + 20, "publications")
                assert await asyncio.to_thread(daemon.stop) == 0
                daemon.close()
                daemon.start()
                await asyncio.to_thread(daemon.wait_ready)
                await until(lambda: all(page.is_there for page in pages), "pages come back")
            await until(lambda before=publisher.total: publisher.total > before + 20, "publications")
            await publisher.stop()
            for page in pages:
                ((channel, log),) = page.logs.items()
                last = publisher.sent[channel]
                await until(lambda log=log, last=last: log[-1] == last, f"{last} in {channel}")
                if kept:
                    check([page], publisher.sent)
                    continue
                assert page.resumed["full"] == 0
                assert page.resumed["failed"] == log.count(None) >= 1
                rest = [number for number in log if number is not None]
                assert rest == sorted(set(rest))
                for before, after in pairwise(log):
                    assert None in (before, after) or after == before + 1
        assert await asyncio.to_thread(daemon.stop) == 0


class Raw:
    """A connection that joins a channel without the subprotocol, and is told of gaps."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.is_there = False

    async def live(self, daemon: Daemon, channel: str) -> None:
        async with connect(f"{daemon.uri}raw", compression=None, open_timeout=PATIENCE) as socket:
            await socket.send(channel)
            async for text in socket:
                if text != "joined":
                    self.log.append(None if text == "gap" else json.loads(text))
                self.is_there = True


async def publish_from_a_worker(daemon: Daemon, name: str, stop: asyncio.Event, sent: dict[str, int]) -> None:
    """Publish numbers without history from a worker, as fast as each is on its way."""
    async with connect(f"{daemon.uri}publish", compression=None, open_timeout=PATIENCE) as socket:
        await socket.recv()
        number = 0
        while not stop.is_set():
            number += 1
            await socket.send(json.dumps(["p:1", [name, number], 1]))
            if "sent" in json.loads(await socket.recv()):
                sent[name] = number
            await asyncio.sleep(0.005)


async def publish_from_outside(address: str, name: str, stop: asyncio.Event, sent: dict[str, int]) -> None:
    """The same from another process."""
    async with Bus(address) as bus:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                await bus.publish("p:1", [name, number])
                sent[name] = number
            except BusDown:
                pass
            await asyncio.sleep(0.005)


@pytest.mark.slow
async def test_without_history_gaps_are_told_and_publishers_keep_their_order(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    with trial.daemon as daemon:
        pages = [Page(daemon.port, ["p:1"], trial.chance) for _ in range(8)]
        raw = Raw()
        others: list[Any] = []
        subscribed = asyncio.Event()

        async def subscribe() -> None:
            async with Bus(trial.address) as bus, bus.subscribe("p:1") as messages:
                subscribed.set()
                while True:
                    item = await anext(messages)
                    others.append(None if isinstance(item, Gap) else json.loads(item.payload))

        tasks = [asyncio.create_task(raw.live(daemon, "p:1")), asyncio.create_task(subscribe())]
        async with present(pages):
            await until(lambda: raw.is_there and subscribed.is_set(), "all have joined")
            stop, sent = asyncio.Event(), dict[str, int]()
            publishers = [
                asyncio.create_task(publish_from_a_worker(daemon, f"worker {number}", stop, sent))
                for number in range(4)
            ]
            publishers.append(asyncio.create_task(publish_from_outside(trial.address, "outside", stop, sent)))
            await until(lambda: len(sent) == len(publishers), "all publish")
            logs = [others, raw.log, *(page.logs["p:1"] for page in pages)]
            kills = max(1, round(3 * TIMES))
            for number in range(kills):
                daemon.signal(signal.SIGKILL, trial.hub())
                await until(lambda number=number: all(log.count(None) > number for log in logs), "all are told")
                length = [len(log) for log in logs]
                await until(
                    lambda length=length: all(len(log) > n + 50 for log, n in zip(logs, length, strict=True)), "more"
                )
            stop.set()
            await asyncio.gather(*publishers)
            final = [[name, number] for name, number in sent.items()]
            await until(lambda: all(one in log for log in logs for one in final), "the end")
            for log in logs:
                check_order(log, strictly=log is not raw.log)
                assert log.count(None) >= kills
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_order(log: list[Any], strictly: bool) -> None:
    """Each publisher's numbers grow, and strictly: where one is missing a notice is before."""
    last: dict[str, int] = {}
    told: set[str] = set()
    for item in log:
        if item is None:
            told |= {*last}
            continue
        name, number = item
        before = last.get(name, number - 1)
        assert number > before, f"{name}: {number} after {before}"
        if strictly:
            assert number == before + 1 or name in told, f"{name}: {number} after {before}, and nobody was told"
        last[name] = number
        told.discard(name)
