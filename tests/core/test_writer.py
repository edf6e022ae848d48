"""Messages to bytes: frames, masks, gathered writes, counters."""

from __future__ import annotations

import asyncio
import itertools
import math
from bisect import bisect_left
from time import monotonic
from typing import Any

import pytest

from tests.core.recorder import Recorder, binary, control, finish, frames, in_callback, more, text
from tests.support.wire import BINARY, PING, TEXT, header
from tidegate._core.counters import BOUNDS, DIRECTIONS, OPCODES, Row
from tidegate._core.writer import slow_connections
from tidegate.protocol import State

# Frames


@pytest.mark.parametrize(
    ("message", "text_", "first", "payload"),
    [
        ("Hello", None, 0x81, b"Hello"),
        ("Hello", True, 0x81, b"Hello"),
        ("Hello", False, 0x82, b"Hello"),
        ("é\U0001f30a", None, 0x81, "é\U0001f30a".encode()),
        (b"\xff", None, 0x82, b"\xff"),
        (b"Hello", True, 0x81, b"Hello"),
        (b"Hello", False, 0x82, b"Hello"),
        (bytearray(b"Hello"), None, 0x82, b"Hello"),
        (bytearray(b"Hello"), True, 0x81, b"Hello"),
        (memoryview(b"Hello"), None, 0x82, b"Hello"),
        (memoryview(b"Hello")[1:3], True, 0x81, b"el"),
        ("", None, 0x81, b""),
        (b"", None, 0x82, b""),
    ],
)
def test_send(message: Any, text_: bool | None, first: int, payload: bytes) -> None:
    """A message of each type is one frame with the right opcode."""
    channel = Recorder()
    assert finish(channel.send(message, text_)) is None
    assert channel.transport_.writes == [header(first, len(payload)) + payload]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("kind", [str, bytes, bytearray])
def test_send_of_every_size(size: int, kind: type) -> None:
    channel = Recorder()
    payload = b"x" * size
    finish(channel.send(payload.decode() if kind is str else kind(payload)))
    assert channel.transport_.written == header(0x81 if kind is str else 0x82, size) + payload


def test_large_bytes_leave_uncopied() -> None:
    channel = Recorder()
    message = b"x" * (1 << 20)
    finish(channel.send(message))
    assert any(part is message for lines in channel.transport_.lines for part in lines) or any(
        part is message for part in channel.transport_.writes
    )


def test_what_is_sent_is_as_it_was_when_sent() -> None:
    channel = Recorder()
    for size in (10, 1 << 17):
        message = bytearray(b"a" * size)
        finish(channel.send(message))
        message[:] = b"b" * size
        assert b"b" not in channel.transport_.written


def test_an_exported_buffer_is_given_back() -> None:
    channel = Recorder()
    message = bytearray(b"a" * 10)
    finish(channel.send(message))
    message.extend(b"more")  # BufferError while somebody holds it


def test_text_that_is_no_unicode_fails_and_sends_nothing() -> None:
    channel = Recorder()
    with pytest.raises(UnicodeEncodeError):
        finish(channel.send("\ud800"))
    assert channel.transport_.writes == []


@pytest.mark.parametrize("message", [42, None, object(), ["a"], {"a": 1}, iter(["a"])])
def test_what_is_not_simple_goes_to_python(message: Any) -> None:
    channel = Recorder()
    finish(channel.send(message, True))
    assert channel.heard == [("slowly", message, True)]


@pytest.mark.parametrize("attribute", ["_sending", "_slow"])
def test_what_is_not_a_time_for_it_goes_to_python(attribute: str) -> None:
    channel = Recorder()
    setattr(channel, attribute, True)
    finish(channel.send("x"))
    channel._state = State.CLOSING
    finish(channel.send("y"))
    assert [entry[1] for entry in channel.heard] == ["x", "y"]
    assert channel.transport_.writes == []


def test_a_client_masks_with_keys_of_its_own() -> None:
    channel = Recorder(client=True)
    server = Recorder(high=None, low=None)
    messages = ["Hello", b"\x00" * 200, "é" * 70_000, b"", *map(str, range(3000))]
    for message in messages:
        finish(channel.send(message))
        channel.turn()
    writes = channel.transport_.writes
    server.feed(*writes)
    assert server.take_all() == messages
    keys = {write[2:6] for write in writes[4:]}
    assert len(keys) > 2990


def test_broken_writes_are_told() -> None:
    channel = Recorder()
    channel.transport_.broken = RuntimeError("no more")
    finish(channel.send("x"))
    assert channel.heard == [("write failed", channel.transport_.broken)]


def test_nothing_is_written_once_the_transport_is_gone() -> None:
    channel = Recorder()
    channel._disconnect()
    channel._send_frame(0x8A, b"")
    channel._write_bytes(b"x")
    channel._flush()
    assert channel.transport_.writes == []


# Gathered writes


async def echo(channel: Recorder) -> None:
    async for message in channel:
        await channel.send(message)


async def test_replies_to_one_read_leave_in_one_write() -> None:
    channel = Recorder(asyncio.get_running_loop())
    task = asyncio.create_task(echo(channel))
    await asyncio.sleep(0)
    for size in (1, 16, 500):
        messages = [f"message {i}" for i in range(size)]
        channel.transport_.writes.clear()
        await in_callback(channel.feed, b"".join(map(text, messages)))
        (write,) = channel.transport_.writes
        assert [payload.decode() for _, payload in frames(write)] == messages
    channel.lose(well=True)
    await task


async def test_replies_larger_than_the_buffer_leave_in_order() -> None:
    channel = Recorder(asyncio.get_running_loop(), max_size=None, high=None, low=None)
    task = asyncio.create_task(echo(channel))
    await asyncio.sleep(0)
    sizes = [10, 30_000, 40_000, 5, 70_000, 3, 65_536, 65_535, 1, 65_530, 7, 200_000, 0, 64_000, 2_000, 12]
    messages = [bytes([i]) * size for i, size in enumerate(sizes)]
    await in_callback(channel.feed, b"".join(map(binary, messages)))
    assert [payload for _, payload in frames(channel.transport_.written)] == messages
    assert len(channel.transport_.writes) < len(messages)
    channel.lose(well=True)
    await task


async def test_what_python_writes_keeps_its_place() -> None:
    """Control frames, raw bytes and flushes between gathered messages."""
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        async for message in channel:
            await channel.send(f"1 {message}")
            channel._send_frame(0x8A, b"pong")
            await channel.send(f"2 {message}")
            channel._write_bytes(b"\x89\x00")
            await channel.send(f"3 {message}")
            channel._flush()
            await channel.send(f"4 {message}")

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    await in_callback(channel.feed, text("x"))
    assert [payload for _, payload in frames(channel.transport_.written)] == [
        b"1 x",
        b"pong",
        b"2 x",
        b"",
        b"3 x",
        b"4 x",
    ]
    channel.lose(well=True)
    await task


async def test_outside_a_read_callback_messages_leave_at_once() -> None:
    channel = Recorder(asyncio.get_running_loop())
    await channel.send("a")
    assert len(channel.transport_.writes) == 1
    await channel.send("b")
    assert len(channel.transport_.writes) == 2


async def test_what_is_sent_in_a_read_callback_leaves_at_once_if_no_message_waits() -> None:
    """So that work that blocks, after it, does not hold it up; with more to answer, answers leave together."""
    one, other = (Recorder(asyncio.get_running_loop()) for _ in range(2))
    written = []

    async def handler() -> None:
        async for message in one:
            await other.send(message)
            await one.send(message)
            written.append((len(other.transport_.writes), len(one.transport_.writes)))

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    await in_callback(one.feed, text("x"))
    assert written == [(1, 1)]
    await in_callback(one.feed, text("y") * 3)
    assert written[1:3] == [(2, 1), (3, 1)]
    assert len(one.transport_.writes) == 2
    one.lose(well=True)
    await task


async def test_what_was_gathered_leaves_even_if_the_handler_dies() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        await channel.send(await channel.recv())
        raise ZeroDivisionError

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    await in_callback(channel.feed, text("x"))
    assert channel.transport_.written == b"\x81\x01x"
    with pytest.raises(ZeroDivisionError):
        await task


async def test_send_waits_while_the_write_buffer_is_full() -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel.transport_.full = True
    task = asyncio.create_task(channel.send("x"))
    await asyncio.sleep(0)
    assert channel.transport_.writes == [b"\x81\x01x"]  # written, but not done
    assert not task.done()
    other = asyncio.create_task(channel.send("y"))
    await asyncio.sleep(0)
    assert not other.done()
    channel.transport_.full = False
    channel.resume_writing()
    await task
    await other
    await channel.send("z")
    assert channel.transport_.written == b"\x81\x01x\x81\x01y\x81\x01z"


# Counters


def counted(name: str, row: Row) -> dict[tuple[str, ...], int]:
    names = itertools.product(DIRECTIONS, OPCODES) if name == "messages" else ((direction,) for direction in DIRECTIONS)
    return {key: value for key, value in zip(names, row.words(name), strict=True) if value}


def sizes(direction: str, row: Row) -> dict[int, int]:
    """Bucket -> how many messages."""
    *buckets, _ = row.words(f"message_size_{direction}")
    return {i: count for i, count in enumerate(buckets) if count}


def test_received_messages_are_counted(row: Row) -> None:
    channel = Recorder(high=4, low=0)
    channel.feed(text("é" * 3) + binary(b"ab", fin=False) + more(b"c") + control(PING, b"not data") + text(""))
    assert counted("messages", row) == {("received", "text"): 2, ("received", "binary"): 1}
    assert counted("bytes", row) == {("received",): 9}
    assert counted("pauses", row) == {}
    channel.feed(text("") + text(""))  # for which there is no room
    channel.turn()
    assert counted("messages", row) == {("received", "text"): 2, ("received", "binary"): 1}
    assert counted("pauses", row) == {("received",): 1}
    assert len(channel.take_all()) == 5
    assert counted("messages", row) == {("received", "text"): 4, ("received", "binary"): 1}
    assert counted("pauses", row) == {("received",): 1}
    channel.feed(binary(b"x" * 70_000)[:-1])
    assert counted("bytes", row) == {("received",): 9}
    channel.feed(b"x")
    assert counted("bytes", row) == {("received",): 70_009}
    assert sizes("received", row) == {0: sum(counted("messages", row).values()) - 1, 6: 1}
    assert row.words("message_size_received")[-1] == 70_009


def test_sent_messages_are_counted(row: Row) -> None:
    channel = Recorder()
    for message in ("é", b"abc", bytearray(b"x" * 100_000), memoryview(b"12"), ""):
        finish(channel.send(message))
    finish(channel.send(b"{}", True))
    assert counted("messages", row) == {("sent", "text"): 3, ("sent", "binary"): 3}
    assert counted("bytes", row) == {("sent",): 2 + 3 + 100_000 + 2 + 2}
    channel._send_frame(0x01, b"frag")
    channel._count_sent(4)
    channel._send_frame(0x80, b"ment")
    channel._count_sent(4)
    channel._count_message_sent(TEXT, 8)
    assert counted("messages", row) == {("sent", "text"): 4, ("sent", "binary"): 3}
    assert sizes("sent", row) == {0: 6, 6: 1}
    assert row.words("message_size_sent")[-1] == counted("bytes", row)["sent",]
    channel.pause_writing()
    channel.resume_writing()
    assert counted("pauses", row) == {("sent",): 1}


def test_slow_connections_are_those_above_their_limit() -> None:
    server, client = Recorder(), Recorder(client=True)
    for channel in (server, client):
        channel.pause_writing()
    assert slow_connections & {server, client} == {server}
    server.resume_writing()
    assert server not in slow_connections
    server.pause_writing()
    server._disconnect()
    assert server not in slow_connections


@pytest.mark.parametrize(
    ("size", "bucket"),
    [(0, 0), (1, 0), (64, 0), (65, 1), (256, 1), (257, 2), (1024, 2), (1025, 3), (2**20, 7), (2**20 + 1, 8),
     (2**24, 9), (2**24 + 1, 10), (2**26 + 1, 10)],
)  # fmt: skip
def test_sizes_of_messages(size: int, bucket: int, row: Row) -> None:
    channel = Recorder()
    channel._count_message_sent(BINARY, size)
    assert sizes("sent", row) == {bucket: 1}
    bounds = (*BOUNDS["message_size_sent"], math.inf)
    assert bucket == bisect_left(bounds, size)


def test_handling_a_message_is_measured_until_the_next_is_asked_for(row: Row) -> None:
    channel = Recorder()
    channel.feed(text("a") + text("b", fin=False) + more(b"c"))
    assert sum(row.words("handler_duration")) == 0
    channel.take()
    assert sum(row.words("handler_duration")[:-1]) == 0
    channel.take()
    assert sum(row.words("handler_duration")[:-1]) == 1
    channel.recv().send(None)
    assert sum(row.words("handler_duration")[:-1]) == 2
    channel.take_all()
    assert sum(row.words("handler_duration")[:-1]) == 2


def test_idle_since() -> None:
    channel = Recorder()
    before = channel.idle_since
    assert before <= monotonic()
    assert channel.idle_since == before
    channel.feed(text("a"))
    assert channel.idle_since > before  # a message waits
    channel.take()
    busy = channel.idle_since
    assert channel.idle_since >= busy > before  # and is being handled
    channel.recv().send(None)
    idle = channel.idle_since
    assert channel.idle_since == idle
    channel.feed(text("a" * 1000)[:100])
    assert channel.idle_since > idle  # in the middle of one
