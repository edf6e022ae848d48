"""What becomes of a daemon whose processes end without an order, or never begin: who is replaced, and with what status
the whole ends.

What must not live here: ends on a signal to the daemon (test_stop.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.support.harness import APPLICATIONS, ECHO, Daemon, Metrics, wait_until
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these


class Callers:
    """Clients that connect at a steady rate, say a word, hear it, and leave; every other one stays."""

    def __init__(self, daemon: Daemon, rate: float) -> None:
        self.daemon, self.rate = daemon, rate
        self.results: Counter[str] = Counter()
        self.lost_to: Counter[int] = Counter()
        self.nobodys = 0  # calls under way whose worker has not said yet who it is
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, seconds: float) -> None:
        """Call for so long, then wait for the last of them."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(int(seconds * self.rate)):
            await asyncio.sleep(start + number / self.rate - loop.time())
            self._tasks.append(asyncio.create_task(self._call(stay=1.0 if number % 2 else 0.0)))
        await asyncio.gather(*self._tasks)

    async def _call(self, stay: float) -> None:
        worker = 0
        self.nobodys += 1
        try:
            async with connect(
                self.daemon.uri, compression=None, ping_interval=None, proxy=None, open_timeout=PATIENCE
            ) as client:
                worker = int(await client.recv())
                self.nobodys -= 1
                await client.send("hello")
                assert await client.recv() == "hello"
                await asyncio.sleep(stay)
                await client.send("hello")
                assert await client.recv() == "hello"
            self.results["served"] += 1
        except (ConnectionClosed, InvalidMessage, OSError, EOFError):
            self.results["lost"] += 1
            self.lost_to[worker] += 1
            self.nobodys -= not worker


def counters(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample that only ever grows."""
    return {
        (name, tuple(sorted(labels.items()))): value
        for name, labels, value in metrics.samples
        if name.endswith(("_total", "_count", "_sum", "_bucket"))
    }


@pytest.mark.slow
async def test_a_killed_worker_costs_nobody_but_its_own_clients() -> None:
    with Daemon(APPLICATIONS / "names_its_process.py", workers=2) as daemon:
        callers = Callers(daemon, rate=50)
        calling = asyncio.create_task(callers.run(5))
        await asyncio.sleep(1.5)
        victim, other = daemon.workers()
        before = counters(await asyncio.to_thread(daemon.metrics))
        nobodys = callers.nobodys
        daemon.signal(signal.SIGKILL, victim)
        await asyncio.to_thread(wait_until, lambda: len(set(daemon.workers()) - {victim, other}) == 1, "a successor")
        between = counters(await asyncio.to_thread(daemon.metrics))
        await calling
        after = counters(await asyncio.to_thread(daemon.metrics))
        # Whoever failed had been accepted: by the victim, or by one that had not had the time to say who it was.
        assert daemon.metrics().total("tidegate_connections_accepted_total") == callers.results.total()
        assert set(callers.lost_to) <= {victim, 0}
        assert callers.lost_to[0] <= nobodys
        assert callers.results["served"] > 200
        for earlier, later in ((before, between), (between, after)):
            assert {key: (value, later.get(key)) for key, value in earlier.items() if later.get(key, -1) < value} == {}
        assert daemon.metrics().total("tidegate_worker_exits_total", worker=0) == 1
        assert daemon.metrics().total("tidegate_worker_spawns_total", worker=0) == 2
        assert daemon.get("/readyz")[0] == 200
        assert await asyncio.to_thread(daemon.stop) == 0
        assert "was killed by signal 9 (SIGKILL)" in daemon.log


def test_a_killed_admin_process_is_replaced() -> None:
    with Daemon(ECHO) as daemon:
        (admin,) = (pid for pid, title in daemon.titles().items() if title.startswith("tidegate: admin"))
        workers = daemon.workers()
        daemon.signal(signal.SIGKILL, admin)
        wait_until(lambda: daemon.get("/readyz")[0] == 200 and admin not in daemon.titles(), "another admin process")
        assert daemon.workers() == workers
        assert daemon.stop() == 0


async def test_a_worker_that_is_told_to_end_by_somebody_else_drains_and_is_replaced() -> None:
    with Daemon(APPLICATIONS / "names_its_process.py", "--drain", "0", workers=1) as daemon:
        (worker,) = daemon.workers()
        async with connect(daemon.uri, proxy=None) as client:
            assert int(await client.recv()) == worker
            daemon.signal(signal.SIGTERM, worker)
            await client.wait_closed()
            assert client.close_code == 1001
            async with connect(daemon.uri, proxy=None) as client:
                assert int(await client.recv()) != worker
        assert daemon.poll() is None
        assert daemon.stop() == 0


@pytest.mark.parametrize("status", [0, 3])
async def test_a_worker_that_vanishes_is_a_crash_whatever_its_status(status: int) -> None:
    source = f"""
        import os

        async def handler(websocket):
            await websocket.recv()
            os._exit({status})
    """
    with Daemon(source) as daemon:
        async with connect(daemon.uri, proxy=None) as client:
            await client.send("end")
            await client.wait_closed()
        await asyncio.to_thread(daemon.wait_metric, "tidegate_worker_exits_total", 1, reason="crash")
        assert daemon.metrics().total("tidegate_worker_exits_total") == 1
        assert daemon.stop() == 0
        assert f"exited with status {status}: a replacement starts at once" in daemon.log


@pytest.mark.parametrize(
    "state", ["serves", pytest.param("blocked", marks=pytest.mark.slow), pytest.param("boots", marks=pytest.mark.slow)]
)
async def test_nobody_stays_behind_a_supervisor_that_was_killed(state: str) -> None:
    """With the port, for ever: a worker whose event loop does not turn cannot notice that it is alone."""
    source = """
        import os, time

        if os.path.exists("boots"):
            time.sleep(1000)

        async def handler(websocket):
            async for message in websocket:
                while message == "blocked":
                    pass
                await websocket.send(message)
    """
    with Daemon(source, "--graceful-timeout", "0.5", workers=2) as daemon:
        if state == "boots":
            (daemon.directory / state).touch()
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: len(daemon.workers()) == 3, "a successor that boots")
        async with connect(daemon.uri, proxy=None, ping_interval=None, close_timeout=0.1) as client:
            await client.send(state)
            if state == "blocked":
                await asyncio.to_thread(
                    wait_until,
                    lambda: any(age > 0.5 for _, age in daemon.metrics().select("tidegate_heartbeat_age_seconds")),
                    "a worker that hangs",
                    30,
                )
            daemon.signal(signal.SIGKILL)
            await client.wait_closed()
            assert client.close_code == (1006 if state == "blocked" else 1001)
        await asyncio.to_thread(wait_until, lambda: not daemon.titles(), "the end of all")


BROKEN = {
    "import": ("import no_such_module", "handler", "No module named 'no_such_module'"),
    "raises": ("1 / 0\n", "handler", "ZeroDivisionError"),
    "syntax": ("async def handler(\n", "handler", "SyntaxError"),
    "exit": ("raise SystemExit('bye')\n", "handler", "__main__"),
    "attribute": ("async def handler(websocket): ...", "handlers", "did you mean handler?"),
    "kind": ("handler = 3", "handler", "handler is not an application"),
    "signature": ("async def handler(websocket, room, user, last): ...", "handler", "must take the connection alone"),
    "lifespan": (
        """
        from contextlib import asynccontextmanager
        from tidegate import App

        @asynccontextmanager
        async def lifespan():
            raise RuntimeError("no database")
            yield

        async def handler(websocket): ...

        app = App(handler, lifespan=lifespan)
        """,
        "app",
        "no database",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_application_that_cannot_be_loaded_ends_the_daemon_with_3(broken: str) -> None:
    source, attribute, words = BROKEN[broken]
    with Daemon(source, target=f"application:{attribute}", workers=2, wait=False) as daemon:
        assert daemon.wait() == 3
        assert words in daemon.log
        assert f"application:{attribute}" in daemon.log
        assert daemon.log.count("Traceback") <= 1
        for ours in ("tidegate/worker", "importlib"):
            assert ours not in daemon.log


def test_a_module_that_does_not_exist_ends_the_daemon_with_3() -> None:
    with Daemon(ECHO, target="application:handler", wait=False) as daemon:
        assert daemon.wait_ready() is None
    with Daemon(None, target="aplication:handler", wait=False) as daemon:
        (daemon.directory / "application.py").write_text("")
        assert daemon.wait() == 3
        assert "there is no module aplication" in daemon.log


def test_workers_that_always_crash_before_they_are_ready_end_the_daemon_with_1() -> None:
    with Daemon("import os; os._exit(0)", workers=2, wait=False) as daemon:
        assert daemon.wait() == 1
        assert "no worker has become ready in 3 attempts" in daemon.log


@pytest.mark.slow
def test_workers_that_are_never_ready_end_the_daemon_with_1_and_show_where_they_hang() -> None:
    with Daemon("import time; time.sleep(1000)", "--boot-timeout", "3", workers=2, wait=False) as daemon:
        assert daemon.wait() == 1
        assert "application.py" in daemon.log  # in the traceback that faulthandler left
        assert "within 3 s" in daemon.log


@pytest.mark.slow
def test_once_a_worker_has_served_the_daemon_stays_up() -> None:
    """A worker crashes at once whenever the file is there; without it, all is well again."""
    source = """
        import os

        if os.path.exists("broken"):
            os.kill(os.getpid(), 9)

        async def handler(websocket):
            async for message in websocket:
                await websocket.send(message)
    """
    with Daemon(source) as daemon:
        (daemon.directory / "broken").touch()
        daemon.signal(signal.SIGKILL, daemon.workers()[0])
        wait_until(lambda: daemon.metrics().total("tidegate_worker_exits_total") >= 5, "a crash loop")
        assert daemon.poll() is None
        assert daemon.get("/readyz")[0] == 503
        (daemon.directory / "broken").unlink()
        wait_until(lambda: daemon.get("/readyz")[0] == 200, "it serves again")
        assert daemon.stop() == 0


def test_a_crash_loop_that_is_stopped_ends_with_0() -> None:
    source = """
        import os

        if os.path.exists("broken"):
            os._exit(5)

        async def handler(websocket): ...
    """
    with Daemon(source, workers=2) as daemon:
        (daemon.directory / "broken").touch()
        for worker in daemon.workers():
            daemon.signal(signal.SIGKILL, worker)
        wait_until(lambda: daemon.metrics().total("tidegate_worker_exits_total") >= 6, "a crash loop")
        assert daemon.stop() == 0


def test_file_descriptors_are_where_they_were_after_many_deaths() -> None:
    with Daemon(ECHO) as daemon:
        supervisor = psutil.Process(daemon.pid)
        before = supervisor.num_fds()
        for deaths in range(1, 5):
            (worker,) = daemon.workers()
            os.kill(worker, signal.SIGKILL)
            daemon.wait_metric("tidegate_worker_exits_total", deaths)
            wait_until(lambda: daemon.metrics().total("tidegate_worker_stage", stage="ready") == 1, "a successor")
        assert supervisor.num_fds() == before
        assert daemon.stop() == 0
