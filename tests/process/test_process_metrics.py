"""What /metrics and /status say of processes, queues and operations, through what happens to a real daemon.

What must not live here: what workers count (tests/metrics/test_daemon.py).
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.harness import ECHO, Daemon, Metrics, wait_until
from tests.support.patience import PATIENCE

QUICK = ("--settle", "0.1")
BURNS = """
    import time
    while time.process_time() < 1.0:
        pass
    async def handler(websocket):
        async for message in websocket:
            await websocket.send(message)
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(ECHO, *QUICK, workers=2) as daemon:
        yield daemon


def wait_metrics(daemon: Daemon, condition: Callable[[Metrics], bool], what: str) -> Metrics:
    """A scrape that is as it should be."""

    def found() -> Metrics | None:
        metrics = daemon.metrics()
        return metrics if condition(metrics) else None

    metrics = wait_until(found, what)
    assert metrics is not None
    return metrics


def stop(daemon: Daemon) -> int:
    """Stop the one worker, so that it accepts nobody."""
    (worker,) = daemon.workers()
    daemon.signal(signal.SIGSTOP, worker)
    wait_until(lambda: psutil.Process(worker).status() == psutil.STATUS_STOPPED, "a stopped worker")
    return worker


def test_every_process_is_there(daemon: Daemon) -> None:
    titles = {pid: title.removeprefix("tidegate: ") for pid, title in daemon.titles().items()}
    pids = {title.removeprefix("worker "): pid for pid, title in titles.items()}
    assert sorted(pids) == ["0", "1", "admin", "supervisor"]
    metrics = daemon.metrics()
    status = json.loads(daemon.get("/status")[1])
    for label, pid in pids.items():
        process = psutil.Process(pid)
        (memory,) = metrics.select("tidegate_process_resident_memory_bytes", worker=label)
        assert memory[1] == pytest.approx(process.memory_info().rss, rel=0.2)
        limit = process.rlimit(resource.RLIMIT_NOFILE)[0]
        assert metrics.total("tidegate_process_max_fds", worker=label) == limit
        seconds = metrics.total("tidegate_process_cpu_seconds_total", worker=label)
        assert 0 <= seconds <= sum(process.cpu_times()[:2]) + 0.05
        if label not in ("0", "1"):
            continue  # who are busy answering
        assert metrics.total("tidegate_process_open_fds", worker=label) == process.num_fds()
        (worker,) = status["slots"][int(label)]["workers"]
        assert worker["resident_memory_bytes"] == pytest.approx(process.memory_info().rss, rel=0.2)
        assert (worker["open_fds"], worker["max_fds"]) == (process.num_fds(), limit)
        assert 0 <= worker["cpu_seconds"] <= sum(process.cpu_times()[:2]) + 0.05  # counted in ticks of 10 ms
    assert metrics.total("tidegate_last_reload_success") == 1
    assert metrics.total("tidegate_last_reload_timestamp_seconds") == metrics.total("tidegate_start_time_seconds")
    assert status["last_reload"] is None


def test_reloads(daemon: Daemon) -> None:
    """Reloads are counted and timed by their result."""
    began = time.time()
    daemon.signal(signal.SIGHUP)
    metrics = wait_metrics(
        daemon, lambda found: found.total("tidegate_drain_duration_seconds_count", result="success") == 2, "two drains"
    )
    assert metrics.total("tidegate_reloads_total", result="success") == 1
    assert metrics.total("tidegate_reload_duration_seconds_count", result="success") == 1
    assert 0.1 <= metrics.total("tidegate_reload_duration_seconds_sum") < 60
    assert metrics.total("tidegate_last_reload_success") == 1
    assert began <= metrics.total("tidegate_last_reload_timestamp_seconds") <= time.time()

    (daemon.directory / "application.py").write_text("raise OSError('no database')")
    daemon.signal(signal.SIGHUP)
    metrics = wait_metrics(daemon, lambda found: not found.total("tidegate_last_reload_success"), "a failure")
    assert metrics.total("tidegate_reloads_total", result="success") == 1
    assert metrics.total("tidegate_reloads_total", result="failure") == 1
    assert metrics.total("tidegate_reload_duration_seconds_count", result="failure") == 1
    assert metrics.total("tidegate_drain_duration_seconds_count") == 2
    status = json.loads(daemon.get("/status")[1])
    assert status["reloads"] == {"success": 1, "failure": 1}
    assert not status["last_reload"]["succeeded"]
    assert daemon.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGKILL, signal.SIGUSR2], ids=["reload", "crash", "upgrade"])
def test_processor_time_never_shrinks(how: signal.Signals) -> None:
    """Whoever ends has left it in the slot: at least the second that each worker takes at its start."""
    with Daemon(BURNS, *QUICK, workers=2) as daemon:
        last: dict[str, float] = {}

        def grown(metrics: Metrics) -> bool:
            for labels, value in metrics.select("tidegate_process_cpu_seconds_total"):
                if labels["worker"] != "admin":  # which an upgrade replaces while it answers
                    assert value >= last.get(labels["worker"], 0.0), labels
                    last[labels["worker"]] = value
            return last["0"] >= 2 and (last["1"] >= 2 or how == signal.SIGKILL)

        assert not grown(daemon.metrics())
        daemon.signal(how, daemon.workers()[0] if how == signal.SIGKILL else None)
        wait_metrics(daemon, grown, "the time of two workers in a slot")
        assert last["supervisor"] < 2
        wait_metrics(
            daemon, lambda found: grown(found) and found.total("tidegate_worker_stage", stage="ready") == 2, "two"
        )


class Scraper(threading.Thread):
    """Scrapes all the time, and remembers what has gone back or away."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self._daemon_process = daemon
        self.wrong: list[tuple[str, float, float | None]] = []
        self.scrapes = 0
        self._done = threading.Event()

    def __enter__(self) -> Scraper:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        before: dict[str, float] = {}
        while not self._done.is_set():
            status, text = self._daemon_process.get("/metrics")
            if status != 200:
                continue  # nobody answers for a moment, when the admin process was killed
            now = {
                f"{name}{labels}": value
                for name, labels, value in Metrics(text).samples
                if name.endswith(("_total", "_count", "_sum", "_bucket"))
            }
            for name, value in before.items():
                if now.get(name, -1.0) < value:
                    self.wrong.append((name, value, now.get(name)))
            before = now
            self.scrapes += 1


@pytest.mark.slow
def test_no_counter_ever_goes_back() -> None:
    """Whoever ends or takes over: a rate that is computed from them would leap."""
    with Daemon(BURNS, *QUICK, workers=2) as daemon, Scraper(daemon) as scraper:

        def admin() -> int:
            return next(pid for pid, title in daemon.titles().items() if title.startswith("tidegate: admin"))

        def steady(what: str) -> None:
            wait_until(lambda: "tidegate_ready 1" in daemon.get("/metrics")[1], f"ready after {what}")
            seen = scraper.scrapes
            wait_until(lambda: scraper.scrapes > seen + 2, "some scrapes")

        for number in (signal.SIGKILL, signal.SIGTERM):
            for victim in (daemon.workers()[0], admin()):
                daemon.signal(number, victim)
                wait_until(lambda victim=victim: victim not in daemon.titles(), "its end")
                steady(f"{number} to {victim}")
        for number, words in (
            (signal.SIGUSR2, "has taken over from"),
            (signal.SIGHUP, "reload: generation"),
            (signal.SIGTTIN, "scale 3: 3 workers"),
            (signal.SIGTTOU, "scale 2: 2 workers"),
            (signal.SIGTTIN, "scale 3: 3 workers"),
            (signal.SIGUSR2, "has taken over from"),
        ):
            known, ended = daemon.log.count(words), daemon.log.count("has ended")
            daemon.signal(number)
            wait_until(lambda words=words, known=known: daemon.log.count(words) > known, words)
            if number in (signal.SIGUSR2, signal.SIGHUP):
                wait_until(lambda ended=ended: daemon.log.count("has ended") > ended, "the new generation")
            steady(words)
        assert scraper.wrong == []
        assert scraper.scrapes > 30
        assert daemon.stop() == 0


@pytest.mark.slow
def test_slots_come_and_go() -> None:
    with Daemon(ECHO, *QUICK) as daemon:
        daemon.signal(signal.SIGTTIN)
        metrics = wait_metrics(
            daemon, lambda found: found.total("tidegate_accept_queue_limit", worker=1) > 0, "a queue of the second slot"
        )
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert [limit for _, limit in metrics.select("tidegate_accept_queue_limit")] == [min(4096, most)] * 2
        wait_metrics(
            daemon, lambda found: found.total("tidegate_process_open_fds", worker=1) > 0, "a worker in the second slot"
        )
        daemon.signal(signal.SIGTTOU)
        metrics = wait_metrics(
            daemon, lambda found: not list(found.select("tidegate_accept_queue_limit", worker=1)), "one slot"
        )
        assert not list(metrics.select("tidegate_process_resident_memory_bytes", worker=1))
        assert metrics.total("tidegate_process_cpu_seconds_total", worker=1) > 0
        assert metrics.total("tidegate_drain_duration_seconds_count", result="success") == 1
        assert daemon.stop() == 0


def test_a_worker_that_hangs_can_be_seen_and_so_can_its_queue() -> None:
    with Daemon(ECHO) as daemon:
        worker = stop(daemon)
        clients = [socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) for _ in range(5)]
        metrics = wait_metrics(
            daemon, lambda found: found.total("tidegate_accept_queue_length", worker=0) == 5, "five in the queue"
        )
        assert metrics.total("tidegate_process_open_fds", worker=0) == psutil.Process(worker).num_fds()
        assert json.loads(daemon.get("/status")[1])["slots"][0]["accept_queue"]["length"] == 5
        daemon.signal(signal.SIGCONT, worker)
        wait_metrics(daemon, lambda found: found.total("tidegate_accept_queue_length", worker=0) == 0, "nobody")
        for client in clients:
            client.close()
        assert daemon.stop() == 0


async def test_a_queue_that_is_full() -> None:
    with Daemon(ECHO, "--backlog", "1") as daemon:
        worker = await asyncio.to_thread(stop, daemon)
        before = await asyncio.to_thread(daemon.metrics)
        clients = []
        for _ in range(4):  # one more than the backlog fits
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", daemon.port))
            clients.append(client)

        def dropped(found: Metrics) -> bool:
            names = ("tidegate_listen_overflows_total", "tidegate_listen_drops_total")
            return all(found.total(name) >= before.total(name) + 2 for name in names)

        await asyncio.to_thread(wait_metrics, daemon, dropped, "two connections that were dropped")
        daemon.signal(signal.SIGCONT, worker)
        for client in clients:
            client.close()


def test_nobody_tells_of_a_unix_socket() -> None:
    with Daemon(ECHO, "--bind", "unix:socket", workers=2) as daemon:
        metrics = wait_metrics(
            daemon, lambda found: len(list(found.select("tidegate_accept_queue_limit"))) == 2, "two queues"
        )
        assert not list(metrics.select("tidegate_accept_queue_limit", worker="shared"))


@pytest.mark.slow
def test_a_worker_that_must_be_killed() -> None:
    options = ("--graceful-timeout", "0.2", "--worker-timeout", "none")
    with Daemon(ECHO, *QUICK, *options, drain=0.1) as daemon:
        stop(daemon)
        daemon.signal(signal.SIGHUP)
        metrics = wait_metrics(
            daemon, lambda found: found.total("tidegate_drain_duration_seconds_count", result="failure") == 1, "a kill"
        )
        assert metrics.total("tidegate_drain_duration_seconds_sum", result="failure") >= 0.2
        assert daemon.stop() == 0
