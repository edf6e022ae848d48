"""A daemon with more and more connections: ``python -m tests.benchmarks.scale``.

    --connections A,B   how many (100, 1,000, 10,000, 18,700: as 20,000 descriptors allow)
    --workers A,B       of how many workers (1, 2)
    --rate R            messages a second, of all connections together (5,000)
    --seconds S         how long that is measured (10)

Every connection echoes, is pinged every five seconds, and compresses nothing; /metrics is scraped each second. At the
end the daemon stops, with a drain of five seconds. A line has what one message takes of the workers' processors, what
the kernel counts for a connection's memory, and the lag of the event loops: a timer's delay, as the daemon's own
histogram has it, while messages come to open connections and during the drain.

What must not live here: load (tidegate bench), other servers (compare.py).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from typing import NamedTuple

from tests.support.harness import Daemon, Metrics
from tests.support.patience import PATIENCE

ECHO = """
async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)
"""
LAG = "tidegate_event_loop_lag_seconds"
DRAIN = 5.0


def lag(before: Metrics, after: Metrics, quantile: float = 0.99) -> float:
    """Seconds that so many of the delays between two scrapes did not exceed: the bound of a bucket."""
    counts: dict[float, float] = {}
    for sign, scrape in ((-1, before), (1, after)):
        for labels, value in scrape.select(f"{LAG}_bucket"):
            bound = float(labels["le"])
            counts[bound] = counts.get(bound, 0) + sign * value
    wanted = quantile * counts[math.inf]
    return min(bound for bound, count in counts.items() if count >= wanted)


class Line(NamedTuple):
    """What is printed of a daemon."""

    connections: int
    workers: int
    cost: float  # microseconds of the workers' processors, a message
    memory: float  # KiB of the workers, a connection
    latency: float  # p99 in milliseconds, as clients see it
    lag: float  # p99 in milliseconds, under load
    lag_of_the_drain: float
    drained: float  # seconds from SIGTERM to the end
    status: int

    def __str__(self) -> str:
        found = f"{self.connections:,} | {self.workers} | {self.cost:.1f} us | {self.memory:.1f} KiB"
        times = f"{self.latency:.1f} ms | {self.lag:g} ms | {self.lag_of_the_drain:g} ms | {self.drained:.1f} s"
        return f"| {found} | {times} |"


HEAD = """\
| connections | workers | a message | a connection | latency p99 | lag p99 | lag p99, drain | drained in |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


class Scrapes:
    """The answers of /metrics, asked for every second until the daemon has ended: the last one, and the first after
    which all connections were open."""

    def __init__(self, daemon: Daemon, connections: int) -> None:
        self.daemon, self.last, self.connections = daemon, daemon.metrics(), connections
        self.first: Metrics | None = None
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        while True:
            status, text = self.daemon.get("/metrics")
            if status != 200:
                return
            self.last = Metrics(text)
            if self.first is None and self.last.total("tidegate_connections", state="open") == self.connections:
                self.first = self.last
            time.sleep(1.0)


def measure(connections: int, workers: int, rate: float, seconds: float) -> Line:
    """Have a daemon serve so many, and stop it."""
    options = ("--ping-interval", "5s", "--compression", "none", "--max-connections", "none")
    with Daemon(ECHO, *options, workers=workers, drain=DRAIN) as daemon:
        scrapes = Scrapes(daemon, connections)
        load = [sys.executable, "-m", "tidegate", "bench", daemon.uri, "--connections", str(connections)]
        load += ["--rate", str(rate), "--duration", str(seconds), "--warm-up", "2", "--ramp-up", "3", "--json", "-"]
        load += ["--metrics", f"http://{daemon.admin}/metrics"]
        done = subprocess.run(load, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr or done.stdout[:2000])
        under_load = scrapes.last
        assert scrapes.first is not None
        (found,) = json.loads(done.stdout)["rounds"]
        # And again, with nobody who sends: the clients wait for the daemon's close frames.
        idle = [*load[:6], str(connections), "--idle", "--ramp-up", "3", "--duration", "60", "--json", "-"]
        clients = subprocess.Popen(idle, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        limit = time.monotonic() + PATIENCE
        while daemon.metrics().total("tidegate_connections", state="open") < connections:
            assert time.monotonic() < limit
            time.sleep(0.5)
        idle_from = daemon.metrics()
        began = time.monotonic()
        status = daemon.stop()
        drained = time.monotonic() - began
        clients.terminate()
        clients.communicate()
        return Line(
            connections,
            workers,
            1e6 * found["server"]["cpu_per_message"],
            found["server"]["memory_per_connection"] / 1024,
            1e3 * found["latency"]["p99"],
            1e3 * lag(scrapes.first, under_load),
            1e3 * lag(idle_from, scrapes.last),
            drained,
            status,
        )


def main() -> None:
    """Measure, and print each line when it is there."""
    parser = argparse.ArgumentParser(description="a daemon with more and more connections")
    parser.add_argument("--connections", default="100,1000,10000,18700")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rate", type=float, default=5000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    print(HEAD)
    for connections in map(int, arguments.connections.split(",")):
        for workers in map(int, arguments.workers.split(",")):
            print(measure(connections, workers, arguments.rate, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
