"""One room over several daemons that share a Redis server, whatever becomes of the server.

What must not live here: one daemon and its hub (test_bus.py), what the engine promises (tests/bus/).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from tests.process.machines import Event, check_all_is_there, check_gaps_are_told, restarts, two_daemons
from tests.process.test_bus import ROOM, Publisher, kill_worker, members, reload
from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer

SECRET = "s3cr3t-of-redis"
AOF = ("appendonly yes", "appendfsync no")


@pytest.mark.slow
async def test_daemons_share_a_room_through_restarts_of_a_server_with_its_log() -> None:
    with (
        RedisServer(*AOF, f"requirepass {SECRET}") as server,
        two_daemons(f"redis://:{SECRET}@127.0.0.1:{server.port}", ROOM) as both,
    ):
        await check_all_is_there(both, 6, restarts(server, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL))
        for daemon in both:
            assert "tidegate: hub" not in daemon.titles().values()
            assert SECRET not in str(daemon.titles())
            assert daemon.stop() == 0
            assert "the bus is down: the connection to Redis has ended" in daemon.log
            assert SECRET not in daemon.log


@pytest.mark.slow
async def test_daemons_share_a_room_whatever_happens_to_links_and_workers() -> None:
    with RedisServer(*AOF, "enable-debug-command yes") as server, two_daemons(server.url, ROOM) as both:
        events: list[Event] = [
            lambda: server.command("CLIENT", "KILL", "TYPE", "pubsub"),
            lambda: kill_worker(both[0]),
            *restarts(server, signal.SIGKILL),
            lambda: server.command("CLIENT", "KILL", "TYPE", "normal"),
            lambda: reload(both[1]),
            lambda: server.command("DEBUG", "SLEEP", 6),
            lambda: server.command("SCRIPT", "FLUSH"),
        ]
        await check_all_is_there(both, 10, events)


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
    with RedisServer() as server, two_daemons(server.url, ROOM) as both:
        losses = [*restarts(server, signal.SIGKILL), lambda: server.command("FLUSHALL")]
        await check_gaps_are_told(both, 4, losses)


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
