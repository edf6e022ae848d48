"""Channels while somebody stands still, floods or talks nonsense: memory has its bounds, nobody else notices.

What must not live here: processes that are killed or replaced (test_bus_events.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.process.measures import Echo, Memory, counts
from tests.process.pages import Page, Publisher, until
from tests.process.trial import TIMES, Trial, check, check_order, present
from tests.support import programs
from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate.bus.bus import Bus
from tidegate.bus.link import VERSION, Frame, Hello, Kind, encode, pack_json
from tidegate.exceptions import BusDown

pytestmark = pytest.mark.slow

MORE = 160
"""MiB that a process may have more than before, whatever happens: queues that are full, and what allocators keep."""

CALM = 2.0
"""Seconds in which is measured how long an echo takes when nothing happens."""


def flood(address: str, channel: str, size: str) -> None:
    """Publish numbers as fast as possible, each in so many bytes of JSON: a process of its own, until it is ended."""

    async def run() -> None:
        async with Bus(address) as bus:
            number = 0
            while True:
                batch = range(number + 1, number + 101)
                number += 100
                await asyncio.gather(
                    *(bus.publish(channel, f"{each:<{size}}", json=True, wait=PATIENCE) for each in batch)
                )

    asyncio.run(run())


@contextlib.asynccontextmanager
async def flooded(trial: Trial, channel: str, size: int) -> AsyncIterator[None]:
    """Another process publishes to a channel as fast as it can."""
    command = programs.program(flood, trial.address, channel, str(size))
    with subprocess.Popen(command, env=programs.environment()) as process:  # noqa: ASYNC220
        try:
            yield
        finally:
            process.kill()


async def test_while_the_hub_stands_still_others_go_on(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    names = [f"h:{number}" for number in range(4)]
    with trial.daemon as daemon:
        pages = [Page(daemon.port, [names[number % 4]], trial.chance) for number in range(40)]
        async with present(pages), Bus(trial.address) as bus, Echo.open(daemon) as echo:
            publisher = Publisher(bus, names, 100)
            publisher.start()
            calm = await echo.p99(asyncio.sleep(CALM))
            hub = trial.hub()
            async with Memory(daemon) as memory:
                daemon.signal(signal.SIGSTOP, hub)
                floods = [asyncio.create_task(flood_from_a_worker(daemon)) for _ in range(4)]
                for page in pages[::4]:
                    page.drop()
                stopped = await echo.p99(asyncio.gather(asyncio.sleep(10), *floods))
                daemon.signal(signal.SIGCONT, hub)
                answers = [flood.result() for flood in floods]
                await until(lambda before=publisher.total: publisher.total > before + 100, "publications")
            await publisher.stop()
            await until(
                lambda: all(len(page.logs[name]) >= publisher.sent[name] for page in pages for name in page.logs), "all"
            )
            check(pages, publisher.sent)
        print(f"p99 {calm:.1f} ms, {stopped:.1f} ms; MiB more: {memory.growth}; {answers}")
        print([dict(page.resumed) for page in pages[::4]])
        assert trial.hub() == hub
        assert stopped < 1e3 * PATIENCE
        assert max(memory.growth.values()) < MORE
        assert all(set(answer) <= {"sent", "BusBusy", "BusDown"} for answer in answers)
        assert sum(answer.get("BusBusy", 0) for answer in answers) > 0


async def flood_from_a_worker(daemon: Daemon) -> dict[str, int]:
    """Publish 20 MiB at once in one of the workers; return how often that went how."""
    async with connect(f"{daemon.uri}publish", compression=None, open_timeout=PATIENCE) as websocket:
        await websocket.recv()
        await websocket.send(json.dumps(["short:1", "x" * 100_000, 200]))
        answer: dict[str, int] = json.loads(await websocket.recv())
        return answer


async def test_a_worker_that_is_blocked_keeps_no_other_waiting(tmp_path: Path) -> None:
    """More is published than its link holds; it reads it from a journal that has room for all of that."""
    trial = Trial(tmp_path, 2, "--bus-memory", "1GiB")
    with trial.daemon as daemon:
        pages = [Page(daemon.port, ["h:1"], trial.chance) for _ in range(20)]
        floods = [Page(daemon.port, ["h:flood"], trial.chance) for _ in range(2)]
        async with (
            present([*pages, *floods]),
            Bus(trial.address) as bus,
            connect(f"{daemon.uri}block", compression=None, open_timeout=PATIENCE) as blocking,
        ):
            blocked = int(await blocking.recv())
            publisher = Publisher(bus, ["h:1"], 100)
            publisher.start()
            async with Echo.open(daemon, blocked) as echo, Memory(daemon) as memory:
                calm = await echo.p99(asyncio.sleep(CALM))
                await blocking.send("3")
                answer = asyncio.ensure_future(blocking.recv())
                async with flooded(trial, "h:flood", 10_000):
                    meanwhile = await echo.p99(answer)
                await until(lambda before=publisher.total: publisher.total > before + 100, "publications")
            await publisher.stop()
            await until(lambda: all(page.logs["h:1"][-1] == publisher.total for page in pages), "all")
            check(pages, publisher.sent)
            repaired = {pid == blocked: each["repaired"] for pid, each in (await counts(daemon)).items()}
            await until(lambda: all(page.is_there for page in floods), "all are back")
            check_order(floods)
        print(f"p99 {calm:.1f} ms, {meanwhile:.1f} ms; MiB more: {memory.growth}; longest {publisher.longest}")
        print([(page.logs["h:flood"][-1], dict(page.resumed), dict(page.closed)) for page in floods], repaired)
        assert meanwhile < 1e3 * PATIENCE
        assert max(memory.growth.values()) < MORE


async def test_a_client_that_does_not_read_is_closed_and_comes_back(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    with trial.daemon as daemon:
        slow = Page(daemon.port, ["h:flood"], trial.chance)
        pages = [Page(daemon.port, ["h:1"], trial.chance) for _ in range(20)]
        others = [Page(daemon.port, ["h:flood"], trial.chance) for _ in range(2)]
        async with present([slow, *pages, *others]), Bus(trial.address) as bus, Echo.open(daemon) as echo:
            publisher = Publisher(bus, ["h:1"], 100)
            publisher.start()
            calm = await echo.p99(asyncio.sleep(CALM))
            slow.pause()
            async with Memory(daemon) as memory:
                closed = asyncio.ensure_future(
                    asyncio.to_thread(
                        wait_until, lambda: "too slow for what channels bring" in daemon.log, "it is closed"
                    )
                )
                async with flooded(trial, "h:flood", 1000):
                    meanwhile = await echo.p99(closed)
            slow.resume()
            await publisher.stop()
            await until(lambda: all(page.logs["h:1"][-1] == publisher.total for page in pages), "all")
            check(pages, publisher.sent)
            await until(lambda: slow.is_there and slow.resumed.total() > 1, "it is back")
            check_order([slow, *others])
        print(f"p99 {calm:.1f} ms, {meanwhile:.1f} ms; MiB more: {memory.growth}")
        print([(page.logs["h:flood"][-1], dict(page.resumed), dict(page.closed)) for page in [slow, *others]])
        assert meanwhile < 1e3 * PATIENCE
        assert max(memory.growth.values()) < MORE


async def test_a_flood_of_publishes_stays_in_its_channel(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    with trial.daemon as daemon:
        pages = [Page(daemon.port, ["h:1"], trial.chance) for _ in range(20)]
        async with present(pages), Bus(trial.address) as bus, Echo.open(daemon) as echo:
            publisher = Publisher(bus, ["h:1"], 100)
            publisher.start()
            calm = await echo.p99(asyncio.sleep(CALM))
            async with Memory(daemon) as memory, flooded(trial, "short:1", 1000), flooded(trial, "plain", 1000):
                meanwhile = await echo.p99(asyncio.sleep(3 + TIMES))
            await publisher.stop()
            await until(lambda: all(page.logs["h:1"][-1] == publisher.total for page in pages), "all")
            check(pages, publisher.sent)
        print(f"p99 {calm:.1f} ms, {meanwhile:.1f} ms; MiB more: {memory.growth}; longest {publisher.longest}")
        assert meanwhile < 1e3 * PATIENCE
        assert max(memory.growth.values()) < MORE


# The journal.


def damage(file: Path, chance: random.Random) -> str:
    """Do something to a journal that nobody writes; return what."""
    data = bytearray(file.read_bytes())
    used = len(bytes(data).rstrip(b"\0")) or 1
    kind = chance.choice(["bits", "head", "zeros", "noise", "shorter", "longer", "empty", "swapped"])
    if kind == "bits":
        for _ in range(chance.choice([1, 10, 1000])):
            data[chance.randrange(used)] ^= 1 << chance.randrange(8)
    elif kind == "head":
        data[: chance.randrange(1, 128)] = chance.randbytes(64)
    elif kind in ("zeros", "noise"):
        start = chance.randrange(used)
        size = chance.randrange(1, used)
        data[start : start + size] = bytes(size) if kind == "zeros" else chance.randbytes(size)
    elif kind == "shorter":
        del data[chance.randrange(len(data)) :]
    elif kind == "longer":
        data += chance.randbytes(chance.randrange(1, 1 << 16))
    elif kind == "empty":
        data.clear()
    else:
        size = chance.randrange(1, used // 2 + 2)
        data[:size], data[used - size : used] = data[used - size : used], data[:size]
    file.write_bytes(data)
    return kind


@pytest.mark.parametrize("lives", [False, True], ids=["stopped", "alive"])
async def test_a_damaged_journal_gives_what_it_has_or_is_told(tmp_path: Path, lives: bool) -> None:
    """While the daemon is stopped, or between two of its hubs."""
    file = tmp_path / "history"
    trial = Trial(tmp_path, 2, "--bus", f"local://{file}", "--bus-memory", "32MiB")
    with trial.daemon as daemon:
        pages = [Page(daemon.port, [f"h:{number % 2}"], trial.chance) for number in range(8)]
        async with present(pages), Bus(trial.address) as bus:
            publisher = Publisher(bus, ["h:0", "h:1"], 1000)
            publisher.start()
            for _ in range(round(6 * TIMES)):
                await until(lambda before=publisher.total: publisher.total > before + 100, "publications")
                if lives:
                    hub = trial.hub()
                    daemon.signal(signal.SIGSTOP)
                    daemon.signal(signal.SIGKILL, hub)
                    await asyncio.to_thread(wait_until, lambda hub=hub: is_over(hub), "the end of the hub")
                    print(damage(file, trial.chance), end=" ")
                    daemon.signal(signal.SIGCONT)
                    trial.chance.choice(pages).drop()
                else:
                    assert await asyncio.to_thread(daemon.stop) == 0
                    assert "Traceback" not in daemon.log
                    print(damage(file, trial.chance), end=" ")
                    daemon.close()
                    daemon.start()
                    await asyncio.to_thread(daemon.wait_ready)
                await until(lambda: all(page.is_there for page in pages), "pages come back")
            await until(lambda before=publisher.total: publisher.total > before + 100, "publications")
            await publisher.stop()
            for page in pages:
                ((channel, log),) = page.logs.items()
                await until(lambda log=log, last=publisher.sent[channel]: log[-1] == last, f"all of {channel}")
            check_order(pages)
        print([dict(page.resumed) for page in pages])
        assert "Traceback" not in daemon.log
        assert await asyncio.to_thread(daemon.stop) == 0


def is_over(pid: int) -> bool:
    """Whether a process has ended, though nobody has reaped it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# The hub's socket.


def nonsense(chance: random.Random) -> bytes:
    """What no process says to a hub."""
    hello = encode(Frame(Kind.HELLO, payload=pack_json(Hello(VERSION, chance.getrandbits(32)))))
    name = encode(Frame(Kind.OPEN, channel=0, payload=b"h:1"))
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 1 << chance.randrange(1, 18)))
    if kind == 1:
        return b"\xff\xff\xff\xff" + chance.randbytes(41)
    if kind == 2:
        return hello + hello + chance.randbytes(100)
    if kind == 3:
        return encode(Frame(Kind.HELLO, payload=b"[" * 100_000))
    frames = [
        Frame(
            chance.choice([*Kind, 99, 255]),
            chance.randrange(256),
            chance.choice([0, 1, 1 << 19, (1 << 32) - 1]),
            offset=chance.choice([0, 1, (1 << 64) - 1]),
            sequence=chance.choice([0, 1, (1 << 64) - 1]),
            payload=chance.choice(
                [b"", b"h:1", b"\xff\xfe", b"{}", b'{"channels":{"h:1":[9,{}]}}', chance.randbytes(50)]
            ),
        )
        for _ in range(chance.randrange(1, 50))
    ]
    return hello + name + b"".join(encode(frame) for frame in frames)


async def test_nonsense_on_the_hubs_socket_ends_there(tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    path = trial.address.removeprefix("local://")
    with trial.daemon as daemon:
        pages = [Page(daemon.port, ["h:0"], trial.chance) for _ in range(20)]
        async with present(pages), Bus(trial.address) as bus, Echo.open(daemon) as echo:
            publisher = Publisher(bus, ["h:0"], 100)
            publisher.start()
            calm = await echo.p99(asyncio.sleep(CALM))
            hub = trial.hub()
            async with Memory(daemon) as memory:
                talk = asyncio.ensure_future(asyncio.to_thread(talk_nonsense, path, trial.chance, round(500 * TIMES)))
                meanwhile = await echo.p99(talk)
                flooding = asyncio.ensure_future(asyncio.to_thread(never_read, path))
                flooded_by_one = await echo.p99(flooding)
            silent = [socket.socket(socket.AF_UNIX) for _ in range(300)]
            for each in silent:
                each.connect(path)
            async with asyncio.timeout(PATIENCE):
                another = await connected(trial.address)
                assert await another.publish("h:other", "hello") is not None
                await another.close()
            for each in silent:
                each.close()
            await until(lambda before=publisher.total: publisher.total > before + 100, "publications")
            await publisher.stop()
            await until(lambda: all(page.logs["h:0"][-1] == publisher.total for page in pages), "all")
            check(pages, publisher.sent)
        print(f"p99 {calm:.1f} ms, {meanwhile:.1f} ms, {flooded_by_one:.1f} ms; MiB more: {memory.growth}")
        assert trial.hub() == hub
        assert max(memory.growth.values()) < MORE


async def connected(address: str) -> Bus:
    """A bus that is started, as soon as there is a place for it."""
    while True:
        bus = Bus(address)
        try:
            await bus.start()
        except BusDown:
            await asyncio.sleep(0.1)
        else:
            return bus


def talk_nonsense(path: str, chance: random.Random, times: int) -> None:
    """Connect, say what makes no sense, listen for a moment or not, and go, so many times."""
    for _ in range(times):
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.settimeout(0.01)
            sock.connect(path)
            sock.sendall(nonsense(chance))
            if chance.random() < 0.5:
                while sock.recv(65536):
                    pass


def never_read(path: str, seconds: float = 5.0) -> None:
    """Publish for a while, as far as one is let, and read no acknowledgement."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(encode(Frame(Kind.HELLO, payload=pack_json(Hello(VERSION, 7)))))
        sock.sendall(encode(Frame(Kind.OPEN, channel=0, payload=b"short:never read")))
        sock.settimeout(1.0)
        sequence, end = 0, time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end:
                batch = range(sequence + 1, sequence + 1001)
                sequence += 1000
                sock.sendall(b"".join(encode(Frame(Kind.PUBLISH, sequence=each)) for each in batch))
        print("never_read published", sequence)
