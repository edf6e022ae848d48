"""Rooms for ASGI applications: scope["extensions"]["tidegate"].

What must not live here: what channels promise (tests/asyncio/test_channels.py, tests/bus).
"""

from __future__ import annotations

import pytest

from tests.asyncio.calls import asgi_serving
from tests.support.rawpeer import REQUEST
from tidegate import Channel
from tidegate.asyncio.asgi import ClientDisconnected
from tidegate.asyncio.channels import publish

CHANNELS = {"": Channel(history=10)}


async def test_members_get_what_is_published() -> None:
    async with asgi_serving(channels=CHANNELS) as made:
        (first, one), (second, two) = [await made.opened() for _ in range(2)]
        for call in (one, two):
            await call.scope["extensions"]["tidegate"]["join"]("room:1")
        position = await one.scope["extensions"]["tidegate"]["publish"]("room:1", "hello")
        assert position is not None
        assert await first.frame() == await second.frame() == (0x81, b"hello")
        await two.scope["extensions"]["tidegate"]["publish"]("room:1", {"n": 1}, to_self=False)
        await two.scope["extensions"]["tidegate"]["publish"]("room:1", b"\x00")
        assert [await first.frame(), await first.frame()] == [(0x81, b'{"n":1}'), (0x82, b"\x00")]
        assert await second.frame() == (0x82, b"\x00")
        await one.scope["extensions"]["tidegate"]["leave"]("room:1")
        await publish("room:1", "to the other")
        assert await second.frame() == (0x81, b"to the other")
        await one.send({"type": "websocket.send", "text": "next"})
        assert await first.frame() == (0x81, b"next")


async def test_what_was_missed_comes_first() -> None:
    async with asgi_serving(channels=CHANNELS) as made:
        _, call = await made.opened()
        position = await publish("room:2", "1")
        await publish("room:2", "2")
        peer, call = await made.opened()
        await call.scope["extensions"]["tidegate"]["join"]("room:2", since=position)
        assert await peer.frame() == (0x81, b"2")


async def test_joining_needs_an_open_connection() -> None:
    async with asgi_serving(channels=CHANNELS) as made:
        peer, call = await made.asked()
        with pytest.raises(RuntimeError, match="must be accepted first"):
            await call.scope["extensions"]["tidegate"]["join"]("room")
        await call.accept()
        peer.reset()
        assert (await call.receive())["code"] == 1006
        with pytest.raises(ClientDisconnected):
            await call.scope["extensions"]["tidegate"]["join"]("room")


async def test_requests_can_publish() -> None:
    async with asgi_serving(channels=CHANNELS) as made:
        peer, call = await made.opened()
        await call.scope["extensions"]["tidegate"]["join"]("room")
        _, request = await made.asked(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert set(request.scope["extensions"]["tidegate"]) == {"publish"}
        await request.scope["extensions"]["tidegate"]["publish"]("room", "posted")
        assert await peer.frame() == (0x81, b"posted")


async def test_without_channels_there_is_no_such_extension() -> None:
    async with asgi_serving() as made:
        _, call = await made.asked(REQUEST)
        assert set(call.scope["extensions"]) == {"websocket.http.response"}
