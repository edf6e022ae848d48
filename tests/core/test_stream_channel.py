"""A channel on a stream: what they do without bytes objects in between arrives as it does with any other transport.

What must not live here: either of them by itself (test_channel, test_stream).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from typing import Any

import pytest

from tests.core.recorder import MASK, Recorder
from tests.core.transports import Peer, settle
from tests.support import wire
from tests.support.patience import PATIENCE
from tidegate._core.stream import adopt


class Connected(Recorder):
    """A channel that is a protocol."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop(), max_size=None, high=4)
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._connect(transport)

    def eof_received(self) -> None:
        """Close."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc is None)
        self.lost.set()


def pair() -> tuple[Connected, Peer, Any]:
    ours, theirs = socket.socketpair()
    channel = Connected()
    return channel, Peer(theirs), adopt(asyncio.get_running_loop(), ours, channel)  # type: ignore[arg-type]


SIZES = [0, 1, 125, 126, 1000, 65_535, 65_536, 131_058, 131_072, 200_000, 1_000_000, 3_000_000, 7]


def payload(size: int) -> bytes:
    return (b"%d/" % size * size)[:size]


@pytest.mark.parametrize("step", [None, 100_001, 1000])
async def test_messages_of_all_sizes(step: int | None) -> None:
    """In pieces of any size they come whole and in order, and go back so."""
    channel, peer, _ = pair()

    async def echo() -> None:
        for _ in SIZES:
            await channel.send(await channel.recv())

    task = asyncio.create_task(echo())
    incoming = b"".join(wire.frame(payload(size), wire.BINARY, mask=MASK) for size in SIZES)
    outgoing = b"".join(wire.frame(payload(size), wire.BINARY, mask=None) for size in SIZES)
    reader = asyncio.create_task(peer.receive(len(outgoing)))
    for first in range(0, len(incoming), step or len(incoming)):
        await peer.send(incoming[first : first + (step or len(incoming))])
    assert await reader == outgoing
    await task
    peer.close()
    async with asyncio.timeout(PATIENCE):
        await channel.lost.wait()


async def test_a_payload_that_fills_its_room_before_it_is_whole() -> None:
    """A megabyte is made room for at first, however long the payload says that it is."""
    channel, peer, transport = pair()
    message = payload(3_000_000)
    frame = wire.frame(message, wire.BINARY, mask=MASK)
    first = len(frame) - len(message) + (1 << 20)
    await peer.send(frame[:first])
    await settle()
    await peer.send(frame[first:])
    assert await channel.recv() == message
    transport.abort()
    peer.close()


async def test_a_socket_that_takes_nothing_of_a_large_message() -> None:
    """Nor has anything waited before it."""
    ours, theirs = socket.socketpair()
    filler, channel, peer = ours.dup(), Connected(), Peer(theirs)
    transport = adopt(asyncio.get_running_loop(), ours, channel)  # type: ignore[arg-type]
    filled = 0
    with contextlib.suppress(BlockingIOError):  # which it raises when it is full
        while True:
            filled += filler.send(bytes(1000))
    task = asyncio.create_task(channel.send(payload(70_000)))
    await settle()
    expected = wire.frame(payload(70_000), wire.BINARY, mask=None)
    assert transport.get_write_buffer_size() == len(expected)
    assert await peer.receive(filled + len(expected)) == bytes(filled) + expected
    await task
    transport.abort()
    peer.close()
    filler.close()


@pytest.mark.parametrize("reads", [1, 1000, 40_000])
async def test_a_peer_that_reads_late(reads: int) -> None:
    """Heads and payloads that the socket takes in part, or not at all, follow each other all the same."""
    channel, peer, transport = pair()
    sizes = [*itertools.repeat(70_000, 3), 1, 300_000, 66_000, 5]

    async def send() -> None:
        for size in sizes:
            await channel.send(payload(size))

    task = asyncio.create_task(send())
    expected = b"".join(wire.frame(payload(size), wire.BINARY, mask=None) for size in sizes)
    for _ in range(20):
        await asyncio.sleep(0)
    assert transport.get_write_buffer_size() > 0
    found = b"".join([await peer.receive(reads) for _ in range(10)])
    found += await peer.receive(len(expected) - len(found))
    assert found == expected
    await task
    transport.abort()
    async with asyncio.timeout(PATIENCE):
        await channel.lost.wait()
    peer.close()


async def test_sending_large_messages_to_a_broken_connection() -> None:
    channel, peer, transport = pair()
    peer.close()
    await channel.send(payload(100_000))
    await channel.send(payload(100_000))
    async with asyncio.timeout(PATIENCE):
        await channel.lost.wait()
    assert transport.is_closing()
