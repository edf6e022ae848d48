"""Every way in which a connection ends, over sockets: who says what, who waits for whom, and what is raised after it.

What the words mean is tested in tests/test_closing.py. What must not live here: that again.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.asyncio.ends import connected
from tests.support import wire
from tests.support.coroutines import outcome, until
from tests.support.patience import PATIENCE
from tests.support.rawpeer import ClientPeer
from tests.support.wire import BINARY, CLOSE, CONT, PING, PONG, close, frame
from tidegate._core.counters import CLOSE_CODES, INITIATORS, Row
from tidegate.asyncio.server import ServerConnection
from tidegate.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from tidegate.frames import Close
from tidegate.protocol import State

FIN = 0x80


def closes(row: Row) -> dict[tuple[str, str], int]:
    words = row.words("closes")
    names = [(initiator, code) for initiator in INITIATORS for code in (*CLOSE_CODES, *[""] * 20)[:20]]
    return {name: count for name, count in zip(names, words, strict=True) if count}


async def end_of(websocket: ServerConnection) -> ConnectionClosed:
    """What is raised now; the same from everywhere."""
    await asyncio.wait_for(websocket.wait_closed(), PATIENCE)
    assert websocket.state is State.CLOSED
    found = [
        await outcome(call)
        for call in (websocket.recv(), websocket.send("x"), websocket.send(["x"]), websocket.ping(), websocket.pong())
    ]
    first = found[0]
    assert isinstance(first, ConnectionClosed)
    for exc in found:
        assert type(exc) is type(first)
        assert (exc.rcvd, exc.sent, exc.rcvd_then_sent) == (first.rcvd, first.sent, first.rcvd_then_sent)
        assert exc.__cause__ is first.__cause__
    assert first.rcvd == websocket.close_rcvd
    assert first.sent == websocket.close_sent
    assert websocket.close_code == (1006 if first.rcvd is None else first.rcvd.code)
    assert websocket.close_reason == ("" if first.rcvd is None else first.rcvd.reason)
    await websocket.close()  # changes nothing any more
    return first


@contextlib.asynccontextmanager
async def closing(websocket: ServerConnection, *arguments: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(websocket.close(*arguments))
    await asyncio.sleep(0)
    yield task
    await asyncio.wait_for(task, PATIENCE)


# The other side closes


@pytest.mark.parametrize(
    ("code", "reason", "kind", "said"),
    [
        (1000, "", ConnectionClosedOK, "received 1000 (OK); then sent 1000 (OK)"),
        (1000, "bye", ConnectionClosedOK, "received 1000 (OK) bye; then sent 1000 (OK) bye"),
        (1001, "", ConnectionClosedOK, "received 1001 (going away); then sent 1001 (going away)"),
        (
            None,
            "",
            ConnectionClosedOK,
            "received 1005 (no status received [internal]); then sent 1005 (no status received [internal])",
        ),
        (1002, "", ConnectionClosedError, "received 1002 (protocol error); then sent 1002 (protocol error)"),
        (1011, "é", ConnectionClosedError, "received 1011 (internal error) é; then sent 1011 (internal error) é"),
        (3000, "", ConnectionClosedError, "received 3000 (registered); then sent 3000 (registered)"),
        (4999, "", ConnectionClosedError, "received 4999 (private use); then sent 4999 (private use)"),
        (1000, "x" * 123, ConnectionClosedOK, f"received 1000 (OK) {'x' * 123}; then sent 1000 (OK) {'x' * 123}"),
    ],
)
async def test_the_other_side_closes(
    code: int | None, reason: str, kind: type[ConnectionClosed], said: str, row: Row
) -> None:
    async with connected() as (websocket, peer):
        peer.send(close(code, reason))
        assert await peer.close_frame() == (code or 1005, reason)
        assert websocket.state is State.CLOSING
        await peer.end()  # the server ends the TCP connection first (RFC 6455 7.1.1)
        peer.close()
        exc = await end_of(websocket)
    assert type(exc) is kind
    assert str(exc) == said
    assert exc.rcvd == exc.sent == Close(code or 1005, reason)
    assert exc.rcvd_then_sent is True
    assert exc.__cause__ is None
    name = str(code or 1005) if (code or 1005) < 3000 else f"{(code or 0) // 1000}xxx"
    assert closes(row) == {("remote", name): 1}


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"\x03", (1002, "close frame too short")),
        (b"\x03\xe7", (1002, "invalid status code")),
        (b"\x03\xed", (1002, "invalid status code")),
        (b"\x03\xee", (1002, "invalid status code")),
        (b"\x03\xf7", (1002, "invalid status code")),
        (b"\x13\x88", (1002, "invalid status code")),
        (b"\xff\xff", (1002, "invalid status code")),
        (b"\x03\xe8\xff", (1007, "invalid start byte at position 0")),
    ],
)
async def test_close_frames_that_are_none(payload: bytes, answer: tuple[int, str]) -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(payload, CLOSE))
        assert await peer.close_frame() == answer
        await peer.end()
        peer.close()
        exc = await end_of(websocket)
    assert type(exc) is ConnectionClosedError
    assert (exc.rcvd, exc.sent, exc.rcvd_then_sent) == (None, Close(*answer), None)
    assert isinstance(exc.__cause__, (ProtocolError, UnicodeDecodeError))


async def test_what_comes_after_a_close_frame_is_not_looked_at() -> None:
    async with connected() as (websocket, peer):
        peer.send(close(), frame(b"x"), b"\xff" * 100)
        assert await peer.close_frame() == (1000, "")
        peer.send(frame(b"x") * 10)
        await peer.end()
        peer.close()
        assert type(await end_of(websocket)) is ConnectionClosedOK


async def test_messages_before_the_close_frame_are_answered_before_it() -> None:
    async with connected() as (websocket, peer):

        async def echo() -> None:
            async for message in websocket:
                await websocket.send(message)

        task = asyncio.create_task(echo())
        await asyncio.sleep(0)
        peer.send(frame(b"a"), frame(b"b"), close())
        got = await peer.frames()
        assert got == [(0x81, b"a"), (0x81, b"b"), (0x88, b"\x03\xe8")]
        peer.close()
        await task


async def test_a_message_that_was_not_ended() -> None:
    """It is dropped (RFC 6455 does not forbid to close in the middle of one)."""
    async with connected() as (websocket, peer):
        peer.send(frame(b"whole"), frame(b"half", fin=False), close())
        assert await peer.close_frame() == (1000, "")
        peer.close()
        assert await websocket.recv() == "whole"
        assert type(await end_of(websocket)) is ConnectionClosedOK


# We close


@pytest.mark.parametrize(
    ("arguments", "sent", "answer", "kind", "said"),
    [
        ((), (1000, ""), 1000, ConnectionClosedOK, "sent 1000 (OK); then received 1000 (OK)"),
        ((1001,), (1001, ""), 1000, ConnectionClosedOK, "sent 1001 (going away); then received 1000 (OK)"),
        (
            (1011, "é"),
            (1011, "é"),
            1011,
            ConnectionClosedError,
            "sent 1011 (internal error) é; then received 1011 (internal error)",
        ),
        (
            (4000,),
            (4000, ""),
            None,
            ConnectionClosedError,
            "sent 4000 (private use); then received 1005 (no status received [internal])",
        ),
    ],
)
async def test_we_close(
    arguments: Any, sent: tuple[int, str], answer: int | None, kind: type[ConnectionClosed], said: str, row: Row
) -> None:
    async with connected() as (websocket, peer), closing(websocket, *arguments) as task:
        assert websocket.state is State.CLOSING
        assert await peer.close_frame() == sent
        await asyncio.sleep(0.005)
        assert not task.done()
        peer.send(close(answer))
        await peer.end()
        peer.close()
        exc = await end_of(websocket)
        assert task.done()
    assert type(exc) is kind
    assert str(exc) == said
    assert exc.rcvd_then_sent is False
    assert exc.__cause__ is None
    assert sum(closes(row).values()) == 1
    ((initiator, _),) = closes(row)
    assert initiator == "local"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [*(((code,), "status code") for code in (999, 1004, 1005, 1006, 2000, 5000)), ((1000, "x" * 124), "too long")],
)
async def test_what_no_close_frame_can_carry(arguments: Any, error: str) -> None:
    async with connected() as (websocket, peer):
        with pytest.raises(ProtocolError, match=error):
            await websocket.close(*arguments)
        assert websocket.state is State.OPEN
        assert websocket.server.connections == {websocket}
        await websocket.send("still open")
        assert await peer.frame() == (0x81, b"still open")


async def test_closing_twice_is_closing_once() -> None:
    async with connected() as (websocket, peer), closing(websocket, 4000, "first"), closing(websocket, 4001, "second"):
        assert await peer.close_frame() == (4000, "first")
        peer.send(close(4000))
        await peer.end()
        peer.close()


async def test_a_message_that_is_still_being_compressed_is_sent_before_we_close() -> None:
    request = wire.request(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
    async with connected(request=request, compression="deflate") as (websocket, peer):
        message = ("tide" * 2**20).encode()
        sending = asyncio.create_task(websocket.send(message))
        await asyncio.sleep(0)
        async with closing(websocket, 1000):
            first, payload = await peer.frame()
            assert first == FIN | 0x40 | BINARY
            assert zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff") == message
            assert await peer.close_frame() == (1000, "")
            peer.send(close(1000))
            await peer.end()
            peer.close()
        with contextlib.suppress(ConnectionClosed):
            await sending


async def test_both_at_once() -> None:
    async with connected() as (websocket, peer), closing(websocket, 1001):
        peer.send(close(1000))
        assert await peer.close_frame() == (1001, "")
        await peer.end()
        peer.close()
        exc = await end_of(websocket)
    assert str(exc) == "sent 1001 (going away); then received 1000 (OK)"


async def test_while_we_wait_for_their_close_frame() -> None:
    """Pings are answered, and messages that were on their way can be read."""
    async with connected() as (websocket, peer):
        peer.send(frame(b"before"))
        assert await websocket.recv() == "before"
        async with closing(websocket):
            assert await peer.close_frame() == (1000, "")
            peer.send(frame(b"ping", PING))
            assert await peer.frame() == (FIN | PONG, b"ping")
            peer.send(frame(b"late"), frame(b"later"))
            assert await websocket.recv() == "late"
            sending = asyncio.create_task(outcome(websocket.send("x")))
            await asyncio.sleep(0.005)
            assert not sending.done()  # how it ended is not known yet
            peer.send(close())
            await peer.end()
            peer.close()
            assert await websocket.recv() == "later"
            assert isinstance(await sending, ConnectionClosedOK)


async def test_a_full_queue_does_not_hide_their_close_frame() -> None:
    async with connected(max_queue=2) as (websocket, peer):
        peer.send(*[frame(b"x")] * 100)
        await until(lambda: websocket.transport.is_reading() is False if _tells_reading(websocket) else True)
        async with closing(websocket):
            assert await peer.close_frame() == (1000, "")
            peer.send(*[frame(b"y")] * 100, close())
            await peer.end()
            peer.close()
        messages = [message async for message in websocket]
    assert len(messages) >= 2
    assert messages == (["x"] * 100 + ["y"] * 100)[: len(messages)]
    assert websocket.close_code == 1000


def _tells_reading(websocket: ServerConnection) -> bool:
    return hasattr(websocket.transport, "is_reading")


async def test_a_peer_that_does_not_answer_is_cut(row: Row) -> None:
    async with connected(close_timeout=0.02) as (websocket, peer), closing(websocket, 1000, "bye"):
        assert await peer.close_frame() == (1000, "bye")
        exc = await end_of(websocket)
        assert isinstance(exc, ConnectionClosedError)
        assert str(exc) == "sent 1000 (OK) bye; no close frame received"
        assert isinstance(exc.__cause__, TimeoutError)
        assert (websocket.close_code, websocket.close_reason) == (1006, "")
    assert closes(row) == {("local", "1000"): 1}


async def test_a_peer_that_answers_and_does_not_hang_up_is_cut() -> None:
    async with connected(close_timeout=0.02) as (websocket, peer), closing(websocket):
        assert await peer.close_frame() == (1000, "")
        peer.send(close())
        assert type(await end_of(websocket)) is ConnectionClosedOK


async def test_without_close_timeout_we_wait() -> None:
    async with connected(close_timeout=None) as (websocket, peer), closing(websocket) as task:
        assert await peer.close_frame() == (1000, "")
        await asyncio.sleep(0.03)
        assert not task.done()
        peer.send(close())
        peer.close()


async def test_closing_goes_on_without_who_waited_for_it() -> None:
    async with connected() as (websocket, peer):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(websocket.close(4000), 0.01)
        assert websocket.state is State.CLOSING
        waiting = [asyncio.create_task(websocket.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        assert await peer.close_frame() == (4000, "")
        peer.send(close(4000))
        peer.close()
        await waiting[0]
        await waiting[2]
        await websocket.wait_closed()


async def test_async_with() -> None:
    async with connected() as (websocket, peer):

        async def use() -> None:
            async with websocket as same:
                assert same is websocket
                await websocket.send("x")

        using = asyncio.create_task(use())
        assert await peer.frame() == (0x81, b"x")
        assert await peer.close_frame() == (1000, "")
        peer.close()
        await using
        assert websocket.state is State.CLOSED


async def test_an_error_in_async_with_closes_with_1011() -> None:
    async with connected() as (websocket, peer):

        async def use() -> None:
            async with websocket:
                raise ZeroDivisionError

        using = asyncio.create_task(use())
        assert await peer.close_frame() == (1011, "")
        peer.close()
        with pytest.raises(ZeroDivisionError):
            await using


# The connection breaks


async def test_the_end_of_the_stream(row: Row) -> None:
    async with connected() as (websocket, peer):
        peer.close()
        exc = await end_of(websocket)
        assert type(exc) is ConnectionClosedError
        assert str(exc) == "no close frame received or sent"
        assert isinstance(exc.__cause__, EOFError)
    assert closes(row) == {("abort", "1006"): 1}


@pytest.mark.parametrize("sent", [frame(b"half a frame")[:9], frame(b"x" * 70_000)[:-1], frame(b"x")[:1]])
async def test_the_end_of_the_stream_within_a_frame(sent: bytes) -> None:
    async with connected() as (websocket, peer):
        peer.send(sent)
        peer.writer.write_eof()
        exc = await end_of(websocket)
        await peer.end()
    assert type(exc) is ConnectionClosedError
    assert isinstance(exc.__cause__, EOFError)


async def test_a_reset(row: Row) -> None:
    async with connected() as (websocket, peer):
        waiting = asyncio.create_task(outcome(websocket.recv()))
        peer.reset()
        exc = await end_of(websocket)
        assert type(exc) is ConnectionClosedError
        assert isinstance(exc.__cause__, (ConnectionError, EOFError))
        assert isinstance(await waiting, ConnectionClosedError)
    assert closes(row) == {("abort", "1006"): 1}


async def test_we_cut_it() -> None:
    async with connected() as (websocket, peer):
        websocket.transport.abort()
        exc = await end_of(websocket)
        assert str(exc) == "no close frame received or sent"
        peer.close()


async def test_a_reset_while_closing() -> None:
    async with connected() as (websocket, peer), closing(websocket):
        await peer.close_frame()
        peer.reset()
        exc = await end_of(websocket)
        assert str(exc) == "sent 1000 (OK); no close frame received"


async def test_writing_into_a_connection_that_breaks() -> None:
    """Whatever the moment at which it is noticed, it is ConnectionClosed that send() raises."""
    for _ in range(10):
        async with connected() as (websocket, peer):

            async def send(websocket: ServerConnection = websocket) -> None:
                while True:
                    await websocket.send(b"x" * 10_000)
                    await asyncio.sleep(0)

            sending = asyncio.create_task(outcome(send()))
            await peer.frame()
            peer.reset()
            assert isinstance(await sending, ConnectionClosedError)


# The other side breaks the protocol

BREACHES: list[tuple[bytes, int, str, type[Exception]]] = [
    (frame(b"x", rsv=4), 1002, "reserved bits must be 0", ProtocolError),
    (frame(b"x", 3), 1002, "invalid opcode", ProtocolError),
    (frame(b"x", mask=None), 1002, "incorrect masking", ProtocolError),
    (frame(b"x" * 126, PING), 1002, "control frame too long", ProtocolError),
    (frame(b"x", PING, fin=False), 1002, "fragmented control frame", ProtocolError),
    (frame(b"x", CONT), 1002, "unexpected continuation frame", ProtocolError),
    (frame(b"x", fin=False) + frame(b"x"), 1002, "expected a continuation frame", ProtocolError),
    (frame(b"caf\xe9"), 1007, "unexpected end of data at position 3", UnicodeDecodeError),
    (frame(b"a\xff", fin=False), 1007, "invalid start byte at position 1", UnicodeDecodeError),
    (frame(b"x" * 101), 1009, "frame with 101 bytes exceeds limit of 100 bytes", PayloadTooBig),
    (
        frame(b"x" * 60, fin=False) + frame(b"x" * 60, CONT),
        1009,
        "frame with 60 bytes after reading 60 bytes exceeds limit of 100 bytes",
        PayloadTooBig,
    ),
]


@pytest.mark.parametrize(("sent", "code", "reason", "cause"), BREACHES, ids=[breach[2] for breach in BREACHES])
@pytest.mark.parametrize("reading", [True, False])
async def test_breaches(sent: bytes, code: int, reason: str, cause: type[Exception], reading: bool, row: Row) -> None:
    """A breach of the protocol is answered with its close code, and the TCP connection is closed."""
    async with connected(max_size=100, max_queue=None) as (websocket, peer):
        waiting = asyncio.create_task(outcome(websocket.recv())) if reading else None
        peer.send(sent, frame(b"ignored"))
        assert await peer.close_frame() == (code, reason)
        await peer.end()  # RFC 6455 7.1.7: a server closes the TCP connection at once
        peer.close()
        exc = await end_of(websocket)
        assert type(exc) is ConnectionClosedError
        assert (exc.rcvd, exc.sent, exc.rcvd_then_sent) == (None, Close(code, reason), None)
        assert type(exc.__cause__) is cause
        if waiting is not None:
            assert isinstance(await waiting, ConnectionClosedError)
    assert closes(row) == {("local", str(code)): 1}


async def test_messages_before_a_breach_can_be_read() -> None:
    async with connected() as (websocket, peer):
        peer.send(frame(b"a"), frame(b"b"), frame(b"x", 3))
        assert (await peer.close_frame())[0] == 1002
        peer.close()
        assert await websocket.recv() == "a"
        assert await websocket.recv() == "b"
        assert type(await end_of(websocket)) is ConnectionClosedError


async def test_a_breach_after_our_close_frame() -> None:
    async with connected() as (websocket, peer), closing(websocket):
        assert await peer.close_frame() == (1000, "")
        peer.send(frame(b"x", 3))
        await peer.end()
        peer.close()
        exc = await end_of(websocket)
    assert str(exc) == "sent 1000 (OK); no close frame received"
    assert isinstance(exc.__cause__, ProtocolError)


FIVE = frame(b"x" * 5, BINARY, fin=False)
FIVE_MORE = frame(b"x" * 5, CONT, fin=False)


@pytest.mark.parametrize(
    ("limits", "sent", "allowed"),
    [
        ({"max_size": (10, 5)}, FIVE + FIVE_MORE + frame(b"", CONT), True),
        ({"max_size": (10, 5)}, FIVE + FIVE_MORE + frame(b"x", CONT), False),
        ({"max_size": (10, 5)}, frame(b"x" * 6, BINARY), False),
        ({"max_size": (None, 5)}, FIVE + FIVE_MORE + frame(b"x", CONT), True),
        ({"max_size": (10, None)}, frame(b"x" * 10, BINARY), True),
        ({"max_size": None}, frame(b"x" * 3_000_000, BINARY), True),
        ({}, frame(b"x" * (1 << 20), BINARY), True),
        ({}, frame(b"x" * ((1 << 20) + 1), BINARY), False),
    ],
)
async def test_max_size(limits: Any, sent: bytes, allowed: bool) -> None:
    async with connected(**limits) as (websocket, peer):
        peer.send(sent)
        if allowed:
            assert set(await websocket.recv()) == {120}
        else:
            assert (await peer.close_frame())[0] == 1009


# Two views of it


async def test_a_peer_sees_what_was_sent_before_the_close_frame() -> None:
    async with connected() as (websocket, peer):
        for i in range(10):
            await websocket.send(b"x" * (i * 20_000))
        async with closing(websocket):
            got = await collect(peer)
            peer.close()
    assert [len(payload) for _, payload in got[:-1]] == [i * 20_000 for i in range(10)]
    assert got[-1] == (0x88, b"\x03\xe8")


async def collect(peer: ClientPeer) -> list[tuple[int, bytes]]:
    got = []
    while not got or got[-1][0] != 0x88:
        got.append(await peer.frame())
    peer.send(close())
    return got
