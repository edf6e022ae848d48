"""A program for the Autobahn fuzzing server: an echo client that asks for each of its cases, then for the reports.

    python echo_client.py URI CASES_AT_ONCE MAX_SIZE

What must not live here: what the cases must yield (cases.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable

from tidegate.asyncio.client import connect
from tidegate.exceptions import ConnectionClosed


async def echo(uri: str, max_size: int) -> None:
    async with connect(uri, max_size=max_size) as websocket:
        # What goes wrong on purpose raises in recv() or send(); the suite sees how the connection ended.
        with contextlib.suppress(ConnectionClosed):
            async for message in websocket:
                await websocket.send(message)


async def work(uri: str, cases: Iterable[int], max_size: int) -> None:
    for case in cases:
        await echo(f"{uri}/runCase?case={case}&agent=tidegate", max_size)


async def main(uri: str, at_once: int, max_size: int) -> None:
    async with connect(f"{uri}/getCaseCount") as websocket:
        cases = iter(range(1, int(await websocket.recv()) + 1))
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work(uri, cases, max_size))
    # The suite writes its reports before the answer to this handshake leaves.
    async with connect(f"{uri}/updateReports?agent=tidegate", open_timeout=None) as websocket:
        await websocket.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
