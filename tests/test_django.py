"""The channel layer of Django Channels over the bus: what its specification says, and consumers over a live server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from channels.exceptions import ChannelFull
from django.conf import settings

from tests.asyncio.calls import asgi_serving
from tests.support.coroutines import until
from tests.support.patience import PATIENCE
from tidegate import Channel
from tidegate.asyncio.membership import ConnectionTable
from tidegate.bus.sharing import share
from tidegate.django import ChannelLayer

CHANNELS = {"django:": Channel()}

if not settings.configured:
    settings.configure(
        CHANNEL_LAYERS={"default": {"BACKEND": "tidegate.django.ChannelLayer"}},
        INSTALLED_APPS=["channels"],
        ALLOWED_HOSTS=["*"],
    )


@asynccontextmanager
async def layers(**options: Any) -> AsyncIterator[tuple[ChannelLayer, ChannelLayer]]:
    """Two layers on one bus, as two processes have them."""
    bus = share("memory://", CHANNELS, ConnectionTable)
    await bus.enter()
    made = ChannelLayer(**options), ChannelLayer(**options)
    try:
        yield made
    finally:
        for layer in made:
            await layer.flush()
        await bus.leave()


async def received(layer: ChannelLayer, channel: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        return await layer.receive(channel)


async def test_a_message_to_a_channel_of_this_process_and_of_another() -> None:
    async with layers() as (one, two):
        channel = await one.new_channel()
        assert one.require_valid_channel_name(channel)
        message = {"type": "test", "bytes": b"\x00", "list": [1, None, "é"]}
        await one.send(channel, message)
        await two.send(channel, {**message, "n": 2})
        assert await received(one, channel) == message
        assert (await received(one, channel))["n"] == 2
        with pytest.raises(ValueError, match="of another process"):
            await two.receive(channel)


async def test_a_group_reaches_its_members_in_all_processes() -> None:
    async with layers() as (one, two):
        names = [(layer, await layer.new_channel()) for layer in (one, one, two)]
        for layer, name in names:
            await layer.group_add("room", name)
            await layer.group_add("room", name)
        await two.group_send("room", {"type": "hello"})
        for layer, name in names:
            assert await received(layer, name) == {"type": "hello"}
        await one.group_discard("room", names[0][1])
        await one.group_send("room", {"type": "again"})
        await one.group_send("other", {"type": "nobody"})
        assert await received(one, names[1][1]) == {"type": "again"}
        await one.send(names[0][1], {"type": "direct"})
        assert await received(one, names[0][1]) == {"type": "direct"}


async def test_a_channel_of_another_process_is_added_and_discarded_there() -> None:
    async with layers() as (one, two):
        name = await one.new_channel()
        await two.group_add("room", name)
        process = one._process
        await until(lambda: name in process._groups.get("room", ()))
        await two.group_send("room", {"type": "hello"})
        assert await received(one, name) == {"type": "hello"}
        await two.group_discard("room", name)
        await until(lambda: "room" not in process._groups)


async def test_capacity_and_expiry() -> None:
    async with layers(capacity=2, expiry=60, channel_capacity={"big.*": 3}) as (one, two):
        name, big = await one.new_channel(), await one.new_channel("big")
        for _ in range(2):
            await one.send(name, {"type": "x"})
        with pytest.raises(ChannelFull):
            await one.send(name, {"type": "x"})
        for _ in range(3):
            await one.send(big, {"type": "x"})
        await one.group_add("room", name)
        await two.group_send("room", {"type": "dropped"})


async def test_a_channel_that_is_not_read_leaves_its_groups() -> None:
    async with layers(expiry=0.01) as (one, _):
        name = await one.new_channel()
        await one.group_add("room", name)
        await one.group_send("room", {"type": "x"})
        await until(lambda: name in one._process._queues and one._process.queue(name).is_dead)
        await one.group_send("room", {"type": "x"})
        await until(lambda: not one._process._groups)
        assert name not in one._process._queues


async def test_receive_that_is_cancelled_loses_nothing() -> None:
    async with layers() as (one, _):
        name = await one.new_channel()
        reading = asyncio.create_task(one.receive(name))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert not one._process._queues
        await one.send(name, {"type": "kept"})
        assert await received(one, name) == {"type": "kept"}
        assert not one._process._queues


async def test_messages_that_nobody_reads_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.django.SWEEP_FROM", 10)
    async with layers(expiry=0.0) as (one, _):
        for number in range(100):
            await one.send((await one.new_channel()) + str(number), {"type": "late"})
        assert len(one._process._queues) <= 20


async def test_names_that_are_none() -> None:
    async with layers() as (one, _):
        for name in ("a b", "x" * 100, None):
            with pytest.raises(TypeError):
                await one.send(name, {})  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await one.group_send(name, {})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="need a queue"):
            await one.send("thumbnails", {})


async def test_consumers_over_a_live_server() -> None:
    """The chat of Channels' tutorial."""
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import URLRouter
    from django.urls import re_path

    ends: list[int] = []

    class ChatConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            self.group = "chat_" + self.scope["url_route"]["kwargs"]["room"]
            await self.channel_layer.group_add(self.group, self.channel_name)
            await self.accept()

        async def disconnect(self, code: int) -> None:
            ends.append(code)
            await self.channel_layer.group_discard(self.group, self.channel_name)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            text = json.loads(text_data or "")["message"]
            await self.channel_layer.group_send(self.group, {"type": "chat.message", "message": text})

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=json.dumps({"message": event["message"]}))

    application = URLRouter([re_path(r"ws/chat/(?P<room>\w+)/$", ChatConsumer.as_asgi())])
    from websockets.asyncio.client import connect

    async with asgi_serving(application, channels=CHANNELS) as made, asyncio.timeout(PATIENCE):
        async with connect(made.uri + "ws/chat/a/") as one, connect(made.uri + "ws/chat/a/") as two:
            await one.send(json.dumps({"message": "hi"}))
            assert json.loads(await one.recv()) == json.loads(await two.recv()) == {"message": "hi"}
            await two.close(4001)
            await until(lambda: ends)
            await one.send(json.dumps({"message": "alone"}))
            assert json.loads(await one.recv()) == {"message": "alone"}
        await until(lambda: len(ends) == 2)
    assert ends == [4001, 1000]
