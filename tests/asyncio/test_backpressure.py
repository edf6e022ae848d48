"""Flow control both ways: slow readers make senders wait, slow handlers make clients wait, memory is bounded."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import zlib
from typing import Any

import pytest

from tests.asyncio.ends import Serving, connected, serving
from tests.support import wire
from tests.support.coroutines import outcome, until
from tests.support.patience import PATIENCE
from tests.support.rawpeer import ClientPeer
from tests.support.wire import BINARY, PING, PONG, frame
from tidegate._core.counters import Row
from tidegate.asyncio.server import ServerConnection
from tidegate.exceptions import ConnectionClosedError

SMALL = 4096  # bytes of a receive buffer that is soon full


async def send_until_stuck(websocket: ServerConnection, message: Any) -> tuple[int, asyncio.Task[None]]:
    """Send until send() waits: how many were sent, and the one that waits."""
    for count in range(100_000):
        task = asyncio.create_task(websocket.send(message))
        await asyncio.sleep(0)
        if not task.done():
            for _ in range(20):  # it may have been the socket that was not quick enough
                await asyncio.sleep(0.001)
            if not task.done():
                return count, task
        await task
    raise AssertionError("send() never waits")


async def drain(peer: ClientPeer) -> int:
    """Read what comes until nothing comes for a moment: how many bytes."""
    size = 0
    while True:
        try:
            async with asyncio.timeout(0.2):
                data = await peer.reader.read(1 << 20)
        except TimeoutError:
            return size
        if not data:
            return size
        size += len(data)


# Out


@pytest.mark.parametrize("kind", ["text", "bytes", "large text", "large bytes", "fragments", "view"])
async def test_send_waits_for_a_slow_reader(kind: str, row: Row) -> None:
    messages: dict[str, Any] = {
        "text": "x" * 1_000,
        "bytes": b"x" * 1_000,
        "large text": "x" * 300_000,
        "large bytes": b"x" * 300_000,
        "fragments": [b"x" * 1_000, b"x" * 1_000],
        "view": memoryview(b"x" * 100_000),
    }
    message = messages[kind]
    async with connected(receive_buffer=SMALL) as (websocket, peer):
        count, waiting = await send_until_stuck(websocket, message)
        assert websocket.paused
        size = websocket.transport.get_write_buffer_size()
        assert 0 < size < 2 * 32768 + 2 * 300_000
        assert row.words("pauses")[1] >= 1
        await drain(peer)
        await asyncio.wait_for(waiting, PATIENCE)
        assert not websocket.paused
        await websocket.send("end")
        assert count > 0


async def test_everything_else_goes_on_while_a_sender_waits() -> None:
    async with connected(receive_buffer=SMALL) as (websocket, peer):
        _, waiting = await send_until_stuck(websocket, b"x" * 10_000)
        peer.send(frame(b"from the client"))
        assert await websocket.recv() == "from the client"
        for call in (websocket.ping(), websocket.pong(), websocket.send("x")):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.001)
        await drain(peer)
        await asyncio.wait_for(waiting, PATIENCE)


@pytest.mark.parametrize("end", ["reset", "cut", "close"])
async def test_a_connection_that_ends_lets_senders_go(end: str) -> None:
    async with connected(receive_buffer=SMALL, close_timeout=0.05) as (websocket, peer):
        _, waiting = await send_until_stuck(websocket, b"x" * 10_000)
        more = [asyncio.create_task(outcome(websocket.send(message))) for message in ("x", b"y", ["z"])]
        await asyncio.sleep(0)
        if end == "reset":
            peer.reset()
        elif end == "cut":
            websocket.transport.abort()
        else:
            await websocket.close()  # times out: the close frame is behind what is not read
        assert isinstance(await outcome(waiting), ConnectionClosedError)
        for task in more:
            assert isinstance(await task, ConnectionClosedError)


async def test_a_cancelled_sender_has_sent() -> None:
    async with connected(receive_buffer=SMALL) as (websocket, peer):
        _, waiting = await send_until_stuck(websocket, b"x" * 10_000)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await drain(peer)
        await until(lambda: not websocket.paused)
        await asyncio.wait_for(websocket.send("next"), PATIENCE)
        assert await drain(peer) == 6


@pytest.mark.parametrize(("write_limit", "low"), [(1_000, 250), ((1_000, 900), 900), ((100_000, 0), 0)])
async def test_write_limit(write_limit: Any, low: int) -> None:
    async with connected(write_limit=write_limit) as (websocket, _):
        high = write_limit if isinstance(write_limit, int) else write_limit[0]
        assert websocket.transport.get_write_buffer_limits() == (low, high)  # type: ignore[attr-defined]


async def test_pongs_to_a_client_that_does_not_read_are_bounded() -> None:
    async with connected(receive_buffer=SMALL) as (websocket, peer):
        _, waiting = await send_until_stuck(websocket, b"x" * 10_000)
        before = websocket.transport.get_write_buffer_size()
        pings = b"".join(frame(b"%d" % i + b"x" * 100, PING) for i in range(1_000))
        for _ in range(20):
            peer.send(pings)
            await peer.writer.drain()
        peer.send(frame(b"read"))
        assert await websocket.recv() == "read"
        assert websocket.transport.get_write_buffer_size() < before + 10_000
        reading = asyncio.create_task(drain(peer))
        await asyncio.wait_for(waiting, PATIENCE)
        await reading
        peer.send(frame(b"last", PING))
        assert await peer.frame() == (0x80 | PONG, b"last")


# In


async def test_a_slow_handler_makes_its_client_wait(row: Row) -> None:
    """What the client can send before it must wait is bounded by the queue and the buffers between."""
    async with connected(max_queue=4, max_size=None) as (websocket, peer):
        data = frame(b"x" * 10_000)
        peer.writer.transport.set_write_buffer_limits(0)
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            while sent < 100_000:
                peer.send(data)
                sent += 1
                await peer.writer.drain()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_all(), 0.5)
        assert sent < 3_000  # 30 MB; buffers of the system are much smaller
        assert row.words("pauses")[0] >= 1

        async def read_all() -> None:
            for _ in range(sent):
                assert len(await websocket.recv()) == 10_000

        reading = asyncio.create_task(read_all())
        await peer.writer.drain()
        await asyncio.wait_for(reading, PATIENCE)


@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_what_waits_can_be_read_when_the_connection_is_gone(end: str) -> None:
    async with connected(max_queue=2) as (websocket, peer):
        peer.send(*[frame(b"%d" % i) for i in range(50)])
        await peer.writer.drain()
        await asyncio.sleep(0.01)
        if end == "cut":
            websocket.transport.abort()
        else:
            websocket.transport.resume_reading()  # a reset is not seen by who does not read
            peer.reset()
        await websocket.wait_closed()
        got = [await outcome(websocket.recv()) for _ in range(51)]
        assert isinstance(got[-1], ConnectionClosedError)
        messages = [message for message in got if isinstance(message, str)]
        assert messages == [str(i) for i in range(len(messages))]
        assert len(messages) > 2


async def test_one_read_of_bombs_makes_nobody_hold_more_than_the_queue() -> None:
    """`max_queue` times `max_size` is the bound at every moment: of 250 MiB in one read, 4 MiB are made here."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = frame((squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4], BINARY, rsv=4)
    request = wire.request(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"})
    async with connected(max_queue=4, compression="deflate", request=request) as (websocket, peer):
        tracemalloc.start()
        try:
            peer.send(bomb * 250)
            await until(lambda: websocket._holds_back)
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()
        for _ in range(250):
            assert len(await websocket.recv()) == 2**20


async def test_max_queue_none_takes_everything() -> None:
    async with connected(max_queue=None) as (websocket, peer):
        peer.send(*[frame(b"x")] * 10_000)
        await peer.writer.drain()
        await asyncio.sleep(0.05)
        assert [await websocket.recv() for _ in range(10_000)] == ["x"] * 10_000


async def test_pings_are_answered_while_messages_wait() -> None:
    async with connected(max_queue=16) as (_, peer):
        peer.send(*[frame(b"x")] * 10, frame(b"ping", PING))
        assert await peer.frame() == (0x80 | PONG, b"ping")


async def test_a_reader_of_a_long_message_is_not_held_up_by_the_queue() -> None:
    async with connected(max_queue=2) as (websocket, peer):
        receiving = asyncio.create_task(websocket.recv())
        await asyncio.sleep(0)
        peer.send(frame(b"a", fin=False))
        for _ in range(100):
            peer.send(frame(b"b", 0, fin=False))
            await asyncio.sleep(0)
        peer.send(frame(b"c", 0))
        assert await receiving == "a" + "b" * 100 + "c"


# What is left behind


async def come_and_go(made: Serving, how: int) -> None:
    """One connection, which ends in one of many ways."""
    peer = await made.raw() if how == 0 else await made.peer()
    made.peers.clear()
    if how == 1:
        peer.reset()
    elif how == 2:
        peer.send(frame(b"x"))
        await peer.frame()
    elif how == 3:
        peer.send(frame(b"\xff"))
        await peer.close_frame()
    elif how == 4:
        peer.send(frame(b"half")[:-1])
    elif how == 5:
        peer.send(frame(b"x" * 70_000, 2), frame(b"p", PING))
        await peer.frame()
    peer.close()
    await until(lambda: not made.server._registry.all and not made.server.handler_tasks)


async def test_connections_leave_nothing_behind() -> None:
    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with serving(echo, close_timeout=0.05, open_timeout=0.05) as made:
        sizes = []
        tracemalloc.start()
        try:
            for _ in range(3):
                for i in range(140):
                    await come_and_go(made, i % 7)
                await asyncio.sleep(0.1)  # the last deadlines pass
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
                assert not [found for found in gc.get_objects() if isinstance(found, ServerConnection)]
        finally:
            tracemalloc.stop()
    assert sizes[2] - sizes[1] < 20_000
