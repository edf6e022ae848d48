"""How a reader is woken: where, in which context, and what happens when it is cancelled at that very moment."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import tracemalloc
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import cases_notebook
from tests.core.recorder import Recorder, in_callback, text
from tests.support import programs
from tidegate.exceptions import ConnectionClosedError

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
NUMBER = contextvars.ContextVar("number", default=0)


async def collect(channel: Recorder, into: list[Any]) -> None:
    async for message in channel:
        into.append(message)  # noqa: PERF401


async def settle(rounds: int = 4) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


# Where


async def test_in_a_callback_the_reader_goes_on_at_once() -> None:
    channel, got = Recorder(asyncio.get_running_loop()), []
    task = asyncio.create_task(collect(channel, got))
    await settle()

    def read() -> None:
        channel.feed(text("a") + text("b"))
        assert got == ["a", "b"]
        channel.feed(text("c"))
        assert got == ["a", "b", "c"]

    await in_callback(read)
    channel.lose(well=True)
    await task
    assert got == ["a", "b", "c"]


async def test_in_a_task_the_reader_goes_on_soon() -> None:
    channel, got = Recorder(asyncio.get_running_loop()), []
    task = asyncio.create_task(collect(channel, got))
    await settle()
    channel.feed(text("a"))
    assert got == []
    channel.feed(text("b"))
    assert got == []
    await asyncio.sleep(0)
    assert got == ["a", "b"]
    channel.lose(well=True)
    await task


async def test_tasks_that_are_written_in_python_go_on_soon() -> None:
    """nest_asyncio has such tasks: a loop that a handler runs in itself could not go on within the read callback."""
    channel, got = Recorder(asyncio.get_running_loop()), []
    task = asyncio.tasks._PyTask(collect(channel, got))  # type: ignore[attr-defined]
    await settle()

    def read() -> None:
        channel.feed(text("a"))
        assert got == []

    await in_callback(read)
    await settle()
    assert got == ["a"]
    channel.lose(well=True)
    await task


def test_asyncio_may_have_futures_in_python() -> None:
    """In a process of its own, where nest_asyncio has changed asyncio before tidegate is imported."""
    done = programs.run(cases_notebook.messages_are_echoed)
    assert (done.returncode, done.stdout) == (0, "echoed\n"), done.stderr[-2000:]


async def test_in_its_own_context_the_reader_goes_on_soon() -> None:
    """A context that is entered cannot be entered again."""
    channel, got = Recorder(asyncio.get_running_loop()), []
    context = contextvars.copy_context()
    task = asyncio.create_task(collect(channel, got), context=context)
    await settle()

    def read() -> None:
        channel.feed(text("a"))
        assert got == []

    loop = asyncio.get_running_loop()
    loop.call_soon(read, context=context)
    await settle()
    assert got == ["a"]
    channel.lose(well=True)
    await task


async def test_a_reader_of_another_connection_goes_on_soon() -> None:
    """A handler that was woken in a read callback is a task that runs: what it makes arrive wakes others soon."""
    one, other = (Recorder(asyncio.get_running_loop()) for _ in range(2))
    got: list[Any] = []

    async def pass_on() -> None:
        async for message in one:
            other.feed(text(message))
            assert got == []

    tasks = [asyncio.create_task(pass_on()), asyncio.create_task(collect(other, got))]
    await settle()
    await in_callback(one.feed, text("a"))
    await settle()
    assert got == ["a"]
    for channel in (one, other):
        channel.lose(well=True)
    await asyncio.gather(*tasks)


async def test_the_end_is_told_soon() -> None:
    channel = Recorder(asyncio.get_running_loop())
    task = asyncio.create_task(channel.recv())
    await settle()

    def lose() -> None:
        channel.lose()
        assert not task.done()

    await in_callback(lose)
    with pytest.raises(ConnectionClosedError):
        await task


async def test_before_a_close_frame_is_looked_at_the_reader_goes_on() -> None:
    """What came in the same read may still be answered."""
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        async for message in channel:
            channel.heard.append(message)

    task = asyncio.create_task(handler())
    await settle()
    await in_callback(channel.feed, text("a") + text("b") + b"\x88\x82\0\0\0\0\x03\xe8")
    assert channel.heard == ["a", "b", ("control", 8, b"\x03\xe8")]
    channel.lose(well=True)
    await task


async def test_the_running_task_is_the_reader() -> None:
    channel = Recorder(asyncio.get_running_loop())
    seen = []

    async def handler() -> None:
        async for _ in channel:
            seen.append((asyncio.current_task(), asyncio.get_running_loop()))  # noqa: PERF401

    task = asyncio.create_task(handler())
    await settle()

    def read() -> None:
        assert asyncio.current_task() is None
        channel.feed(text("a"))
        assert asyncio.current_task() is None

    await in_callback(read)
    assert seen == [(task, asyncio.get_running_loop())]
    channel.lose(well=True)
    await task


async def test_the_reader_may_end_wait_elsewhere_and_come_back() -> None:
    channel = Recorder(asyncio.get_running_loop())
    event = asyncio.Event()
    got = []

    async def handler() -> None:
        got.append(await channel.recv())
        await event.wait()
        got.append(await channel.recv())
        await asyncio.sleep(0)
        got.append(await channel.recv())

    task = asyncio.create_task(handler())
    await settle()
    await in_callback(channel.feed, text("a") + text("b") + text("c"))
    assert got == ["a"]
    event.set()
    await task
    assert got == ["a", "b", "c"]


# In which context


@pytest.mark.parametrize("in_task", [False, True])
async def test_each_side_keeps_its_context(in_task: bool) -> None:
    channel = Recorder(asyncio.get_running_loop())
    seen = []

    async def handler() -> None:
        NUMBER.set(1)
        async for _ in channel:
            seen.append(NUMBER.get())
            NUMBER.set(NUMBER.get() + 1)

    task = asyncio.create_task(handler())
    await settle()

    def read() -> None:
        NUMBER.set(100)
        channel.feed(text("a"), text("b"))
        assert NUMBER.get() == 100

    if in_task:
        read()
        await settle()
    else:
        await in_callback(read)
    assert seen == [1, 2]
    assert NUMBER.get() == (100 if in_task else 0)
    channel.lose(well=True)
    await task


# With which exceptions


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
def test_what_ends_a_program_ends_the_loop(
    exception: type[BaseException], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def handler(channel: Recorder) -> None:
        await channel.recv()
        raise exception

    async def main() -> None:
        channel = Recorder(asyncio.get_running_loop())
        task = asyncio.create_task(handler(channel))
        await settle()
        asyncio.get_running_loop().call_soon(channel.feed, text("a"))
        await asyncio.sleep(60)
        assert task.done()

    with asyncio.Runner(loop_factory=loop_factory) as runner, pytest.raises(exception):
        runner.run(main())


async def test_a_handler_that_fails_does_not_hurt_the_transport() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        await channel.recv()
        raise ZeroDivisionError

    task = asyncio.create_task(handler())
    await settle()
    await in_callback(channel.feed, text("a") + text("b"))
    with pytest.raises(ZeroDivisionError):
        await task
    assert await channel.recv() == "b"


# When it is cancelled


class Game:
    """Messages arrive, readers come and are cancelled, in any order: what is received is what was sent, in order."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.channel = Recorder(self.loop, high=None, low=None)
        self.sent: list[str] = []
        self.got: list[str] = []
        self.reader: asyncio.Task[Any] | None = None

    async def play(self, events: Iterable[str]) -> None:
        for event in events:
            await EVENTS[event](self)
        await settle()
        if self.reader is not None and not self.reader.done():
            self.reader.cancel()
            await settle()
        assert self.got + self.channel.take_all() == self.sent

    def arrive(self) -> None:
        self.sent.append(str(len(self.sent)))
        self.channel.feed(text(self.sent[-1]))

    async def feed(self) -> None:
        self.arrive()

    async def feed_in_a_callback(self) -> None:
        await in_callback(self.arrive)

    async def feed_twice_soon(self) -> None:
        for _ in range(2):
            self.loop.call_soon(self.arrive, context=contextvars.Context())

    async def cancel(self) -> None:
        if self.reader is not None:
            self.reader.cancel()

    async def read(self) -> None:
        if self.reader is None or self.reader.done():
            self.reader = self.loop.create_task(self._read())

    async def _read(self) -> None:
        self.got.append(await self.channel.recv())

    async def spin(self) -> None:
        await asyncio.sleep(0)


EVENTS: dict[str, Callable[[Game], Coroutine[Any, Any, None]]] = {
    "feed": Game.feed,
    "feed in a callback": Game.feed_in_a_callback,
    "feed twice soon": Game.feed_twice_soon,
    "cancel": Game.cancel,
    "read": Game.read,
    "spin": Game.spin,
}


async def play(events: Iterable[str]) -> None:
    await Game().play(events)


@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
def test_every_order_of_arrival_and_cancellation(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        for length in range(1, 5):
            for events in itertools.product(EVENTS, repeat=length):
                runner.run(play(["read", "spin", *events]))


@settings(max_examples=300)
@given(st.lists(st.sampled_from(list(EVENTS)), max_size=30), st.sampled_from(list(LOOPS)))
def test_any_order_of_arrival_and_cancellation(events: list[str], loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play(events))


@pytest.mark.parametrize("how", ["wait_for", "timeout", "cancel"])
@pytest.mark.parametrize("order", ["arrival first", "timeout first"])
async def test_a_timeout_that_meets_a_message(how: str, order: str) -> None:
    """In one iteration of the loop, either first: the message comes out of the call that times out, or of the next."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        channel = Recorder(loop)
        got = []

        async def receive(channel: Recorder = channel, got: list[Any] = got) -> None:
            if how == "wait_for":
                got.append(await asyncio.wait_for(channel.recv(), 0.001))
            elif how == "timeout":
                async with asyncio.timeout(0.001):
                    got.append(await channel.recv())
            else:
                got.append(await channel.recv())

        task = asyncio.create_task(receive())
        await settle()
        calls: list[Callable[[], Any]] = [lambda channel=channel: channel.feed(text("a"))]  # type: ignore[misc]
        if how == "cancel":
            calls.append(task.cancel)
        if order == "timeout first":
            calls.reverse()
        for call in calls:
            loop.call_later(0.001, call)
        done, _ = await asyncio.wait([task])
        await asyncio.sleep(0.002)
        if task.cancelled() or task.exception() is not None:
            assert got == []
            assert await channel.recv() == "a"
        else:
            assert got == ["a"]
        assert done


async def test_a_cancelled_reader_blocks_others_until_it_has_run() -> None:
    """As with any coroutine: cancel() is a request."""
    channel = Recorder(asyncio.get_running_loop())
    task = asyncio.create_task(channel.recv())
    await settle()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await task
    channel.feed(text("a"))
    assert await channel.recv() == "a"


async def test_a_handler_may_refuse_to_be_cancelled() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> list[Any]:
        got = []
        while len(got) < 2:
            try:
                got.append(await channel.recv())
            except asyncio.CancelledError:
                got.append("cancelled")
        return got

    for arrival in (channel.feed, lambda data: in_callback(channel.feed, data)):
        task = asyncio.create_task(handler())
        await settle()
        task.cancel()
        await settle()
        arriving = arrival(text("a"))
        if arriving is not None:
            await arriving
        assert await task == ["cancelled", "a"]


async def test_a_handler_that_cancels_itself_ends_where_it_waits() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        async for message in channel:
            if message == "cancel":
                task.cancel()

    task = asyncio.create_task(handler())
    await settle()
    await in_callback(channel.feed, text("a") + text("cancel") + text("b"))
    with pytest.raises(asyncio.CancelledError):
        await task
    channel.feed(text("c"))
    assert await channel.recv() == "c"


# What is left behind


@pytest.mark.parametrize("end", ["message", "cancel", "timeout"])
async def test_nothing_is_left_behind(end: str) -> None:
    channel = Recorder(asyncio.get_running_loop())
    data = text("x" * 100)

    async def once() -> None:
        if end == "timeout":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(channel.recv(), 0)
            return
        task = asyncio.create_task(channel.recv())
        await asyncio.sleep(0)
        if end == "message":
            channel.feed(data)
            await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    tracemalloc.start()
    try:
        sizes = []
        for rounds in (1_000, 3_000):
            for _ in range(rounds):
                await once()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 100_000  # 33 bytes a round: less than any object


async def test_ten_thousand_messages_leave_nothing_behind() -> None:
    channel = Recorder(asyncio.get_running_loop())
    count = 0

    async def echo() -> None:
        nonlocal count
        async for message in channel:
            await channel.send(message)
            channel.transport_.writes.clear()
            count += 1

    task = asyncio.create_task(echo())
    await settle()
    data = b"".join(text(f"message {i}") for i in range(100))
    await in_callback(channel.feed, data)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            await in_callback(channel.feed, data)
            channel.transport_.writes.clear()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
    assert count == 10_100
    channel.lose(well=True)
    await task


@pytest.mark.parametrize("end", ["lost", "cancelled", "dropped", "unread"])
async def test_a_connection_goes_with_its_last_reference(end: str) -> None:
    channel = Recorder(asyncio.get_running_loop())
    gone = weakref.ref(channel)
    task = asyncio.create_task(channel.recv())
    await settle()
    if end == "lost":
        channel.lose()
        with pytest.raises(ConnectionClosedError):
            await task
    elif end == "cancelled":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif end == "unread":
        channel.feed(text("a"))
        await task
        channel.feed(text("b") * 100 + text("half")[:-1])
    else:
        # Nobody can wake it any more. The loop complains, as it does of any task that is destroyed while pending.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    del channel, task
    await settle()  # the loop lets go of what it just called
    gc.collect()
    assert gone() is None


async def test_a_reader_that_was_dropped_while_it_waited_is_not_woken() -> None:
    channel = Recorder(asyncio.get_running_loop())
    awaitable = channel.recv()
    waiter = awaitable.send(None)
    woken = []
    waiter.add_done_callback(woken.append)
    del awaitable
    channel.feed(text("a"))
    await settle()
    assert woken == []
    assert await channel.recv() == "a"


# As a future


async def test_a_task_waits_for_a_future_of_asyncio() -> None:
    """The same one again and again, which is never done while the task is woken in callbacks."""
    channel = Recorder(asyncio.get_running_loop())
    got: list[Any] = []
    task = asyncio.create_task(collect(channel, got))
    await settle()
    future: Any = task._fut_waiter  # type: ignore[attr-defined]
    assert type(future) is asyncio.Future
    for _ in range(3):
        await in_callback(channel.feed, text("a"))
        assert task._fut_waiter is future  # type: ignore[attr-defined]
        assert not future.done()
    channel.feed(text("b"))  # in a task: it is told by the loop
    assert future.done()
    await settle()
    assert got == ["a"] * 3 + ["b"]
    assert task._fut_waiter is not future  # type: ignore[attr-defined]
    channel.lose(well=True)
    await task


async def test_others_may_wait_for_it_as_well() -> None:
    """A debugger, say: then all are told by the loop."""
    channel = Recorder(asyncio.get_running_loop())
    task = asyncio.create_task(channel.recv())
    await settle()
    future: Any = task._fut_waiter  # type: ignore[attr-defined]
    told: list[Any] = []
    future.add_done_callback(told.append)
    await in_callback(channel.feed, text("a"))
    await settle()
    assert told == [future]
    assert await task == "a"


@pytest.mark.parametrize("end", ["throw", "close", "drop"])
async def test_a_future_that_was_given_up_is_not_waited_for_again(end: str) -> None:
    """It may be cancelled, and would wake the next reader for nothing, again and again."""
    channel = Recorder(asyncio.get_running_loop())
    awaitable = channel.recv()
    future: Any = awaitable.send(None)
    assert future.cancel("why")
    if end == "throw":
        with pytest.raises(asyncio.CancelledError):
            awaitable.throw(asyncio.CancelledError)
    elif end == "close":
        awaitable.close()
    del awaitable
    again = channel.recv()
    assert again.send(None) is not future
    again.close()


async def test_a_cancelled_reader_is_not_woken() -> None:
    """Before the task can tell, something arrives: the next reader gets it."""
    channel = Recorder(asyncio.get_running_loop())
    task = asyncio.create_task(channel.recv())
    await settle()
    task.cancel()
    await in_callback(channel.feed, text("a"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await channel.recv() == "a"
