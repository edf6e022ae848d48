"""Upgrades in place between the release before and what is here now: each is installed over the other, and signalled.

What must not live here: copies of one release that say they are others (tests/process/test_upgrade.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed

from tests.process.clients import Crowd
from tests.process.test_reload import generations
from tests.process.test_upgrade import upgrade, version
from tests.releases import record
from tests.releases.installed import LAYOUT, TODAY, Environment, need_history, wheel_before, wheel_of_today
from tests.support.harness import Daemon, Metrics
from tests.support.patience import PATIENCE

APPLICATION = """
    from prometheus_client import Counter

    SEEN = Counter("seen", "Messages that the application has seen.")

    async def handler(websocket):
        async for message in websocket:
            SEEN.inc()
            await websocket.send(message)
"""


class Wheels:
    """Both releases, as they are installed."""

    def __init__(self, folder: Path) -> None:
        self.before = wheel_before(folder)
        self.today = wheel_of_today(folder)
        self.environment = Environment(folder / "environment")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    need_history()
    return Wheels(tmp_path_factory.mktemp("releases"))


@pytest.fixture
def daemon(wheels: Wheels, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the release before, which is started by its own command."""
    environment = wheels.environment
    environment.install(wheels.before)
    options = ("--bind", f"unix:{tmp_path}/socket", "--control", f"{tmp_path}/control.sock", "--settle", "0.1")
    daemon = Daemon(APPLICATION, *options, "--pidfile", f"{tmp_path}/pid", workers=2, drain=0.5, env={"PYTHONPATH": ""})
    daemon.command[: daemon.command.index("serve")] = [str(environment.command)]
    with daemon:
        yield daemon


async def talk(daemon: Daemon, path: Path) -> None:
    """A word over each address."""
    for client in (connect(daemon.uri, proxy=None), unix_connect(str(path))):
        async with client as websocket:
            await websocket.send("word")
            assert await websocket.recv() == "word"


class Client:
    """One that says a word after the other until it is closed."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.code: int | None = None
        self.before = ""  # of the log, when it was closed

    async def stay(self, connected: asyncio.Event) -> None:
        async with connect(self.daemon.uri, proxy=None) as websocket:
            await websocket.send("word")
            async for word in websocket:
                connected.set()
                await asyncio.sleep(0.01)
                with contextlib.suppress(ConnectionClosed):  # the loop ends by itself
                    await websocket.send(word)
            self.code, self.before = websocket.close_code, self.daemon.log


def counted(metrics: Metrics, name: str) -> float:
    return metrics.total(f"tidegate_{name}")


def check_counters(before: Metrics, now: Metrics) -> None:
    """They go on; where the layout of the scoreboard is another one, they begin anew, as Prometheus is told."""
    if record.layout_of_today() == LAYOUT:
        assert counted(now, "start_time_seconds") == counted(before, "start_time_seconds")
        for name in ("connections_accepted_total", "messages_received_total", "worker_spawns_total", "closes_total"):
            assert counted(now, name) >= counted(before, name) > 0, name
        assert now.total("seen_total") >= before.total("seen_total") > 0
    else:
        assert counted(now, "start_time_seconds") > counted(before, "start_time_seconds")


@pytest.mark.slow
async def test_from_the_release_before_and_back(daemon: Daemon, wheels: Wheels, tmp_path: Path) -> None:
    assert version(daemon) != TODAY
    pid, socket, control = daemon.pid, tmp_path / "socket", ("--control", str(tmp_path / "control.sock"))
    inode = socket.stat().st_ino
    await talk(daemon, socket)
    async with Crowd(daemon.uri, staying=50, rate=50) as crowd:
        for number, (wheel, said) in enumerate(((wheels.today, TODAY), (wheels.before, version(daemon))), start=2):
            before = daemon.metrics()
            client, connected = Client(daemon), asyncio.Event()
            staying = asyncio.create_task(client.stay(connected))
            async with asyncio.timeout(PATIENCE):
                await connected.wait()
            taken_over = daemon.log.count("has taken over from")
            # The daemon goes on meanwhile, and the new commands speak to it.
            await asyncio.to_thread(wheels.environment.install, wheel)
            assert "generation" in await asyncio.to_thread(wheels.environment.run, "status", *control)
            await asyncio.to_thread(upgrade, daemon)
            # Clients are kept by the workers that they have, and closed by them when others serve.
            await crowd.seen(50 * (number - 1))
            async with asyncio.timeout(PATIENCE):
                await staying
            assert client.code == 1001
            assert client.before.count("has taken over from") == taken_over + 1
            assert (version(daemon), generations(daemon)) == (said, {number})
            check_counters(before, daemon.metrics())
            await talk(daemon, socket)
        assert crowd.closed == {1001: 100}
    assert not crowd.refused
    assert (daemon.pid, daemon.poll()) == (pid, None)
    assert len(daemon.processes()) == 4
    assert (tmp_path / "pid").read_text() == f"{pid}\n"
    assert socket.stat().st_ino == inode
    assert daemon.stop() == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
async def test_by_the_new_command(daemon: Daemon, wheels: Wheels, tmp_path: Path) -> None:
    """It asks the program before, and is told by the one that has taken over."""
    await asyncio.to_thread(wheels.environment.install, wheels.today)
    said = await asyncio.to_thread(wheels.environment.run, "upgrade", "--control", str(tmp_path / "control.sock"))
    assert "generation 2 serves with 2 workers" in said
    assert version(daemon) == TODAY
    await talk(daemon, tmp_path / "socket")
    assert daemon.stop() == 0
