"""Processes that are killed, stopped, blocked or worn out: replaced in time, with a trace in the log, and nobody else
is any the worse for it.

What must not live here: who is judged by what (tests/supervisor/test_health.py), ends without a hang (test_crash.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.process.clients import Crowd
from tests.support.harness import APPLICATIONS, Daemon, wait_until
from tests.support.patience import PATIENCE

TIMEOUT = ("--worker-timeout", "2")


class Talkers:
    """Clients of one worker that talk all the time: who could not, is known."""

    def __init__(self, websockets: Sequence[ClientConnection]) -> None:
        self.websockets = websockets
        self.turns = 0

    async def talk(self) -> None:
        while True:
            for websocket in self.websockets:
                await websocket.send("hello")
                assert await asyncio.wait_for(websocket.recv(), PATIENCE) == "hello"
            self.turns += 1
            await asyncio.sleep(0.02)


async def clients_of(daemon: Daemon, pid: int, number: int) -> list[ClientConnection]:
    """So many connections to one worker."""
    found: list[ClientConnection] = []
    while len(found) < number:
        websocket = await connect(daemon.uri, compression=None, ping_interval=None, proxy=None)
        await websocket.send("who")
        if int(await websocket.recv()) == pid:
            found.append(websocket)
        else:
            await websocket.close()
    return found


@asynccontextmanager
async def undisturbed(daemon: Daemon, pid: int) -> AsyncIterator[None]:
    """Talk to a worker all the while: it must neither end nor lose anybody."""
    talkers = Talkers(await clients_of(daemon, pid, 5))
    talking = asyncio.create_task(talkers.talk())
    try:
        yield
        turns = talkers.turns
        while talkers.turns < turns + 10 and not talking.done():
            await asyncio.sleep(0.02)
        assert not talking.done(), talking.exception()
        assert pid in daemon.workers()
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        for websocket in talkers.websockets:
            await websocket.close()


def admin_of(daemon: Daemon) -> int | None:
    return next((pid for pid, title in daemon.titles().items() if title.startswith("tidegate: admin")), None)


def exits(daemon: Daemon, **labels: object) -> float:
    return daemon.metrics().total("tidegate_worker_exits_total", **labels)


async def until(condition: object, what: str, timeout: float = PATIENCE) -> None:
    await asyncio.to_thread(wait_until, condition, what, timeout)  # type: ignore[arg-type]


def replaced(daemon: Daemon, victim: int) -> bool:
    return len(daemon.workers()) == 2 and victim not in daemon.workers() and daemon.get("/readyz")[0] == 200


@pytest.mark.parametrize(
    "how", [pytest.param("sleep", marks=pytest.mark.slow), "backtrack", pytest.param("add", marks=pytest.mark.slow)]
)
@pytest.mark.slow
async def test_a_worker_that_is_blocked(how: str) -> None:
    """In a call that lets other threads run, and in such that do not."""
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT, workers=2) as daemon:
        victim, other = daemon.workers()
        async with undisturbed(daemon, other):
            (client,) = await clients_of(daemon, victim, 1)
            await client.send(how)
            await until(lambda: "its stacks follow" in daemon.log, "a warning")
            await until(lambda: f"in {how}" in daemon.log, "the stack")
            assert "is aborted" not in daemon.log
            with pytest.raises(ConnectionClosed):
                await client.recv()
            await until(lambda: replaced(daemon, victim), "a successor")
            (client,) = await clients_of(daemon, next(pid for pid in daemon.workers() if pid != other), 1)
            await client.close()
        assert exits(daemon) == exits(daemon, worker=0, reason="hung") == 1
        assert await asyncio.to_thread(daemon.stop) == 0
        assert daemon.log.count("its stacks follow") == 1
        assert daemon.log.count(f"in {how}") == 2  # in the end, too
        assert f"worker 0 (pid {victim}) was killed by signal 6 (SIGABRT), because it hung" in daemon.log


@pytest.mark.slow
async def test_a_worker_that_is_stopped() -> None:
    """It cannot show anything, nor end by itself."""
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT, workers=2) as daemon:
        victim, other = daemon.workers()
        async with undisturbed(daemon, other):
            daemon.signal(signal.SIGSTOP, victim)
            await until(lambda: replaced(daemon, victim), "a successor")
        assert exits(daemon) == exits(daemon, worker=0, reason="hung") == 1
        assert await asyncio.to_thread(daemon.stop) == 0
        assert "(it is stopped); its stacks follow" in daemon.log
        assert "SIGKILL), because it hung" in daemon.log


@pytest.mark.slow
async def test_a_worker_that_is_stopped_for_a_moment_goes_on() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", "--worker-timeout", "8", workers=1) as daemon:
        (worker,) = daemon.workers()
        async with undisturbed(daemon, worker):
            daemon.signal(signal.SIGSTOP, worker)
            await until(lambda: "its stacks follow" in daemon.log, "a warning")
            daemon.signal(signal.SIGCONT, worker)
            await until(lambda: "responds again after" in daemon.log, "it goes on")
        assert "most recent call first" in daemon.log
        assert daemon.workers() == [worker]
        assert exits(daemon) == 0
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_nobody_new_waits_for_a_worker_that_is_stopped() -> None:
    """The other accepts who is in its queue, until it goes on."""
    with Daemon(APPLICATIONS / "does_as_told.py", "--worker-timeout", "none", workers=2) as daemon:
        victim, other = daemon.workers()
        daemon.signal(signal.SIGSTOP, victim)
        clients = await asyncio.gather(*(connect(daemon.uri, proxy=None, open_timeout=PATIENCE) for _ in range(20)))
        for client in clients:
            await client.send("who")
            assert await client.recv() == str(other)
            await client.close()
        assert daemon.workers() == [victim, other]
        daemon.signal(signal.SIGCONT, victim)
        for pid in (victim, other):
            (client,) = await clients_of(daemon, pid, 1)
            await client.close()
        assert exits(daemon) == 0
        assert await asyncio.to_thread(daemon.stop) == 0


async def test_a_worker_that_is_killed() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT, workers=2) as daemon:
        victim, other = daemon.workers()
        async with undisturbed(daemon, other):
            daemon.signal(signal.SIGKILL, victim)
            await until(lambda: replaced(daemon, victim), "a successor")
        assert exits(daemon) == exits(daemon, worker=0, reason="oom_suspect") == 1
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
async def test_the_admin_process(number: int) -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT) as daemon:
        (worker,) = daemon.workers()
        admin = admin_of(daemon)
        async with undisturbed(daemon, worker):
            daemon.signal(number, admin)
            await until(lambda: admin_of(daemon) not in (admin, None), "another admin process")
            await until(lambda: daemon.get("/readyz")[0] == 200, "readiness")
        assert daemon.metrics().total("tidegate_worker_spawns_total") == 1
        assert await asyncio.to_thread(daemon.stop) == 0
        assert ("because it hung" in daemon.log) == (number == signal.SIGSTOP)


@pytest.mark.slow
async def test_a_quiet_admin_process_is_left_alone() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", "--worker-timeout", "1") as daemon:
        admin = admin_of(daemon)
        await asyncio.sleep(6)
        assert admin_of(daemon) == admin
        assert not [line for line in daemon.log.splitlines() if "admin" in line and "hangs" in line]
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_when_the_supervisor_stands_still_the_workers_serve_and_nobody_is_killed() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT, workers=2) as daemon:
        processes = set(daemon.titles())
        async with Crowd(daemon.uri, staying=10, rate=20) as crowd:
            daemon.signal(signal.SIGSTOP)
            await asyncio.sleep(5)
            daemon.signal(signal.SIGCONT)
            await asyncio.sleep(2)
        assert not crowd.refused
        assert not crowd.closed
        assert set(daemon.titles()) == processes
        assert "hang" not in daemon.log
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_when_all_of_it_stood_still_nobody_is_killed() -> None:
    """As when the machine slept, or a container was paused: the supervisor is the first to go on."""
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT, workers=2) as daemon:
        processes = set(daemon.titles())
        children = processes - {daemon.pid}
        for pid in (daemon.pid, *children):
            daemon.signal(signal.SIGSTOP, pid)
        await asyncio.sleep(5)
        daemon.signal(signal.SIGCONT)
        ticked = psutil.Process(daemon.pid).cpu_times().user
        await asyncio.sleep(0.2)  # in which it looks at them
        for pid in children:
            daemon.signal(signal.SIGCONT, pid)
        await asyncio.sleep(2)
        assert psutil.Process(daemon.pid).cpu_times().user >= ticked
        assert set(daemon.titles()) == processes
        assert "hang" not in daemon.log
        assert daemon.stop() == 0


@pytest.mark.slow
def test_the_stacks_are_in_the_file_that_has_the_logs_name_now() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", *TIMEOUT, "--log-file", "log") as daemon:
        log, moved = daemon.directory / "log", daemon.directory / "log.1"
        log.rename(moved)
        daemon.signal(signal.SIGUSR1)
        wait_until(log.exists, "another file")
        (worker,) = daemon.workers()

        async def hang() -> None:
            (client,) = await clients_of(daemon, worker, 1)
            await client.send("sleep")
            with pytest.raises(ConnectionClosed):
                await client.recv()

        asyncio.run(hang())
        assert log.read_text().count("in sleep") == 2
        assert "in sleep" not in moved.read_text()
        assert daemon.stop() == 0


@pytest.mark.slow
def test_a_daemon_ends_whose_worker_is_stopped() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", "--graceful-timeout", "1", workers=2) as daemon:
        daemon.signal(signal.SIGSTOP, daemon.workers()[0])
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_a_reload_gets_past_a_worker_that_is_stopped() -> None:
    options = ("--worker-timeout", "none", "--graceful-timeout", "1", "--settle", "0.1")
    with Daemon(APPLICATIONS / "does_as_told.py", *options, workers=2) as daemon:
        victim, _ = daemon.workers()
        async with Crowd(daemon.uri, rate=20) as crowd:
            daemon.signal(signal.SIGSTOP, victim)
            daemon.signal(signal.SIGHUP)
            await until(lambda: "generation 1 has ended" in daemon.log, "the next generation")
        assert len(daemon.workers()) == 2
        assert victim not in daemon.workers()
        assert crowd.went
        assert daemon.stop() == 0


# Recycling.


@pytest.mark.slow
async def test_workers_of_some_age_are_recycled_and_nobody_is_refused() -> None:
    with Daemon(
        APPLICATIONS / "does_as_told.py", "--max-lifetime", "2", "--settle", "0.2", workers=2, drain=0.2
    ) as daemon:
        first = daemon.workers()
        async with Crowd(daemon.uri, staying=10, rate=50) as crowd:
            await until(lambda: exits(daemon, reason="recycle_age") >= 4, "two rounds")
        assert not crowd.refused
        assert set(crowd.closed) == {1001}
        assert crowd.went > 50
        assert not set(first) & set(daemon.workers())
        assert exits(daemon) == exits(daemon, reason="recycle_age")
        assert daemon.log.count("is to be recycled: it has served for") >= 4
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_workers_of_many_connections_are_recycled() -> None:
    with Daemon(
        APPLICATIONS / "does_as_told.py", "--max-connections-served", "50", "--settle", "0.2", workers=1, drain=0.2
    ) as daemon:
        async with Crowd(daemon.uri, rate=40) as crowd:
            await until(lambda: exits(daemon, reason="recycle_connections") >= 1, "another worker")
        assert not crowd.refused
        assert exits(daemon) == exits(daemon, reason="recycle_connections")
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_a_worker_that_grows_is_recycled() -> None:
    with Daemon(APPLICATIONS / "does_as_told.py", "--max-rss", "150MiB", "--settle", "0.2", workers=2) as daemon:
        victim, other = daemon.workers()
        async with undisturbed(daemon, other):
            (client,) = await clients_of(daemon, victim, 1)
            await client.send("grow")
            await client.wait_closed()
            assert client.close_code == 1001
            await until(lambda: replaced(daemon, victim), "a successor")
        assert exits(daemon) == exits(daemon, worker=0, reason="recycle_memory") == 1
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_recycling_that_fails_leaves_the_worker_where_it_is() -> None:
    """Code that no longer starts is no reason to be without a worker, nor to try again and again."""
    source = """
        import os

        if os.path.exists("broken"):
            raise OSError("no database")

        async def handler(websocket):
            async for message in websocket:
                await websocket.send(str(os.getpid()) if message == "who" else message)
    """
    with Daemon(source, "--max-lifetime", "2") as daemon:
        (daemon.directory / "broken").touch()
        (worker,) = daemon.workers()
        async with undisturbed(daemon, worker):
            await until(lambda: "recycle: failed: worker 0" in daemon.log, "a failure")
            await asyncio.sleep(2)
        assert daemon.log.count("is to be recycled") == 1
        assert "no database" in daemon.log
        assert daemon.workers() == [worker]
        assert os.getpgid(worker)
        assert await asyncio.to_thread(daemon.stop) == 0
