"""Thousands of pages resume at once, after a restart: all of them fully, and the hub is hardly asked.

What must not live here: events one after another (test_bus_events.py).
"""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.measures import counts
from tests.process.pages import Page, until
from tests.process.trial import TIMES, Trial, check, present
from tests.support.patience import LONG
from tidegate.bus.bus import Bus

MISSED = 50
"""Messages of each channel while everybody is away."""


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many this process, and what it starts, may open: as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False], ids=["workers killed", "workers there"])
async def test_a_crowd_resumes_at_once(tmp_path: Path, descriptors: int, killed: bool) -> None:
    trial = Trial(tmp_path, 2)
    names = [f"h:{number}" for number in range(round(20 * TIMES))]
    with trial.daemon as daemon:
        size = min(round(2000 * TIMES), descriptors - 500)
        pages = [Page(daemon.port, [names[number % len(names)]], trial.chance) for number in range(size)]
        async with present(pages, LONG), Bus(trial.address) as bus:
            for page in pages:
                page.close()
            await until(lambda: all(not page.joined for page in pages), "all are away")
            sent = dict.fromkeys(names, MISSED)
            for number in range(1, MISSED + 1):
                await asyncio.gather(*(bus.publish(name, number) for name in names))
            if killed:
                before = daemon.workers()
                for worker in before:
                    daemon.signal(signal.SIGKILL, worker)
                await until(lambda: len(now := daemon.workers()) == 2 and not {*now} & {*before}, "other workers")
                await asyncio.to_thread(daemon.wait_ready)
            begun = time.monotonic()
            for page in pages:
                page.come_back()
            await until(lambda: all(page.is_there for page in pages), "all are back", LONG)
            back = time.monotonic()
            await until(lambda: all(len(log) == MISSED for page in pages for log in page.logs.values()), "all", LONG)
            all_there = time.monotonic()
            found = await counts(daemon)
            check(pages, sent)
        resumed = sum((page.resumed for page in pages), Counter[str]())
        print(
            f"{size} pages, {len(names)} channels: joined after {back - begun:.1f} s, all there after "
            f"{all_there - begun:.1f} s, resumed {dict(resumed)}, reads {[each['reads'] for each in found.values()]}"
        )
        assert resumed["full"] == size
        for each in found.values():
            assert each["reads"]["read"] <= 2 * len(names) + each["reads"]["failed"]
