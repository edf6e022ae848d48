"""More workers and fewer of them, slots whose workers keep dying, daemons that rest: nobody is refused meanwhile.

What must not live here: steering by itself (tests/supervisor/sockets/test_reuseport.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket

import pytest

from tests.process.clients import Crowd
from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE

# Its first worker dies as it boots, as long as there is a file of that name.
MORTAL = """
    import os, setproctitle
    if os.path.exists("mortal") and setproctitle.getproctitle().endswith("worker 0"):
        os._exit(5)
    async def handler(websocket):
        async for message in websocket:
            await websocket.send(message)
"""
STRAGGLERS = 5.0


def wait_workers(daemon: Daemon, number: int) -> None:
    wait_until(lambda: len(daemon.workers()) == number, f"{number} workers")
    wait_until(lambda: daemon.metrics().total("tidegate_workers_desired") == number, f"{number} desired")


@pytest.mark.parametrize(("staying", "rate"), [(50, 50), pytest.param(300, 200, marks=pytest.mark.slow)])
async def test_more_and_fewer(staying: int, rate: int) -> None:
    with Daemon(ECHO, "--settle", "0.1", workers=2, drain=0.2) as daemon:
        async with Crowd(daemon.uri, staying=staying, rate=rate) as crowd:
            for number in range(3, 9):
                daemon.signal(signal.SIGTTIN)
                await asyncio.to_thread(wait_workers, daemon, number)
            for number in range(7, 0, -1):
                daemon.signal(signal.SIGTTOU)
                await asyncio.to_thread(wait_workers, daemon, number)
            await crowd.all_open()
            daemon.signal(signal.SIGTTOU)
            await asyncio.to_thread(wait_until, lambda: "scale 0: failed: 0 workers" in daemon.log, "a refusal")
        assert not crowd.refused
        assert set(crowd.closed) <= {1001}
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_sockets_of_slots_that_are_no_more_are_closed() -> None:
    """But not before nobody can be on the way to them."""
    with Daemon(ECHO, "--settle", "0", workers=4, drain=0) as daemon:
        sockets = len(daemon.processes()[0].net_connections("tcp"))
        async with Crowd(daemon.uri, rate=100) as crowd:
            for number in (3, 2, 1):
                daemon.signal(signal.SIGTTOU)
                await asyncio.to_thread(wait_workers, daemon, number)
            supervisor = next(process for process in daemon.processes() if process.pid == daemon.pid)
            await asyncio.to_thread(
                wait_until, lambda: len(supervisor.net_connections("tcp")) == sockets - 3, "closed sockets", 40
            )
            # Numbers may be given again.
            daemon.signal(signal.SIGTTIN)
            await asyncio.to_thread(wait_workers, daemon, 2)
        assert not crowd.refused
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_a_slot_whose_workers_keep_dying_is_steered_around() -> None:
    with Daemon(MORTAL, workers=2, drain=0) as daemon:
        (daemon.directory / "mortal").touch()
        daemon.signal(signal.SIGKILL, daemon.workers()[0])
        await asyncio.to_thread(wait_until, lambda: daemon.log.count("exited with status 5") >= 3, "deaths")
        # From now on it is waited for so long that nobody should have to.
        async with Crowd(daemon.uri, rate=100) as crowd:
            await asyncio.to_thread(wait_until, lambda: daemon.log.count("exited with status 5") >= 5, "deaths")
            (daemon.directory / "mortal").unlink()
            await asyncio.to_thread(wait_until, lambda: len(daemon.workers()) == 2, "a worker that lives")
        assert crowd.went
        assert not crowd.refused
        assert daemon.stop() == 0


async def test_its_queue_is_accepted_by_another_worker() -> None:
    """Those who wait where nobody accepts, because they came before the slot was steered around."""
    with Daemon(MORTAL, workers=2, drain=0) as daemon, contextlib.ExitStack() as stack:
        (daemon.directory / "mortal").touch()
        worker = daemon.workers()[0]
        daemon.signal(signal.SIGSTOP, worker)
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port))) for _ in range(40)]
        for sock in waiting:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        daemon.signal(signal.SIGKILL, worker)
        answered = 0
        for sock in waiting:
            sock.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionResetError):  # whom the stopped worker had accepted
                answered += sock.recv(100).startswith(b"HTTP/1.1 4")
        assert answered == len(waiting)
        stack.close()
        assert daemon.stop() == 0


async def test_a_daemon_that_rests_and_wakes() -> None:
    """SIGWINCH: connections are closed and new ones refused, but the workers stay, until a reload."""
    with Daemon(ECHO, "--settle", "0", workers=2, drain=0.2) as daemon:
        workers = daemon.workers()
        async with Crowd(daemon.uri, staying=10):
            daemon.signal(signal.SIGWINCH)
            await asyncio.to_thread(wait_until, lambda: "drain: no connection is left" in daemon.log, "rest")
        assert daemon.get("/readyz")[0] == 503
        assert daemon.workers() == workers
        async with Crowd(daemon.uri, rate=50) as crowd:
            await asyncio.to_thread(wait_until, lambda: crowd.refused, "refusals")
        assert all("HTTP 503" in refused for refused in crowd.refused)
        daemon.signal(signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: daemon.get("/readyz")[0] == 200, "readiness")
        async with Crowd(daemon.uri, staying=10) as crowd:
            assert crowd.open == 10
        assert not crowd.refused
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_balance() -> None:
    """3,000 connections that stay, over 8 workers: the fullest has at most a quarter more than the mean."""
    with Daemon(ECHO, workers=8) as daemon, contextlib.ExitStack() as stack:
        request = (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        for _ in range(3000):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            sock.sendall(request)
        daemon.wait_metric("tidegate_connections", 3000, 30, state="open")
        shares = [value for _, value in daemon.metrics().select("tidegate_connections", state="open")]
        assert len(shares) == 8
        assert max(shares) <= 1.25 * 3000 / 8, shares
        assert daemon.stop() == 0
