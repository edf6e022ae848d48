"""Tests of tidegate.asyncio.enveloped: the cache of frames, slow clients, messages behind a fragmented one.

What must not live here: commands and hooks (test_channel_handler.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import tidegate
from tests.asyncio.test_channel_handler import channels, client_of
from tests.asyncio.test_membership import connections
from tests.support.patience import PATIENCE
from tidegate import BusError, ChannelLimits, ConnectionClosed, Message, Position, ServerConnection, TooManyChannels
from tidegate.asyncio import enveloped
from tidegate.asyncio.enveloped import FrameCache
from tidegate.frames import Opcode


def message(number: int, size: int = 1) -> Message:
    return Message("h:1", b"x" * size, True, Position("e", number))


def test_a_message_has_one_frame() -> None:
    cache = FrameCache()
    one = message(1)
    opcode, frame = cache.frame(one, False)
    assert (opcode, frame) == (Opcode.TEXT, b'{"c":"h:1","o":1,"d":"x"}')
    assert cache.frame(one, False)[1] is frame
    assert cache.frame(message(2), False)[1] == b'{"c":"h:1","o":2,"d":"x"}'
    assert cache.frame(Message("h:1", b"\x00"), True) == (Opcode.BINARY, b'\x0b{"c":"h:1"}\x00')


def test_the_cache_is_bounded_in_frames_and_in_bytes() -> None:
    cache = FrameCache()
    for number in range(1000):
        cache.frame(message(number), False)
    assert len(cache) == enveloped.CACHED_FRAMES
    for number in range(10):
        cache.frame(message(number, enveloped.CACHED_BYTES // 4), False)
    assert len(cache) == 3
    cache.frame(message(0, 2 * enveloped.CACHED_BYTES), False)
    assert len(cache) == 1


async def test_a_client_that_does_not_read_is_closed_and_got_all_until_then() -> None:
    async with channels(compression=None, close_timeout=0.1) as url, client_of(url, max_queue=1) as slow:
        await slow.ask({"join": {"h:1": None}})
        count = 0
        while connections("h:1"):
            await tidegate.publish("h:1", bytes(100_000))
            count += 1
            assert count < 1000
        offsets: list[int] = []
        with contextlib.suppress(ConnectionClosed):
            while len(offsets) < count:
                offsets.append((await slow.next())["o"])
        assert (slow.connection.close_code, slow.connection.close_reason) == (1013, "too slow for h:1")
        assert offsets == list(range(1, len(offsets) + 1))


async def test_who_sends_commands_and_reads_no_answers_is_not_read_from() -> None:
    joined: list[ServerConnection] = []

    def remember(websocket: ServerConnection, channel: str, since: object) -> bool:
        joined.append(websocket)
        return True

    names = {f"h:{number:0>200}": "x" * 200 for number in range(100)}
    async with channels(may_join=remember, compression=None, close_timeout=0.1) as url:
        async with client_of(url, max_queue=1) as client:
            for _ in range(60):
                await client.send({"join": names})
            async with asyncio.timeout(PATIENCE):
                assert "joined" in await client.next()
            assert joined[0].transport.get_write_buffer_size() < ChannelLimits().member
        assert len(connections("h:" + "0" * 200)) <= 1


async def test_frames_wait_for_the_end_of_a_fragmented_message() -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield '{"error":'
        begun.set()
        await go.wait()
        yield '"one message"}'

    async with channels() as url, client_of(url) as client:
        await client.ask({"join": {"h:1": None}})
        (connection,) = connections("h:1")
        sending = asyncio.create_task(connection.send(fragments()))
        await begun.wait()
        await tidegate.publish("h:1", "1")
        await client.send({"join": {"h:2": None}, "id": 1})
        await client.send({"publish": "h:2", "data": "2", "id": 2})
        go.set()
        await sending
        frames = [await client.next() for _ in range(5)]
        assert frames[0] == {"error": "one message"}
        assert frames[1]["d"] == "1"
        assert [frame.get("id", frame.get("d")) for frame in frames[2:]] in ([1, "2", 2], [1, 2, "2"])


async def test_the_application_joins_all_or_none_for_a_client() -> None:
    async with channels() as url, client_of(url) as client:
        await client.ask({"join": {"h:0": None}})
        (connection,) = connections("h:0")
        with pytest.raises(TooManyChannels):
            await connection.join({f"a{number}": None for number in range(130)})
        assert connection.member is not None
        assert connection.member.channels == ("h:0",)
        with pytest.raises(BusError):
            await connection.join({"h:1": None, " ": None})
        assert connection.member.channels == ("h:0",)


async def test_the_handler_hears_of_gaps_that_the_client_is_told_of() -> None:
    heard = []
    async with channels() as url, client_of(url) as client:
        await client.ask({"join": {"h:0": None}})
        (connection,) = connections("h:0")
        await connection.join("h:1", on_gap=lambda websocket, gap: heard.append(gap))
        assert "h:1" in (await client.next())["joined"]
        gap = tidegate.Gap("h:1", None, Position("e", 5), "epoch")
        assert connection.member is not None
        connection.member.gap(gap)
        assert heard == [gap]
        assert await client.next() == {"gap": "h:1", "at": "e.5", "why": "epoch"}
