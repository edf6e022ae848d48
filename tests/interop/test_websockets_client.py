"""The `websockets` client against the daemon: the library whose API tidegate has, on the other side of the wire.

What must not live here: the same client against a server in this process (tests/asyncio).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from tests.interop.conftest import MAX_SIZE
from tests.support.harness import Daemon
from tests.support.patience import PATIENCE

SIZES = [0, 1, 125, 126, 65535, 65536, 1_000_000, MAX_SIZE]


@pytest.fixture
async def websocket(daemon: Daemon) -> AsyncIterator[ClientConnection]:
    async with connect(daemon.uri, max_size=None) as websocket:
        yield websocket


@pytest.mark.parametrize("size", SIZES)
async def test_binary(websocket: ClientConnection, size: int) -> None:
    """websockets gets binary messages of each size back."""
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    await websocket.send(message)
    assert await websocket.recv() == message


@pytest.mark.parametrize("text", ["", "hello", "Grüße", "🌊" * 40_000, "\x00"], ids=lambda text: str(len(text)))
async def test_text(websocket: ClientConnection, text: str) -> None:
    """websockets gets each text back."""
    await websocket.send(text)
    assert await websocket.recv() == text


async def test_fragments_from_client(websocket: ClientConnection) -> None:
    await websocket.send(["Gr", "ü", "", "ße"])
    assert await websocket.recv() == "Grüße"
    await websocket.send([b"\x00" * 70_000, b"\xff"])
    assert await websocket.recv() == b"\x00" * 70_000 + b"\xff"


async def test_fragments_from_server(websocket: ClientConnection) -> None:
    await websocket.send("fragments Grüße")
    assert [fragment async for fragment in websocket.recv_streaming()] == [*"Grüße", ""]


async def test_many_in_flight_come_back_in_order(websocket: ClientConnection) -> None:
    messages = [f"message {number}" for number in range(1000)]

    async def send() -> None:
        for message in messages:
            await websocket.send(message)

    sending = asyncio.create_task(send())
    assert [await websocket.recv() for _ in messages] == messages
    await sending


async def test_ping_from_client(websocket: ClientConnection) -> None:
    pong = await websocket.ping(b"from the client")
    assert await asyncio.wait_for(pong, PATIENCE) > 0


async def test_ping_from_server(websocket: ClientConnection) -> None:
    await websocket.send("ping")
    assert await websocket.recv() == "pong"


async def test_client_closes(websocket: ClientConnection) -> None:
    await websocket.close(4000, "enough")
    assert (websocket.close_code, websocket.close_reason) == (4000, "enough")


async def test_server_closes(websocket: ClientConnection) -> None:
    await websocket.send("close 4001 that will do")
    with pytest.raises(ConnectionClosedError) as caught:
        await websocket.recv()
    assert str(caught.value) == "received 4001 (private use) that will do; then sent 4001 (private use) that will do"


async def test_handler_returns(websocket: ClientConnection) -> None:
    await websocket.send("return")
    with pytest.raises(ConnectionClosedOK):
        await websocket.recv()
    assert websocket.close_code == 1000


async def test_handler_raises(websocket: ClientConnection) -> None:
    await websocket.send("raise")
    with pytest.raises(ConnectionClosedError):
        await websocket.recv()
    assert websocket.close_code == 1011


async def test_too_big(daemon: Daemon) -> None:
    websocket = await connect(daemon.uri)  # not `async with`: closing right after such an end trips the client
    await websocket.send(bytes(MAX_SIZE + 1))
    with pytest.raises(ConnectionClosedError):
        await websocket.recv()
    assert websocket.close_code == 1009
    await websocket.wait_closed()


@pytest.mark.parametrize(
    ("offered", "chosen"), [(None, None), (["chat.v1"], "chat.v1"), (["chat.v1", "chat.v2"], "chat.v2"), (["x"], None)]
)
async def test_subprotocol(daemon: Daemon, offered: list[str] | None, chosen: str | None) -> None:
    """websockets and the server agree on a subprotocol, or on none."""
    async with connect(daemon.uri, subprotocols=offered) as websocket:  # type: ignore[arg-type]
        assert websocket.subprotocol == chosen


async def test_200_connections_spread_over_both_workers(own_daemon: Daemon) -> None:
    async with AsyncExitStack() as stack:
        websockets = [await stack.enter_async_context(connect(own_daemon.uri)) for _ in range(200)]
        for websocket in websockets:
            await websocket.send("worker")
        counts = Counter([int(await websocket.recv()) for websocket in websockets])
        assert set(counts) == set(own_daemon.workers())
        # The kernel chooses by a hash of the addresses: fewer than 60 of 200 is 5.7 standard deviations away.
        assert min(counts.values()) >= 60
        own_daemon.wait_metric("tidegate_connections", 200)
        metrics = own_daemon.metrics()
        for slot, pid in enumerate(own_daemon.workers()):
            assert metrics.total("tidegate_connections", worker=slot) == counts[pid]
    own_daemon.wait_metric("tidegate_connections", 0)


async def test_sigterm(own_daemon: Daemon) -> None:
    """SIGTERM closes every connection of websockets with 1001."""
    websockets = await asyncio.gather(*(connect(own_daemon.uri) for _ in range(20)))
    stopping = asyncio.create_task(asyncio.to_thread(own_daemon.stop))
    for websocket in websockets:
        await asyncio.wait_for(websocket.wait_closed(), PATIENCE)
        assert websocket.close_code == 1001
    assert await stopping == 0
