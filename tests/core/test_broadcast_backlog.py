"""A broadcast to more members than one turn has time for: what is written at once, later, and in which order.

What must not live here: who gets a broadcast (test_broadcast).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.core.recorder import Loop, Recorder, finish
from tests.support.harness import require
from tests.support.wire import BINARY, TEXT, frame
from tidegate._core import turns
from tidegate._core.broadcast import broadcast
from tidegate._core.counters import Row
from tidegate._core.stream import adopt

try:
    import _testcapi  # type: ignore[import-not-found]
except ImportError:  # Python without its own tests
    _testcapi = None

FEW = 32
"""Members that are written to at once in any case."""

LARGE = 4 << 20
"""Bytes that no socket's buffers hold."""


class SocketLoop(Loop):
    """Watches nothing: what a test wants to happen, it lets happen."""

    def add_reader(self, descriptor: int, callback: Any) -> None:
        pass

    def remove_reader(self, descriptor: int) -> None:
        pass

    def is_closed(self) -> bool:
        return False


class Member(Recorder):
    """A channel on a stream, and the socket of its peer."""

    def __init__(self, loop: SocketLoop) -> None:
        super().__init__(loop)  # type: ignore[arg-type]
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.stream: Any = adopt(loop, ours, self)  # type: ignore[arg-type]

    def connection_made(self, transport: Any) -> None:
        self._connect(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc is None)

    @property
    def waiting(self) -> int:
        return int(self.stream.get_write_buffer_size())

    @property
    def received(self) -> bytes:
        """What the peer has got by now, and not read before."""
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while chunk := self.peer.recv(1 << 20):
                data += chunk
        return bytes(data)


@pytest.fixture
def loop() -> Iterator[SocketLoop]:
    """The budget of a turn is nothing, so that a clock is looked at often and is always late."""
    before = turns.seconds()
    turns.set_seconds(0)
    yield SocketLoop()
    turns.set_seconds(before)


@pytest.fixture
def members(loop: SocketLoop) -> Iterator[list[Member]]:
    """As many as are written to at once, and ten more, in a step whose budget is used up."""
    members = [Member(loop) for _ in range(FEW + 10)]
    use_up(members[0])
    yield members
    for member in members:
        member.stream.abort()
        member.peer.close()
    loop.run()


def use_up(channel: Member) -> None:
    time.sleep(0.001)
    finish(channel._end_step())
    time.sleep(0.001)


def begin(awaitable: Any) -> None:
    """Take the first step, in which a message is written, without a turn of the loop, on which it might wait."""
    with contextlib.suppress(StopIteration, RuntimeError):
        awaitable.send(None)
    awaitable.close()


def test_the_rest_is_written_in_turns_to_come(loop: SocketLoop, members: list[Member]) -> None:
    assert broadcast(members, TEXT, b"x") == ([], [])
    assert [member.received for member in members] == [b"\x81\x01x"] * FEW + [b""] * 10
    assert [member.waiting for member in members] == [0] * FEW + [3] * 10
    loop.run()
    assert [member.received for member in members] == [b""] * FEW + [b"\x81\x01x"] * 10
    assert [member.waiting for member in members] == [0] * len(members)


def test_a_few_are_written_to_at_once(members: list[Member]) -> None:
    broadcast(members[:FEW], TEXT, b"x")
    assert [member.received for member in members[:FEW]] == [b"\x81\x01x"] * FEW


def test_others_have_their_turn_meanwhile(loop: SocketLoop) -> None:
    members = [Member(loop) for _ in range(300)]
    use_up(members[0])
    broadcast(members, TEXT, b"x")
    left = []
    while loop.turn():
        left.append(sum(member.waiting > 0 for member in members))
    assert len(set(left)) > 1, left
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert [member.received for member in members] == [b"\x81\x01x"] * len(members)
    assert loop.ready == []
    for member in members:
        member.stream.abort()
        member.peer.close()
    loop.run()


def test_it_may_take_as_long_as_all_others_took(loop: SocketLoop) -> None:
    """A loop that is busy with others has no smaller part for broadcasts than for them."""
    members = [Member(loop) for _ in range(300)]
    use_up(members[0])
    turns.set_seconds(0.05)  # from here on, at which the part of a turn ends: 0.8 s
    broadcast(members, TEXT, b"x")
    time.sleep(0.2)
    loop.turn()
    assert sum(member.waiting > 0 for member in members) == 0
    for member in members:
        member.stream.abort()
        member.peer.close()
    loop.run()


def test_broadcasts_in_a_row_keep_their_order(loop: SocketLoop, members: list[Member]) -> None:
    expected = b""
    for i in range(200):
        use_up(members[0])
        broadcast(members, BINARY, b"%d" % i)
        expected += frame(b"%d" % i, BINARY, mask=None)
        if i % 7 == 0:
            loop.turn()
    loop.run()
    assert [member.received for member in members] == [expected] * len(members)


def test_nothing_overtakes_a_broadcast(members: list[Member]) -> None:
    """What follows it leaves at once, and takes it along."""
    last = members[-7:]
    broadcast(members, TEXT, b"x")
    begin(last[0].send("own"))
    last[1]._send_frame(0x89, b"p")
    last[2].stream.writelines([b"a", b"b"])
    begin(last[3].send(b"l" * 20_000))
    last[4].stream.close()
    last[5].stream.write_eof()
    last[6].stream.abort()
    assert [member.received for member in last] == [
        b"\x81\x01x\x81\x03own",
        b"\x81\x01x\x89\x01p",
        b"\x81\x01xab",
        b"\x81\x01x" + frame(b"l" * 20_000, BINARY, mask=None),
        *[b"\x81\x01x"] * 3,
    ]
    assert [member.waiting for member in last] == [0] * 7
    broadcast(members, TEXT, b"y")  # into the backlog again, where they are still
    assert [member.waiting for member in last] == [3, 3, 3, 3, 0, 3, 0]


def test_no_more_waits_than_the_write_limit(members: list[Member]) -> None:
    """Then it is written at once, so that nobody looks slow for whom we are slow."""
    broadcast(members, BINARY, b"a" * 40_000)
    broadcast(members, BINARY, b"b" * 40_000)
    both = frame(b"a" * 40_000, BINARY, mask=None) + frame(b"b" * 40_000, BINARY, mask=None)
    assert [member.received for member in members] == [both] * len(members)
    assert not any(member._write_paused for member in members)


def test_a_large_message_waits_whole(loop: SocketLoop, members: list[Member]) -> None:
    """One that exceeds the limit pauses writing when the socket does not take it, and not before."""
    broadcast(members, BINARY, b"a" * LARGE)
    assert [member._write_paused for member in members] == [True] * FEW + [False] * 10
    assert [member.waiting > LARGE for member in members] == [False] * FEW + [True] * 10
    loop.run()
    assert all(member._write_paused for member in members)


def test_the_lost_get_nothing(loop: SocketLoop, members: list[Member], row: Row) -> None:
    broadcast(members, TEXT, b"x")
    members[-1].stream.abort()
    members[-2].peer.close()
    broadcast(members, TEXT, b"y")
    assert members[-1].waiting == 0
    loop.run()
    assert members[-1].received == b"\x81\x01x"
    assert [member.received for member in members[FEW:-2]] == [b"\x81\x01x\x81\x01y"] * 8
    assert members[-2].stream.is_closing()


@pytest.mark.parametrize(("limit", "taken"), [(None, 3), (LARGE + 2_000_000, 1), (LARGE, 0)])
def test_slow_ones(loop: SocketLoop, limit: int | None, taken: int) -> None:
    """They have their messages kept up to `broadcast_limit`, and are handed back above it."""
    slow = Member(loop)
    slow._configure(loop, False, None, None, None, None, False, limit)  # type: ignore[arg-type]
    begin(slow.send(b"s" * LARGE))
    assert slow._write_paused
    before = slow.waiting
    found = [broadcast([slow], BINARY, b"b" * 1_500_000) for _ in range(3)]
    assert found == [([], [])] * taken + [([slow], [])] * (3 - taken)
    assert slow.waiting == before + taken * (1_500_000 + 10)
    slow.stream.abort()
    slow.peer.close()
    loop.run()


def test_one_that_no_memory_is_left_for(loop: SocketLoop, members: list[Member]) -> None:
    """It ends, since what of it was written cannot be told; the others go on."""
    require(_testcapi, "the module _testcapi of CPython's own tests")
    broken = members[FEW]
    broadcast([*members[:FEW], broken], BINARY, b"a" * LARGE)
    assert broken.waiting > LARGE
    [(write, _)] = [call for call in loop.ready if call[0].__name__ == "_write"]
    n = 0
    while not broken.stream.is_closing():
        _testcapi.set_nomemory(n, n + 1)
        try:
            write()
        except MemoryError:
            loop.ready.append((write, ()))  # it could not ask for its next turn
        finally:
            _testcapi.remove_mem_hooks()
        n += 1
    assert [type(context["exception"]) for context in loop.exceptions] == [MemoryError]
    broadcast(members[FEW:], TEXT, b"x")
    loop.run()
    assert members[-1].received == b"\x81\x01x"
