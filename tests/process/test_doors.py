"""The doors to a daemon's bus from outside: its socket, `tidegate publish`, POST /publish; and who is patient with it.

What must not live here: what happens to members meanwhile (test_bus.py), the doors alone (tests/cli, tests/admin).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.process.test_bus import reload, upgrade
from tests.support.harness import APPLICATIONS, ECHO, Daemon, wait_until
from tests.support.nats_server import nats_server
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer
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
    """And the bus comes by itself. The journal's folder is lost after the daemon has looked for it."""
    journal, go = tmp_path / "later" / "journal", tmp_path / "go"
    journal.parent.mkdir()
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    source = waits + (APPLICATIONS / "last_words.py").read_text(encoding="utf-8")
    options = ("--bus", f"local://{journal}")
    with Daemon(source, *options, target="application:app", workers=1, wait=False) as daemon:
        await asyncio.to_thread(wait_until, lambda: "admin (pid" in daemon.log, "a daemon that has begun")
        journal.parent.rmdir()
        go.touch()
        await asyncio.to_thread(daemon.wait_ready)
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


def shell(control: str, message: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate", "publish", "h:1", message, "--control", control]
    command += ["--wait", f"{PATIENCE}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def http(daemon: Daemon, message: str) -> None:
    data = json.dumps({"channel": "h:1", "data": message}).encode()
    request = urllib.request.Request(f"http://{daemon.admin}/publish", data, {"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert Position.parse(json.load(answer)["position"]).offset


@pytest.mark.slow
async def test_messages_from_a_shell_and_by_http_reach_members_whatever_restarts(tmp_path: Path) -> None:
    options = ("--control", str(tmp_path / "control.sock"), "--bus-message-limit", "2MiB")
    environment = {"TIDEGATE_PUBLISH_TOKEN": TOKEN}

    def by_shell(daemon: Daemon, message: str) -> None:
        done = shell(options[1], message)
        assert (done.returncode, done.stderr) == (0, "")
        assert Position.parse(done.stdout.strip()).offset

    def kill_hub(daemon: Daemon) -> None:
        daemon.signal(signal.SIGKILL, next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub"))

    with Daemon(
        APPLICATIONS / "last_words.py", *options, target="application:app", workers=2, env=environment
    ) as daemon:
        async with connect(f"{daemon.uri}join", compression=None, max_size=None) as client:
            assert await client.recv() == "joined"
            for number in range(3):
                for name, door in (("shell", by_shell), ("http", http)):
                    await asyncio.to_thread(kill_hub, daemon)
                    await asyncio.to_thread(door, daemon, f"{name} {number}")
            await asyncio.to_thread(http, daemon, "x" * (2**21 - 100))
            async with asyncio.timeout(PATIENCE):
                got = [await client.recv() for _ in range(7)]
        assert got[:6] == ["shell 0", "http 0", "shell 1", "http 1", "shell 2", "http 2"]
        assert len(got[6]) == 2**21 - 100
        assert TOKEN not in daemon.log
        assert await asyncio.to_thread(daemon.stop) == 0


DECLARES = """
import os
from pathlib import Path
import tidegate

async def handler(websocket): ...

history = int(Path(os.environ["HISTORY"]).read_text())
app = tidegate.App(handler, channels={"h:": tidegate.Channel(history=history)} if history else None)
"""


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    with RedisServer(f"requirepass {TOKEN}") as server:
        yield f"redis://:{TOKEN}@127.0.0.1:{server.port}"


@contextlib.contextmanager
def nats(folder: Path) -> Iterator[str]:
    with nats_server(folder / "nats") as server:
        yield f"{server.url}/room"


@pytest.mark.slow
@pytest.mark.parametrize("engine", [redis, nats])
def test_both_doors_store_on_other_engines_as_the_application_declares(
    engine: Callable[[Path], contextlib.AbstractContextManager[str]], tmp_path: Path
) -> None:
    """Also after reloads that change it, or that fail, an upgrade, and another admin process."""
    control, file = str(tmp_path / "control.sock"), tmp_path / "history"
    published: list[str] = []

    def both(daemon: Daemon) -> None:
        """Publish from a shell, and by HTTP."""
        published.extend(str(len(published) + number) for number in (0, 1))
        done = shell(control, published[-2])
        assert (done.returncode, done.stderr) == (0, "")
        http(daemon, published[-1])

    def check(history: int) -> None:
        async def stored() -> list[str | bytes]:
            async with Bus(url, channels={"h:": Channel(history=history)}) as bus:
                return [message.data for message in await bus.history("h:1")][::-1]

        assert asyncio.run(stored()) == published[-history:]

    file.write_text("2")
    with engine(tmp_path) as url:
        environment = {"TIDEGATE_PUBLISH_TOKEN": TOKEN, "TIDEGATE_BUS": url, "HISTORY": str(file)}
        options = ("--control", control, "--settle", "0.1")
        with Daemon(DECLARES, *options, target="application:app", workers=2, env=environment) as daemon:
            both(daemon)
            both(daemon)
            check(2)
            file.write_text("3")
            reload(daemon)
            both(daemon)
            both(daemon)
            check(3)
            file.write_text("no number")
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: "reload: failed" in daemon.log, "the end of it")
            both(daemon)
            check(3)
            file.write_text("3")
            upgrade(daemon)
            both(daemon)
            admin = next(pid for pid, title in daemon.titles().items() if title == "tidegate: admin")
            daemon.signal(signal.SIGKILL, admin)
            wait_until(lambda: daemon.log.count(f"admin (pid {admin}) was killed"), "its end")
            daemon.wait_ready()
            both(daemon)
            check(3)
            file.write_text("0")
            reload(daemon)
            done = shell(control, "x")
            assert (done.returncode, done.stderr) == (
                5,
                "tidegate publish: the bus is down: the application declares no channels\n",
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                http(daemon, "x")
            assert caught.value.code == 503
            assert b"the application declares no channels" in caught.value.read()
            caught.value.close()
            check(3)
            assert daemon.stop() == 0
            assert TOKEN not in daemon.log


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
