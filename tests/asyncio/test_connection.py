"""What handlers do with a connection: receive, send, ping, look at it; both ends over sockets."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import uuid
from array import array
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock, create_autospec

import pytest
from websockets.asyncio.client import connect

from tests.asyncio.ends import connected, serving
from tests.support.coroutines import outcome, until
from tests.support.patience import PATIENCE
from tests.support.wire import BINARY, CONT, PING, PONG, TEXT, close, frame
from tidegate.asyncio.client import ClientConnection
from tidegate.asyncio.server import ServerConnection
from tidegate.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, ProtocolError
from tidegate.protocol import State

FIN = 0x80

# Receiving


async def test_messages_in_order() -> None:
    async with connected() as (websocket, peer):
        sent = ["text", b"bytes", "", b"", "é" * 300, b"\x00\xff" * 50_000, "last"]
        for message in sent:
            payload = message.encode() if isinstance(message, str) else message
            peer.send(frame(payload, TEXT if isinstance(message, str) else BINARY, mask=b"abcd"))
        assert [await websocket.recv() for _ in sent] == sent


async def test_fragments_are_put_together() -> None:
    async with connected() as (websocket, peer):
        encoded = "κόσμε".encode()
        peer.send(frame(encoded[:3], TEXT, fin=False), frame(b"ping", PING), frame(encoded[3:], CONT, fin=False))
        receiving = asyncio.create_task(websocket.recv())
        assert await peer.frame() == (FIN | PONG, b"ping")
        assert not receiving.done()
        peer.send(frame(b"", CONT))
        assert await receiving == "κόσμε"


@pytest.mark.parametrize(
    ("payload", "opcode", "decode", "expected"),
    [
        (b"\xc3\xa9", TEXT, None, "é"),
        (b"\xc3\xa9", TEXT, True, "é"),
        (b"\xc3\xa9", TEXT, False, b"\xc3\xa9"),
        (b"\xc3\xa9", BINARY, None, b"\xc3\xa9"),
        (b"\xc3\xa9", BINARY, True, "é"),
        (b"\xc3\xa9", BINARY, False, b"\xc3\xa9"),
    ],
)
async def test_decode(payload: bytes, opcode: int, decode: bool | None, expected: str | bytes) -> None:
    """A message is returned as str or bytes as `decode` says, whole or in fragments."""
    async with connected() as (websocket, peer):
        for _ in range(2):
            peer.send(frame(payload, opcode))
            assert await websocket.recv(decode) == expected
            peer.send(frame(payload[:1], opcode, fin=False), frame(payload[1:], CONT))
            assert await websocket.recv(decode=decode) == expected


async def test_bytes_that_are_no_text() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"caf\xe9", BINARY))
        receiving = asyncio.create_task(outcome(websocket.recv(decode=True)))
        assert await peer.close_frame() == (1007, "unexpected end of data at position 3")
        peer.close()
        exc = await receiving
    assert isinstance(exc, ConnectionClosedError)
    assert exc.sent is not None
    assert exc.sent.code == 1007
    assert isinstance(exc.__cause__, UnicodeDecodeError)


async def test_iteration() -> None:
    """Iteration yields the messages, and ends with the connection."""
    async with connected() as (websocket, peer):
        peer.send(frame(b"a"), frame(b"b"), close())
        assert isinstance(aiter(websocket), collections.abc.AsyncIterator)
        messages = asyncio.create_task(_all(websocket))
        await peer.close_frame()
        peer.close()
        assert await messages == ["a", "b"]


async def _all(websocket: ServerConnection) -> list[Any]:
    return [message async for message in websocket]


@pytest.mark.parametrize(
    ("code", "expected"), [(1000, ["a"]), (1001, ["a"]), (None, ["a"]), (1011, ConnectionClosedError), (4000, None)]
)
async def test_how_iteration_ends(code: int | None, expected: Any) -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"a"), close(code))
        messages = asyncio.create_task(outcome(_all(websocket)))
        await peer.close_frame()
        peer.close()
        if isinstance(expected, list):
            assert await messages == expected
        else:
            assert isinstance(await messages, ConnectionClosedError)


async def test_what_had_arrived_can_be_read_after_the_end() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"a"), frame(b"b"), frame(b"half", fin=False))
        await peer.writer.drain()
        peer.close()
        await websocket.wait_closed()
        assert await websocket.recv() == "a"
        assert await websocket.recv() == "b"
        for _ in range(2):
            assert isinstance(await outcome(websocket.recv()), ConnectionClosedError)


async def test_one_reader_at_a_time() -> None:
    async with connected() as (websocket, peer):
        reading = asyncio.create_task(websocket.recv())
        await asyncio.sleep(0)
        recv = "cannot call recv while another coroutine is already running recv or recv_streaming"
        streaming = "cannot call recv_streaming while another coroutine is already running recv or recv_streaming"
        with pytest.raises(ConcurrencyError, match=f"^{recv}$"):
            await websocket.recv()
        with pytest.raises(ConcurrencyError, match=f"^{recv}$"):
            await anext(aiter(websocket))
        with pytest.raises(ConcurrencyError, match=f"^{streaming}$"):
            await anext(websocket.recv_streaming())
        peer.send(frame(b"x"))
        assert await reading == "x"


async def test_cancelled_receiving_loses_nothing() -> None:
    async with connected() as (websocket, peer):
        got = []
        for i in range(200):
            peer.send(frame(str(i).encode()))
        await peer.writer.drain()
        while len(got) < 200:
            try:
                async with asyncio.timeout(0):
                    got.append(await websocket.recv())
            except TimeoutError:
                await asyncio.sleep(0)
            reading = asyncio.create_task(websocket.recv())
            await asyncio.sleep(0)
            reading.cancel()
            try:
                got.append(await reading)
            except asyncio.CancelledError:
                pass
        assert got == [str(i) for i in range(200)]


async def test_the_context_of_the_reader_is_kept() -> None:
    variable = contextvars.ContextVar("variable", default="nobody's")

    async def handler(websocket: ServerConnection) -> None:
        variable.set(await websocket.recv())  # type: ignore[arg-type]
        async for _ in websocket:
            await websocket.send(variable.get())

    async with serving(handler) as made:
        peers = [await made.peer() for _ in range(3)]
        for i, peer in enumerate(peers):
            peer.send(frame(b"%d" % i))
        for _ in range(2):
            for i, peer in enumerate(peers):
                peer.send(frame(b"?"))
                assert await peer.frame() == (FIN | TEXT, b"%d" % i)
    assert variable.get() == "nobody's"


# Sending


@pytest.mark.parametrize(
    ("message", "text", "first", "payload"),
    [
        ("é", None, FIN | TEXT, b"\xc3\xa9"),
        ("é", True, FIN | TEXT, b"\xc3\xa9"),
        ("é", False, FIN | BINARY, b"\xc3\xa9"),
        (b"\xff", None, FIN | BINARY, b"\xff"),
        (b"{}", True, FIN | TEXT, b"{}"),
        (b"\xff", False, FIN | BINARY, b"\xff"),
        (bytearray(b"ab"), None, FIN | BINARY, b"ab"),
        (bytearray(b"ab"), True, FIN | TEXT, b"ab"),
        (memoryview(b"abcd")[1:3], None, FIN | BINARY, b"bc"),
        (memoryview(b"abcd")[::2], None, FIN | BINARY, b"ac"),
        (memoryview(array("H", [1, 2])), None, FIN | BINARY, array("H", [1, 2]).tobytes()),
        ("", None, FIN | TEXT, b""),
        (b"", None, FIN | BINARY, b""),
        (b"x" * 1_000_000, None, FIN | BINARY, b"x" * 1_000_000),
        ("x" * 70_000, None, FIN | TEXT, b"x" * 70_000),
    ],
    ids=lambda value: "memoryview" if isinstance(value, memoryview) else repr(value)[:30],
)
async def test_send(message: Any, text: bool | None, first: int, payload: bytes) -> None:
    """A message is one frame, text or binary by its type or as `text` says."""
    async with connected() as (websocket, peer):
        sending = asyncio.create_task(websocket.send(message, text=text))
        assert await peer.frame() == (first, payload)
        assert await sending is None


@pytest.mark.parametrize("message", [{}, {"a": 1}, collections.ChainMap({"a": 1})])
async def test_dicts_raise(message: Any) -> None:
    async with connected() as (websocket, peer):
        with pytest.raises(TypeError, match="data is a dict-like object"):
            await websocket.send(message)
        await websocket.send("still open")
        assert await peer.frame() == (FIN | TEXT, b"still open")


@pytest.mark.parametrize("message", [42, None, object(), 1.5])
async def test_what_is_no_message_raises(message: Any) -> None:
    async with connected() as (websocket, peer):
        with pytest.raises(TypeError, match="data must be str, bytes, iterable, or async iterable"):
            await websocket.send(message)
        await websocket.send("still open")
        assert await peer.frame() == (FIN | TEXT, b"still open")


async def test_text_that_is_no_unicode_raises() -> None:
    async with connected() as (websocket, peer):
        with pytest.raises(UnicodeEncodeError):
            await websocket.send("\ud800")
        await websocket.send("still open")
        assert await peer.frame() == (FIN | TEXT, b"still open")


async def test_many_senders() -> None:
    async with connected() as (websocket, peer):
        async with asyncio.TaskGroup() as group:
            for i in range(50):
                group.create_task(websocket.send(str(i)))
        assert [int((await peer.frame())[1]) for _ in range(50)] == list(range(50))


async def test_replies_to_many_messages_at_once() -> None:
    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with serving(echo, max_queue=4) as made:
        peer = await made.peer()
        peer.send(*(frame(b"%d" % i) for i in range(5_000)))
        assert [int((await peer.frame())[1]) for _ in range(5_000)] == list(range(5_000))


async def test_large_messages_both_ways() -> None:
    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with serving(echo, max_size=None) as made, connect(made.uri, max_size=None, compression=None) as client:
        for message in ("x" * 5_000_000, b"\xff" * 5_000_000, "é\U0001f30a" * 500_000):
            await client.send(message)
            assert await client.recv() == message


# Pings and pongs


async def test_pings_are_answered_whatever_the_handler_does() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"", PING), frame(b"x" * 125, PING, mask=b"mask"))
        assert await peer.frame() == (FIN | PONG, b"")
        assert await peer.frame() == (FIN | PONG, b"x" * 125)
        assert websocket.state is State.OPEN


async def test_ping_returns_the_latency() -> None:
    async with connected() as (websocket, peer):
        assert websocket.latency == 0
        waiter = await websocket.ping()
        first, payload = await peer.frame()
        assert (first, len(payload)) == (FIN | PING, 4)
        assert isinstance(waiter, asyncio.Future)
        assert not waiter.done()
        peer.send(frame(payload, PONG))
        latency = await waiter
        assert 0 < latency == websocket.latency


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ("é", b"\xc3\xa9"),
        (b"x", b"x"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (b"", b""),
        (b"x" * 125,) * 2,
    ],
)
async def test_data_of_pings_and_pongs(data: Any, payload: bytes) -> None:
    async with connected() as (websocket, peer):
        waiter = await websocket.ping(data)
        assert await peer.frame() == (FIN | PING, payload)
        peer.send(frame(payload, PONG))
        await waiter
        await websocket.pong(data)
        assert await peer.frame() == (FIN | PONG, payload)


async def test_wrong_data_of_pings_and_pongs() -> None:
    async with connected() as (websocket, peer):
        for method in (websocket.ping, websocket.pong):
            with pytest.raises(ProtocolError, match="control frame too long"):
                await method(b"x" * 126)
            with pytest.raises(TypeError, match="data must be str or bytes-like"):
                await method(42)  # type: ignore[arg-type]
        with pytest.raises(ProtocolError):  # what was not sent is not waited for
            await websocket.ping(b"x" * 126)
        await websocket.pong()
        assert await peer.frame() == (FIN | PONG, b"")


async def test_a_pong_answers_earlier_pings_too() -> None:
    async with connected() as (websocket, peer):
        waiters = [await websocket.ping(data) for data in ("1", "2", "3")]
        peer.send(frame(b"unasked", PONG), frame(b"2", PONG))
        await waiters[1]
        assert [waiter.done() for waiter in waiters] == [True, True, False]  # type: ignore[attr-defined]
        with pytest.raises(ConcurrencyError, match="already waiting for a pong with the same data"):
            await websocket.ping("3")
        again = await websocket.ping("2")
        for _ in range(4):
            first, payload = await peer.frame()
            assert first == FIN | PING
        assert payload == b"2"
        peer.send(frame(b"2", PONG))
        assert await again <= await waiters[2]


async def test_a_cancelled_ping_does_not_matter() -> None:
    async with connected() as (websocket, peer):
        first = await websocket.ping("1")
        first.cancel()  # type: ignore[attr-defined]
        second = await websocket.ping("2")
        peer.send(frame(b"1", PONG), frame(b"2", PONG))
        await second


@pytest.mark.parametrize("politely", [True, False])
async def test_pings_that_will_not_be_answered_fail(politely: bool) -> None:
    async with connected() as (websocket, peer):
        waiter = await websocket.ping()
        await websocket.ping()  # nobody waits for this one, and nobody complains
        if politely:
            peer.send(close())
            await peer.close_frame()
        peer.close()
        with pytest.raises(ConnectionClosedOK if politely else ConnectionClosedError):
            await waiter
        for call in (websocket.ping, websocket.pong):
            with pytest.raises(ConnectionClosedOK if politely else ConnectionClosedError):
                await call()


# What can be known


async def test_attributes() -> None:
    """The documented attributes of an open connection have their values."""
    async with connected(ping_interval=3, ping_timeout=4, close_timeout=5) as (websocket, peer):
        assert isinstance(websocket.id, uuid.UUID)
        assert websocket.id == websocket.id
        assert websocket.local_address == peer.writer.get_extra_info("peername")
        assert websocket.remote_address == peer.writer.get_extra_info("sockname")
        assert websocket.state is State.OPEN
        assert (websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout) == (3, 4, 5)
        assert websocket.latency == 0
        assert websocket.close_code is None
        assert websocket.close_reason is None
        assert not websocket.paused
        assert not websocket.debug
        assert websocket.protocol.state is State.OPEN
        assert websocket.protocol.extensions == websocket.extensions == ()
        assert websocket.loop is asyncio.get_running_loop()
        assert not websocket.transport.is_closing()
        assert websocket in websocket.server.connections
        websocket.anything = "goes"  # type: ignore[attr-defined]
        peer.close()
        await websocket.wait_closed()
        assert websocket.state is State.CLOSED
        assert websocket.remote_address == peer.writer.get_extra_info("sockname")


async def test_the_logger_names_the_connection(log: pytest.LogCaptureFixture) -> None:
    async with connected() as (websocket, _):
        websocket.logger.info("Hello")
    (record,) = [record for record in log.records if record.getMessage() == "Hello"]
    assert record.websocket is websocket  # type: ignore[attr-defined]
    assert record.name == "tidegate.server"


async def test_hash_and_equality() -> None:
    async with connected() as (one, _), connected() as (other, _):
        assert {one, other, one} == {one, other}
        assert one == one
        assert one != other


# Coroutines in all that can be observed: over a socket, as in tests/core/test_messages.py without


async def test_waiting_in_every_documented_way() -> None:
    async with connected() as (websocket, peer):

        async def receive() -> list[Any]:
            got: list[Any] = [await asyncio.wait_for(websocket.recv(), PATIENCE)]
            async with asyncio.timeout(PATIENCE):
                got.append(await websocket.recv())
            got.append(await asyncio.create_task(websocket.recv()))
            got.append((await asyncio.gather(websocket.recv(), websocket.send("x")))[0])
            got.append(await asyncio.shield(websocket.recv()))
            done, _ = await asyncio.wait([asyncio.ensure_future(websocket.recv())])
            got.append(done.pop().result())
            async with asyncio.TaskGroup() as group:
                task = group.create_task(websocket.recv())
            got.append(task.result())
            return got

        receiving = asyncio.create_task(receive())
        for i in range(7):
            await asyncio.sleep(0.002)
            peer.send(frame(b"%d" % i))
        assert await receiving == [str(i) for i in range(7)]
        assert await peer.frame() == (FIN | TEXT, b"x")


async def test_racing_two_connections() -> None:
    """The pattern of every proxy: whoever comes first."""
    async with connected() as (one, first), connected() as (other, second):
        readers = {asyncio.create_task(one.recv()): one, asyncio.create_task(other.recv()): other}
        got = []
        for i in range(20):
            (first, second)[i % 2].send(frame(b"%d" % i))
            done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                got.append(task.result())
                websocket = readers.pop(task)
                readers[asyncio.create_task(websocket.recv())] = websocket
        assert got == [str(i) for i in range(20)]
        for task in readers:
            task.cancel()
        await until(lambda: all(task.done() for task in readers))


# In place of one, in tests of applications

MOCKS: dict[str, Callable[[Any], Any]] = {
    "AsyncMock": lambda kind: AsyncMock(spec=kind),
    "MagicMock": lambda kind: MagicMock(spec=kind),
    "create_autospec": lambda kind: create_autospec(kind, instance=True),
}
AWAITED = ["recv", "send", "ping", "pong", "close", "wait_closed"]


@pytest.mark.parametrize("kind", [ServerConnection, ClientConnection])
@pytest.mark.parametrize("make", MOCKS.values(), ids=MOCKS)
async def test_mocks_of_connections_can_be_awaited(make: Callable[[Any], Any], kind: type) -> None:
    websocket = make(kind)
    for name in AWAITED:
        method = getattr(websocket, name)
        method.return_value = name
        assert await (method("x") if name == "send" else method()) == name
        method.assert_awaited_once()
    websocket.__aiter__.return_value = ["one", "two"]
    assert [message async for message in websocket] == ["one", "two"]
    assert not asyncio.iscoroutine(websocket.recv_streaming())
