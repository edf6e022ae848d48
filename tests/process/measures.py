"""What a trial measures from outside: how long an echo takes, how much memory processes have, what workers count.

    Echo      a connection that is answered, and how fast
    Memory    the most that each process of a daemon had
    counts    what happened to the channels of each worker

What must not live here: judgement of the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import connect

from tests.support import programs, wire
from tests.support.harness import Daemon
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient


class Echo:
    """A connection whose server sends back what it gets, asked again and again by a process of its own.

    Attributes:
        pid: of the worker.
    """

    def __init__(self, process: asyncio.subprocess.Process, pid: int) -> None:
        self._process, self.pid = process, pid

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, daemon: Daemon, other_than: int = 0) -> AsyncIterator[Self]:
        """Connect, to another worker than that one."""
        process = await asyncio.create_subprocess_exec(
            *programs.program(ask, str(daemon.port), str(other_than)),
            env=programs.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        yield cls(process, int(await process.stdout.readline()))
        process.stdin.close()
        await process.wait()

    async def p99(self, during: Awaitable[object]) -> float:
        """Return the 99th percentile, in ms, of what was asked while something was not done."""
        await self._ask()
        await during
        return await self._ask()

    async def _ask(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return float(await self._process.stdout.readline())


def ask(port: str, other_than: str) -> None:
    """Be that process: after each line that comes, print how long echoes took since the last one."""
    while True:
        client = RawClient(int(port))
        client.send(wire.request(path="/echo"))
        client.response()
        pid = client.frame()[1].decode()
        if pid != other_than:
            break
        client.socket.close()
    print(pid, flush=True)
    times: list[float] = []
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    while True:
        begun = time.perf_counter()
        client.send(wire.frame(b"echo"))
        client.frame()
        times.append(time.perf_counter() - begun)
        if poll.poll(2):
            if not sys.stdin.readline():
                return
            print(1e3 * sorted(times)[len(times) * 99 // 100], flush=True)
            times.clear()


class Memory:
    """The memory of a daemon's processes that no file is behind, read ten times a second.

    Attributes:
        first, most: title of a process -> bytes.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._titles = daemon.titles()
        self.first = self._now()
        self.most = dict(self.first)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            for title, size in self._now().items():
                self.most[title] = max(self.most[title], size)
            await asyncio.sleep(0.1)

    def _now(self) -> dict[str, int]:
        found = {}
        for pid, title in self._titles.items():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                size = re.search(r"RssAnon:\s+(\d+) kB", status)
                found[title] = int(size[1]) * 1024 if size is not None else 0
        return found

    @property
    def growth(self) -> dict[str, int]:
        """Title -> MiB that it had more than in the beginning, at most."""
        return {title: (size - self.first[title]) >> 20 for title, size in self.most.items()}


async def counts(daemon: Daemon, workers: int = 2) -> dict[int, dict[str, Any]]:
    """What happened to the channels of each worker, by process id."""
    found: dict[int, dict[str, Any]] = {}
    async with asyncio.timeout(PATIENCE):
        while len(found) < workers:
            async with connect(f"{daemon.uri}counts", compression=None, open_timeout=PATIENCE) as websocket:
                pid = int(await websocket.recv())
                await websocket.send("")
                found[pid] = json.loads(await websocket.recv())
    return found
