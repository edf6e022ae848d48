"""Handlers and peers that do anything at any moment: nothing is ever raised into the event loop, and everything ends.

Each seed is one story, the same each time as far as the network allows. What must not live here: what should happen in
one of them; the other test modules say.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.asyncio.ends import serving
from tests.support.coroutines import until
from tests.support.patience import PATIENCE
from tests.support.rawpeer import ClientPeer
from tests.support.wire import close, frame
from tidegate.asyncio.server import ServerConnection, broadcast
from tidegate.exceptions import ConcurrencyError, ConnectionClosed

SEEDS = 60


class Handler:
    """A handler that picks its next step by chance, and a server's worth of its tasks."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made: list[asyncio.Task[Any]] = []
        self.steps: list[Callable[[ServerConnection], Awaitable[Any]]] = [
            self.receive,
            self.receive,
            self.receive_a_little,
            self.stream,
            self.send,
            self.send,
            self.send_parts,
            self.send_without_waiting,
            self.ping,
            self.cancel,
            self.spin,
            self.broadcast,
            self.end,
        ]

    async def __call__(self, websocket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(self.random.randrange(40)):
                with contextlib.suppress(ConcurrencyError, TimeoutError):
                    await self.random.choice(self.steps)(websocket)
        for task in self.made:
            task.cancel()
        await asyncio.gather(*self.made, return_exceptions=True)

    async def receive(self, websocket: ServerConnection) -> None:
        async with asyncio.timeout(0.02):
            await websocket.recv(self.random.choice([None, None, False]))

    async def receive_a_little(self, websocket: ServerConnection) -> None:
        async with asyncio.timeout(0):
            await websocket.recv()

    async def stream(self, websocket: ServerConnection) -> None:
        async with asyncio.timeout(0.02):
            async for _ in websocket.recv_streaming():
                if self.random.random() < 0.1:
                    break

    async def send(self, websocket: ServerConnection) -> None:
        async with asyncio.timeout(0.1):
            await websocket.send(self.random.choice(["x", b"y" * 200, "é" * 40_000, b"z" * 300_000, memoryview(b"v")]))

    async def send_parts(self, websocket: ServerConnection) -> None:
        async with asyncio.timeout(0.1):
            await websocket.send(["part"] * self.random.randrange(5))

    async def send_without_waiting(self, websocket: ServerConnection) -> None:
        self.made.append(asyncio.create_task(websocket.send(self.random.choice(["t", ["t", "u"], b"t" * 100_000]))))

    async def ping(self, websocket: ServerConnection) -> None:
        async with asyncio.timeout(0.05):
            await websocket.ping()

    async def cancel(self, websocket: ServerConnection) -> None:
        self.made.append(asyncio.create_task(websocket.recv()))
        await asyncio.sleep(self.random.choice([0, 0.001]))
        self.random.choice(self.made).cancel()

    async def spin(self, websocket: ServerConnection) -> None:
        await asyncio.sleep(self.random.choice([0, 0, 0.002]))

    async def broadcast(self, websocket: ServerConnection) -> None:
        broadcast(websocket.server.connections, "to all")

    async def end(self, websocket: ServerConnection) -> None:
        choice = self.random.randrange(8)
        if choice == 0:
            websocket.transport.abort()
        elif choice == 1:
            websocket.transport.close()
        elif choice == 2:
            self.made.append(asyncio.create_task(websocket.close(4000)))
        elif choice == 3:
            await websocket.close()


async def play(peer: ClientPeer, chance: random.Random) -> None:
    """The other side: mostly proper frames, in pieces, now and then nonsense; then one of all possible ends."""
    good = [
        frame(b"hello"),
        frame("é".encode() * 100, mask=b"abcd"),
        frame(b"x" * 70_000, 2),
        frame(b"a", fin=False) + frame(b"b", 0, fin=False) + frame(b"", 9) + frame(b"c", 0),
        frame(b"ping", 9),
        frame(b"pong", 10),
        frame(b"many") * 50,
    ]
    bad = [frame(b"\xff"), frame(b"x", 3), frame(b"x", 0), b"\xff" * 20, close(), close(4001, "x"), frame(b"", 8)]
    reading = asyncio.create_task(peer.reader.read(-1)) if chance.random() < 0.7 else None
    with contextlib.suppress(OSError, RuntimeError):  # uvloop's transports raise the latter once they are closed
        for _ in range(chance.randrange(20)):
            data = chance.choice(good) if chance.random() < 0.93 else chance.choice(bad)
            place = chance.randrange(len(data) + 1)
            peer.send(data[:place])
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0, 0.001]))
            peer.send(data[place:])
        end = chance.randrange(5)
        if end == 0:
            peer.reset()
        elif end == 1:
            peer.send(close())
            await asyncio.sleep(0.01)
        elif end == 2:
            peer.send(frame(b"half")[:7])
        elif end == 3:
            await asyncio.sleep(0.02)
    peer.close()
    if reading is not None:
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reading, PATIENCE)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_chaos(seed: int, log: pytest.LogCaptureFixture) -> None:
    """Whatever clients and handlers do at random, connections end and nothing fails."""
    chance = random.Random(seed)
    handler = Handler(seed)
    limits = {
        "max_queue": chance.choice([0, 1, 16, None]),
        "write_limit": chance.choice([0, 1_000, 32_768]),
        "ping_interval": chance.choice([None, 0.01]),
        "ping_timeout": chance.choice([None, 0.01]),
        "compression": chance.choice([None, "deflate"]),
    }
    async with serving(handler, close_timeout=0.03, **limits) as made:
        peers = [await made.peer() for _ in range(chance.randrange(1, 4))]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(play(peer, random.Random(seed + i)) for i, peer in enumerate(peers)))
        if chance.random() < 0.5:
            await until(lambda: not made.server._registry.all)
    assert not [record for record in log.records if record.name.startswith(("tidegate", "asyncio")) and record.exc_info]
