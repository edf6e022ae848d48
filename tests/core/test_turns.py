"""Fair turns: what has used up its budget waits for its next turn, and loses nothing.

A budget is used up here by busy waiting, so that nothing depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.recorder import Loop, Recorder, binary, control, finish, in_callback, long_turns, more, text
from tests.support.wire import CLOSE, PING
from tidegate._core import turns
from tidegate._core.deflate import Deflate
from tidegate.exceptions import ConnectionClosedError
from tidegate.protocol import State


def use_up() -> None:
    """Work for longer than a turn has."""
    end = time.perf_counter() + 2 * turns.seconds()
    while time.perf_counter() < end:
        pass


class Busy(Recorder):
    """Takes its time for control frames."""

    def _control_received(self, opcode: int, payload: bytes) -> None:
        super()._control_received(opcode, payload)
        use_up()


def spinning(channel: Recorder, seen: list[Any]) -> Callable[[], Any]:
    """A handler that takes its time for each message."""

    async def handler() -> None:
        async for message in channel:
            seen.append(message)
            use_up()
            await channel.send(message)

    return handler


# A connection's turn


def test_control_frames_that_take_long_have_a_turn_each() -> None:
    channel = Busy()
    channel.data_received(control(PING, b"1") + control(PING, b"2") + text("x") + control(PING, b"3"))
    assert channel.controls == [(PING, b"1")]
    assert channel.transport_.calls == ["pause"]
    channel.hand_turned.turn()
    assert channel.controls == [(PING, b"1"), (PING, b"2")]
    assert channel.transport_.calls == ["pause"]
    channel.turn()
    assert channel.controls == [(PING, b"1"), (PING, b"2"), (PING, b"3")]
    assert channel.transport_.calls[:2] == ["pause", "resume"]
    assert channel.transport_.reading
    assert channel.take_all() == ["x"]


def test_what_is_still_read_meanwhile_keeps_its_place() -> None:
    channel = Busy()
    channel.data_received(control(PING, b"1") + control(PING, b"2") + text("x")[:3])
    channel.data_received(text("x")[3:] + text("y"))
    channel.data_received(text("z"))
    assert channel.controls == [(PING, b"1")]
    channel.turn()
    assert channel.controls == [(PING, b"1"), (PING, b"2")]
    assert channel.take_all() == ["x", "y", "z"]


def test_a_connection_reads_so_much_in_a_turn() -> None:
    """Of reads that may have filled the buffer of a transport that reads again at once."""
    channel = Recorder(max_size=None)
    piece = bytes(256_000)
    reads = 0
    with long_turns():
        channel.data_received(binary(bytes(20 * 256_000))[:14])
        while channel.transport_.reading and reads < 20:
            channel.data_received(piece)
            reads += 1
    assert reads == -(-turns.BYTES // len(piece))
    channel.turn()
    assert channel.transport_.reading


@pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSING])
def test_what_is_thrown_away_counts_as_well(state: State) -> None:
    channel = Recorder(state=state)
    if state is State.CLOSING:
        channel._discard()
    for _ in range(-(-turns.BYTES // 256_000)):
        assert channel.transport_.reading
        channel.data_received(bytes(256_000))
    assert not channel.transport_.reading
    channel.turn()
    assert channel.transport_.reading


def used_up() -> Recorder:
    """A channel whose reader has taken "a" and used up its turn, with "b" there."""
    channel = Recorder()
    channel.feed(text("a") + text("b"))
    use_up()
    assert channel.take() == "a"  # with which its turn begins
    use_up()
    return channel


def test_a_reader_that_has_used_up_its_turn_goes_on_in_the_next() -> None:
    channel = used_up()
    awaitable = channel.recv()
    waiter = awaitable.send(None)  # "b" is there, and it is the others' turn
    woken: list[Any] = []
    waiter.add_done_callback(woken.append)
    channel.data_received(text("c"))
    assert woken == []  # nor does a message that comes meanwhile wake it
    channel.turn()
    assert len(woken) == 1
    assert finish(awaitable) == "b"
    assert channel.take() == "c"


def test_a_reader_that_is_cancelled_between_turns_loses_nothing() -> None:
    channel = used_up()
    awaitable = channel.recv()
    awaitable.send(None)
    with pytest.raises(asyncio.CancelledError):
        awaitable.throw(asyncio.CancelledError())
    channel.turn()
    assert channel.take() == "b"


def test_a_sender_that_has_used_up_its_turn_has_written() -> None:
    channel = Recorder()
    use_up()
    finish(channel.send("a"))
    use_up()
    awaitable = channel.send("b")
    awaitable.send(None)
    assert channel.transport_.written == b"\x81\x01a\x81\x01b"
    with pytest.raises(asyncio.CancelledError):
        awaitable.throw(asyncio.CancelledError())
    channel.turn()
    assert channel.transport_.written == b"\x81\x01a\x81\x01b"
    finish(channel.send("c"))  # in a turn of its own


def test_who_sends_now_and_then_never_yields() -> None:
    """Not how long ago it began counts, but what it did without a pause."""
    channel = Recorder()
    for _ in range(20):
        finish(channel.send("x"))
        use_up()
        channel.turn()


def test_what_is_written_in_python_yields_as_well() -> None:
    channel = Recorder()
    use_up()
    finish(channel._end_step())
    use_up()
    awaitable = channel._end_step()
    awaitable.send(None)
    channel.turn()
    assert finish(awaitable) is None


async def test_a_handler_leaves_turns_to_the_others() -> None:
    channel, seen = Recorder(asyncio.get_running_loop()), []
    task = asyncio.create_task(spinning(channel, seen)())
    await asyncio.sleep(0)
    between: list[int] = []

    def bystander() -> None:
        between.append(len(seen))
        if len(seen) < 20:
            asyncio.get_running_loop().call_soon(bystander)

    bystander()
    await in_callback(channel.data_received, b"".join(text(str(number)) for number in range(20)))
    while len(seen) < 20:
        await asyncio.sleep(0)
    steps = [after - before for before, after in itertools.pairwise(between)]
    assert max(steps) <= 2
    assert seen == [str(number) for number in range(20)]
    channel.lose(well=True)
    await task


async def test_a_task_that_only_sends_leaves_turns_to_the_others() -> None:
    channel, others = Recorder(asyncio.get_running_loop()), 0

    async def endless() -> None:
        while True:
            await channel.send("x")

    task = asyncio.create_task(endless())
    for _ in range(10):
        await asyncio.sleep(0)
        others += 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert others == 10
    assert channel.transport_.written.startswith(b"\x81\x01x\x81\x01x")


# The line


async def test_greedy_connections_take_turns() -> None:
    loop = asyncio.get_running_loop()
    order: list[str] = []

    class Noting(Busy):
        name = ""

        def _control_received(self, opcode: int, payload: bytes) -> None:
            order.append(self.name)
            super()._control_received(opcode, payload)

    channels = [Noting(loop) for _ in range(3)]
    for channel, name in zip(channels, "abc", strict=True):
        channel.name = name

    def all_at_once() -> None:
        for channel in channels:
            channel.data_received(control(PING) * 4)

    await in_callback(all_at_once)
    while len(order) < 12:
        await asyncio.sleep(0)
    for place in range(3, 12):
        assert sorted(order[place - 3 : place]) == ["a", "b", "c"]


async def test_the_whole_line_has_the_time_of_one_turn() -> None:
    """However many are greedy: after the first one that takes a whole turn, the others of the loop are next."""
    loop = asyncio.get_running_loop()
    channels = [Busy(loop) for _ in range(5)]
    counts: list[int] = []

    def bystander() -> None:
        counts.append(sum(len(channel.controls) for channel in channels))
        if counts[-1] < 15:
            loop.call_soon(bystander)

    def all_at_once() -> None:
        for channel in channels:
            channel.data_received(control(PING) * 3)
        bystander()

    await in_callback(all_at_once)
    while counts[-1] < 15:
        await asyncio.sleep(0)
    assert counts[0] == 5
    assert max(after - before for before, after in itertools.pairwise(counts)) == 1


def test_one_that_fails_in_its_turn_fails_alone() -> None:
    class Failing(Busy):
        def _control_received(self, opcode: int, payload: bytes) -> None:
            super()._control_received(opcode, payload)
            if payload == b"fail":
                raise ZeroDivisionError

    one = Failing()
    other = Busy(one.hand_turned)  # type: ignore[arg-type]
    one.data_received(control(PING) + control(PING, b"fail") + text("x"))
    other.data_received(control(PING) * 3)
    one.turn()
    assert one.transport_.calls[-1] == "abort"
    (context,) = one.hand_turned.exceptions
    assert isinstance(context["exception"], ZeroDivisionError)
    assert len(other.controls) == 3
    one.data_received(text("y"))
    assert one.take_all() == []


def test_what_ends_the_program_passes_through_the_loop() -> None:
    class Stopping(Busy):
        def _control_received(self, opcode: int, payload: bytes) -> None:
            super()._control_received(opcode, payload)
            if payload:
                raise KeyboardInterrupt

    channel = Stopping()
    channel.data_received(control(PING) + control(PING, b"stop"))
    channel.hand_turned.turn()
    with pytest.raises(KeyboardInterrupt):
        channel.turn()


def test_a_task_that_cannot_go_on_in_its_turn_is_told_to_the_loop() -> None:
    class Full(Loop):
        def call_soon(self, callback: Callable[..., Any], *arguments: Any, context: Any = None) -> None:
            if context is not None:  # as for a task
                raise MemoryError
            super().call_soon(callback, *arguments)

    class Task:
        def wake(self, _: Any) -> None:
            raise AssertionError

    loop = Full()
    channel = Recorder(loop)  # type: ignore[arg-type]
    use_up()
    awaitable = channel.send("a")
    try:
        awaitable.send(None)
    except StopIteration:
        use_up()
        awaitable = channel.send("b")
        waiter = awaitable.send(None)
        waiter.add_done_callback(Task().wake)
    loop.run()
    (told,) = loop.exceptions
    assert isinstance(told["exception"], MemoryError)
    awaitable.close()


async def test_the_line_of_a_loop_goes_with_its_connections() -> None:
    """Nothing keeps an event loop alive that is closed."""

    def count() -> int:
        gc.collect()
        return sum(isinstance(found, turns.Turns) for found in gc.get_objects())

    before = count()
    channels = [Recorder() for _ in range(3)]
    assert count() == before + 3
    del channels
    assert count() == before


# The end of a connection in the middle of what it sent


def test_a_close_frame_waits_for_who_is_still_reading() -> None:
    """What came before it can be answered, though it takes more than a turn."""
    channel, seen = Recorder(), []
    handler = spinning(channel, seen)()
    waiter = handler.send(None)
    steps: list[Any] = []

    def go_on(_: Any) -> None:
        try:
            steps.append(handler.send(None))
            steps[-1].add_done_callback(go_on)
        except (StopIteration, StopAsyncIteration):
            pass

    waiter.add_done_callback(go_on)
    channel.data_received(text("a") + text("b") + text("c") + control(CLOSE, b"\x03\xe8"))
    assert channel.controls == []
    channel.turn()
    assert seen == ["a", "b", "c"]
    assert channel.controls == [(CLOSE, b"\x03\xe8")]
    handler.close()


def test_what_had_no_room_can_be_read_after_the_end() -> None:
    channel = Recorder(high=2, low=0)
    channel.feed(b"".join(text(str(number)) for number in range(10)) + control(CLOSE, b"\x03\xe8") + text("after"))
    assert channel.controls == []
    channel.lose()
    assert channel.take_all() == [str(number) for number in range(10)]
    assert channel.controls == []  # there is nobody to answer
    assert channel.take_all() == []


def test_a_close_frame_for_which_there_is_room_is_seen_at_the_end() -> None:
    channel = Busy()
    channel.data_received(control(PING) + control(CLOSE, b"\x03\xe8"))
    assert channel.controls == [(PING, b"")]
    channel.lose()
    assert channel.controls == [(PING, b""), (CLOSE, b"\x03\xe8")]


def test_a_breach_after_the_end_ends_the_reading_only() -> None:
    channel = Recorder(high=1, low=0)
    channel.feed(text("a") + text("b") + b"\xff\xff" + text("c"))
    channel.lose()
    assert channel.take_all() == ["a", "b"]
    assert channel.failures == []


def test_a_long_message_that_had_no_room_can_be_read_after_the_end() -> None:
    channel = Recorder(high=2, low=0)
    channel.feed(text("a", fin=False) + more(b"b", fin=False) * 50 + more(b"c") + text("d"))
    channel.lose()
    assert channel.take_all() == ["a" + "b" * 50 + "c", "d"]


def test_a_reader_that_yields_at_the_end_goes_on_after_it() -> None:
    channel, seen = Recorder(), []
    handler = spinning(channel, seen)()
    waiter = handler.send(None)

    def go_on(_: Any) -> None:
        try:
            handler.send(None).add_done_callback(go_on)
        except ConnectionClosedError:
            seen.append("closed")

    waiter.add_done_callback(go_on)
    channel.data_received(text("a") + text("b") + text("c"))
    channel.lose()
    channel.turn()
    assert seen[:1] == ["a"]
    assert seen[-1] == "closed"


async def test_a_handler_that_gives_up_before_the_close_frame_is_looked_at() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        await channel.recv()
        channel._discard()

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    with long_turns():
        await in_callback(channel.data_received, text("x") + control(CLOSE))
    await task
    assert channel.controls == []


async def test_what_is_gathered_when_the_connection_ends_goes_nowhere() -> None:
    channel = Recorder(asyncio.get_running_loop())

    async def handler() -> None:
        await channel.send(await channel.recv())
        channel._disconnect()

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    with long_turns():
        await in_callback(channel.data_received, text("x") + text("y"))
    await task
    assert channel.transport_.writes == []


def test_closing_reads_what_had_no_room() -> None:
    """To find the peer's close frame behind it."""
    channel = Recorder(high=2, low=0)
    channel.feed(text("x") * 10 + control(CLOSE))
    channel._state = State.CLOSING
    channel._resume_reading()
    channel.turn()
    assert channel.controls == [(CLOSE, b"")]
    assert channel.take_all() == ["x"] * 2


def test_bombs_are_inflated_one_by_one() -> None:
    """As many as a turn has time for, not as many as a read has."""
    channel = Recorder(high=None, low=None, max_size=2**24)
    deflate = Deflate(True, True, 15, 15)
    channel._use_deflate(deflate)
    bomb = binary(deflate.compress(bytes(2**22)), rsv=4)
    channel.data_received(bomb * 200)
    first = len(channel.take_frames_that_are_there())
    assert first < 100
    assert first + len(channel.take_all()) == 200


# Threads


@pytest.mark.parametrize(
    "call",
    [
        lambda channel: channel.send("x").send(None),
        lambda channel: channel.recv().send(None),
        lambda channel: channel._send_frame(0x8A, b""),
    ],
    ids=["send", "recv", "frame"],
)
def test_another_thread_is_refused(call: Callable[[Recorder], Any]) -> None:
    channel, raised = Recorder(), []

    def run() -> None:
        try:
            call(channel)
        except RuntimeError as exc:
            raised.append(str(exc))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert "asyncio.run_coroutine_threadsafe()" in raised[0]
    assert channel.transport_.writes == []
    finish(channel.send("y"))
