"""Messages in fragments: received as they come, sent as they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.asyncio.ends import connected, serving
from tests.support.coroutines import outcome
from tests.support.wire import BINARY, CONT, PING, PONG, TEXT, close, frame
from tidegate.asyncio.server import ServerConnection
from tidegate.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from tidegate.protocol import State

FIN = 0x80


async def streamed(websocket: ServerConnection, decode: bool | None = None) -> list[Any]:
    return [part async for part in websocket.recv_streaming(decode)]


async def asynchronous(*parts: Any) -> AsyncIterator[Any]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


class Tap:
    """An asynchronous iterable whose items come when a test says so."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    def __aiter__(self) -> Tap:
        return self

    async def __anext__(self) -> Any:
        item = await self.queue.get()
        if item is None:
            raise StopAsyncIteration
        return item


# Receiving


@pytest.mark.parametrize(
    ("opcode", "parts", "decode", "expected"),
    [
        (TEXT, [b"whole"], None, ["whole"]),
        (TEXT, [b"a", b"b", b"c"], None, ["a", "b", "c"]),
        (TEXT, [b"caf\xc3", b"\xa9"], None, ["caf", "é"]),
        (TEXT, [b"\xf0", b"\x9f", b"\x8c", b"\x8a"], None, ["", "", "", "\U0001f30a"]),
        (TEXT, [b"a", b""], None, ["a", ""]),
        (TEXT, [b""], None, [""]),
        (TEXT, [b"caf\xc3", b"\xa9"], False, [b"caf\xc3", b"\xa9"]),
        (TEXT, [b"whole"], False, [b"whole"]),
        (BINARY, [b"\xff"], None, [b"\xff"]),
        (BINARY, [b"\xff", b"", b"\xfe"], None, [b"\xff", b"", b"\xfe"]),
        (BINARY, [b"caf\xc3", b"\xa9"], True, ["caf", "é"]),
        (BINARY, [b"whole"], True, ["whole"]),
    ],
)
@pytest.mark.parametrize("waiting", [True, False])
async def test_fragments(
    opcode: int, parts: list[bytes], decode: bool | None, expected: list[Any], waiting: bool
) -> None:
    """Each frame is yielded as it comes, as str or bytes as `decode` says."""
    async with connected() as (websocket, peer):
        frames = [
            frame(part, CONT if i else opcode, fin=i == len(parts) - 1, mask=b"mask") for i, part in enumerate(parts)
        ]
        if waiting:
            receiving = asyncio.create_task(streamed(websocket, decode))
            for data in frames:
                await asyncio.sleep(0.001)
                peer.send(data)
            assert await receiving == expected
        else:
            peer.send(*frames)
            await asyncio.sleep(0.001)
            assert await streamed(websocket, decode) == expected
        peer.send(frame(b"next"))
        assert await websocket.recv() == "next"


async def test_each_fragment_as_it_comes() -> None:
    async with connected() as (websocket, peer):
        stream = websocket.recv_streaming()
        peer.send(frame(b"a", fin=False))
        assert await anext(stream) == "a"
        peer.send(frame(b"ping", PING), frame(b"b", CONT, fin=False))
        assert await anext(stream) == "b"
        assert await peer.frame() == (FIN | PONG, b"ping")
        peer.send(frame(b"c", CONT))
        assert await anext(stream) == "c"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_message_larger_than_the_queue() -> None:
    """Frames are taken as they come, so that any number of them fits."""
    async with connected(max_queue=2, max_size=None) as (websocket, peer):
        peer.send(frame(b"", BINARY, fin=False), *[frame(b"x", CONT, fin=False)] * 4_000, frame(b"!", CONT))
        assert b"".join(await streamed(websocket)) == b"x" * 4_000 + b"!"


async def test_a_message_of_more_fragments_than_a_reader_of_messages_may_get() -> None:
    """For these small ones are joined; streamed, each is given as it came, however many come at once."""
    async with connected(max_queue=None) as (websocket, peer):
        receiving = asyncio.create_task(streamed(websocket))
        await asyncio.sleep(0)
        websocket.data_received(
            b"".join([frame(b"", BINARY, fin=False), *[frame(b"", CONT, fin=False)] * 10_000, frame(b"!", CONT)])
        )
        assert await receiving == [b""] * 10_001 + [b"!"]
        stream = websocket.recv_streaming()
        peer.send(frame(b"a", fin=False))
        assert await anext(stream) == "a"  # begun, though nobody waits for more
        websocket.data_received(frame(b"", CONT, fin=False) * 10_000)
        peer.send(frame(b"z", CONT))
        assert [part async for part in stream] == [""] * 10_000 + ["z"]


async def test_a_stream_must_be_consumed() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"a", fin=False), frame(b"b", CONT), frame(b"c"))
        async for part in websocket.recv_streaming():
            assert part == "a"
            break
        recv, streaming = await outcome(websocket.recv()), await outcome(anext(websocket.recv_streaming()))
        assert isinstance(recv, ConcurrencyError)
        assert str(recv).startswith("cannot call recv while")
        assert isinstance(streaming, ConcurrencyError)
        assert str(streaming).startswith("cannot call recv_streaming while")
        assert isinstance(await outcome(anext(aiter(websocket))), ConcurrencyError)


async def test_cancelled_before_the_first_fragment() -> None:
    async with connected() as (websocket, peer):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(websocket.recv_streaming()), 0.001)
        peer.send(frame(b"a", fin=False), frame(b"b", CONT))
        assert await streamed(websocket) == ["a", "b"]


async def test_cancelled_after_the_first_fragment() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"a", fin=False))
        stream = websocket.recv_streaming()
        assert await anext(stream) == "a"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.001)
        assert isinstance(await outcome(websocket.recv()), ConcurrencyError)
        closing = asyncio.create_task(websocket.close())
        assert await peer.close_frame() == (1000, "")
        peer.send(close())
        peer.close()
        await closing


async def test_two_streams() -> None:
    async with connected() as (websocket, peer):
        stream = websocket.recv_streaming()
        peer.send(frame(b"a", fin=False))
        assert await anext(stream) == "a"
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyError):
            await anext(websocket.recv_streaming())
        peer.send(frame(b"b", CONT))
        assert await waiting == "b"


@pytest.mark.parametrize("begun", [True, False])
async def test_the_end_in_a_stream(begun: bool) -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"a", fin=False) if begun else b"")
        receiving = asyncio.create_task(outcome(streamed(websocket)))
        await peer.writer.drain()
        peer.close()
        assert isinstance(await receiving, ConnectionClosedError)
    async with connected() as (websocket, peer):
        receiving = asyncio.create_task(outcome(streamed(websocket)))
        peer.send(close())
        await peer.close_frame()
        peer.close()
        assert isinstance(await receiving, ConnectionClosedOK)


async def test_text_that_breaks_in_a_stream() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"fine", fin=False))
        stream = websocket.recv_streaming()
        assert await anext(stream) == "fine"
        rest = asyncio.create_task(outcome(anext(stream)))
        peer.send(frame(b"\xff", CONT))
        assert (await peer.close_frame())[0] == 1007
        peer.close()
        exc = await rest
        assert isinstance(exc, ConnectionClosedError)
        assert isinstance(exc.__cause__, UnicodeDecodeError)


async def test_bytes_that_are_no_text_in_a_stream() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"caf\xc3", BINARY, fin=False), frame(b"!", CONT))
        receiving = asyncio.create_task(outcome(streamed(websocket, True)))
        assert (await peer.close_frame())[0] == 1007
        peer.close()
        assert isinstance(await receiving, ConnectionClosedError)


# Sending


@pytest.mark.parametrize(
    ("message", "text", "frames"),
    [
        (["a", "b"], None, [(TEXT, b"a"), (CONT, b"b"), (FIN, b"")]),
        ([b"a"], None, [(BINARY, b"a"), (FIN, b"")]),
        (("é", ""), None, [(TEXT, b"\xc3\xa9"), (CONT, b""), (FIN, b"")]),
        ([b"1", bytearray(b"2"), memoryview(b"3")], None, [(BINARY, b"1"), (CONT, b"2"), (CONT, b"3"), (FIN, b"")]),
        ([b"a", b"b"], True, [(TEXT, b"a"), (CONT, b"b"), (FIN, b"")]),
        (["a"], False, [(BINARY, b"a"), (FIN, b"")]),
        ({"key": 1}.keys(), None, [(TEXT, b"key"), (FIN, b"")]),
        ([], None, []),
    ],
)
@pytest.mark.parametrize("how", ["iterable", "iterator", "async"])
async def test_iterables(message: Any, text: bool | None, frames: list[tuple[int, bytes]], how: str) -> None:
    """Each part of an iterable is sent as a frame of one message, and an empty one sends nothing."""
    async with connected() as (websocket, peer):
        made = message if how == "iterable" else iter(message) if how == "iterator" else asynchronous(*message)
        await websocket.send(made, text)
        await websocket.send("next")
        assert [await peer.frame() for _ in frames] == frames
        assert await peer.frame() == (FIN | TEXT, b"next")


class Raising:
    """Iterables that fail after their first item."""

    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("message", "sent", "error", "match"),
    [
        (["a", b"b"], [(TEXT, b"a")], TypeError, "^iterable must contain uniform types$"),
        ([b"a", "b"], [(BINARY, b"a")], TypeError, "^iterable must contain uniform types$"),
        ([b"a", 1], [(BINARY, b"a")], TypeError, "^iterable must contain uniform types$"),
        ([1, 2], [], TypeError, "^iterable must contain bytes or str$"),
        ([None], [], TypeError, "^iterable must contain bytes or str$"),
        (["a", "\ud800"], [(TEXT, b"a")], UnicodeEncodeError, "surrogates"),
        (Raising(), [(TEXT, b"a")], ZeroDivisionError, "^$"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("how", ["iterable", "async"])
async def test_a_message_that_cannot_be_ended_ends_the_connection(
    message: Any, sent: list[Any], error: type[Exception], match: str, how: str
) -> None:
    async with connected() as (websocket, peer):
        if how == "async":
            message = asynchronous(*message) if isinstance(message, list) else aiter(message)
            match = match.replace("^iterable", "^async iterable")
        sending = asyncio.create_task(outcome(websocket.send(message)))
        assert [await peer.frame() for _ in sent] == sent
        assert await peer.close_frame() == (1011, "error in fragmented message")
        assert not sending.done()  # until the connection is closed
        peer.close()
        exc = await sending
        assert websocket.state is State.CLOSED
        assert isinstance(exc, error)
        with pytest.raises(error, match=match):
            raise exc
        assert isinstance(await outcome(websocket.send("more")), ConnectionClosedError)


async def test_other_senders_wait_for_their_turn() -> None:
    async with connected() as (websocket, peer):
        tap = Tap()
        sending = asyncio.create_task(websocket.send(tap))
        tap.queue.put_nowait("a")
        assert await peer.frame() == (TEXT, b"a")
        others = [asyncio.create_task(websocket.send(message)) for message in ("1", ["2", "3"], "4", Tap())]
        others[3].cancel()
        await asyncio.sleep(0.005)
        pinging = asyncio.create_task(websocket.ping("p"))
        assert await peer.frame() == (FIN | PING, b"p")  # control frames need not wait
        tap.queue.put_nowait("b")
        assert await peer.frame() == (CONT, b"b")
        assert not any(task.done() for task in others[:3])
        tap.queue.put_nowait(None)
        expected = [(FIN, b""), (FIN | TEXT, b"1"), (TEXT, b"2"), (CONT, b"3"), (FIN, b""), (FIN | TEXT, b"4")]
        assert [await peer.frame() for _ in expected] == expected
        await asyncio.gather(sending, *others[:3])
        await pinging


async def test_before_its_first_part_a_message_blocks_nobody() -> None:
    async with connected() as (websocket, peer):
        tap = Tap()
        sending = asyncio.create_task(websocket.send(tap))
        await asyncio.sleep(0)
        await websocket.send("between")
        assert await peer.frame() == (FIN | TEXT, b"between")
        tap.queue.put_nowait("a")
        tap.queue.put_nowait(None)
        await sending
        assert [await peer.frame() for _ in range(2)] == [(TEXT, b"a"), (FIN, b"")]


async def test_closing_in_a_message_fails_the_connection() -> None:
    async with connected() as (websocket, peer):
        tap = Tap()
        sending = asyncio.create_task(outcome(websocket.send(tap)))
        tap.queue.put_nowait("a")
        assert await peer.frame() == (TEXT, b"a")
        waiting = asyncio.create_task(outcome(websocket.send("b")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(websocket.close())
        assert await peer.frame() == (0x88, b"\x03\xf3close during fragmented message")
        await peer.end()
        peer.close()
        await closing
        tap.queue.put_nowait("more")
        for task in (sending, waiting):
            exc = await task
            assert isinstance(exc, ConnectionClosedError)
            assert exc.sent is not None
            assert exc.sent.code == 1011


async def test_the_other_side_may_close_in_a_message() -> None:
    async with connected() as (websocket, peer):
        tap = Tap()
        sending = asyncio.create_task(outcome(websocket.send(tap)))
        tap.queue.put_nowait("a")
        assert await peer.frame() == (TEXT, b"a")
        peer.send(close())
        assert await peer.close_frame() == (1000, "")
        peer.close()
        tap.queue.put_nowait("b")
        assert isinstance(await sending, ConnectionClosedOK)


async def test_cancelling_in_a_message_ends_the_connection() -> None:
    async with connected() as (websocket, peer):
        tap = Tap()
        sending = asyncio.create_task(websocket.send(tap))
        tap.queue.put_nowait("a")
        assert await peer.frame() == (TEXT, b"a")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await peer.close_frame() == (1011, "error in fragmented message")


async def test_cancelling_before_the_first_part_does_not() -> None:
    async with connected() as (websocket, peer):
        sending = asyncio.create_task(websocket.send(Tap()))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await websocket.send("fine")
        assert await peer.frame() == (FIN | TEXT, b"fine")


async def test_a_client_of_the_websockets_library() -> None:
    async def handler(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message[i : i + 2] for i in range(0, len(message), 2))

    async with serving(handler) as made, connect(made.uri, compression=None) as client:
        for message in ("Hello, world!", b"Hello, world!"):
            await client.send([message[:5], message[5:]])
            assert [part async for part in client.recv_streaming()] == [
                *(message[i : i + 2] for i in range(0, len(message), 2)),
                message[:0],
            ]
