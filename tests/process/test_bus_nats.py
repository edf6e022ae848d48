"""One room over several daemons that share a NATS server, whatever becomes of the server.

What must not live here: one daemon and its hub (test_bus.py), what the engine promises (tests/bus/).
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.test_bus import ROOM, Publisher, reload
from tests.process.test_bus_redis import clients, daemons, gaps
from tests.support.harness import Daemon
from tests.support.nats_server import nats_server
from tests.support.patience import PATIENCE

SECRET = "s3cr3t-of-nats"


async def publish(publisher: Publisher, until: asyncio.Event) -> None:
    """Publish at a rate at which a client that is away for seconds misses no more than it may be given."""
    while not until.is_set():
        await publisher.publish()
        await asyncio.sleep(0.005)


@pytest.mark.slow
async def test_daemons_share_a_room_through_restarts_of_a_server_with_its_folder(tmp_path: Path) -> None:
    user = f'authorization {{ user: u, password: "{SECRET}" }}'
    with nats_server(tmp_path / "nats", [user]) as server, daemons(server.url.replace("//", f"//u:{SECRET}@")) as both:
        async with clients(both, 6) as everyone:
            publisher, stop = Publisher(both[0], "h:1"), asyncio.Event()
            publishing = asyncio.create_task(publish(publisher, stop))
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                seen = publisher.sent
                await everyone[-1].until(lambda client, seen=seen: len(client.log) > seen + 20)  # type: ignore[misc]
                await asyncio.to_thread(server.end, number)
                await asyncio.to_thread(server.start)
            await asyncio.to_thread(reload, both[1])
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
            assert "the bus is down: " in daemon.log
            assert SECRET not in daemon.log


@pytest.mark.slow
async def test_a_server_without_its_folder_is_told_as_a_gap(tmp_path: Path) -> None:
    """What is between two notices is complete, in order and once; nothing is ever under a number that was another's."""
    with nats_server(tmp_path / "nats") as server, daemons(f"{server.url}/room") as both:
        async with clients(both, 4) as everyone:
            publisher, stop = Publisher(both[1], "h:1"), asyncio.Event()
            publishing = asyncio.create_task(publish(publisher, stop))
            for _ in range(2):
                seen, before = len(everyone[0].log), [gaps(client) for client in everyone]
                await everyone[0].until(lambda client, seen=seen: len(client.log) > seen + 20)  # type: ignore[misc]
                await asyncio.to_thread(server.end, signal.SIGKILL)
                await asyncio.to_thread(shutil.rmtree, server.store)
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
def test_a_daemon_says_what_is_wrong_with_its_bus(tmp_path: Path) -> None:
    with nats_server(
        tmp_path / "nats", [f'authorization {{ user: u, password: "{SECRET}" }}'], jetstream=False
    ) as server:
        for who, words in ((f"u:{SECRET}@", "need JetStream"), (f"u:{SECRET}2@", "does not let this user in")):
            url = server.url.replace("//", f"//{who}")
            with Daemon(ROOM, target="application:app", env={"TIDEGATE_BUS": url}, wait=False) as daemon:
                assert daemon.process is not None
                assert daemon.process.wait(PATIENCE) != 0
                assert words in daemon.log
                assert SECRET not in daemon.log
    wrong = [sys.executable, "-m", "tidegate", "serve", "--bus", "nats://a/b/c", "tidegate.cli.demo_application:app"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode != 0
    assert "the bus must have a name of 1 to 32 letters, digits and '-', not 'b/c'" in done.stderr
