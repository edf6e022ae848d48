"""Every way to close, from either side, and pings: codes, reasons, timeouts, broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.differential.library import Record, add, scenario
from tests.differential.stage import SHORT, accepted, dialled, serving
from tests.support.coroutines import outcome, until
from tests.support.wire import CLOSE, CONT, PING, PONG, TEXT

LONG = "r" * 123


async def ending(websocket: Any, record: Record) -> None:
    """How the connection ended."""
    await websocket.wait_closed()
    record("end", websocket.state, websocket.close_code, websocket.close_reason)
    record("recv", await outcome(websocket.recv()))
    record("send", await outcome(websocket.send("x")))
    record("ping", await outcome(websocket.ping()))
    record("pong", await outcome(websocket.pong()))
    record("close", await outcome(websocket.close()))


# Scenario -> arguments of close().
CLOSES: dict[str, tuple[Any, ...]] = {
    "default": (),
    "1001": (1001,),
    "with_reason": (1000, "b\xe9ne"),
    "3000": (3000, "x"),
    "4999": (4999,),
    "1011": (1011, "oops"),
    "1014": (1014,),
    "1005": (1005,),
    "1006": (1006,),
    "1015": (1015,),
    "1004": (1004,),
    "999": (999,),
    "2999": (2999,),
    "5000": (5000,),
    "long_reason": (1000, LONG),
    "reason_too_long": (1000, LONG + "r"),
    "1005_with_reason": (1005, "x"),
}


def closing(make: Any, arguments: Any) -> Any:
    async def close(lib: Any, record: Record) -> None:
        async with make(lib) as (websocket, peer):
            frames = peer.listen()
            record("called", await outcome(websocket.close(*arguments)))
            record("state", websocket.state)
            if websocket.state is lib.State.OPEN:
                await websocket.close()
            record("frames", await frames)
            await ending(websocket, record)

    return close


for name, arguments in CLOSES.items():
    add(f"close_{name}", closing(accepted, arguments))
for name in ("default", "with_reason", "1005", "reason_too_long"):
    add(f"client_close_{name}", closing(dialled, CLOSES[name]))


# Scenario -> what the peer's close frame carries.
CLOSED: dict[str, bytes] = {
    "1000": b"\x03\xe8",
    "1000_reason": b"\x03\xe8bye",
    "1001": b"\x03\xe9",
    "1011": b"\x03\xf3oops",
    "4000": b"\x0f\xa0x",
    "empty": b"",
    "one_byte": b"\x03",
    "1005": b"\x03\xed",
    "1006": b"\x03\xee",
    "1015": b"\x03\xf7",
    "999": b"\x03\xe7",
    "1016": b"\x03\xf8",
    "5000": b"\x13\x88",
    "bad_utf8": b"\x03\xe8\xff",
    "too_long": b"\x03\xe8" + b"x" * 124,
}


def closed(make: Any, payload: bytes) -> Any:
    async def close(lib: Any, record: Record) -> None:
        async with make(lib) as (websocket, peer):
            peer.answering = False
            peer.send(CLOSE, payload)
            if peer.client:
                record("frames", await peer.rest())
            else:
                record("frames", await peer.frame())
                peer.end()
            await ending(websocket, record)

    return close


for name, payload in CLOSED.items():
    add(f"closed_{name}", closed(accepted, payload))
for name in ("1000_reason", "empty", "one_byte", "bad_utf8"):
    add(f"client_closed_{name}", closed(dialled, CLOSED[name]))


@scenario
async def close_twice(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        frames = peer.listen()
        await asyncio.gather(websocket.close(1001, "a"), websocket.close(1002, "b"))
        await websocket.close(1003, "c")
        record("frames", await frames)
        await ending(websocket, record)


@scenario
async def both_close_at_once(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.answering = False
        task = asyncio.create_task(websocket.close(1001, "ours"))
        record("frames", await peer.frame())
        peer.close(4000, "theirs")
        record("frames", await peer.rest())
        await task
        await ending(websocket, record)


@scenario
async def close_while_recv_waits(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        task = asyncio.create_task(outcome(websocket.recv()))
        await asyncio.sleep(0)
        peer.listen()
        await websocket.close()
        record("recv", await task)


@scenario
async def close_without_answer(lib: Any, record: Record) -> None:
    async with accepted(lib, close_timeout=SHORT) as (websocket, peer):
        peer.answering = False
        await websocket.close()
        record("frames", await peer.rest())
        await ending(websocket, record)


@scenario
async def client_close_without_answer(lib: Any, record: Record) -> None:
    async with dialled(lib, close_timeout=SHORT) as (websocket, peer):
        peer.answering = False
        await websocket.close()
        record("frames", await peer.rest())
        await ending(websocket, record)


@scenario
async def client_close_answered_but_not_ended(lib: Any, record: Record) -> None:
    async with dialled(lib, close_timeout=SHORT) as (websocket, peer):
        task = asyncio.create_task(websocket.close())
        record("frames", await peer.frame())
        await task
        await ending(websocket, record)


@scenario
async def close_answered_but_not_ended(lib: Any, record: Record) -> None:
    async with accepted(lib, close_timeout=SHORT) as (websocket, peer):
        task = asyncio.create_task(websocket.close())
        record("frames", await peer.frame())
        await task
        await ending(websocket, record)


@scenario
async def messages_while_closing(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.answering = False
        task = asyncio.create_task(websocket.close())
        record("frames", await peer.frame())
        record("state", websocket.state, websocket.close_code)
        send = asyncio.create_task(outcome(websocket.send("late")))
        peer.send(TEXT, b"late")
        peer.send(PING, b"p")
        peer.close()
        record("frames", await peer.rest())
        await task
        record("send", await send)
        await ending(websocket, record)


@scenario
async def frames_after_a_close_frame(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.close()
        peer.send(TEXT, b"late")
        peer.send(PING, b"p")
        record("frames", await peer.rest())
        await ending(websocket, record)


@scenario
async def closed_within_a_message(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a", fin=False)
        peer.close()
        record("frames", await peer.rest())
        await ending(websocket, record)


@scenario
async def close_within_a_message_that_comes(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.answering = False
        peer.send(TEXT, b"a", fin=False)
        pong = await websocket.ping(b"p")
        await peer.frame()
        peer.send(PONG, b"p")
        await pong
        task = asyncio.create_task(websocket.close())
        record("frames", await peer.frame())
        peer.send(CONT, b"b")
        peer.close()
        record("frames", await peer.rest())
        await task
        record("end", websocket.close_code)


@scenario
async def close_within_a_message_that_is_sent(lib: Any, record: Record) -> None:
    go = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await go.wait()
        yield "b"

    async with accepted(lib) as (websocket, peer):
        task = asyncio.create_task(outcome(websocket.send(source())))
        record("frames", await peer.frame())
        frames = peer.listen()
        await websocket.close()
        go.set()
        record("sending", await task)
        record("frames", await frames)
        await ending(websocket, record)


@scenario
async def end_of_stream(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.end()
        await ending(websocket, record)


@scenario
async def end_of_stream_within_a_frame(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.write(b"\x81\x85\0\0")
        peer.end()
        await ending(websocket, record)


@scenario
async def end_of_stream_within_a_message(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a", fin=False)
        peer.end()
        await ending(websocket, record)


@scenario
async def half_closed_by_the_peer(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.writer.write_eof()
        record("frames", await peer.rest())
        await ending(websocket, record)


@scenario
async def reset_by_the_peer(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.reset()
        await websocket.wait_closed()
        record("end", websocket.state, websocket.close_code, websocket.close_reason)
        exc = await outcome(websocket.recv())
        record("recv", type(exc).__name__, str(exc), type(exc.__cause__).__name__)


@scenario
async def client_end_of_stream(lib: Any, record: Record) -> None:
    async with dialled(lib) as (websocket, peer):
        peer.end()
        await ending(websocket, record)


@scenario
async def end_of_stream_instead_of_an_answer(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.answering = False
        task = asyncio.create_task(websocket.close(1001, "x"))
        record("frames", await peer.frame())
        peer.end()
        await task
        await ending(websocket, record)


@scenario
async def transport_aborted(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        websocket.transport.abort()
        record("frames", await peer.rest())
        await ending(websocket, record)


@scenario
async def block_left(lib: Any, record: Record) -> None:
    async with dialled(lib) as (websocket, peer):
        frames = peer.listen()
        async with websocket as same:
            record("same", same is websocket)
        record("frames", await frames)
        await ending(websocket, record)


@scenario
async def block_left_by_an_exception(lib: Any, record: Record) -> None:
    async def fail(websocket: Any) -> None:
        async with websocket:
            raise ValueError("in the block")

    async with dialled(lib) as (websocket, peer):
        frames = peer.listen()
        record("raised", await outcome(fail(websocket)))
        record("frames", await frames)
        await ending(websocket, record)


async def handled(lib: Any, record: Record, handler: Any, **options: Any) -> None:
    """How a connection ends when its handler does."""
    here: list[Any] = []

    async def keeping(websocket: Any) -> None:
        here.append(websocket)
        await handler(websocket)

    async with serving(lib, keeping, **options) as server:
        peer = await server.peer()
        record("frames", await peer.rest())
        await ending(here[0], record)


@scenario
async def handler_returns(lib: Any, record: Record) -> None:
    async def handler(websocket: Any) -> None:
        await websocket.send("bye")

    await handled(lib, record, handler)


@scenario
async def handler_raises(lib: Any, record: Record) -> None:
    async def handler(websocket: Any) -> None:
        raise ValueError("in the handler")

    await handled(lib, record, handler)


@scenario
async def handler_is_cancelled(lib: Any, record: Record) -> None:
    async def handler(websocket: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    await handled(lib, record, handler)


@scenario
async def handler_returns_after_close(lib: Any, record: Record) -> None:
    async def handler(websocket: Any) -> None:
        await websocket.close(4001, "mine")

    await handled(lib, record, handler)


@scenario
async def handler_lets_connection_closed_escape(lib: Any, record: Record) -> None:
    async def handler(websocket: Any) -> None:
        await websocket.recv()

    async with serving(lib, handler) as server:
        peer = await server.peer()
        peer.close(1011, "x")
        record("frames", await peer.rest())


# Pings.


@scenario
async def ping_is_answered(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        for payload in (b"", b"p", b"\xff" * 125):
            peer.send(PING, payload)
            record("frames", await peer.frame())
        peer.send(PONG, b"unasked")
        peer.send(TEXT, b"a")
        record("recv", await websocket.recv())


@scenario
async def ping_and_pong(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        record("latency", websocket.latency)
        pong = await websocket.ping("p\xe9")
        record("frames", await peer.frame())
        record("done", pong.done())
        peer.send(PONG, "p\xe9".encode())
        latency = await pong
        record("latency", type(latency).__name__, 0 < latency < 5, websocket.latency == latency)


@scenario
async def ping_of_random_data(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        pong = await websocket.ping()
        kind, payload = await peer.frame()
        record("frames", kind, len(payload))
        peer.send(PONG, payload)
        record("type", type(await pong).__name__)


@scenario
async def pong_acknowledges_earlier_pings(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        pongs = [await websocket.ping(data) for data in (b"1", b"2", b"3")]
        peer.send(PONG, b"2")
        await pongs[1]
        record("done", [pong.done() for pong in pongs])
        peer.send(PONG, b"3")
        await pongs[2]


@scenario
async def pong_that_was_not_asked_for(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        pong = await websocket.ping(b"1")
        peer.send(PONG, b"2")
        peer.send(TEXT, b"a")
        await websocket.recv()
        record("done", pong.done())
        peer.send(PONG, b"1")
        await pong


@scenario
async def same_ping_twice(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        pong = await websocket.ping(b"1")
        record("second", await outcome(websocket.ping(b"1")))
        peer.send(PONG, b"1")
        await pong
        record("third", asyncio.isfuture(await websocket.ping(b"1")))


@scenario
async def ping_of_wrong_data(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, _):
        for data in (1, ["a"], {}):
            record("ping", await outcome(websocket.ping(data)))
            record("pong", await outcome(websocket.pong(data)))


@scenario
async def ping_of_too_much_data(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, _):
        record("ping", await outcome(websocket.ping(b"x" * 126)))


@scenario
async def pong_of_too_much_data(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, _):
        record("pong", await outcome(websocket.pong(b"x" * 126)))


@scenario
async def pong_is_sent(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        for data in (b"", "p\xe9", bytearray(b"x"), memoryview(b"y")):
            await websocket.pong(data)
            record("frames", await peer.frame())


@scenario
async def ping_waits_for_a_connection_that_closes(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        pong = await websocket.ping(b"1")
        peer.close(1001, "x")
        await peer.rest()
        record("pong", await outcome(pong))


@scenario
async def ping_between_fragments(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a", fin=False)
        peer.send(PING, b"p")
        record("frames", await peer.frame())
        peer.send(CONT, b"b")
        record("recv", await websocket.recv())


@scenario
async def keepalive(lib: Any, record: Record) -> None:
    async with accepted(lib, ping_interval=SHORT, ping_timeout=5) as (websocket, peer):
        for _ in range(2):
            kind, payload = await peer.frame()
            record("frames", kind, len(payload))
            peer.send(PONG, payload)
        await until(lambda: websocket.latency)
        record("settings", websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout)


@scenario
async def keepalive_timeout(lib: Any, record: Record) -> None:
    async with accepted(lib, ping_interval=SHORT, ping_timeout=SHORT) as (websocket, peer):
        kind, _ = await peer.frame()
        record("frames", kind, await peer.rest())
        await ending(websocket, record)


@scenario
async def client_keepalive_timeout(lib: Any, record: Record) -> None:
    async with dialled(lib, ping_interval=SHORT, ping_timeout=SHORT, close_timeout=SHORT) as (websocket, peer):
        kind, _ = await peer.frame()
        record("frames", kind, await peer.frame())
        peer.end()
        await ending(websocket, record)


@scenario
async def keepalive_without_timeout(lib: Any, record: Record) -> None:
    async with accepted(lib, ping_interval=SHORT, ping_timeout=None) as (websocket, peer):
        record("frames", [(await peer.frame())[0] for _ in range(3)], websocket.state)
