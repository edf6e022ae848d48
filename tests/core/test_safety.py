"""What native code must survive: calls that come back while it is at work, allocation failures, garbage collection.

Each test is of a way in which the code could go wrong that no peer and no ordinary handler shows. What must not live
here: the channel's ordinary behaviour (test_channel, test_messages), anything that needs a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.core import cases_safety
from tests.core.recorder import MASK, Recorder, Transport, control, finish, frames, in_callback, text
from tests.support import programs
from tests.support.wire import PING, frame
from tidegate._core import scoreboard
from tidegate._core.broadcast import broadcast
from tidegate._core.deflate import Deflate


class Answering(Transport):
    """A transport whose other end answers a write before the write returns, as one in memory may."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Callable[[bytes], bytes] = lambda data: b""

    def write(self, data: Any) -> None:
        super().write(data)
        answer = self.answer(bytes(data))
        if answer and self.channel is not None:
            self.channel.data_received(answer)


def answered(channel: Recorder, answer: Callable[[bytes], bytes]) -> Answering:
    """Put `channel` on an Answering transport."""
    transport = Answering()
    transport.answer = answer
    transport.channel = channel
    channel.transport_ = transport
    channel._connect(transport)
    return transport


async def echo(channel: Recorder, times: int) -> list[Any]:
    seen = []
    for _ in range(times):
        message = await channel.recv()
        seen.append(message)
        await channel.send(message)
    return seen


# Calls that come back


async def test_bytes_that_arrive_during_a_read_come_after_it() -> None:
    channel = Recorder(asyncio.get_running_loop(), high=None)
    answers = [control(PING, b"late") + text("c"), text("d")]
    transport = answered(channel, lambda data: answers.pop(0) if answers else b"")
    big = "x" * 60_000
    reader = asyncio.create_task(echo(channel, 4))
    await asyncio.sleep(0)
    # Pongs of 64 KiB in all fill the buffer and make it leave in the middle of the read.
    channel._control_received = lambda opcode, payload: channel._send_frame(0x8A, b"p" * 125)  # type: ignore[method-assign]
    await in_callback(channel.data_received, text("a") + control(PING) * 600 + text(big))
    assert await reader == ["a", big, "c", "d"]
    assert transport.written.startswith(b"\x8a\x7d")
    assert [payload for first, payload in frames(transport.written) if first == 0x81] == [
        b"a",
        big.encode(),
        b"c",
        b"d",
    ]


async def test_half_a_frame_that_arrives_during_a_read() -> None:
    channel = Recorder(asyncio.get_running_loop(), high=None)
    rest = text("second, in two pieces")
    answers = [rest[:3], rest[3:9], rest[9:]]
    answered(channel, lambda data: answers.pop(0) if answers else b"")
    reader = asyncio.create_task(echo(channel, 2))
    await asyncio.sleep(0)
    await in_callback(channel.data_received, text("first"))
    for _ in range(3):
        channel._write_bytes(b"")
    assert await reader == ["first", "second, in two pieces"]


async def test_what_is_sent_while_the_buffer_leaves_is_not_lost() -> None:
    """pause_writing() of a subclass may send: the buffer that is leaving must not be overrun, nor forget it."""

    class Chatty(Recorder):
        chatter = 3

        def pause_writing(self) -> None:
            super().pause_writing()
            if self.chatter:
                self.chatter -= 1
                self._write_paused = False
                finish(self.send("n" * 60_000))

    channel = Chatty(asyncio.get_running_loop())
    channel.transport_.full = True

    async def handler() -> None:
        await channel.recv()
        for i in range(6):
            awaitable = channel.send(str(i) * 30_000)
            try:
                awaitable.send(None)
            except StopIteration:
                pass
            else:
                awaitable.close()

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    await in_callback(channel.data_received, text("go"))
    await task
    sent = [payload for _, payload in frames(channel.transport_.written)]
    assert sorted(sent) == sorted([b"n" * 60_000] * 3 + [str(i).encode() * 30_000 for i in range(6)])
    assert [payload[:1] for payload in sent if payload[:1] != b"n"] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_an_exception_in_a_door_ends_the_reading() -> None:
    """It goes to the loop, which cuts the connection; what would still come must not meet a half-read frame."""

    class Broken(Recorder):
        def _control_received(self, opcode: int, payload: bytes) -> None:
            raise ZeroDivisionError

    channel = Broken()
    with pytest.raises(ZeroDivisionError):
        channel.data_received(text("a") + control(PING) + text("b"))
    channel.data_received(text("c"))
    assert channel.take_all() == ["a"]
    finish(channel.send("d"))  # at once: no buffer of the broken read waits for its end
    assert channel.transport_.writes == [b"\x81\x01d"]


def test_an_exception_of_the_transport_that_is_none_of_ours() -> None:
    class Fatal(BaseException):
        pass

    channel = Recorder()
    pong = control(PING, b"x")
    channel._control_received = lambda opcode, payload: channel._send_frame(0x8A, payload)  # type: ignore[method-assign]
    channel.transport_.broken = Fatal()  # type: ignore[assignment]
    with pytest.raises(Fatal):
        channel.data_received(pong)
    channel.transport_.broken = None
    finish(channel.send("later"))
    assert channel.transport_.writes == [b"\x81\x05later"]


def test_reading_within_reading() -> None:
    """Each read callback has a buffer of its own; there are more than are kept for the next."""
    channels = [Recorder() for _ in range(20)]

    def feed_next(i: int) -> None:
        channels[i]._send_frame(0x81, b"%d" % i)
        if i + 1 < len(channels):
            channels[i + 1].data_received(control(PING))
        channels[i]._send_frame(0x81, b"after")

    for i, channel in enumerate(channels):
        channel._control_received = lambda opcode, payload, i=i: feed_next(i)  # type: ignore[method-assign, misc]
    for _ in range(2):
        channels[0].data_received(control(PING))
    for i, channel in enumerate(channels):
        expected = [(0x81, b"%d" % i), (0x81, b"after")]
        assert list(frames(channel.transport_.written)) == expected * 2


class Extended(Recorder):
    """A channel with extensions, which answer what a test wants."""

    answers: list[bytes | None]

    def _frame_decoded(self, opcode: int, fin: bool, rsv: int, payload: bytes, limit: int | None) -> bytes | None:
        self.heard.append(("decode", opcode, rsv, payload, limit))
        answer = self.answers.pop(0)
        if answer is None:
            self._discard()
        return answer


def extended(*answers: bytes | None, **options: Any) -> Extended:
    channel = Extended(**options)
    channel.answers = list(answers)
    channel._use_extensions()
    return channel


def test_extensions_that_fail() -> None:
    channel = extended(b"fine", None)
    channel.feed(frame(b"\x01", 2, rsv=7, mask=MASK), frame(b"\x02", 2, rsv=1, mask=MASK), text("never"))
    assert channel.take_all() == [b"fine"]
    channel = extended(None)
    channel.feed(frame(b"ping", 9, rsv=2, mask=MASK), text("never"))
    assert channel.take_all() == []
    assert channel.controls == []


@pytest.mark.parametrize(("max_size", "max_fragment"), [(None, 50), (1000, 50), (50, None), (50, 1000)])
def test_limits_of_what_is_decompressed(max_size: int | None, max_fragment: int | None) -> None:
    channel = Recorder(max_size=max_size, max_fragment=max_fragment)
    channel._use_deflate(Deflate(False, False, 15, 15))
    compress = Deflate(False, False, 15, 15).compress
    messages = [frame(compress(b"a" * size), 2, rsv=4, mask=MASK) for size in (50, 51)]
    channel.feed(*messages)
    assert channel.take_all() == [b"a" * 50]
    assert channel.failures == [(7, (None, 50, 0))]


def test_extensions_that_make_no_text() -> None:
    channel = extended(b"\xff")
    channel.feed(text("a"))
    assert channel.failures == [(8, b"\xff")]


def test_extensions_that_make_too_much() -> None:
    """They are told the limit; were it overrun, what is left of it would be less than nothing, which is no limit."""
    channel = extended(b"x" * 11, b"more", max_size=10)
    channel.feed(text("a", fin=False), frame(b"b", 0, mask=MASK))
    assert channel.failures == [(7, (11, 10, 0))]
    assert channel.take_all() == []


def test_objects_that_no_channel_made() -> None:
    """type(x)() gives anybody an Awaitable: useless, and no crash."""
    awaitable = Recorder().recv()
    kind = type(awaitable)
    awaitable.close()
    with pytest.raises(TypeError, match="recv"):
        kind().send(None)
    with pytest.raises(TypeError, match="recv"):
        next(kind())
    kind().close()
    iterator = type(aiter(Recorder()))()
    with pytest.raises(TypeError, match="MessageChannel"):
        iterator.__anext__()


@pytest.mark.parametrize("stranger", [None, 5, object()])
def test_a_broadcast_to_what_is_no_connection(stranger: Any) -> None:
    channel = Recorder()
    with pytest.raises(TypeError, match="Channel"):
        broadcast([channel, stranger], 1, b"message")
    assert channel.transport_.writes == [b"\x81\x07message"]


@pytest.mark.parametrize("module", ["broadcast", "channel", "counters", "deflate", "messages", "scoreboard", "writer"])
def test_methods_of_one_type_refuse_another(module: str) -> None:
    """Memory of another layout would be read and written."""
    names = vars(importlib.import_module(f"tidegate._core.{module}"))
    types = {value for value in names.values() if isinstance(value, type) and not value.__flags__ & 1 << 9}  # no heap
    tried = 0
    for kind in types:
        for name, method in vars(kind).items():
            if callable(method) and not name.startswith("__") and not isinstance(method, staticmethod):
                with pytest.raises(TypeError):
                    method(object())
                tried += 1
    assert tried


def test_iterators_are_their_own() -> None:
    iterator = aiter(Recorder())
    assert aiter(iterator) is iterator


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_warning_that_is_an_error_where_nothing_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    Recorder().send("forgotten")
    (warning,) = told
    assert "never awaited" in str(warning)


# Garbage collection


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)
        self.me = self


def test_collected_rows_free_no_shared_memory() -> None:
    board = scoreboard.Scoreboard.create(4, 2)
    row = board.row(0)  # older than the knot: it is the first to be cleared
    knot = Knot(row=row)
    del row, knot
    gc.collect()
    board.row(0).accepted()
    assert board.row(0).words("connections_accepted") == (1,)


def test_collected_channels_with_waiting_readers() -> None:
    def main() -> weakref.ref[Transport]:
        channel = Recorder(high=None)
        channel.feed(text("a"), text("b", fin=False))
        awaitable = channel._recv_frame()
        finish(awaitable)
        awaitable = channel.recv()
        waiter = awaitable.send(None)
        waiter.add_done_callback(awaitable.close)  # channel -> waiter -> awaitable -> channel
        channel.feed(text("c")[:3])
        channel.knot = (awaitable, Knot(channel=channel))  # type: ignore[attr-defined]
        return weakref.ref(channel.transport_)

    gone = [main() for _ in range(3)]
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


async def test_a_task_that_is_dropped_while_it_waits() -> None:
    """Nobody holds it: the collector ends the coroutine inside, and with it the reader, before the channel."""
    channel = Recorder(asyncio.get_running_loop())
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending"

    async def wait() -> None:
        await channel.recv()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    del task
    gc.collect()
    channel.feed(text("a"))
    await asyncio.sleep(0)
    assert channel.take_all() in (["a"], [])


# Memory that others write


def test_a_scoreboard_that_a_process_gone_wrong_has_written_to() -> None:
    """Rows, slots and stages that are none: what can be read is read, and nothing beyond the file."""
    board = scoreboard.Scoreboard.create(4, 2)
    row = board.assign(0, pid=5)
    header = os.pread(board.fd, 4096 + 64, 0)
    where_everything_is = (24, 32)  # the numbers of rows and slots
    for offset in {*range(0, 96, 8), *range(4096, 4096 + 64, 8)}.difference(where_everything_is):
        for value in (2**64 - 1, 2**63, 77):
            os.pwrite(board.fd, value.to_bytes(8, "little"), offset)
            with contextlib.suppress(TimeoutError):  # of an odd sequence
                board.read(0.001)
            with contextlib.suppress(ValueError):
                board.spawn(row, 5)
            os.pwrite(board.fd, header[offset : offset + 8], offset)
    assert [worker.pid for slot in board.read().slots for worker in slot.workers] == [5]


# What is shared by all connections of a process


def test_one_stop_iteration_for_many_is_seen_by_none() -> None:
    """Whoever keeps the exception that carries a message keeps its message."""
    channel = Recorder(high=None)
    kept = []
    for i in range(10):
        channel.feed(text(f"message {i}"))
        try:
            next(channel.recv())
        except StopIteration as stop:
            kept.append(stop)
    assert [stop.value for stop in kept] == [f"message {i}" for i in range(10)]
    assert len({id(stop) for stop in kept}) == 10


def test_the_shared_stop_iteration_gathers_nothing() -> None:
    """It passes through frames when Python drives an awaitable by hand, and must not carry them along."""
    channel = Recorder(high=None)
    depths = []

    def one(i: int) -> None:
        channel.feed(text(str(i)))
        try:
            next(channel.recv())
        except StopIteration as stop:
            depth, traceback = 0, stop.__traceback__
            while traceback is not None:
                depth, traceback = depth + 1, traceback.tb_next
            depths.append((depth, stop.value, stop.__context__, stop.__cause__, getattr(stop, "__notes__", None)))
            stop.__context__ = KeyError()
            stop.__cause__ = ValueError()
            stop.add_note("a note")

    for i in range(5):
        one(i)
    assert depths == [(1, str(i), None, None, None) for i in range(5)]


async def test_tracers_see_each_message() -> None:
    """sys.settrace() makes the interpreter look at exceptions that it otherwise drops, and tracers may keep them."""
    channel = Recorder(asyncio.get_running_loop(), high=None)
    seen: list[Any] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "exception" and argument[0] is StopIteration:
            seen.append(argument[1])
        return trace

    async def handler() -> list[Any]:
        return [await channel.recv() for _ in range(20)]

    task = asyncio.create_task(handler())
    sys.settrace(trace)
    try:
        await asyncio.sleep(0)
        channel.feed(*(text(str(i)) for i in range(20)))
        messages = await task
    finally:
        sys.settrace(None)
    assert messages == [str(i) for i in range(20)]
    values = [stop.value for stop in seen if isinstance(stop, StopIteration) and isinstance(stop.value, str)]
    assert values == sorted(set(values), key=int)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of Python 3.12")
async def test_monitors_see_each_message() -> None:
    """sys.monitoring is told of the StopIteration, and may keep it."""
    monitoring = sys.monitoring
    channel = Recorder(asyncio.get_running_loop(), high=None)
    seen: list[BaseException] = []

    def tell(code: Any, offset: int, exc: BaseException) -> None:
        if isinstance(exc, StopIteration) and isinstance(exc.value, str):
            seen.append(exc)

    async def handler() -> list[Any]:
        return [await channel.recv() for _ in range(20)]

    events = monitoring.events.STOP_ITERATION | monitoring.events.RAISE
    monitoring.use_tool_id(monitoring.PROFILER_ID, "tests")
    try:
        for event in (monitoring.events.STOP_ITERATION, monitoring.events.RAISE):
            monitoring.register_callback(monitoring.PROFILER_ID, event, tell)
        monitoring.set_events(monitoring.PROFILER_ID, events)
        task = asyncio.create_task(handler())
        await asyncio.sleep(0)
        channel.feed(*(text(str(i)) for i in range(20)))
        messages = await task
    finally:
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.free_tool_id(monitoring.PROFILER_ID)
    assert messages == [str(i) for i in range(20)]
    values = [exc.value for exc in seen]
    assert values == sorted(set(values), key=int)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # a thread watches over the test's time
def test_a_forked_child_has_keys_of_its_own() -> None:
    """Masking keys are drawn many at a time: what is left of them must not be used by two processes."""

    def keys() -> bytes:
        channel = Recorder(client=True)
        for _ in range(20):
            finish(channel.send(""))
        return b"".join(write[2:] for write in channel.transport_.writes)

    keys()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, keys())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = keys()
    assert len(ours) == len(theirs) == 80
    assert ours != theirs


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_end_of_the_interpreter(loop: str) -> None:
    """Modules go in some order, and readers, channels and loops after them."""
    done = programs.run(cases_safety.end, loop, python=("-X", "dev", "-X", "faulthandler"))
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr


def test_loops_in_several_threads() -> None:  # noqa: C901 - what a thread does is told in one place
    """Buffers, keys and exceptions are shared by the threads of a process: none may get another's."""
    failures: list[BaseException] = []

    async def main(name: int) -> None:
        loop = asyncio.get_running_loop()
        channel = Recorder(loop, high=None, client=bool(name % 2))
        messages = [f"{name}:{i}" for i in range(400)]

        async def handler() -> None:
            for message in messages:
                assert await channel.recv() == message
                await channel.send(message)

        task = asyncio.create_task(handler())
        await asyncio.sleep(0)
        for message in messages:
            payload = message.encode()
            if channel.transport_ and name % 2:
                channel.feed(bytes([0x81, len(payload)]) + payload)
            else:
                channel.feed(text(message))
            await asyncio.sleep(0)
        await task
        if not name % 2:
            assert [payload.decode() for _, payload in frames(channel.transport_.written)] == messages

    def run(name: int) -> None:
        try:
            asyncio.run(main(name))
        except BaseException as exc:
            failures.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


# What only some peers and transports do


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_view_with_gaps_is_not_read_as_one_without(kind: type) -> None:
    channel = Recorder()
    view = memoryview(kind(b"abcdef"))[::2]
    finish(channel.send(view))
    assert channel.heard == [("slowly", view, None)]
    assert channel.transport_.writes == []
