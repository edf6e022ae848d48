"""One room over all workers of a daemon, whatever restarts: its hub, its workers, the daemon itself.

What must not live here: the hub alone (tests/hub/), what a broker promises (tests/bus/).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.support import programs
from tests.support.harness import APPLICATIONS, ECHO, Daemon, wait_until
from tests.support.nats_server import nats_server
from tests.support.patience import PATIENCE
from tests.support.systemd import listening
from tidegate.bus.bus import Bus
from tidegate.exceptions import BusDown

ROOM = APPLICATIONS / "room.py"
FAILING = """
import contextlib


@contextlib.asynccontextmanager
async def lifespan():
    raise OSError("no database")
    yield


"""
AWAY = (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, EOFError)


class Client:
    """A member of a channel that comes back whenever it is away, after the place where it was.

    Attributes:
        log: what it has got, in order.
        resumed: how each join went.
        first: where it was when it joined.
    """

    def __init__(self, daemon: Daemon, channel: str) -> None:
        self.uri = f"{daemon.uri}{channel}"
        self.log: list[str] = []
        self.resumed: list[str] = []
        self.changed = asyncio.Event()
        self.first = self._place = ""

    async def live(self) -> None:
        while True:
            try:
                async with connect(f"{self.uri}/{self._place}", compression=None, open_timeout=PATIENCE) as socket:
                    resumed, place = str(await socket.recv()).split()
                    self.resumed.append(resumed)
                    self._place = self._place or place
                    self.first = self.first or place
                    self.changed.set()
                    async for message in socket:
                        self._place, data = str(message).split()
                        self.log.append(data)
                        self.changed.set()
            except AWAY:
                await asyncio.sleep(0.02)  # it would try all the time

    async def until(self, condition: Callable[[Client], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


class Publisher:
    """It publishes numbers one after the other, and each again until it has heard that it is sent."""

    def __init__(self, daemon: Daemon, channel: str) -> None:
        self.uri = f"{daemon.uri}{channel}"
        self.sent = 0
        self._socket: ClientConnection | None = None

    async def publish(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self._try(str(self.sent + 1)):
                pass
        self.sent += 1

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def _try(self, text: str) -> bool:
        try:
            if self._socket is None:
                self._socket = await connect(self.uri, compression=None, open_timeout=PATIENCE)
            await self._socket.send(text)
            async for message in self._socket:
                if str(message).startswith("sent "):
                    return True
        except AWAY:
            pass
        self._socket = None
        await asyncio.sleep(0.02)
        return False


@asynccontextmanager
async def members(daemon: Daemon, channel: str, number: int) -> AsyncIterator[list[Client]]:
    """So many clients that have joined a channel."""
    clients = [Client(daemon, channel) for _ in range(number)]
    tasks = [asyncio.create_task(client.live()) for client in clients]
    for client in clients:
        await client.until(lambda client: client.resumed)
    yield clients
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def hub(daemon: Daemon) -> int:
    """The process id of the hub."""
    return next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub")


def kill_hub(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL, hub(daemon))


def kill_worker(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL, daemon.workers()[0])


def reload(daemon: Daemon) -> None:
    done = daemon.log.count("serves with 2 workers")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.log.count("serves with 2 workers") > done, "a generation")


def upgrade(daemon: Daemon) -> None:
    done = daemon.log.count("has taken over")
    daemon.signal(signal.SIGUSR2)
    wait_until(lambda: daemon.log.count("has taken over") > done, "the upgrade")


async def check(daemon: Daemon, events: Sequence[Callable[[Daemon], None]], clients: int) -> None:
    """Publish all the time, while these things happen; each client has everything, in order, once, and hears no gap."""
    publisher = Publisher(daemon, "h:1")
    stop = asyncio.Event()

    async def publish() -> None:
        while not stop.is_set():
            await publisher.publish()

    async with members(daemon, "h:1", clients) as found:
        publishing = asyncio.create_task(publish())
        for event in events:
            before = publisher.sent
            await asyncio.to_thread(event, daemon)
            while publisher.sent < before + 20:
                await found[0].until(lambda client, before=before: len(client.log) > before)  # type: ignore[misc]
                await asyncio.sleep(0.01)
        stop.set()
        await publishing
        await publisher.close()
        expected = [str(number) for number in range(1, publisher.sent + 1)]
        for client in found:
            await client.until(lambda client: len(client.log) >= len(expected))
            assert client.log == expected
            assert {*client.resumed} <= {"new", "full"}
            assert client.resumed.count("new") == 1


async def test_a_message_reaches_members_on_every_worker() -> None:
    with Daemon(ROOM, target="application:app", workers=2) as daemon:
        async with members(daemon, "h:1", 12) as clients:
            publisher = Publisher(daemon, "h:1")
            await publisher.publish()
            await publisher.close()
            for client in clients:
                await client.until(lambda client: client.log)
                assert client.log == ["1"]
        assert len(set(daemon.workers())) == 2
        assert "hub" in "".join(daemon.titles().values())
        assert daemon.stop() == 0
        assert "Error" not in daemon.log


@pytest.mark.slow
async def test_another_process_publishes_by_the_socket_beside_the_control_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.hub"
    options = ("--control", str(tmp_path / "control.sock"))
    with Daemon(ROOM, *options, target="application:app", workers=2, drain=0.2) as daemon:
        assert path.stat().st_mode & 0o777 == 0o600
        async with members(daemon, "h:1", 4) as clients, Bus(f"local://{path}") as bus:
            for number, event in enumerate((None, kill_hub, reload, upgrade), 1):
                if event is not None:
                    await asyncio.to_thread(event, daemon)
                while True:
                    try:
                        position = await bus.publish("h:1", str(number), key=str(number))
                        break
                    except BusDown:
                        await asyncio.sleep(0.01)
                assert position is not None
                assert position.offset == number
            for client in clients:
                await client.until(lambda client: len(client.log) == 4)
                assert client.log == ["1", "2", "3", "4"]
        assert await asyncio.to_thread(daemon.stop) == 0
        assert not path.exists()
    with Daemon(ECHO, *options, workers=1), pytest.raises(BusDown):
        await Bus(f"local://{path}").start()


async def test_there_is_no_hub_where_nobody_has_channels() -> None:
    with Daemon(workers=2) as daemon:
        assert "tidegate: hub" not in daemon.titles().values()


async def test_memory_is_each_workers_own() -> None:
    with Daemon(ROOM, "--bus", "memory://", target="application:app", workers=1) as daemon:
        assert "tidegate: hub" not in daemon.titles().values()
        async with members(daemon, "h:1", 2) as clients:
            publisher = Publisher(daemon, "h:1")
            await publisher.publish()
            await publisher.close()
            for client in clients:
                await client.until(lambda client: client.log)


async def test_nothing_is_lost_or_doubled_when_the_hub_or_a_worker_is_killed() -> None:
    with Daemon(ROOM, target="application:app", workers=2) as daemon:
        await check(daemon, [kill_hub, kill_worker, kill_hub], 8)


@pytest.mark.slow
async def test_nothing_is_lost_or_doubled_by_a_reload_and_an_upgrade() -> None:
    with Daemon(ROOM, target="application:app", workers=2, drain=0.2) as daemon:
        await check(daemon, [reload, upgrade, kill_hub], 8)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", pytest.param("nats", marks=pytest.mark.slow)])
async def test_a_reload_that_fails_throws_no_history_away(engine: str, tmp_path: Path) -> None:
    """Though its workers have connected to the bus before they fail, and declare that less is kept."""
    text = ROOM.read_text().replace("history=100_000", "history=2")
    failing = text.replace("app = tidegate.App(handler,", f"{FAILING}app = tidegate.App(handler, lifespan=lifespan,")
    assert failing.count("lifespan=lifespan") == failing.count("history=2,") == 1
    with contextlib.ExitStack() as stack:
        if engine == "nats":
            server = stack.enter_context(nats_server(tmp_path / "nats"))
        options = () if engine == "local" else ("--bus", f"{server.url}/room")
        daemon = stack.enter_context(Daemon(ROOM, *options, target="application:app", workers=2, drain=0.2))
        async with members(daemon, "h:1", 1) as (client,):
            publisher = Publisher(daemon, "h:1")
            for _ in range(30):
                await publisher.publish()
            await client.until(lambda client: len(client.log) == 30)
            (daemon.directory / "application.py").write_text(failing)
            daemon.signal(signal.SIGHUP)
            await asyncio.to_thread(wait_until, lambda: "reload: failed: " in daemon.log, "the failure")
            assert "no database" in daemon.log
            async with connect(f"{daemon.uri}h:1/{client.first}", compression=None) as late:
                assert str(await late.recv()).startswith("full ")
                assert [str(await late.recv()).split()[1] for _ in range(30)] == client.log
        await publisher.close()


async def test_nothing_is_lost_or_doubled_whatever_happens_for_a_while() -> None:
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")
    events = [*[kill_hub] * 20, *[kill_worker] * 10, *[reload] * 10, *[upgrade] * 3]
    random.Random(seed).shuffle(events)
    with Daemon(ROOM, target="application:app", workers=2, drain=0.2) as daemon:
        await check(daemon, events, 40)


async def test_history_in_a_file_outlives_the_daemon(tmp_path: Path) -> None:
    options = ("--bus", f"local://{tmp_path}/history")
    with Daemon(ROOM, *options, target="application:app", workers=2) as daemon:
        async with members(daemon, "h:1", 1) as (client,):
            publisher = Publisher(daemon, "h:1")
            for _ in range(3):
                await publisher.publish()
            await publisher.close()
            await client.until(lambda client: len(client.log) == 3)
            place = client._place
        assert daemon.stop() == 0
    epoch = place.partition(".")[0]
    with Daemon(ROOM, *options, target="application:app", workers=2) as daemon:
        later = Client(daemon, "h:1")
        later._place = f"{epoch}.1"
        task = asyncio.create_task(later.live())
        await later.until(lambda client: len(client.log) == 2)
        assert (later.log, later.resumed) == (["2", "3"], ["full"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (tmp_path / "history").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
async def test_history_in_memory_outlives_the_daemon_where_the_manager_keeps_it(tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(PATIENCE)
    manager.bind(str(tmp_path / "notify"))
    kept: list[int] = []
    with Daemon(ROOM, target="application:app", workers=2, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
        while not kept:
            data, kept, _, _ = socket.recv_fds(manager, 4096, 4)
        assert data == b"FDSTORE=1\nFDNAME=tidegate-journal"
        async with members(daemon, "h:1", 1) as (client,):
            publisher = Publisher(daemon, "h:1")
            for _ in range(3):
                await publisher.publish()
            await publisher.close()
            await client.until(lambda client: len(client.log) == 3)
            epoch = client._place.partition(".")[0]
        assert await asyncio.to_thread(daemon.stop) == 0
        manager.close()
        serve = programs.program(listening, "1", "tidegate-journal", *daemon.command)
        with subprocess.Popen(  # noqa: ASYNC220
            ["bash", "-c", f'exec "$@" 3<&{kept[0]}', "bash", *serve],
            cwd=daemon.directory,
            env=programs.environment(),
            pass_fds=kept,
        ) as process:
            later = Client(daemon, "h:1")
            later._place = f"{epoch}.1"
            task = asyncio.create_task(later.live())
            await later.until(lambda client: len(client.log) == 2)
            assert (later.log, later.resumed) == (["2", "3"], ["full"])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0


@pytest.mark.slow
async def test_a_hub_that_hangs_is_replaced() -> None:
    with Daemon(ROOM, "--worker-timeout", "1", target="application:app", workers=2) as daemon:
        async with members(daemon, "h:1", 2) as clients:
            stopped = hub(daemon)
            daemon.signal(signal.SIGSTOP, stopped)
            publisher = Publisher(daemon, "h:1")
            await publisher.publish()
            await publisher.close()
            for client in clients:
                await client.until(lambda client: client.log == ["1"])
            assert hub(daemon) != stopped
            assert f"hub (pid {stopped}) has hung" in daemon.log


@pytest.mark.slow
async def test_a_hub_that_is_killed_while_workers_drain_is_replaced() -> None:
    """They may have something to publish."""
    with Daemon(ROOM, target="application:app", workers=2, drain=10) as daemon:
        async with members(daemon, "h:1", 4):
            first = hub(daemon)
            daemon.signal(signal.SIGTERM)
            wait_until(lambda: "stopping" in daemon.log, "the stop")
            daemon.signal(signal.SIGKILL, first)
            wait_until(lambda: daemon.log.count("the journal has") == 2, "another hub")
            assert await asyncio.to_thread(daemon.wait) == 0


async def test_the_hub_ends_after_the_workers() -> None:
    with Daemon(ROOM, target="application:app", workers=2, drain=0.2) as daemon:
        async with members(daemon, "h:1", 2):
            assert await asyncio.to_thread(daemon.stop) == 0
        ends = [line for line in daemon.log.splitlines() if "exited with status 0" in line]
        assert [line.split()[3] for line in ends[-2:]] == ["hub", "admin"]


async def test_a_signal_to_every_process_ends_the_hub_after_the_workers() -> None:
    """As systemd's KillMode=control-group sends it: no worker is without a hub while it drains."""
    with Daemon(ROOM, target="application:app", workers=2, drain=0.5) as daemon:
        async with members(daemon, "h:1", 4):
            daemon.signal(signal.SIGSTOP)
            for pid in daemon.titles():
                daemon.signal(signal.SIGTERM, pid)
            daemon.signal(signal.SIGCONT)
            assert await asyncio.to_thread(daemon.wait) == 0
        assert [line for line in daemon.log.splitlines() if " WARNING " in line or " ERROR " in line] == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("letters.txt", "letters.txt has something else in it"), ("nowhere/journal", "No such file"), (".", "directory")],
)
def test_a_file_that_can_be_no_journal_ends_the_daemon_with_2(name: str, complaint: str, tmp_path: Path) -> None:
    letters = tmp_path / "letters.txt"
    letters.write_text("Dear Ada")
    with Daemon(ROOM, "--bus", f"local://{tmp_path}/{name}", target="application:app", wait=False) as daemon:
        assert daemon.wait() == 2
        assert f"--bus local://{tmp_path}/{name} is not allowed" in daemon.log
        assert complaint in daemon.log
    assert letters.read_text() == "Dear Ada"


def test_a_file_that_has_become_something_else_is_left_alone(tmp_path: Path) -> None:
    letters = tmp_path / "letters.txt"
    application = f"import pathlib; pathlib.Path({str(letters)!r}).write_text('Dear Ada')\n" + ROOM.read_text()
    with Daemon(application, "--bus", f"local://{letters}", target="application:app", wait=False) as daemon:
        wait_until(lambda: f"{letters} has something else in it" in daemon.log, "the complaint")
    assert letters.read_text() == "Dear Ada"
