"""Tests of tidegate.asyncio.membership: slow clients, fragments, gaps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

import tidegate
from tests.asyncio.test_channels import CHANNELS, join_as_asked, received, served
from tests.bus.desk import Member
from tests.support.patience import PATIENCE
from tidegate import ChannelLimits, ConnectionClosed, Gap, Message, Position, ServerConnection, connect
from tidegate.asyncio.membership import ConnectionTable
from tidegate.bus.sharing import current


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def connections(channel: str) -> list[ServerConnection]:
    """The server's side of the connections in a channel."""
    return [member.connection for member in current()._topics.members_of(channel)]  # type: ignore[attr-defined]


async def test_a_client_that_does_not_read_is_closed_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    async with served(compression=None, close_timeout=0.1) as url, connect(f"{url}/h:1") as reader:
        await reader.recv()
        async with connect(f"{url}/h:1", max_queue=1) as slow:
            await slow.recv()
            with caplog.at_level(logging.WARNING, "tidegate.server"):
                count = 0
                while len(connections("h:1")) == 2:
                    await tidegate.publish("h:1", bytes(200_000))
                    count += 1
                    await received(reader, 1)
                    assert count < 1000
            assert "1 client was too slow for what channels bring, and closed with 1013" in caplog.text
            with pytest.raises(ConnectionClosed):
                await received(slow, 10_000)
        await tidegate.publish("h:1", "still there")
        assert await received(reader, 1) == ["still there"]


async def test_a_slow_client_of_the_latest_gets_the_newest_and_stays() -> None:
    async with served(compression=None) as url, connect(f"{url}/latest:1", max_queue=1, max_size=None) as slow:
        await slow.recv()
        (connection,) = connections("latest:1")
        for number in range(200):
            await tidegate.publish("latest:1", str(number).encode() + bytes(200_000))
            await asyncio.sleep(0)
        assert connection.transport.get_write_buffer_size() < 10 * 200_000
        last = b""
        while not last.startswith(b"199"):
            (message,) = await received(slow, 1)
            assert isinstance(message, bytes)
            last = message
        await tidegate.publish("latest:1", "after")
        assert await received(slow, 1) == ["after"]


async def test_what_else_waits_for_a_slow_client_keeps_the_latest_back() -> None:
    """It is replaced for as long as there is no room, and nobody is closed for it."""
    full = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join("latest:1")
        await websocket.send("joined")
        sending = asyncio.create_task(websocket.send(bytes(8 << 20)))
        await asyncio.sleep(0)
        assert websocket.paused
        full.set()
        await sending
        await websocket.wait_closed()

    async with served(handler, compression=None) as url, connect(url, max_queue=1, max_size=None) as slow:
        await full.wait()
        for number in range(50):
            await tidegate.publish("latest:1", str(number))
        assert await received(slow, 2) == ["joined", bytes(8 << 20)]
        assert await received(slow, 1) == ["49"]
        await tidegate.publish("latest:1", "after")
        assert await received(slow, 1) == ["after"]


async def test_many_channels_of_the_latest_do_not_close_a_slow_client() -> None:
    """Each is given when there is room, and not all at once."""
    channels = [f"latest:{number}" for number in range(8)]

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join(dict.fromkeys(channels))
        await websocket.send("joined")
        await websocket.wait_closed()

    async with served(handler, compression=None) as url, connect(url, max_queue=1, max_size=None) as slow:
        assert await received(slow, 1) == ["joined"]
        (connection,) = connections("latest:0")
        for number in range(10):
            for channel in channels:
                await tidegate.publish(channel, f"{channel} {number} ".ljust(900_000))
        await asyncio.sleep(0)
        assert connection.transport.get_write_buffer_size() < 3 * 900_000
        last: set[str] = set()
        while len(last) < len(channels):
            (message,) = await received(slow, 1)
            assert isinstance(message, str)
            channel, number_, _ = message.split(" ", 2)
            if number_ == "9":
                assert channel not in last
                last.add(channel)


async def test_what_was_missed_is_sent_as_the_client_reads() -> None:
    async with served(compression=None) as url:
        start = await tidegate.publish("h:1", b"")
        for _ in range(50):
            await tidegate.publish("h:1", bytes(20_000))
        async with connect(f"{url}/h:1?{start}", max_queue=1) as slow:
            await until(lambda: connections("h:1"))
            (connection,) = connections("h:1")
            assert connection.transport.get_write_buffer_size() < 500_000
            messages = await received(slow, 51)
            assert sorted(map(len, messages))[1:] == [20_000] * 50


async def test_who_joins_is_not_closed_for_what_waits_by_then() -> None:
    async def handler(websocket: ServerConnection) -> None:
        tidegate.broadcast([websocket], bytes(8 << 20))
        assert websocket.paused
        assert websocket.request is not None
        await websocket.join("h:1", since=websocket.request.path.rpartition("?")[2])
        await websocket.wait_closed()

    async with served(handler, compression=None) as url:
        start = await tidegate.publish("h:1", "first")
        await tidegate.publish("h:1", "missed")
        async with connect(f"{url}/?{start}", max_size=None) as client:
            assert await received(client, 2) == [bytes(8 << 20), "missed"]


async def test_what_was_missed_is_sent_in_turns_behind_a_fragmented_message() -> None:
    """Of what was missed no more waits than of one turn."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "one "
        begun.set()
        await go.wait()
        yield "message"

    async def handler(websocket: ServerConnection) -> None:
        sending = asyncio.create_task(websocket.send(fragments()))
        await begun.wait()
        assert websocket.request is not None
        joined = await websocket.join("h:1", since=websocket.request.path.rpartition("?")[2])
        assert (joined.resumed, joined.missed) == ("full", 10)
        go.set()
        await sending
        await websocket.wait_closed()

    async with served(handler, compression=None, channel_limits=ChannelLimits(member=100_000)) as url:
        start = await tidegate.publish("h:1", "first")
        for _ in range(10):
            await tidegate.publish("h:1", bytes(30_000))
        async with connect(f"{url}/?{start}") as client:
            assert await received(client, 11) == ["one message"] + [bytes(30_000)] * 10


async def test_messages_wait_for_the_end_of_a_fragmented_one() -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "one "
        begun.set()
        await go.wait()
        yield "message"

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join("h:1")
        await websocket.send(fragments())
        await websocket.wait_closed()

    async with served(handler) as url, connect(url) as client:
        await begun.wait()
        for number in range(3):
            await tidegate.publish("h:1", str(number))
        await asyncio.sleep(0)
        go.set()
        for number in range(3, 6):
            await tidegate.publish("h:1", str(number))
        assert await received(client, 7) == ["one message", "0", "1", "2", "3", "4", "5"]


async def test_the_latest_waits_alone_for_the_end_of_a_fragmented_one() -> None:
    """Also behind what waits of other channels."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "one "
        begun.set()
        await go.wait()
        yield "message"

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join({"latest:1": None, "h:1": None})
        await websocket.send(fragments())
        await websocket.wait_closed()

    async with served(handler) as url, connect(url) as client:
        await begun.wait()
        await tidegate.publish("latest:1", "1")
        await tidegate.publish("h:1", "a")
        for number in range(2, 6):
            await tidegate.publish("latest:1", str(number))
        await asyncio.sleep(0)
        go.set()
        assert await received(client, 3) == ["one message", "a", "5"]
        await tidegate.publish("latest:1", "6")
        assert await received(client, 1) == ["6"]


async def test_those_who_read_slowly_are_written_to_by_native_code() -> None:
    """Up to their limit, nothing is to be done for each."""
    async with served(compression=None) as url, connect(f"{url}/h:1", max_queue=1, max_size=None) as slow:
        await slow.recv()
        (connection,) = connections("h:1")
        assert connection.member is not None
        table = current()._topics._topics["h:1"].members
        sent = 0
        while (waiting := connection.transport.get_write_buffer_size()) < 100_000:
            table.fan_out(Message("h:1", bytes(100_000)), False)
            sent += 1
        for number in range(3):
            assert table.fan_out(Message("h:1", bytes(100_000)), False) == {}
            assert connection.transport.get_write_buffer_size() == waiting + (number + 1) * 100_010
            sent += 1
        assert connection.member._tasks is None
        assert await received(slow, sent) == [bytes(100_000)] * sent


async def test_what_waits_for_the_end_of_a_fragmented_one_is_bounded() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "one "
        begun.set()
        await end.wait()

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join("h:1")
        await websocket.send(fragments())

    limits = ChannelLimits(member=1000)
    async with served(handler, close_timeout=0.1, channel_limits=limits) as url, connect(url) as client:
        await begun.wait()
        for _ in range(3):
            await tidegate.publish("h:1", bytes(400))
        with pytest.raises(ConnectionClosed):
            await received(client, 1)
        end.set()


GAP = Gap("h:1", Position("e", 1), Position("e", 5), "trimmed")


async def test_a_gap_closes_a_client_that_cannot_be_told() -> None:
    async with served() as url, connect(f"{url}/h:1") as client:
        await client.recv()
        current()._topics._topics["h:1"].tell(GAP)
        with pytest.raises(ConnectionClosed) as caught:
            await received(client, 1)
        assert str(caught.value.rcvd) == "1013 (try again later) missed messages in h:1"


async def test_a_gap_without_history_closes_nobody() -> None:
    async with served() as url, connect(f"{url}/plain") as client:
        await client.recv()
        current()._topics._topics["plain"].tell(Gap("plain", None, None, "link"))
        await tidegate.publish("plain", "still there")
        assert await received(client, 1) == ["still there"]


async def test_a_handler_can_be_told_of_gaps(caplog: pytest.LogCaptureFixture) -> None:
    async def tell(websocket: ServerConnection, gap: Gap) -> None:
        await websocket.send(f"gap {gap.reason}")
        raise RuntimeError("a fault of the handler")

    def fail(websocket: ServerConnection, gap: Gap) -> None:
        raise RuntimeError("another fault")

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join("h:1", on_gap=tell)
        await websocket.join("h:2", on_gap=fail)
        await websocket.send("joined")
        await websocket.wait_closed()

    async with served(handler) as url, connect(url) as client:
        await client.recv()
        for channel in ("h:1", "h:2"):
            current()._topics._topics[channel].tell(GAP._replace(channel=channel))
        assert await received(client, 1) == ["gap trimmed"]
        await until(lambda: caplog.text.count("on_gap failed") == 2)


async def test_a_close_code_that_may_not_be_sent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as url, connect(f"{url}/plain") as client:
        await client.recv()
        await current().close_members("plain", 1006)
        await until(lambda: "members cannot be closed so" in caplog.text)


async def test_a_table_has_connections_and_others() -> None:
    async with served(join_as_asked, channels=CHANNELS) as url, connect(f"{url}/plain") as client:
        await client.recv()
        table = current()._topics._topics["plain"].members
        assert isinstance(table, ConnectionTable)
        (connection,) = table
        other = Member()
        table.add(other)
        assert (len(table), other in table, connection in table, list(table)) == (2, True, True, [connection, other])
        assert table.fan_out(Message("plain", b"hello", True), False) == {}
        assert await received(client, 1) == ["hello"]
        other.room = False
        assert table.fan_out(Message("plain", b"", sender=connection.sender, exclude=True), False) == {other: True}
        assert table.discard(other)
        assert table.discard(connection)
        assert not table.discard(connection)
        assert other.got == [b"hello", b""]
        table.add(connection)
