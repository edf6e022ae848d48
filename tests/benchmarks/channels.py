"""Channels over two workers, by one engine and another: ``python -m tests.benchmarks.channels``.

    --bus URL,...   the engines (local:// and a redis-server of its own)
    --rounds N      of each engine, in turn (5)
    --seconds S     of each measurement (2)
    --members N     in the large channel, half of them on each worker (2,000)

Of a daemon with two workers, in each round:

    latency     a message published by one worker, until a client of the other has its frame, 500 times a second
    publish     processor time of workers and engine for a message that is published as fast as it goes and given to a
                listener on each worker; and how many a second that were
    delivery    processor time of workers and engine for a frame to one of the members of the large channel, over the
                same of a plain broadcast in each worker

`plain` channels have no history. The client is in this process and counts for nothing. What must not live here: what an
engine promises (tests/bus/), one server's messages (compare.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.harness import Daemon, free_port, wait_until
from tests.support.rawclient import RawClient
from tests.support.wire import frame

PAYLOAD = 128
RATE = 500
KINDS = ("plain", "history")
TICKS = os.sysconf("SC_CLK_TCK")

APPLICATION = """
import asyncio
import os
import time

import tidegate

PAYLOAD = 128
BATCH = 50
counts = {}
connections = set()


async def listen(channel):
    async with tidegate.subscribe(channel) as messages:
        async for message in messages:
            counts[channel] = counts.get(channel, 0) + 1


def stamp():
    return str(time.monotonic_ns()).ljust(PAYLOAD)


async def pace(channel, count, interval):
    clock = asyncio.get_running_loop().time
    due = clock()
    for _ in range(count):
        due += interval
        await asyncio.sleep(max(0, due - clock()))
        await tidegate.publish(channel, stamp())


async def handler(websocket):
    connections.add(websocket)
    await websocket.send(str(os.getpid()))
    tasks = []
    try:
        async for command in websocket:
            match command.split():
                case ["join", channel]:
                    await websocket.join(channel)
                    connections.discard(websocket)
                    await websocket.send("joined")
                case ["listen", channel]:
                    tasks.append(asyncio.create_task(listen(channel)))
                    await websocket.send("listens")
                case ["count", channel]:
                    await websocket.send(str(counts.get(channel, 0)))
                case ["pace", channel, count, interval]:
                    await pace(channel, int(count), float(interval))
                    await websocket.send("done")
                case ["flood", channel, seconds]:
                    end = time.monotonic() + float(seconds)
                    sent = 0
                    while time.monotonic() < end:
                        sent += BATCH
                        if channel.startswith("history:"):  # each waits until it is stored
                            await asyncio.gather(*(tidegate.publish(channel, stamp()) for _ in range(BATCH)))
                        else:
                            for _ in range(BATCH):
                                await tidegate.publish(channel, stamp())
                        await asyncio.sleep(0)
                    await websocket.send(str(sent))
                case ["broadcast", count, interval]:
                    for _ in range(int(count)):
                        tidegate.broadcast(connections - {websocket}, stamp())
                        await asyncio.sleep(float(interval))
                    await websocket.send("done")
    finally:
        connections.discard(websocket)
        for task in tasks:
            task.cancel()


app = tidegate.App(handler, channels={"history:": tidegate.Channel(history=100, keep=60)})
"""


class Client(RawClient):
    """A client of a daemon; `worker` is the process id of its worker."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon.port)
        self.open()
        self.worker = int(self.text())

    def text(self) -> str:
        """The next message."""
        return self.frame()[1].decode()

    def ask(self, command: str) -> str:
        """Have something done, and wait until it is."""
        self.order(command)
        return self.text()

    def order(self, command: str) -> None:
        self.send(frame(command.encode(), mask=b"\0\0\0\0"))


class Engine:
    """What is measured: a daemon with its bus, whose server is a child of this process if it needs one."""

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        self.name, self.server = url.partition("://")[0], None
        if url == "redis://":
            url, self.server = start_redis(stack)
        self.daemon = stack.enter_context(
            Daemon(APPLICATION, "--bus", url, "--compression", "none", workers=2, target="application:app")
        )

    def processor(self) -> float:
        """Seconds of processors that workers, hub and server have taken."""
        pids = [pid for pid, title in self.daemon.titles().items() if "worker" in title or "hub" in title]
        if self.server is not None:
            pids.append(self.server)
        return sum(seconds_of(pid) for pid in pids)

    @contextlib.contextmanager
    def pair(self) -> Iterator[tuple[Client, Client]]:
        """Clients of two workers."""
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(Client(self.daemon))
            yield first, self.other(first.worker, stack)

    def other(self, worker: int, stack: contextlib.ExitStack) -> Client:
        """A client of another worker."""
        while True:
            client = Client(self.daemon)
            if client.worker != worker:
                return stack.enter_context(client)
            client.socket.close()

    # What is measured.

    def latency(self, kind: str, seconds: float) -> tuple[float, float]:
        """p50 and p99 in microseconds."""
        channel, count = f"{kind}:{time.monotonic_ns()}", int(seconds * RATE)
        with self.pair() as (publisher, member):
            member.ask(f"join {channel}")
            publisher.order(f"pace {channel} {count} {1 / RATE}")
            found = []
            for _ in range(count):
                sent = int(member.text())
                found.append((time.monotonic_ns() - sent) / 1e3)
            publisher.text()
        found.sort()
        return found[count // 2], found[count * 99 // 100]

    def publish(self, kind: str, seconds: float) -> tuple[float, float]:
        """Microseconds of all processors a message, and messages a second."""
        channel = f"{kind}:{time.monotonic_ns()}"
        with self.pair() as (publisher, other):
            for client in (publisher, other):
                client.ask(f"listen {channel}")
            publisher.ask(f"flood {channel} 0.2")  # the listeners are there, and everything is warm
            before, began = self.processor(), time.monotonic()
            sent = int(publisher.ask(f"flood {channel} {seconds}"))
            wait_until(lambda: self.is_quiet(channel, other), "all messages")
            took = time.monotonic() - began
            return 1e6 * (self.processor() - before) / sent, sent / took

    def is_quiet(self, channel: str, client: Client) -> bool:
        """Whether what came within a moment is nothing: those who were too slow miss some, and are told."""
        before = client.ask(f"count {channel}")
        time.sleep(0.02)
        return before == client.ask(f"count {channel}")

    def delivery(self, members: int, seconds: float) -> tuple[float, float]:
        """Microseconds of all processors for a frame to one of many members: of a channel, of plain broadcasts."""
        channel, count = f"plain:{time.monotonic_ns()}", int(seconds * 50)
        with contextlib.ExitStack() as stack:
            first, second = stack.enter_context(self.pair())
            audience = balanced(self, members, (first.worker, second.worker), stack)
            sink = Sink(audience)
            before = self.processor()
            for client in (first, second):
                client.order(f"broadcast {count} 0.02")
            sink.read(members * count)
            plain = self.processor() - before
            for client in (first, second):
                client.text()
            for client in audience:
                client.ask(f"join {channel}")
            before = self.processor()
            first.order(f"pace {channel} {count} 0.02")
            sink.read(members * count)
            joined = self.processor() - before
            first.text()
        return tuple(1e6 * took / (members * count) for took in (joined, plain))  # type: ignore[return-value]


class Sink:
    """Reads what clients are sent, without looking at it."""

    def __init__(self, clients: list[Client]) -> None:
        self.selector = selectors.EpollSelector()
        self.clients = clients

    def read(self, messages: int) -> None:
        """Read so many messages of PAYLOAD bytes, each in a frame with a head of four bytes."""
        size = messages * (PAYLOAD + 4)
        for client in self.clients:
            client.socket.setblocking(False)
            self.selector.register(client.socket, selectors.EVENT_READ)
        while size > 0:
            for key, _ in self.selector.select(10.0):
                size -= len(key.fileobj.recv(65536))  # type: ignore[union-attr]
        for client in self.clients:
            self.selector.unregister(client.socket)
            client.socket.setblocking(True)


def balanced(engine: Engine, members: int, workers: tuple[int, int], stack: contextlib.ExitStack) -> list[Client]:
    """So many clients, half of them of each worker."""
    room = dict.fromkeys(workers, members // 2)
    found = []
    while any(room.values()):
        client = Client(engine.daemon)
        if room[client.worker]:
            room[client.worker] -= 1
            found.append(stack.enter_context(client))
        else:
            client.socket.close()
    return found


def seconds_of(pid: int) -> float:
    """Seconds of processors that a process has taken, to the nanosecond where the kernel counts them so."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def start_redis(stack: contextlib.ExitStack) -> tuple[str, int]:
    """The URL and the process id of a redis-server that keeps nothing, for a while."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: install the package redis-server, or name other engines by --bus")
    port = free_port()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(process.terminate)
    return f"redis://127.0.0.1:{port}", process.pid


def main() -> None:
    """Measure each engine in turn, round by round, and print the medians."""
    parser = argparse.ArgumentParser(description="channels over two workers, by one engine and another")
    parser.add_argument("--bus", default="local://,redis://")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--members", type=int, default=2000)
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    engines = arguments.bus.split(",")
    for _ in range(arguments.rounds):
        for url in engines:
            with contextlib.ExitStack() as stack:
                engine = Engine(url, stack)
                for kind in KINDS:
                    p50, p99 = engine.latency(kind, arguments.seconds)
                    cost, rate = engine.publish(kind, arguments.seconds)
                    for title, value in (
                        (f"latency p50, {kind}, us", p50),
                        (f"latency p99, {kind}, us", p99),
                        (f"publish, {kind}, us", cost),
                        (f"publish, {kind}, a second", rate),
                    ):
                        found.setdefault((title, url), []).append(value)
                joined, plain = engine.delivery(arguments.members, arguments.seconds)
                found.setdefault(("delivery, us", url), []).append(joined)
                found.setdefault(("delivery over plain broadcast", url), []).append(joined / plain)
    print("| |", " | ".join(engines), "|")
    print("| --- |", " | ".join("---:" for _ in engines), "|")
    for title in dict.fromkeys(title for title, _ in found):
        medians = [statistics.median(found[title, url]) for url in engines]
        print(f"| {title} |", " | ".join(f"{median:,.4g}" for median in medians), "|")


if __name__ == "__main__":
    main()
