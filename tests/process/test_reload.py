"""Hand-overs: the next generation takes over and nobody is refused; one that cannot serve changes nothing.

What must not live here: the supervisor's decisions by themselves (tests/supervisor).
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.process.clients import Crowd
from tests.support.harness import ECHO, Daemon, wait_until

VERSION = """
    import os, asyncio
    async def handler(websocket):
        if websocket.request.path == "/version":
            await websocket.send({version!r})
        async for message in websocket:
            await websocket.send(message)
"""
QUICK = ("--settle", "0.1")


def generations(daemon: Daemon) -> set[int]:
    return {int(value) for _, value in daemon.metrics().select("tidegate_worker_generation")}


def wait_generation(daemon: Daemon, number: int) -> None:
    """Wait until a generation serves alone."""
    wait_until(lambda: f"generation {number - 1} has ended" in daemon.log, f"generation {number}")
    assert generations(daemon) == {number}


def rewrite(daemon: Daemon, source: str) -> None:
    (daemon.directory / "application.py").write_text(re.sub(r"^ {4}", "", source, flags=re.MULTILINE))


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(ECHO, *QUICK, workers=2, drain=0.2) as daemon:
        yield daemon


async def test_the_next_generation_takes_over(daemon: Daemon) -> None:
    before = daemon.workers()
    async with Crowd(daemon.uri, staying=20, rate=50) as crowd:
        daemon.signal(signal.SIGHUP)
        await asyncio.to_thread(wait_generation, daemon, 2)
        await crowd.seen(20)
    assert crowd.closed == {1001: 20}
    assert not crowd.refused
    assert len(daemon.workers()) == 2
    assert not set(before) & set(daemon.workers())
    assert daemon.stop() == 0


async def test_the_new_code_serves(daemon: Daemon) -> None:
    from websockets.asyncio.client import connect

    rewrite(daemon, VERSION.format(version="new"))
    daemon.signal(signal.SIGHUP)
    await asyncio.to_thread(wait_generation, daemon, 2)
    async with connect(daemon.uri + "version", proxy=None) as websocket:
        assert await websocket.recv() == "new"


BROKEN = {
    "syntax": ("async def handler(websocket)\n", "SyntaxError"),
    "import": ("import nothing_of_that_name\n", "nothing_of_that_name"),
    "exits": ("import os\nos._exit(7)\n", "exited with status 7"),
    "lifespan": (
        "import tidegate, contextlib\n@contextlib.asynccontextmanager\nasync def lifespan():\n"
        "    raise OSError('no database')\n    yield\n"
        "async def serve(websocket): ...\nhandler = tidegate.App(serve, lifespan=lifespan)\n",
        "no database",
    ),
    "never ready": ("import time\ntime.sleep(60)\n", "not ready within 3 s"),
    "crashes after it is ready": (
        "import tidegate, contextlib, asyncio, os\n@contextlib.asynccontextmanager\nasync def lifespan():\n"
        "    asyncio.get_running_loop().call_later(0.3, os._exit, 9)\n    yield\n"
        "async def serve(websocket): ...\nhandler = tidegate.App(serve, lifespan=lifespan)\n",
        "exited with status 9",
    ),
}


QUICKER = {"syntax", "crashes after it is ready"}


@pytest.mark.parametrize(
    "broken", [name if name in QUICKER else pytest.param(name, marks=pytest.mark.slow) for name in BROKEN]
)
@pytest.mark.parametrize("form", ["generation", pytest.param("rolling", marks=pytest.mark.slow)])
async def test_a_broken_application_changes_nothing(broken: str, form: str) -> None:
    boot_timeout = "3" if broken == "never ready" else "60"
    options = ("--settle", "0.8", "--boot-timeout", boot_timeout, "--reload", form)
    with Daemon(ECHO, *options, workers=2, drain=0.2) as daemon:
        before = daemon.workers()
        text, words = BROKEN[broken]
        (daemon.directory / "application.py").write_text(text)
        async with Crowd(daemon.uri, staying=10, rate=20) as crowd:
            daemon.signal(signal.SIGHUP)
            found = await asyncio.to_thread(
                wait_until,
                lambda: re.search(r"ERROR reload: failed: (.*(?:\n(?!\d{4}-).*)*)", daemon.log),
                "failed",
                30,
            )
            assert words in found[1]
            assert daemon.get("/readyz")[0] == 200
            await asyncio.to_thread(wait_until, lambda: daemon.workers() == before, "the old workers alone")
        assert not crowd.closed
        assert not crowd.refused
        # And it is none the worse for it.
        rewrite(daemon, ECHO)
        daemon.signal(signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: "has ended" in daemon.log, "a reload that succeeds")
        assert not set(before) & set(daemon.workers())
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_one_after_the_other() -> None:
    """`--reload rolling`: there is never more than one worker too many."""
    with Daemon(ECHO, *QUICK, "--reload", "rolling", workers=3, drain=0.1) as daemon:
        async with Crowd(daemon.uri, staying=30, rate=50) as crowd:
            daemon.signal(signal.SIGHUP)
            most = 0
            while "generation 1 has ended" not in daemon.log:
                most = max(most, await asyncio.to_thread(lambda: len(daemon.workers())))
            assert most <= 4
        assert not crowd.refused
        assert set(crowd.closed) <= {1001}
        assert generations(daemon) == {2}
        assert daemon.stop() == 0


async def test_reloads_that_come_in_a_heap_are_done_one_by_one(daemon: Daemon) -> None:
    for _ in range(20):
        daemon.signal(signal.SIGHUP)
    await asyncio.to_thread(wait_until, lambda: "generation 1 has ended" in daemon.log, "the first")
    daemon.signal(signal.SIGHUP)
    await asyncio.to_thread(
        wait_until, lambda: len(generations(daemon)) == 1 and "generation 2 has ended" in daemon.log, "another", 30
    )
    await asyncio.to_thread(wait_until, lambda: len(daemon.workers()) == 2, "only the last two")
    assert daemon.stop() == 0


async def test_a_worker_dies_during_a_reload(daemon: Daemon) -> None:
    async with Crowd(daemon.uri, rate=50) as crowd:
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGKILL, daemon.workers()[0])
        await asyncio.to_thread(wait_generation, daemon, 2)
    assert len(daemon.workers()) == 2
    assert sum("goes" not in refused for refused in crowd.refused) == 0
    assert daemon.stop() == 0


@pytest.mark.slow
async def test_a_hundred_reloads_under_load() -> None:
    """Nobody is refused or reset, each client is closed once with each generation, and nothing piles up."""
    with Daemon(ECHO, *QUICK, workers=2, drain=0.3) as daemon:
        async with Crowd(daemon.uri, staying=300, rate=200) as crowd:
            daemon.signal(signal.SIGHUP)  # what a first reload imports stays
            await asyncio.to_thread(wait_generation, daemon, 2)
            await crowd.seen(300)
            supervisor = psutil.Process(daemon.pid)
            before = supervisor.num_fds(), supervisor.memory_info().rss, len(daemon.processes())
            for number in range(3, 103):
                daemon.signal(signal.SIGHUP)
                await asyncio.to_thread(wait_generation, daemon, number)
                await crowd.seen(300 * (number - 1))
            assert crowd.closed == {1001: 300 * 101}
        assert not crowd.refused
        assert crowd.went > 1000
        after = supervisor.num_fds(), supervisor.memory_info().rss, len(daemon.processes())
        assert (after[0], after[2]) == (before[0], before[2])
        assert after[1] < before[1] + 4 * 2**20
        assert daemon.stop() == 0
