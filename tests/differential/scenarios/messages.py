"""Messages in and out: types, text= and decode=, fragments, iterables, limits, cancellation, concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.differential.library import Record, add, scenario
from tests.differential.stage import accepted, dialled
from tests.support.coroutines import outcome, until
from tests.support.patience import PATIENCE
from tests.support.wire import BINARY, CLOSE, CONT, PING, TEXT


async def parts(*values: Any) -> AsyncIterator[Any]:
    """An asynchronous iterable."""
    for value in values:
        yield value


def boom(*values: Any) -> Any:
    """An iterable that fails after some values."""
    yield from values
    raise ValueError("of an iterable")


async def slow_boom(*values: Any) -> AsyncIterator[Any]:
    """An asynchronous one."""
    for value in values:
        yield value
    raise ValueError("of an iterable")


# Scenario -> what to send (made anew for each library), keyword arguments.
SENT: dict[str, tuple[Any, dict[str, Any]]] = {
    "str": (lambda: "h\xe9llo", {}),
    "bytes": (lambda: b"hello", {}),
    "bytearray": (lambda: bytearray(b"hello"), {}),
    "memoryview": (lambda: memoryview(b"hello"), {}),
    "memoryview_with_steps": (lambda: memoryview(b"hello")[::2], {}),
    "empty_str": (lambda: "", {}),
    "empty_bytes": (lambda: b"", {}),
    "str_as_binary": (lambda: "hello", {"text": False}),
    "bytes_as_text": (lambda: b"hello", {"text": True}),
    "125_bytes": (lambda: b"x" * 125, {}),
    "126_bytes": (lambda: b"x" * 126, {}),
    "65536_bytes": (lambda: b"x" * 65536, {}),
    "list_of_str": (lambda: ["a", "b", ""], {}),
    "list_of_bytes": (lambda: [b"a", bytearray(b"b"), memoryview(b"c")], {}),
    "list_of_one": (lambda: ["a"], {}),
    "list_as_binary": (lambda: ["a", "b"], {"text": False}),
    "list_as_text": (lambda: [b"a", b"b"], {"text": True}),
    "empty_list": (lambda: [], {}),
    "generator": (lambda: (each for each in "abc"), {}),
    "mixed_list": (lambda: ["a", b"b"], {}),
    "mixed_list_bytes_first": (lambda: [b"a", "b"], {}),
    "list_of_ints": (lambda: [1, 2], {}),
    "list_with_later_int": (lambda: ["a", 2], {}),
    "failing_generator": (lambda: boom("a", "b"), {}),
    "generator_failing_at_once": (lambda: boom(), {}),
    "async_iterable": (lambda: parts("a", "b"), {}),
    "async_iterable_of_bytes": (lambda: parts(b"a", b"b"), {"text": True}),
    "async_iterable_empty": (lambda: parts(), {}),
    "async_iterable_mixed": (lambda: parts("a", b"b"), {}),
    "async_iterable_of_ints": (lambda: parts(1), {}),
    "async_iterable_failing": (lambda: slow_boom("a"), {}),
    "dict": (lambda: {"a": 1}, {}),
    "none": (lambda: None, {}),
    "int": (lambda: 42, {}),
    "surrogate": (lambda: "\ud800", {}),
}


def sending(make: Any, options: dict[str, Any]) -> Any:
    async def send(lib: Any, record: Record) -> None:
        async with accepted(lib) as (websocket, peer):
            frames = peer.listen()
            record("send", await outcome(websocket.send(make(), **options)))
            if websocket.state is lib.State.OPEN:
                record("send", await outcome(websocket.send("next")))
                await websocket.close()
            record("frames", await frames)

    return send


for name, (make, options) in SENT.items():
    add(f"send_{name}", sending(make, options))


@scenario
async def send_that_fails_within_a_message(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        frames = peer.listen()
        record("send", await outcome(websocket.send(["a", 1])))
        record("state", websocket.state)
        record("frames", await frames)
        await websocket.wait_closed()
        record("next", await outcome(websocket.send("next")))


@scenario
async def client_masks_what_it_sends(lib: Any, record: Record) -> None:
    async with dialled(lib) as (websocket, peer):
        for message in ("text", b"binary", ["a", "b"], ""):
            await websocket.send(message)
        await websocket.ping(b"p")
        await websocket.pong(b"q")
        task = asyncio.create_task(websocket.close())
        record("frames", [await peer.frame() for _ in range(9)])
        peer.close()
        peer.end()
        await task


# Scenario -> frames (opcode, payload, fin), arguments of recv() in turn, options of serve().
RECEIVED: dict[str, tuple[list[tuple[int, bytes, bool]], list[dict[str, Any]], dict[str, Any]]] = {
    "text": ([(TEXT, "h\xe9".encode(), True)], [{}], {}),
    "binary": ([(BINARY, b"\xff", True)], [{}], {}),
    "empty": ([(TEXT, b"", True), (BINARY, b"", True)], [{}, {}], {}),
    "text_undecoded": ([(TEXT, "h\xe9".encode(), True)], [{"decode": False}], {}),
    "binary_decoded": ([(BINARY, "h\xe9".encode(), True)], [{"decode": True}], {}),
    "text_decoded": ([(TEXT, b"a", True)], [{"decode": True}], {}),
    "binary_undecodable": ([(BINARY, b"a\xff", True)], [{"decode": True}, {}], {}),
    "fragments": ([(TEXT, b"a", False), (CONT, b"b", False), (CONT, b"c", True)], [{}], {}),
    "fragments_within_a_character": ([(TEXT, b"\xc3", False), (CONT, b"\xa9", True)], [{}], {}),
    "fragments_with_ping": ([(BINARY, b"a", False), (PING, b"p", True), (CONT, b"b", True)], [{}], {}),
    "empty_fragments": ([(TEXT, b"", False), (CONT, b"", False), (CONT, b"", True)], [{}], {}),
    "invalid_utf8": ([(TEXT, b"a\xff", True)], [{}, {}], {}),
    "invalid_utf8_in_fragments": ([(TEXT, b"a", False), (CONT, b"\xff", True)], [{}, {}], {}),
    "truncated_utf8": ([(TEXT, b"a\xc3", True)], [{}], {}),
    "surrogate": ([(TEXT, b"\xed\xa0\x80", True)], [{}], {}),
    "after_messages_invalid": ([(TEXT, b"a", True), (TEXT, b"\xff", True)], [{}, {}, {}], {}),
    "too_big": ([(TEXT, b"a" * 11, True)], [{}], {"max_size": 10}),
    "as_big_as_allowed": ([(TEXT, b"a" * 10, True)], [{}], {"max_size": 10}),
    "fragments_too_big": ([(TEXT, b"a" * 6, False), (CONT, b"b" * 6, True)], [{}], {"max_size": 10}),
    "fragment_too_big": ([(TEXT, b"a" * 6, False)], [{}], {"max_size": (100, 5)}),
    "message_too_big_of_small_fragments": (
        [(TEXT, b"a" * 5, False), (CONT, b"b" * 5, False), (CONT, b"c" * 5, True)],
        [{}],
        {"max_size": (12, 5)},
    ),
    "any_size": ([(TEXT, b"a" * 2**21, True)], [{"decode": False}], {"max_size": None}),
    "one_byte_over_default": ([(BINARY, b"a" * (2**20 + 1), True)], [{}], {}),
    "stray_continuation": ([(CONT, b"a", True)], [{}], {}),
    "interleaved_messages": ([(TEXT, b"a", False), (TEXT, b"b", True)], [{}], {}),
    "reserved_opcode": ([(3, b"", True)], [{}], {}),
    "reserved_control_opcode": ([(11, b"", True)], [{}], {}),
    "fragmented_ping": ([(PING, b"", False)], [{}], {}),
    "long_ping": ([(PING, b"a" * 126, True)], [{}], {}),
    "many_messages": ([(TEXT, b"%d" % n, True) for n in range(40)], [{}] * 40, {"max_queue": 4}),
    "decode_by_position": ([(TEXT, b"a", True)], [{"decode": None}], {}),
}


def receiving(frames: Any, calls: Any, options: dict[str, Any]) -> Any:
    async def receive(lib: Any, record: Record) -> None:
        async with accepted(lib, **options) as (websocket, peer):
            came = peer.listen()
            for opcode, payload, fin in frames:
                peer.send(opcode, payload, fin=fin)
            for arguments in calls:
                got = await outcome(websocket.recv(**arguments))
                record("recv", type(got).__name__, got if isinstance(got, Exception) or len(got) < 99 else len(got))
            record("state", websocket.state)
            await websocket.close()
            record("frames", await came)
            record("close", websocket.close_code, websocket.close_reason)

    return receive


for name, (frames, calls, options) in RECEIVED.items():
    add(f"recv_{name}", receiving(frames, calls, options))


@scenario
async def recv_of_bad_bits(lib: Any, record: Record) -> None:
    for rsv in (1, 2, 4):
        async with accepted(lib) as (websocket, peer):
            frames = peer.listen()
            peer.send(TEXT, b"a", rsv=rsv)
            record("recv", await outcome(websocket.recv()))
            record("frames", await frames)


@scenario
async def recv_of_unmasked_frame(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        frames = peer.listen()
        peer.write(b"\x81\x01a")
        record("recv", await outcome(websocket.recv()))
        record("frames", await frames)


@scenario
async def client_recv_of_masked_frame(lib: Any, record: Record) -> None:
    async with dialled(lib) as (websocket, peer):
        peer.write(b"\x81\x81\0\0\0\0a")
        record("frame", await peer.frame())
        peer.end()
        record("recv", await outcome(websocket.recv()))


@scenario
async def iteration_ends_well(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a")
        peer.send(BINARY, b"b")
        peer.close(1001, "bye")
        peer.listen()
        async for message in websocket:
            record("messages", message)
        record("end", websocket.close_code, websocket.close_reason)
        record("again", await outcome(websocket.recv()))


@scenario
async def iteration_raises(lib: Any, record: Record) -> None:
    async def iterate(websocket: Any) -> None:
        async for message in websocket:
            record("messages", message)

    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a")
        peer.close(1011, "oops")
        peer.listen()
        record("end", await outcome(iterate(websocket)))


async def cancelled(task: asyncio.Task[Any]) -> Any:
    """Cancel, and wait."""
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@scenario
async def recv_cancelled_loses_nothing(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        for message in (b"a", b"b", b"c"):
            task = asyncio.create_task(websocket.recv())
            await asyncio.sleep(0)
            record("cancelled", await cancelled(task))
            peer.send(TEXT, message)
            record("recv", await websocket.recv())


@scenario
async def recv_cancelled_between_fragments(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        task = asyncio.create_task(websocket.recv())
        peer.send(TEXT, b"a", fin=False)
        pong = await websocket.ping(b"p")
        await peer.frame()
        peer.send(10, b"p")
        await pong
        record("cancelled", await cancelled(task))
        peer.send(CONT, b"b")
        record("recv", await websocket.recv())


@scenario
async def recv_with_timeout(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        record("recv", await outcome(asyncio.wait_for(websocket.recv(), 0.01)))
        peer.send(TEXT, b"a")
        record("recv", await outcome(asyncio.wait_for(websocket.recv(), PATIENCE)))


@scenario
async def two_recv_at_once(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        task = asyncio.create_task(websocket.recv())
        await asyncio.sleep(0)
        record("second", await outcome(websocket.recv()))
        record("streaming", await outcome(anext(websocket.recv_streaming())))
        peer.send(TEXT, b"a")
        record("first", await task)


@scenario
async def recv_while_streaming(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a", fin=False)
        stream = websocket.recv_streaming()
        record("stream", await anext(stream))
        record("recv", await outcome(websocket.recv()))
        record("streaming", await outcome(anext(websocket.recv_streaming())))
        peer.send(CONT, b"b")
        record("stream", [part async for part in stream])
        peer.send(TEXT, b"c")
        record("recv", await websocket.recv())


@scenario
async def recv_after_abandoned_stream(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a", fin=False)
        stream = websocket.recv_streaming()
        record("stream", await anext(stream))
        await stream.aclose()
        record("recv", await outcome(websocket.recv()))


def streaming(name: str, frames: list[tuple[int, bytes, bool]], **arguments: Any) -> None:
    """A scenario of recv_streaming()."""

    async def stream(lib: Any, record: Record) -> None:
        async def collect(websocket: Any) -> None:
            async for part in websocket.recv_streaming(**arguments):
                record("parts", type(part).__name__, part)

        async with accepted(lib) as (websocket, peer):
            came = peer.listen()
            for opcode, payload, fin in frames:
                peer.send(opcode, payload, fin=fin)
            record("end", await outcome(collect(websocket)), websocket.state)
            await websocket.close()
            record("frames", await came)

    add(f"recv_streaming_{name}", stream)


streaming("one_frame", [(TEXT, b"a", True)])
streaming("fragments", [(TEXT, b"a", False), (CONT, b"", False), (CONT, b"b", True)])
streaming("binary", [(BINARY, b"a", False), (CONT, b"b", True)])
streaming("undecoded", [(TEXT, b"a", False), (CONT, b"b", True)], decode=False)
streaming("decoded", [(BINARY, b"a", False), (CONT, b"b", True)], decode=True)
streaming("within_a_character", [(TEXT, b"\xc3", False), (CONT, b"\xa9", True)])
streaming("invalid_utf8", [(TEXT, b"a", False), (CONT, b"\xff", True)])
streaming("truncated_utf8", [(TEXT, b"a", False), (CONT, b"\xc3", True)])
streaming("closed_within", [(TEXT, b"a", False), (CLOSE, b"\x03\xe8", True)])
streaming("closed", [(CLOSE, b"\x03\xe8", True)])


@scenario
async def send_while_fragments_are_sent(lib: Any, record: Record) -> None:
    go = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await go.wait()
        yield "b"

    async with accepted(lib) as (websocket, peer):
        long = asyncio.create_task(websocket.send(source()))
        record("frames", await peer.frame())
        short = asyncio.create_task(websocket.send("short"))
        await websocket.ping(b"p")
        record("frames", await peer.frame())
        record("short", short.done())
        go.set()
        await asyncio.gather(long, short)
        record("frames", [await peer.frame() for _ in range(3)])


@scenario
async def send_of_fragments_cancelled(lib: Any, record: Record) -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async with accepted(lib) as (websocket, peer):
        task = asyncio.create_task(websocket.send(source()))
        record("frames", await peer.frame())
        record("cancelled", await cancelled(task))
        record("state", websocket.state)
        frames = peer.listen()
        await websocket.close()
        record("frames", await frames)


@scenario
async def send_after_close(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.close(1000, "x")
        await peer.rest()
        await websocket.wait_closed()
        for message in ("a", b"a", ["a"], parts("a"), [], {}, 1):
            record("send", await outcome(websocket.send(message)))


@scenario
async def messages_before_a_close_frame_can_be_read(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        for each in (b"a", b"b"):
            peer.send(TEXT, each)
        peer.close()
        await peer.rest()
        await until(lambda: websocket.state is lib.State.CLOSED)
        record("recv", [await outcome(websocket.recv()) for _ in range(3)])


@scenario
async def messages_before_the_end_can_be_read(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a")
        peer.send(TEXT, b"b", fin=False)
        peer.end()
        await websocket.wait_closed()
        record("recv", [await outcome(websocket.recv()) for _ in range(3)])


@scenario
async def too_many_fragments(lib: Any, record: Record) -> None:
    async with accepted(lib) as (websocket, peer):
        peer.send(TEXT, b"a", fin=False)
        for _ in range(4096):
            peer.send(CONT, b"", fin=False)
        peer.send(CONT, b"!")
        peer.send(CLOSE, b"\x03\xe8")
        frames = peer.listen()
        record("recv", await outcome(websocket.recv()))
        record("frames", await frames)
