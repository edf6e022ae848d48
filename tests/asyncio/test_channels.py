"""Tests of tidegate.asyncio.channels, and of join() and leave() of connections: one server, real clients.

What must not live here: order and repairs (tests/bus/).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import tidegate
from tests.support.patience import PATIENCE
from tidegate import (
    Bus,
    Channel,
    ChannelLimits,
    ConnectionClosed,
    Gap,
    Joined,
    Position,
    PresenceEvent,
    ServerConnection,
    connect,
    serve,
)
from tidegate.asyncio.membership import ConnectionTable
from tidegate.exceptions import BusError, InvalidChannel, ProtocolError, TooManyChannels

CHANNELS = {
    "h:": Channel(history=100, history_bytes=2**24),
    "latest:": Channel(history=1, recover="latest"),
    "chat:": Channel(presence=True, presence_grace=0),
}


async def join_as_asked(websocket: ServerConnection) -> None:
    """Join what the path names, from the place that the query names, and say how."""
    assert websocket.request is not None
    channel, _, since = websocket.request.path[1:].partition("?")
    joined = await websocket.join(channel, since=since or None)
    await websocket.send(f"{joined.resumed} {joined.position} {joined.missed}")
    await websocket.wait_closed()


@asynccontextmanager
async def served(
    handler: Callable[[ServerConnection], Awaitable[None]] = join_as_asked, **options: Any
) -> AsyncIterator[str]:
    options.setdefault("channels", CHANNELS)
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def received(client: Any, count: int) -> list[str | bytes]:
    async with asyncio.timeout(PATIENCE):
        return [await client.recv() for _ in range(count)]


async def test_what_is_published_gets_to_all_clients_of_a_channel() -> None:
    async with (
        served() as url,
        connect(f"{url}/h:1") as one,
        connect(f"{url}/h:1") as two,
        connect(f"{url}/h:2") as other,
    ):
        for client in (one, two, other):
            await client.recv()
        await tidegate.publish("h:1", "hello")
        await tidegate.publish("h:1", b"\xff")
        await tidegate.publish("h:2", {"a": 1})
        assert await received(one, 2) == await received(two, 2) == ["hello", b"\xff"]
        assert await received(other, 1) == ['{"a":1}']


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    async with served() as url:
        async with connect(f"{url}/h:1") as client:
            _, place, _ = str(await client.recv()).split()
            await tidegate.publish("h:1", "1")
            assert await client.recv() == "1"
        position = await tidegate.publish("h:1", "2")
        await tidegate.publish("h:1", "3")
        assert position is not None
        async with connect(f"{url}/h:1?{place}") as client:
            assert sorted(await received(client, 4)) == ["1", "2", "3", f"full {place} 3"]
        async with connect(f"{url}/h:1?{position}") as client:
            await tidegate.publish("h:1", "4")
            assert sorted(await received(client, 3)) == ["3", "4", f"full {position} 1"]


async def test_an_unknown_place_is_failed_and_closes_nobody() -> None:
    async with served() as url, connect(f"{url}/h:1?nonsense") as client:
        assert str(await client.recv()).startswith("failed ")
        await tidegate.publish("h:1", "hello")
        assert await client.recv() == "hello"


async def test_many_channels_are_joined_at_once() -> None:
    joined: dict[str, Joined] = {}

    async def handler(websocket: ServerConnection) -> None:
        joined.update(await websocket.join({"h:1": None, "h:2": "nonsense", "plain": None}))
        await websocket.send("joined")
        assert websocket.member is not None
        assert websocket.member.channels == ("h:1", "h:2", "plain")
        await websocket.leave("h:1", "never")
        await websocket.send("left")
        await websocket.wait_closed()

    async with served(handler) as url, connect(url) as client:
        assert await received(client, 2) == ["joined", "left"]
        assert [joined[name].resumed for name in ("h:1", "h:2", "plain")] == ["new", "failed", "new"]
        for channel in ("h:1", "h:2", "plain"):
            await tidegate.publish(channel, channel)
        assert sorted(map(str, await received(client, 2))) == ["h:2", "plain"]


async def test_the_last_messages_come_first() -> None:
    async def handler(websocket: ServerConnection) -> None:
        joined = await websocket.join("h:1", last=2)
        assert joined.missed == 2
        await websocket.wait_closed()

    async with served(handler) as url:
        for number in range(5):
            await tidegate.publish("h:1", str(number))
        async with connect(url) as client:
            assert await received(client, 2) == ["3", "4"]


async def test_a_sender_can_be_excluded() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.join("plain")
        await websocket.send("joined")
        async for message in websocket:
            await tidegate.publish("plain", message, exclude=websocket)

    async with served(handler) as url, connect(url) as one, connect(url) as two:
        assert await received(one, 1) == await received(two, 1) == ["joined"]
        await one.send("from one")
        assert await received(two, 1) == ["from one"]
        await two.send("from two")
        assert await received(one, 1) == ["from two"]


async def test_excluding_one_that_has_not_joined_excludes_nobody() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await tidegate.publish("plain", "hello", exclude=websocket)

    async with served() as url, served(handler) as other, connect(f"{url}/plain") as client:
        await client.recv()
        async with connect(other):
            assert await received(client, 1) == ["hello"]


async def test_members_are_counted_until_they_leave_or_close() -> None:
    async with served() as url:
        assert await tidegate.members("h:1") == 0
        async with connect(f"{url}/h:1") as one, connect(f"{url}/h:1") as two:
            await one.recv()
            await two.recv()
            assert await tidegate.members("h:1") == 2
            two.transport.abort()
            async with asyncio.timeout(PATIENCE):
                while await tidegate.members("h:1") != 1:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            while await tidegate.members("h:1"):
                await asyncio.sleep(0.01)


async def test_members_can_be_closed() -> None:
    async with served() as url, connect(f"{url}/user:42") as one, connect(f"{url}/user:43") as other:
        await one.recv()
        await other.recv()
        await tidegate.close_members("user:42", 4001, "signed out")
        with pytest.raises(ConnectionClosed) as caught:
            await received(one, 1)
        assert (caught.value.rcvd and caught.value.rcvd.code) == 4001
        await tidegate.publish("user:43", "still there")
        assert await received(other, 1) == ["still there"]
        for code in (1005, 999):
            with pytest.raises(ProtocolError):
                await tidegate.close_members("user:43", code)


async def test_a_task_can_subscribe_and_read_history() -> None:
    async with served(), tidegate.subscribe("h:1") as messages:
        await tidegate.publish("h:1", "hello")
        message = await anext(messages)
        assert not isinstance(message, Gap)
        assert message.data == "hello"
        assert [one.data for one in await tidegate.history("h:1")] == ["hello"]


async def test_wrong_joins_are_told_and_join_nothing() -> None:
    told: list[BaseException] = []

    async def handler(websocket: ServerConnection) -> None:
        for channels in ("", {"h:1": None, "tg:x": None}, {f"h:{number}": None for number in range(129)}):
            try:
                await websocket.join(channels)  # type: ignore[arg-type]
            except BusError as exc:
                told.append(exc)
        assert websocket.member is not None
        await websocket.send(str(len(websocket.member.channels)))

    async with served(handler) as url, connect(url) as client:
        assert await client.recv() == "0"
    assert [type(exc) for exc in told] == [InvalidChannel, InvalidChannel, TooManyChannels]
    assert str(told[2]) == "a connection may join at most 128 channels"


async def test_limits_are_an_argument() -> None:
    told: list[BusError] = []

    async def handler(websocket: ServerConnection) -> None:
        for names in ({"h:1": None, "h:2": None, "h:3": None}, {"h:1": None, "h:2": None}, {"h:3": None}):
            try:
                await websocket.join(names)
            except BusError as exc:
                told.append(exc)
        try:
            await tidegate.publish("h:1", "123456")
        except BusError as exc:
            told.append(exc)
        await websocket.send("done")

    limits = ChannelLimits(message=5, per_connection=2)
    async with served(handler, channel_limits=limits) as url, connect(url) as client:
        assert await client.recv() == "done"
    assert [str(each) for each in told] == [
        *["a connection may join at most 2 channels"] * 2,
        "h:1: message of 6 bytes exceeds the bus's limit of 5 bytes",
    ]
    with pytest.raises(TypeError, match="channel_limits must be a ChannelLimits, not 5"):
        serve(handler, channel_limits=5)  # type: ignore[arg-type]


async def test_without_a_bus_it_is_said_what_is_missing() -> None:
    told: list[str] = []

    async def handler(websocket: ServerConnection) -> None:
        try:
            await websocket.join("h:1")
        except BusError as exc:
            told.append(str(exc))

    async with served(handler, channels=None) as url, connect(url) as client:
        await client.wait_closed()
    assert told == ["the server has no bus: give serve() channels=, or bus="]
    with pytest.raises(BusError, match="there is no bus here"):
        await tidegate.publish("h:1", "x")


async def test_joining_a_closed_connection_says_so() -> None:
    told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        await websocket.wait_closed()
        try:
            await websocket.join("h:1")
        except ConnectionClosed as exc:
            told.set_result(exc)
            raise

    async with served(handler) as url:
        async with connect(url):
            pass
        async with asyncio.timeout(PATIENCE):
            await told
        assert await tidegate.members("h:1") == 0


async def test_two_servers_of_one_loop_share_a_bus() -> None:
    async with served() as one, served() as two, connect(f"{one}/plain") as client, connect(f"{two}/plain") as other:
        await client.recv()
        await other.recv()
        await tidegate.publish("plain", "to all")
        assert await received(client, 1) == await received(other, 1) == ["to all"]


async def test_a_bus_of_ones_own_outlives_the_server() -> None:
    async with Bus("memory://", channels=CHANNELS) as bus:
        async with served(bus=bus, channels=None) as url, connect(f"{url}/h:1") as client:
            await client.recv()
            assert isinstance(bus._topics._topics["h:1"].members, ConnectionTable)
            await bus.publish("h:1", "hello")
            assert await received(client, 1) == ["hello"]
        assert [message.data for message in await bus.history("h:1")] == ["hello"]


async def test_handlers_can_publish_until_the_server_is_closed() -> None:
    positions: list[Position | None] = []

    async def handler(websocket: ServerConnection) -> None:
        await websocket.send("ready")
        await websocket.wait_closed()
        positions.append(await tidegate.publish("h:1", "the last"))

    async with served(handler) as url, connect(url) as client:
        await client.recv()
    assert len(positions) == 1
    with pytest.raises(BusError):
        await tidegate.publish("h:1", "too late")


def test_wrong_arguments_are_told_by_serve() -> None:
    async def handler(websocket: ServerConnection) -> None: ...

    with pytest.raises(ValueError, match="there is no bus kafka://"):
        serve(handler, bus="kafka://")
    with pytest.raises(TypeError, match="the URL of a bus must be a str, not int"):
        serve(handler, bus=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"channels\['chat:'\] must be a Channel, not 200"):
        serve(handler, channels={"chat:": 200})  # type: ignore[dict-item]


async def test_an_address_that_is_taken_leaves_no_bus() -> None:
    async def handler(websocket: ServerConnection) -> None: ...

    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match="in use"):
            await serve(handler, *server.sockets[0].getsockname(), channels=CHANNELS)
    with pytest.raises(BusError, match="there is no bus here"):
        await tidegate.members("h:1")


# Presence.


async def test_handlers_name_members_and_hear_who_comes_and_goes() -> None:
    heard: asyncio.Queue[tuple[str, str, str, Any]] = asyncio.Queue()

    async def on_presence(websocket: ServerConnection, event: PresenceEvent) -> None:
        assert websocket.request is not None
        heard.put_nowait((websocket.request.path, event.kind, event.member, event.info))

    async def handler(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        name = websocket.request.path[1:]
        await websocket.join("chat:1", member=name, info=[name], on_presence=on_presence if name == "ada" else None)
        await websocket.send(str(sorted(await tidegate.presence("chat:1"))))
        await websocket.wait_closed()

    async with served(handler) as url, connect(f"{url}/ada") as ada, asyncio.timeout(PATIENCE):
        assert await ada.recv() == "['ada']"
        async with connect(f"{url}/bob") as bob:
            assert await bob.recv() == "['ada', 'bob']"
            assert await heard.get() == ("/ada", "in", "bob", ["bob"])
            assert await tidegate.presence("chat:1") == {"ada": ["ada"], "bob": ["bob"]}
        assert await heard.get() == ("/ada", "out", "bob", None)
        await tidegate.leave_members("chat:1", "ada")
        while await tidegate.presence("chat:1"):
            await asyncio.sleep(0.01)
        await ada.ping()  # it is open


async def test_a_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    called = asyncio.Event()

    def on_presence(websocket: ServerConnection, event: PresenceEvent) -> None:
        called.set()
        raise RuntimeError("x")

    async def handler(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        await websocket.join("chat:1", member=websocket.request.path[1:], on_presence=on_presence)
        await tidegate.presence("chat:1")
        await websocket.send("joined")
        await websocket.wait_closed()

    async with served(handler) as url, connect(f"{url}/ada") as one, asyncio.timeout(PATIENCE):
        await one.recv()
        async with connect(f"{url}/bob") as two:
            await two.recv()
            await called.wait()
        await one.ping()
    assert "on_presence failed" in caplog.text


async def test_wrong_names_are_told_at_once() -> None:
    told: list[str] = []

    async def handler(websocket: ServerConnection) -> None:
        for channel, options in (
            ("plain", {"member": "ada"}),
            ("plain", {"on_presence": print}),
            ("chat:1", {"member": ""}),
            ("chat:1", {"info": "x"}),
            ("chat:1", {"member": "ada", "info": "x" * 2000}),
        ):
            with pytest.raises((BusError, TypeError, ValueError)) as error:
                await websocket.join(channel, **options)
            told.append(f"{type(error.value).__name__}: {error.value}")

    async with served(handler) as url, connect(url) as client:
        await client.wait_closed()
    no_presence = "BusError: plain: there is no presence: declare a Channel(presence=True) for the prefix"
    assert told == [
        no_presence,
        no_presence,
        "ValueError: member must have 1 to 128 bytes in UTF-8, not 0",
        "TypeError: member must be a str, not NoneType",
        "ValueError: info of 'ada' must be at most 1024 bytes of JSON, not 2002",
    ]
