"""What recv(), send() and iteration return: a coroutine in all that can be observed, and nothing else."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.recorder import Recorder, binary, finish, in_callback, more, text
from tests.support.patience import PATIENCE
from tidegate.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK

KINDS: dict[str, Callable[[Recorder], Coroutine[Any, Any, Any]]] = {
    "recv": lambda channel: channel.recv(),
    "anext": lambda channel: channel.__anext__(),
    "frame": lambda channel: channel._recv_frame(),
    "send": lambda channel: channel.send("x"),
}
READERS = ["recv", "anext", "frame"]
VALUES = {"recv": "Hello", "anext": "Hello", "frame": ("Hello", 1, True)}


@pytest.fixture
def channel() -> Recorder:
    """A channel without a loop: its awaitables are driven by hand."""
    return Recorder()


# As a coroutine


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_coroutine_and_not_a_future(kind: str, channel: Recorder) -> None:
    awaitable = KINDS[kind](channel)
    assert asyncio.iscoroutine(awaitable)
    assert inspect.isawaitable(awaitable)
    assert isinstance(awaitable, collections.abc.Coroutine)
    assert not asyncio.isfuture(awaitable)
    assert not isinstance(awaitable, collections.abc.AsyncIterator)
    awaitable.close()


@pytest.mark.parametrize("kind", READERS)
def test_nothing_happens_before_it_is_awaited(kind: str, channel: Recorder) -> None:
    channel.feed(text("Hello"))
    first, second, third = (KINDS[kind](channel) for _ in range(3))
    assert finish(second) == VALUES[kind]
    first.send(None)
    with pytest.raises(ConcurrencyError):
        third.send(None)
    first.close()


def test_send_does_nothing_before_it_is_awaited(channel: Recorder) -> None:
    awaitable = channel.send("x")
    wrong = channel.send(42)  # type: ignore[call-overload]
    assert channel.transport_.writes == []
    assert channel.heard == []
    finish(awaitable)
    finish(wrong)
    assert channel.transport_.writes == [b"\x81\x01x"]
    assert channel.heard == [("slowly", 42, None)]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_used_once(kind: str, channel: Recorder) -> None:
    channel.feed(text("Hello") * 2)
    awaitable = KINDS[kind](channel)
    finish(awaitable)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            awaitable.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        awaitable.throw(ZeroDivisionError)
    awaitable.close()
    if kind != "send":
        assert channel.take() == "Hello"


@pytest.mark.parametrize("kind", ["recv", "anext", "send"])
def test_it_warns_when_it_was_never_awaited(kind: str, channel: Recorder) -> None:
    with pytest.warns(RuntimeWarning, match=r"coroutine '.*' was never awaited"):
        KINDS[kind](channel)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["closed", "thrown into", "awaited", "waiting"])
def test_it_does_not_warn_when_it_was_used(kind: str, use: str, channel: Recorder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        awaitable = KINDS[kind](channel)
        if use == "closed":
            awaitable.close()
        elif use == "thrown into":
            with pytest.raises(ZeroDivisionError):
                awaitable.throw(ZeroDivisionError)
        elif use == "awaited":
            channel.feed(text("Hello"))
            finish(awaitable)
        elif kind != "send":
            awaitable.send(None)
        else:
            awaitable.close()
        del awaitable
        gc.collect()


class Never:
    """Waits for ever."""

    def __await__(self) -> Any:
        while True:
            yield self


async def never() -> Any:
    await Never()


@given(st.lists(st.sampled_from(["send", "throw class", "throw instance", "throw three", "close"]), max_size=6))
def test_it_takes_what_a_coroutine_takes(steps: list[str]) -> None:
    """Step by step, a reader that waits answers as a coroutine that waits does."""

    def outcome(coroutine: Coroutine[Any, Any, Any], step: str) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of throw() with three arguments
                if step == "send":
                    coroutine.send(None)
                elif step == "throw class":
                    coroutine.throw(ZeroDivisionError)
                elif step == "throw instance":
                    coroutine.throw(ZeroDivisionError("x"))
                elif step == "throw three":
                    coroutine.throw(ZeroDivisionError, ZeroDivisionError("y"), None)
                else:
                    coroutine.close()
        except BaseException as exc:
            return type(exc), exc.args
        return "ok"

    channel = Recorder()
    ours, theirs = channel.recv(), never()
    for step in steps:
        assert outcome(ours, step) == outcome(theirs, step)
    ours.close()
    theirs.close()
    channel.feed(text("still there"))
    assert channel.take() == "still there"


@pytest.mark.parametrize("wrong", [int, 42, "x", None])
def test_only_exceptions_are_thrown(wrong: Any, channel: Recorder) -> None:
    awaitable = channel.recv()
    awaitable.send(None)
    with pytest.raises(TypeError):
        awaitable.throw(wrong)
    awaitable.close()


def test_what_is_thrown_is_what_comes_out(channel: Recorder) -> None:
    awaitable = channel.recv()
    awaitable.send(None)
    exc = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        awaitable.throw(exc)
    assert caught.value is exc


def test_a_reader_that_is_dropped_makes_way(channel: Recorder) -> None:
    awaitable = channel.recv()
    awaitable.send(None)
    with pytest.raises(ConcurrencyError):
        channel.recv().send(None)
    del awaitable
    channel.feed(text("Hello"))
    assert channel.take() == "Hello"


@pytest.mark.parametrize("value", ["", "x", "x" * 5000, b"", b"x", b"x" * 5000, "é", "\U0001f30a" * 100])
async def test_values_arrive_as_they_are(value: Any) -> None:
    """However the interpreter asks for them: the value of a StopIteration, or am_send."""
    channel = Recorder(asyncio.get_running_loop())
    wire = text(value) if isinstance(value, str) else binary(value)

    async def indirectly() -> Any:
        return await channel.recv()

    class Delegating:
        def __await__(self) -> Any:
            return (yield from channel.recv().__await__())

    channel.feed(wire * 7)
    assert await channel.recv() == value
    assert await indirectly() == value
    assert await asyncio.create_task(channel.recv()) == value
    assert await Delegating() == value
    assert await anext(aiter(channel)) == value
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        assert await channel.recv() == value  # while an exception is being handled
    awaitable = channel.recv()
    with pytest.raises(StopIteration) as stop:
        next(awaitable.__await__())  # type: ignore[call-overload]
    assert stop.value.value == value


def test_a_value_of_none_is_told_without_an_exception_of_ours(channel: Recorder) -> None:
    """As an interpreter asks that has no am_send for it: next() alone makes the StopIteration."""
    with pytest.raises(StopIteration) as stop:
        next(channel.send("x").__await__())  # type: ignore[call-overload]
    assert stop.value.value is None


async def test_a_value_that_a_tracer_keeps_does_not_change() -> None:
    channel = Recorder(asyncio.get_running_loop())
    kept: list[Any] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "exception":
            kept.append(argument[1])
        return trace

    channel.feed(text("a") + text("b") + text("c"))
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        got = [await channel.recv() for _ in range(3)]
    finally:
        sys.settrace(before)
    assert got == ["a", "b", "c"]
    values = [exc.value for exc in kept if isinstance(exc, StopIteration) and exc.value is not None]
    assert values == sorted(values)


def test_tracebacks_do_not_grow(channel: Recorder) -> None:
    """Who drives an awaitable by hand gets an exception without the past of others."""

    def drive() -> int:
        channel.feed(text("x"))
        depth = 0
        try:
            next(channel.recv().__await__())  # type: ignore[call-overload]
        except StopIteration as stop:
            traceback = stop.__traceback__
            while traceback is not None:
                depth, traceback = depth + 1, traceback.tb_next
        return depth

    assert [drive() for _ in range(5)] == [1] * 5


# One reader at a time


@pytest.mark.parametrize("first", READERS)
@pytest.mark.parametrize("second", READERS)
def test_two_readers(first: str, second: str, channel: Recorder) -> None:
    reader = KINDS[first](channel)
    reader.send(None)
    with pytest.raises(ConcurrencyError, match="streaming" if second == "frame" else "whole"):
        KINDS[second](channel).send(None)
    channel.feed(text("Hello"))
    with pytest.raises(ConcurrencyError):  # it is the first one's
        KINDS[second](channel).send(None)
    assert finish(reader) == VALUES[first]
    channel.feed(text("Hello"))
    assert finish(KINDS[second](channel)) == VALUES[second]


def test_in_the_middle_of_a_stream_only_the_stream_reads(channel: Recorder) -> None:
    channel.feed(text("a", fin=False) + more(b"b") + text("c"))
    assert finish(channel._recv_frame()) == (b"a", 1, False)
    channel._streaming = True
    for kind in ("recv", "anext"):
        with pytest.raises(ConcurrencyError):
            KINDS[kind](channel).send(None)
    assert finish(channel._recv_frame()) == (b"b", 0, True)
    channel._streaming = False
    assert channel.take() == "c"


# The end


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("well", [True, False])
@pytest.mark.parametrize("when", ["before", "while"])
async def test_readers_learn_of_the_end(kind: str, well: bool, when: str) -> None:
    channel = Recorder(asyncio.get_running_loop())
    expected = StopAsyncIteration if well and kind == "anext" else ConnectionClosedOK if well else ConnectionClosedError

    async def read() -> None:
        with pytest.raises(expected):
            await KINDS[kind](channel)

    if when == "before":
        channel.lose(well)
        await read()
    else:
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        channel.lose(well)
        await task
    await read()


async def test_what_had_arrived_is_read_first() -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel.feed(text("a") + text("b") + text("half", fin=False))
    channel.lose(well=True)
    assert [message async for message in channel] == ["a", "b"]


async def test_a_subclass_that_has_its_own_recv_iterates_over_that() -> None:
    class Loud(Recorder):
        async def recv(self, decode: bool | None = None) -> Any:  # type: ignore[override]
            return (await super().recv(decode)).upper()

        async def _iterate(self) -> AsyncIterator[Any]:
            try:
                while True:
                    yield await self.recv()
            except ConnectionClosedOK:
                return

    channel = Loud(asyncio.get_running_loop())
    channel.feed(text("a"), text("b"))
    channel.lose(well=True)
    assert [message async for message in channel] == ["A", "B"]
    channel = Recorder(asyncio.get_running_loop())
    channel.feed(text("a") + text("b"))
    channel.lose()
    assert await channel.recv() == "a"
    messages = aiter(channel)
    assert await anext(messages) == "b"
    with pytest.raises(ConnectionClosedError):
        await anext(messages)


async def test_a_message_and_the_end_at_once() -> None:
    """The reader is told of the message first, whatever comes between."""
    for kind in READERS:
        channel = Recorder(asyncio.get_running_loop())
        task = asyncio.create_task(KINDS[kind](channel))
        await asyncio.sleep(0)

        def both(channel: Recorder = channel) -> None:
            channel.feed(text("Hello"))
            channel.lose()

        both()  # in a task: woken soon
        assert await task == VALUES[kind]


# Sending that waits


async def test_a_delegated_send_behaves_as_its_coroutine() -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel.transport_.full = True

    async def wait_for_room(end: str) -> Any:
        task = asyncio.create_task(channel.send("x"))
        await asyncio.sleep(0)
        if end == "cancel":
            task.cancel("enough")
        else:
            channel.transport_.full = False
            channel.resume_writing()
        return await task

    assert await wait_for_room("room") is None
    channel.transport_.full = True
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await wait_for_room("cancel")
    assert channel.transport_.written == b"\x81\x01x" * 2
    awaitable = channel.send("y")
    future = awaitable.send(None)
    assert asyncio.isfuture(future)
    with pytest.raises(ZeroDivisionError):
        awaitable.throw(ZeroDivisionError)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        awaitable.send(None)
    awaitable = channel.send("z")
    awaitable.send(None)
    awaitable.close()
    awaitable.close()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        awaitable.send(None)


# In the hands of asyncio

Use = Callable[[Recorder, Callable[[], Coroutine[Any, Any, Any]]], Awaitable[Any]]


async def by_task_group(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(make())
    return task.result()


async def by_timeout(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await make()


async def by_wait(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    done, _ = await asyncio.wait([asyncio.ensure_future(make())])
    return done.pop().result()


async def by_as_completed(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    for future in asyncio.as_completed([make()]):
        return await future


async def by_gather(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return (await asyncio.gather(make(), asyncio.sleep(0)))[0]


async def by_await(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return await make()


USES: dict[str, Callable[[Callable[[], Coroutine[Any, Any, Any]]], Awaitable[Any]]] = {
    "await": by_await,
    "create_task": lambda make: asyncio.create_task(make()),
    "ensure_future": lambda make: asyncio.ensure_future(make()),
    "gather": by_gather,
    "wait_for": lambda make: asyncio.wait_for(make(), PATIENCE),
    "wait_for without a timeout": lambda make: asyncio.wait_for(make(), None),
    "shield": lambda make: asyncio.shield(make()),
    "timeout": by_timeout,
    "wait": by_wait,
    "as_completed": by_as_completed,
    "task group": by_task_group,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("arrival", ["before", "in a callback", "in a task", "in pieces"])
async def test_receiving(use: str, kind: str, arrival: str) -> None:
    """In whatever way a coroutine is awaited, so is a message, before and after it comes."""
    channel = Recorder(asyncio.get_running_loop())

    async def receive() -> Any:
        return await USES[use](lambda: KINDS[kind](channel))

    if arrival == "before":
        channel.feed(text("Hello"))
        assert await receive() == VALUES[kind]
        return
    task = asyncio.create_task(receive())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    if arrival == "in a callback":
        await in_callback(channel.feed, text("Hello"))
    elif arrival == "in a task":
        channel.feed(text("Hello"))
    else:
        for byte in text("Hello"):
            await in_callback(channel.feed, bytes([byte]))
    expected = (b"Hello", 1, True) if (kind, arrival) == ("frame", "in pieces") else VALUES[kind]
    assert await asyncio.wait_for(task, PATIENCE) == expected


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("full", [False, True])
async def test_sending(use: str, full: bool) -> None:
    """In whatever way a coroutine is awaited, so is send(), which waits while the transport is full."""
    channel = Recorder(asyncio.get_running_loop())
    channel.transport_.full = full

    async def send() -> Any:
        return await USES[use](lambda: channel.send("x"))

    task = asyncio.create_task(send())
    while not channel.transport_.writes:
        await asyncio.sleep(0)
    assert channel.transport_.writes == [b"\x81\x01x"]
    if full:
        assert not task.done()
        channel.resume_writing()
    assert await task is None


async def test_timeouts() -> None:
    """A wait that times out takes no message, and leaves the channel to other readers."""
    channel = Recorder(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(channel.recv(), 0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await channel.recv()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(channel.recv(), 0)
    done, pending = await asyncio.wait([asyncio.create_task(channel.recv())], timeout=0)
    assert not done
    with pytest.raises(ConcurrencyError):
        await channel.recv()
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    channel.feed(text("Hello"))
    assert await channel.recv() == "Hello"


async def test_an_error_in_a_task_group_cancels_the_reader() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def fail() -> None:
        raise ZeroDivisionError

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(channel.recv())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await together()
    channel.feed(text("Hello"))
    assert await channel.recv() == "Hello"


async def test_a_shielded_reader_goes_on() -> None:
    channel = Recorder(asyncio.get_running_loop())
    inner = asyncio.create_task(channel.recv())

    async def wait() -> Any:
        return await asyncio.shield(inner)

    outer = asyncio.create_task(wait())
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    await in_callback(channel.feed, text("Hello"))
    assert await inner == "Hello"


NAMED = {
    "recv": "Connection.recv",
    "anext": "Connection.__anext__",
    "frame": "Connection._recv_frame",
    "send": "Connection.send",
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_named_as_the_method_that_made_it(kind: str, channel: Recorder) -> None:
    awaitable = KINDS[kind](channel)
    assert awaitable.__qualname__ == NAMED[kind]
    assert awaitable.__name__ == NAMED[kind].removeprefix("Connection.")
    assert repr(awaitable) == f"<coroutine object {NAMED[kind]} at {id(awaitable):#x}>"
    awaitable.close()


def test_it_tells_how_far_it_is(channel: Recorder) -> None:
    awaitable = channel.recv()
    assert not awaitable.cr_suspended
    assert awaitable.cr_await is None
    waited = awaitable.send(None)
    assert inspect.getcoroutinestate(awaitable) == inspect.CORO_SUSPENDED
    assert awaitable.cr_await is waited
    awaitable.close()
    assert inspect.getcoroutinestate(awaitable) == inspect.CORO_CLOSED
    assert (awaitable.cr_await, awaitable.cr_code, awaitable.cr_origin) == (None, None, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", [Recorder.recv, Recorder.send], ids=["recv", "send"])
def test_methods_are_known_to_be_awaited(method: Callable[..., Any]) -> None:
    assert asyncio.iscoroutinefunction(method)
    assert sys.version_info < (3, 12) or inspect.iscoroutinefunction(method)


async def test_tasks_of_awaitables_can_be_looked_at() -> None:
    channel = Recorder(asyncio.get_running_loop())
    awaitable = channel.recv()
    task = asyncio.create_task(awaitable, name="reader")
    await asyncio.sleep(0)
    assert "name='reader' coro=<Connection.recv()>" in repr(task)
    assert task.get_coro() is awaitable
    assert isinstance(task.get_stack(), list)
    task.print_stack()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_loop_can_run_one() -> None:
    with asyncio.Runner() as runner:
        channel = Recorder(runner.get_loop())
        runner.get_loop().call_soon(channel.feed, text("Hello"))
        assert runner.run(channel.recv()) == "Hello"
        assert runner.get_loop().run_until_complete(channel.send("x")) is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
async def test_eager_tasks() -> None:
    loop = asyncio.get_running_loop()
    channel = Recorder(loop)
    waiting = asyncio.Task(channel.recv(), loop=loop, eager_start=True)  # type: ignore[call-arg]
    await in_callback(channel.feed, text("a") + text("b"))
    assert await waiting == "a"
    ready = asyncio.Task(channel.recv(), loop=loop, eager_start=True)  # type: ignore[call-arg]
    assert ready.done()
    assert await ready == "b"


# The iterator has what an asynchronous generator has.


async def test_an_iterator_is_closed_as_a_generator_is() -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel.data_received(text("a") + text("b") + text("c"))
    async with contextlib.aclosing(aiter(channel)) as messages:
        assert await anext(messages) == "a"
    assert [message async for message in messages] == []
    assert await messages.aclose() is None
    assert [await anext(aiter(channel)) for _ in range(2)] == ["b", "c"]


async def test_an_iterator_that_is_sent_to() -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel.data_received(text("a") + text("b"))
    messages = aiter(channel)
    with pytest.raises(TypeError, match="just-started"):
        messages.asend("nobody reads this")
    assert await messages.asend(None) == "a"
    assert await messages.asend("nor this") == "b"


@pytest.mark.parametrize(
    "thrown", [(ZeroDivisionError("x"),), (ZeroDivisionError, "x"), (ZeroDivisionError, ZeroDivisionError("x"), None)]
)
async def test_what_is_thrown_ends_the_iterator(thrown: tuple[Any, ...]) -> None:
    channel = Recorder(asyncio.get_running_loop())
    channel.data_received(text("a"))
    messages = aiter(channel)
    with pytest.raises(ZeroDivisionError, match="x"):
        await messages.athrow(*thrown)
    assert [message async for message in messages] == []
    with pytest.raises(ZeroDivisionError) as caught:
        await aiter(channel).athrow(ZeroDivisionError, None, None)
    assert caught.value.args == ()
