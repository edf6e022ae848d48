"""Tests of tidegate.bus.link_protocol: who waits for room on a link goes on, whatever becomes of the link."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from tests.support.patience import PATIENCE
from tidegate.bus.link import Kind
from tidegate.bus.link_protocol import LinkProtocol

LIMIT = 1 << 16


@pytest.fixture
async def ends() -> AsyncIterator[tuple[LinkProtocol, socket.socket]]:
    """A link, and the socket of the hub's end, which reads nothing by itself."""
    ours, theirs = socket.socketpair()
    link = LinkProtocol(lambda frames: None, lambda reason: None, LIMIT)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
    yield link, theirs
    link.abort()
    theirs.close()
    await link.ended()


async def room(link: LinkProtocol) -> None:
    """Wait for room, as publishers do."""
    future = asyncio.get_running_loop().create_future()
    link.room.append(future)
    async with asyncio.timeout(PATIENCE):
        await future


async def test_what_the_system_takes_at_once_makes_room(ends: tuple[LinkProtocol, socket.socket]) -> None:
    link, _ = ends
    link.send(Kind.PUBLISH, payload=bytes(LIMIT))
    assert link.full
    await room(link)
    assert not link.full


async def test_who_waits_for_room_goes_on_when_the_link_ends(ends: tuple[LinkProtocol, socket.socket]) -> None:
    link, theirs = ends
    while not link.full:
        link.send(Kind.PUBLISH, payload=bytes(LIMIT // 2))
        await asyncio.sleep(0)
    waiting = asyncio.create_task(room(link))
    await asyncio.sleep(0)
    theirs.close()
    await waiting
    assert not link.full
    assert link.is_ended
