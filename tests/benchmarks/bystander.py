"""What one client does to another on the same worker: ``python bystander.py [SECONDS [ATTACK ...]]``.

A steady client has 64 bytes echoed each 5 ms while an attacker sends, or does not read, as fast as it can. The worker
is alone on a processor if there are two. Prints a table, a row for each attack: quantiles of the steady client's
latency, in milliseconds, how many of its echoes came, the most memory that the worker has had, and how often the
attacker was cut off.

What must not live here: judging the result.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.support import wire
from tests.support.harness import Daemon
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tests.support.wire import frame

APP = """
    async def handler(websocket):
        path = websocket.request.path
        if path == "/send":
            while True:
                await websocket.send("x" * 100)
        elif path == "/sleep":
            await websocket.wait_closed()
        async for message in websocket:
            if path == "/echo":
                await websocket.send(message)
"""
EVERY = 0.005  # seconds between echoes
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}


def bomb(size: int) -> bytes:
    """A frame that is `size` bytes long when it is inflated."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return frame((squeeze.compress(bytes(size)) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4], 2, rsv=4)


class Attack(NamedTuple):
    """What the attacker sends again and again, to which handler, with which headers, and whether it reads."""

    data: bytes = b""
    path: str = "/sink"
    headers: dict[str, str] | None = None
    reads: bool = True


ATTACKS: dict[str, Attack] = {
    "none": Attack(),
    "messages of a byte": Attack(frame(b"a") * 40_000),
    "messages of a byte, echoed": Attack(frame(b"a") * 40_000, "/echo"),
    "pings": Attack(frame(b"", 9) * 40_000),
    "pings, pongs unread": Attack(frame(b"", 9) * 40_000, reads=False),
    "pongs": Attack(frame(b"", 10) * 40_000),
    "fragments of a byte": Attack(frame(b"a", 1, fin=False) + frame(b"a", 0, fin=False) * 40_000 + frame(b"a", 0)),
    "empty fragments": Attack(frame(b"", 1, fin=False) + frame(b"", 0, fin=False) * 40_000 + frame(b"", 0)),
    "empty messages": Attack(frame(b"") * 40_000),
    "empty compressed messages": Attack(frame(b"\x02\x00", 2, rsv=4) * 20_000, headers=DEFLATE),
    "16 final blocks a frame": Attack(frame(b"\x03\x00" * 16, 2, rsv=4) * 5_000, headers=DEFLATE),
    "bombs, 1 KiB to 1 MiB": Attack(bomb(2**20) * 250, headers=DEFLATE),
    "bombs, echoed": Attack(bomb(2**20) * 250, "/echo", DEFLATE),
    "bombs, echoed, unread": Attack(bomb(2**20) * 250, "/echo", DEFLATE, reads=False),
    "bombs to a handler that sleeps": Attack(bomb(2**20) * 250, "/sleep", DEFLATE),
    "bulk, 64 KiB": Attack(frame(bytes(2**16), 2) * 16),
    "bulk, 64 KiB, echoed": Attack(frame(bytes(2**16), 2) * 16, "/echo"),
    "a sender that never waits": Attack(path="/send"),
    "a sender, unread": Attack(path="/send", reads=False),
    "a peer that left": Attack(),
}


class Row(NamedTuple):
    """What the steady client saw, the worker's memory, and how often the attacker lost its connection."""

    p50: float
    p99: float
    longest: float
    echoes: int
    expected: int
    mebibytes: float
    cuts: int

    def __str__(self) -> str:
        echoes = f"{self.echoes}/{self.expected}"
        return f"{self.p50:7.2f} {self.p99:7.2f} {self.longest:8.2f} {echoes:>11s} {self.mebibytes:6.0f} {self.cuts:5d}"


HEAD = f"{'attack':34s} {'p50':>7s} {'p99':>7s} {'longest':>8s} {'echoes':>11s} {'MiB':>6s} {'cuts':>5s}"


def opened(port: int, path: str, headers: dict[str, str] | None = None) -> socket.socket:
    client = RawClient(port)
    client.send(wire.request(path=path, headers=headers))
    assert client.response()[0] == 101
    return client.socket


def steady(port: int, seconds: float, results: Any) -> None:
    """The bystander, in a process of its own. Sends its latencies to `results`."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    client = RawClient(port)
    client.send(wire.request(path="/echo"))
    assert client.response()[0] == 101
    data, took, end = frame(b"e" * 64), [], time.monotonic() + seconds
    due = time.monotonic()
    while time.monotonic() < end:
        began = time.monotonic()
        client.send(data)
        assert client.frame()[1] == b"e" * 64
        now = time.monotonic()
        took.append(now - began)
        due = max(due + EVERY, now)
        time.sleep(max(0, due - now))
    results.put(sorted(took))


def attack(port: int, kind: Attack, stop: Callable[[], bool], cuts: Any) -> None:
    """Attack until it is time to stop; whoever is cut off is counted in `cuts`, and comes back."""
    while not stop():
        sock = opened(port, kind.path, kind.headers)
        if kind.reads:
            threading.Thread(target=_drain, args=(sock,), daemon=True).start()
        sock.settimeout(0.2)
        sent = 0
        try:
            while not stop():
                with contextlib.suppress(TimeoutError):
                    sent += sock.send(kind.data[sent % len(kind.data) :]) if kind.data else _wait()
        except ConnectionError:
            cuts.value += 1
        sock.close()


def _wait() -> int:
    time.sleep(0.05)
    return 0


def _drain(sock: socket.socket) -> None:
    while True:
        try:
            if not sock.recv(2**20):
                return
        except TimeoutError:
            pass
        except OSError:
            return


@contextlib.contextmanager
def attacking(port: int, name: str) -> Iterator[Any]:
    """The attacker, in a process of its own for as long as the block lasts; how often it was cut off, as `value`."""
    fork = multiprocessing.get_context("fork")
    cuts = fork.Value("i")
    if name == "a peer that left":  # in the middle of what a handler sends it
        opened(port, "/send").close()
    if name in ("none", "a peer that left"):
        yield cuts
        return
    stop = fork.Event()
    process = fork.Process(target=attack, args=(port, ATTACKS[name], stop.is_set, cuts))
    process.start()
    try:
        yield cuts
    finally:
        stop.set()
        process.join(PATIENCE)
        process.kill()


def beside(name: str, seconds: float) -> Row:
    """Run one attack; the row of the table that comes of it."""
    fork = multiprocessing.get_context("fork")
    pinned = ("--cpu-affinity", "0") if os.cpu_count() != 1 else ()
    with Daemon(APP, *pinned, workers=1) as daemon:
        (worker,) = daemon.workers()
        results = fork.SimpleQueue()
        bystander = fork.Process(target=steady, args=(daemon.port, seconds, results))
        with attacking(daemon.port, name) as cuts:
            bystander.start()
            took = results.get()
            bystander.join()
        peak = most_memory(worker)
        assert daemon.workers() == [worker], "the worker was replaced"
        daemon.stop(3)
    at = [took[int(len(took) * part)] * 1000 for part in (0.5, 0.99)]
    return Row(*at, took[-1] * 1000, len(took), int(seconds / EVERY), peak, cuts.value)


def most_memory(pid: int) -> float:
    """The most that a process has had resident, in MiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    print(HEAD)
    for name in sys.argv[2:] or ATTACKS:
        print(f"{name:34s} {beside(name, seconds)}", flush=True)


if __name__ == "__main__":
    main()
