"""Large compressed messages: inflated and compressed piece by piece, with turns of others in between.

A turn is so short here that each piece has one of its own, however fast the machine is. What must not live here: what
compression makes of bytes (test_deflate.py).
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.core.recorder import Recorder, binary, control, finish, frames, text
from tests.core.test_stream_channel import pair
from tests.core.transports import settle
from tests.support.patience import PATIENCE
from tests.support.wire import BINARY, CLOSE, PING
from tidegate._core import turns
from tidegate._core.broadcast import broadcast
from tidegate._core.deflate import Deflate
from tidegate.exceptions import ConnectionClosedError
from tidegate.protocol import State

LARGE = random.Random(9).randbytes(2**18).hex()
COMPRESSED = 0xC2  # FIN, RSV1, binary


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    before = turns.seconds()
    turns.set_seconds(1e-5)  # no piece takes less
    yield
    turns.set_seconds(before)


def deflating(**options: Any) -> Recorder:
    channel = Recorder(**options)
    channel._use_deflate(Deflate(False, False, 15, 15))
    return channel


class DeflatingPeer:
    """The other side's two contexts."""

    def __init__(self) -> None:
        self.compressor = zlib.compressobj(wbits=-15)
        self.decompressor = zlib.decompressobj(wbits=-15)

    def write(self, message: bytes) -> bytes:
        data = self.compressor.compress(message) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        return binary(data[:-4], rsv=4)

    def read(self, written: bytes) -> list[bytes]:
        """The messages of what was written."""
        found = []
        for first, payload in frames(written):
            if first == COMPRESSED:
                payload = self.decompressor.decompress(payload + b"\x00\x00\xff\xff")
            found.append(payload)
        return found


def turns_until_done(channel: Recorder, awaitable: Any) -> int:
    """Drive it by hand: how many turns it had to wait for."""
    count = 0
    try:
        while True:
            awaitable.send(None)
            assert channel.hand_turned.turn(), "nobody would wake it"
            count += 1
    except StopIteration:
        return count


# In


def test_a_large_message_is_inflated_over_several_turns() -> None:
    channel, peer = deflating(), DeflatingPeer()
    awaitable = channel.recv()
    waiter = awaitable.send(None)
    woken: list[Any] = []
    waiter.add_done_callback(woken.append)
    channel.data_received(peer.write(bytes(2**20)) + peer.write(b"next") + control(PING, b"!"))
    count = 0
    while not woken:
        assert channel.controls == []
        assert not channel.transport_.reading
        assert channel.hand_turned.turn()
        count += 1
    assert count >= 3
    assert finish(awaitable) == bytes(2**20)
    channel.turn()
    assert channel.take() == b"next"
    assert channel.controls == [(PING, b"!")]
    assert channel.transport_.reading


async def test_a_large_message_whose_end_is_read_into_its_place_is_inflated() -> None:
    """Over several turns, with no bytes after it that are still to be parsed."""
    channel, peer, transport = pair()
    channel._use_deflate(Deflate(False, False, 15, 15))
    message = LARGE.encode()
    frame = DeflatingPeer().write(message)
    await peer.send(frame[:-100_000])
    await settle()
    await peer.send(frame[-100_000:])
    async with asyncio.timeout(PATIENCE):
        assert await channel.recv() == message
    transport.abort()
    peer.close()


def test_a_message_that_was_being_inflated_can_be_read_after_the_end() -> None:
    channel, peer = deflating(), DeflatingPeer()
    channel.data_received(peer.write(bytes(2**20)) + peer.write(b"next"))
    channel.lose()
    assert channel.take() == bytes(2**20)
    assert channel.take() == b"next"
    with pytest.raises(ConnectionClosedError):
        channel.take()


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**20 - 1, 2**20])
def test_a_message_may_be_as_long_as_the_limit_and_no_longer(size: int) -> None:
    """Also where the limit is at the end of a piece."""
    for message in bytes(size), (LARGE * 2).encode()[:size].ljust(size):
        channel = deflating(max_size=size)
        channel.data_received(DeflatingPeer().write(message))
        channel.turn()
        assert channel.take() == message
        channel = deflating(max_size=size - 1)
        channel.data_received(DeflatingPeer().write(message))
        channel.turn()
        assert len(channel.failures) == 1
        assert channel.take_all() == []


def test_what_is_found_wrong_in_a_later_piece_fails_the_connection() -> None:
    channel = deflating()
    squeeze = zlib.compressobj(wbits=-15)
    data = squeeze.compress(bytes(2**19)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    channel.data_received(binary(data + b"\x07" * 100, rsv=4) + text("never read"))
    assert channel.failures == []
    channel.turn()
    assert len(channel.failures) == 1
    assert channel.take_all() == []


# Out


def test_a_large_message_is_compressed_over_several_turns() -> None:
    channel, peer = deflating(), DeflatingPeer()
    awaitable = channel.send(LARGE.encode())
    awaitable.send(None)
    assert channel.transport_.writes == []
    assert turns_until_done(channel, awaitable) >= 3
    finish(channel.send(b"next"))
    assert peer.read(channel.transport_.written) == [LARGE.encode(), b"next"]


def test_a_large_message_is_counted_once_and_as_it_was() -> None:
    channel = deflating()
    messages, size = channel._row.words("messages"), channel._row.words("bytes")
    turns_until_done(channel, channel.send(LARGE))
    turns_until_done(channel, channel.send(LARGE.encode()))
    text_sent, binary_sent = messages[2], messages[3]
    assert channel._row.words("messages")[2:] == (text_sent + 1, binary_sent + 1)
    assert channel._row.words("bytes")[1] == size[1] + 2 * len(LARGE)


def test_a_message_that_is_sent_meanwhile_comes_after_it() -> None:
    channel, peer = deflating(), DeflatingPeer()
    first, second = channel.send(LARGE.encode()), channel.send(LARGE[::-1].encode())
    first.send(None)
    second.send(None)
    assert peer.read(channel.transport_.written) == [LARGE.encode()]
    finish(channel.send(b"third"))
    turns_until_done(channel, second)
    turns_until_done(channel, first)
    del channel.transport_.writes[0]
    assert peer.read(channel.transport_.written) == [LARGE[::-1].encode(), b"third"]


def test_a_broadcast_comes_after_it() -> None:
    channel, peer = deflating(), DeflatingPeer()
    awaitable = channel.send(LARGE.encode())
    awaitable.send(None)
    assert broadcast([channel], BINARY, b"to all") == ([], [])
    turns_until_done(channel, awaitable)
    assert peer.read(channel.transport_.written) == [LARGE.encode(), b"to all"]


def test_python_can_have_it_finished() -> None:
    """Before it compresses or closes."""
    channel, peer = deflating(), DeflatingPeer()
    awaitable = channel.send(LARGE.encode())
    awaitable.send(None)
    channel._finish_message()
    channel._send_frame(0x80 | CLOSE, b"")
    assert peer.read(channel.transport_.written) == [LARGE.encode(), b""]
    turns_until_done(channel, awaitable)
    assert len(channel.transport_.writes) == 2


@pytest.mark.parametrize("ending", ["cancelled", "closed", "deleted"])
def test_a_message_that_is_given_up_leaves_nothing_behind(ending: str) -> None:
    channel, peer = deflating(), DeflatingPeer()
    finish(channel.send(b"before"))
    awaitable = channel.send(LARGE.encode())
    awaitable.send(None)
    if ending == "cancelled":
        with pytest.raises(asyncio.CancelledError):
            awaitable.throw(asyncio.CancelledError())
    elif ending == "closed":
        awaitable.close()
    del awaitable
    finish(channel.send(b"after"))
    assert peer.read(channel.transport_.written) == [b"before", b"after"]


def test_the_end_of_the_connection_ends_it() -> None:
    channel = deflating()
    awaitable = channel.send(LARGE)
    awaitable.send(None)
    channel._state = State.CLOSING
    turns_until_done(channel, awaitable)
    assert channel.heard == [("slowly", LARGE, None)]  # which raises what it is closed by
    assert channel.transport_.writes == []


async def test_it_waits_for_a_full_write_buffer() -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel._use_deflate(Deflate(False, False, 15, 15))
    channel.transport_.full = True
    sending = asyncio.create_task(channel.send(LARGE))
    while not channel.transport_.writes:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not sending.done()
    channel.resume_writing()
    await sending
