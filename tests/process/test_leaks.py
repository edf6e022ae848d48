"""10,000 connections opened and closed leave the daemon's memory and file descriptors where they were.

What must not live here: what a connection that is open costs (tests/benchmarks).
"""

from __future__ import annotations

import asyncio

import psutil
import pytest
from websockets.asyncio.client import connect

from tests.support import wire
from tests.support.harness import ECHO, Daemon, wait_until

CONNECTIONS = 10_000
AT_ONCE = 100
# What a first batch fills: caches, free lists, the allocator's arenas. Growth is measured after it.
WARM_UP = 1_000
# Of memory that belongs to a worker alone, per further connection; one leaked connection object costs over 1,000.
BYTES_PER_CONNECTION = 100


async def come_and_go(uri: str, count: int) -> None:
    """Open, use and end `count` connections, in turn: by a close, by a cut, within a message, within a handshake."""

    async def one(number: int) -> None:
        if number % 4 == 3:
            _, writer = await asyncio.open_connection(*uri.removeprefix("ws://").removesuffix("/").split(":"))
            writer.write(wire.request()[: number % 100 + 1])
            writer.close()
            await writer.wait_closed()
            return
        websocket = await connect(uri, compression=None, ping_interval=None, proxy=None)
        await websocket.send("hello")
        assert await websocket.recv() == "hello"
        if number % 4 == 0:
            await websocket.close()
        elif number % 4 == 1:
            websocket.transport.abort()
        else:
            await websocket.send("x" * 10_000)
            websocket.transport.close()
        await websocket.wait_closed()

    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(one(number) for number in range(start, start + AT_ONCE)))


def descriptors(daemon: Daemon) -> dict[str, int]:
    """Title -> open file descriptors of every process of the daemon."""
    return {title: psutil.Process(pid).num_fds() for pid, title in daemon.titles().items()}


def memory(daemon: Daemon) -> dict[str, int]:
    """Title -> bytes of memory that are shared with no other process, of every process of the daemon."""
    return {title: psutil.Process(pid).memory_full_info().uss for pid, title in daemon.titles().items()}


@pytest.mark.slow
async def test_ten_thousand_connections_leave_nothing() -> None:
    with Daemon(ECHO, workers=2) as daemon:
        await come_and_go(daemon.uri, WARM_UP)
        daemon.wait_metric("tidegate_connections", 0)
        fds, bytes_before = descriptors(daemon), memory(daemon)
        await come_and_go(daemon.uri, CONNECTIONS)
        daemon.wait_metric("tidegate_connections", 0)
        assert daemon.metrics().total("tidegate_connections_accepted_total") == WARM_UP + CONNECTIONS
        # Not more: the admin process may be closing the connection of our last look at it, then as now.
        wait_until(
            lambda: all(count <= fds[title] for title, count in descriptors(daemon).items()), f"no more than {fds}"
        )
        grown = {title: size - bytes_before[title] for title, size in memory(daemon).items()}
        assert max(grown.values()) < CONNECTIONS * BYTES_PER_CONNECTION, grown
        assert daemon.stop() == 0
