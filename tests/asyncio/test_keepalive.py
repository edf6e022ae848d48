"""Keepalive over sockets: pings that leave by themselves, and what happens when nobody answers.

The rules of pings and pongs are tested in tests/test_keepalive.py. What must not live here: those again.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.asyncio.ends import connected
from tests.asyncio.test_tcp_info import stop_answering
from tests.support.coroutines import outcome, until
from tests.support.patience import PATIENCE
from tests.support.wire import PING, PONG, close, frame
from tidegate._core.counters import Row
from tidegate.exceptions import ConnectionClosedError
from tidegate.protocol import State

FIN = 0x80


async def test_a_client_that_answers_is_kept() -> None:
    async with connected(ping_interval=0.01, ping_timeout=5) as (websocket, peer):
        payloads = set()
        for _ in range(5):
            first, payload = await peer.frame()
            assert (first, len(payload)) == (FIN | PING, 4)
            payloads.add(payload)
            peer.send(frame(payload, PONG))
        assert len(payloads) == 5
        await until(lambda: websocket.latency > 0)
        assert websocket.state is State.OPEN


async def test_a_client_that_does_not_answer_is_closed(row: Row) -> None:
    async with connected(ping_interval=0.01, ping_timeout=0.02, close_timeout=0.02) as (websocket, peer):
        waiting = asyncio.create_task(outcome(websocket.recv()))
        assert (await peer.frame())[0] == FIN | PING
        assert await peer.close_frame() == (1011, "keepalive ping timeout")
        await peer.end()
        exc = await waiting
        assert isinstance(exc, ConnectionClosedError)
        assert str(exc) == "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        assert websocket.close_code == 1006
    assert row.words("pong_timeouts") == (1,)


@pytest.mark.parametrize("answer", [frame(b"", PONG), frame(b"else", PONG), frame(b"a message")])
async def test_only_the_pong_counts(answer: bytes) -> None:
    async with connected(ping_interval=0.01, ping_timeout=0.03, close_timeout=0.01) as (_, peer):
        assert (await peer.frame())[0] == FIN | PING
        peer.send(answer)
        assert (await peer.close_frame())[0] == 1011


async def test_a_client_whose_pong_waits_behind_our_own_queue_is_kept() -> None:
    """That its pong is not read is our doing: the handler is slower than its client."""
    async with connected(ping_interval=0.01, ping_timeout=0.02, max_queue=2) as (websocket, peer):
        first, payload = await peer.frame()
        assert first == FIN | PING
        peer.send(*[frame(b"x")] * 50, frame(payload, PONG))
        await peer.writer.drain()
        await asyncio.sleep(0.2)  # ten times as long as it may take
        assert websocket.state is State.OPEN
        assert [await websocket.recv() for _ in range(50)] == ["x"] * 50
        await until(lambda: websocket.latency > 0)


async def test_a_client_whose_host_is_gone_is_closed_though_its_messages_wait() -> None:
    async with connected(ping_interval=0.05, ping_timeout=0.05, close_timeout=0.01, max_queue=2) as (websocket, peer):
        peer.send(*[frame(b"x")] * 50)
        await until(lambda: websocket._holds_back)
        stop_answering(peer.writer.get_extra_info("socket"))
        async with asyncio.timeout(PATIENCE):
            await websocket.wait_closed()
        assert [message async for message in websocket.recv_streaming()] == ["x"]
        peer.writer.transport.abort()


async def test_a_later_pong_counts_for_earlier_pings() -> None:
    async with connected(ping_interval=0.01, ping_timeout=5) as (websocket, peer):
        await peer.frame()
        waiter = await websocket.ping("mine")
        assert await peer.frame() == (FIN | PING, b"mine")
        peer.send(frame(b"mine", PONG))
        await waiter
        assert (await peer.frame())[0] == FIN | PING  # the next one: the first is answered


async def test_without_ping_timeout_pings_go_on() -> None:
    async with connected(ping_interval=0.01, ping_timeout=None) as (websocket, peer):
        for _ in range(4):
            assert (await peer.frame())[0] == FIN | PING
        assert websocket.state is State.OPEN
        assert websocket._pings is not None
        assert len(websocket._pings) <= 1  # those that nobody will answer are not kept


async def test_without_ping_interval_there_are_none() -> None:
    async with connected(ping_interval=None, ping_timeout=0.01) as (websocket, peer):
        await asyncio.sleep(0.05)
        await websocket.send("first")
        assert await peer.frame() == (0x81, b"first")


async def test_it_ends_with_the_connection() -> None:
    async with connected(ping_interval=0.02, ping_timeout=5) as (websocket, peer):
        peer.send(close())
        await peer.close_frame()
        await asyncio.sleep(0.05)
        await peer.end()
        assert websocket._deadline is not None  # of closing now
        peer.close()
        await websocket.wait_closed()
        assert websocket._deadline is None


async def test_while_we_close_there_are_none() -> None:
    async with connected(ping_interval=0.01, ping_timeout=5, close_timeout=0.05) as (websocket, peer):
        closing = asyncio.create_task(websocket.close())
        assert await peer.close_frame() == (1000, "")
        await peer.end()
        await closing


async def test_in_a_fragmented_message_too() -> None:
    go_on = asyncio.Event()

    async def parts():  # type: ignore[no-untyped-def]
        yield "a"
        await go_on.wait()
        yield "b"

    async with connected(ping_interval=0.02, ping_timeout=5) as (websocket, peer):
        sending = asyncio.create_task(websocket.send(parts()))
        assert await peer.frame() == (0x01, b"a")
        first, payload = await peer.frame()
        assert first == FIN | PING
        peer.send(frame(payload, PONG))
        go_on.set()
        await sending


async def test_many_connections_share_a_timer() -> None:
    async with connected(ping_interval=20) as (websocket, _):
        deadlines = websocket.server._settings.deadlines
        timer = deadlines._timer
        assert timer is not None
        assert len(deadlines._due) <= 2


async def test_times_of_one_connection_are_changed_by_its_handler() -> None:
    """As attributes of it; those of others stay, and the next ping goes by the new ones."""
    async with connected(ping_interval=0.01, ping_timeout=5) as (websocket, _):
        shared = websocket._settings
        websocket.ping_timeout = websocket.close_timeout = 0.02
        assert (websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout) == (0.01, 0.02, 0.02)
        assert shared.ping_timeout == 5
        for wrong in (-1, "1"):
            with pytest.raises((TypeError, ValueError), match="close_timeout"):
                websocket.close_timeout = wrong  # type: ignore[assignment]
        await websocket.wait_closed()
        assert (websocket.close_sent.code, websocket.close_sent.reason) == (1011, "keepalive ping timeout")
