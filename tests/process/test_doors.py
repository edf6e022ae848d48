"""The doors to a daemon's bus from outside: its socket, `tidegate publish`, POST /publish; and who is patient with it.

What must not live here: what happens to members meanwhile (test_bus.py), the doors alone (tests/cli, tests/admin).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.harness import APPLICATIONS, ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate.bus.bus import Bus
from tidegate.channels import Channel, Position

ROOM = APPLICATIONS / "room.py"


@pytest.mark.slow
async def test_the_socket_of_the_hub_is_made_again_if_somebody_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "control.hub"
    with Daemon(ROOM, "--control", str(tmp_path / "control.sock"), target="application:app") as daemon:
        async with Bus(f"local://{path}") as before:
            path.unlink()
            await asyncio.to_thread(wait_until, path.exists, "the file")
            assert path.stat().st_mode & 0o777 == 0o600
            assert f"{path}, the socket of the hub, had been removed: it has been made again" in daemon.log
            async with Bus(f"local://{path}") as after:
                first = await before.publish("h:1", "a")
                second = await after.publish("h:1", "b")
                assert first is not None
                assert second == (first.epoch, first.offset + 1)
        assert await asyncio.to_thread(daemon.stop) == 0
        assert not path.exists()


# Patience.


@pytest.mark.slow
async def test_clients_that_join_do_not_hear_that_the_hub_is_killed() -> None:
    with Daemon(APPLICATIONS / "last_words.py", target="application:app", workers=2) as daemon:
        hub = next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub")
        async with connect(f"{daemon.uri}join", compression=None) as before:
            assert await before.recv() == "joined"
            for _ in range(3):
                daemon.signal(signal.SIGKILL, hub)
                clients = [connect(f"{daemon.uri}join", compression=None, open_timeout=PATIENCE) for _ in range(20)]
                for client in await asyncio.gather(*clients):
                    assert await client.recv() == "joined"
                    await client.close()
                hub = wait_until(lambda hub=hub: other_hub(daemon, hub), "another hub")  # type: ignore[misc]
        assert "connection handler failed" not in daemon.log


def other_hub(daemon: Daemon, before: int) -> int | None:
    titles = daemon.titles().items()
    return next((pid for pid, title in titles if title == "tidegate: hub" and pid != before), None)


@pytest.mark.slow
async def test_a_worker_serves_everything_else_while_there_is_no_bus(tmp_path: Path) -> None:
    """And the bus comes by itself."""
    journal = tmp_path / "later" / "journal"
    options = ("--bus", f"local://{journal}")
    with Daemon(APPLICATIONS / "last_words.py", *options, target="application:app", workers=1) as daemon:
        async with connect(daemon.uri) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert daemon.log.count("there is no journal, hence no bus: [Errno 2]") == 1
        assert "the bus is down: there is no link to the hub; publishes wait or fail until it is up again" in daemon.log
        journal.parent.mkdir()
        await asyncio.to_thread(wait_until, lambda: "the bus is up" in daemon.log, "the bus")
        async with connect(f"{daemon.uri}join") as client:
            assert await client.recv() == "joined"
        assert await asyncio.to_thread(daemon.stop) == 0


# Drain.


@pytest.mark.slow
async def test_what_handlers_publish_in_their_last_moments_is_not_lost(tmp_path: Path) -> None:
    options = ("--bus", f"local://{tmp_path}/journal", "--control", str(tmp_path / "control.sock"))
    channels = {"h:": Channel(history=1000)}
    with Daemon(APPLICATIONS / "last_words.py", *options, target="application:app", workers=2) as daemon:
        clients = [await connect(daemon.uri, compression=None) for _ in range(50)]
        assert await asyncio.to_thread(daemon.stop) == 0
        for client in clients:
            await client.wait_closed()
    with Daemon(APPLICATIONS / "last_words.py", *options, target="application:app", workers=1) as daemon:
        async with Bus(f"local://{tmp_path}/control.hub", channels=channels) as bus:
            assert len(await bus.history("h:1", limit=1000)) == 50
        assert await asyncio.to_thread(daemon.stop) == 0


# From a shell, and by HTTP.

TOKEN = "0123456789abcdef"


@pytest.mark.slow
async def test_messages_from_a_shell_and_by_http_reach_members_whatever_restarts(tmp_path: Path) -> None:
    options = ("--control", str(tmp_path / "control.sock"), "--bus-message-limit", "2MiB")
    environment = {"TIDEGATE_PUBLISH_TOKEN": TOKEN}

    def shell(daemon: Daemon, message: str) -> None:
        command = [sys.executable, "-m", "tidegate", "publish", "h:1", message, *options[:2], "--wait", f"{PATIENCE}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert Position.parse(done.stdout.strip()).offset

    def http(daemon: Daemon, message: str) -> None:
        data = json.dumps({"channel": "h:1", "data": message}).encode()
        request = urllib.request.Request(f"http://{daemon.admin}/publish", data, {"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert Position.parse(json.load(answer)["position"]).offset

    def kill_hub(daemon: Daemon) -> None:
        daemon.signal(signal.SIGKILL, next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub"))

    with Daemon(
        APPLICATIONS / "last_words.py", *options, target="application:app", workers=2, env=environment
    ) as daemon:
        async with connect(f"{daemon.uri}join", compression=None, max_size=None) as client:
            assert await client.recv() == "joined"
            for number in range(3):
                for door in (shell, http):
                    await asyncio.to_thread(kill_hub, daemon)
                    await asyncio.to_thread(door, daemon, f"{door.__name__} {number}")
            await asyncio.to_thread(http, daemon, "x" * (2**21 - 100))
            async with asyncio.timeout(PATIENCE):
                got = [await client.recv() for _ in range(7)]
        assert got[:6] == ["shell 0", "http 0", "shell 1", "http 1", "shell 2", "http 2"]
        assert len(got[6]) == 2**21 - 100
        assert TOKEN not in daemon.log
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
def test_what_it_takes_to_publish_by_http(tmp_path: Path) -> None:
    """A reload gives or takes the token; without channels there is no bus; without a control socket no start."""
    settings = tmp_path / "tidegate.toml"
    settings.write_text("", encoding="utf-8")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with Daemon(ECHO, "--config", str(settings), "--control", str(tmp_path / "control.sock")) as daemon:
        assert daemon.get("/publish", headers)[0] == 404
        settings.write_text(f'publish_token = "{TOKEN}"\n', encoding="utf-8")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.get("/publish", headers)[0] == 405, "the door is open")
        request = urllib.request.Request(f"http://{daemon.admin}/publish", b'{"channel":"h:1","data":1}', headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=PATIENCE)
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (503, "1")
        caught.value.close()
    command = [*Daemon(ECHO).command, "--publish-token", TOKEN]
    environment = {name: value for name, value in os.environ.items() if name != "RUNTIME_DIRECTORY"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "--publish-token '...' is not allowed (--control is auto, and RUNTIME_DIRECTORY is not set)" in done.stderr
