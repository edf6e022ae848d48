"""Random use of a stream against a model of bytes: what was written before the end arrives in order, or it was lost.

What must not live here: cases that somebody thought of (test_stream and its siblings).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.core.transports import Peer, Recording, bound, connect, settle
from tests.support.patience import PATIENCE
from tidegate._core.listener import Listener
from tidegate._core.stream import adopt

SIZES = st.sampled_from([0, 1, 3, 1000, 65_536, 70_000, 131_072, 300_000, 3_000_000])
CHUNKS = st.lists(st.sampled_from([0, 1, 10, 5000, 100_000]), max_size=80)


class Machine(RuleBasedStateMachine):
    """A connection, and what each side has sent and received."""

    new_loop: Callable[[], asyncio.AbstractEventLoop]
    family: int

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.new_loop()
        self.protocol = Recording(stay=True)
        self.place = 0  # in the endless row of bytes that each side sends
        self.written = bytearray()  # by the stream, until it was closed
        self.sent = bytearray()  # by the peer
        self.received = bytearray()  # by the peer
        self.peer_ended = self.peer_gone = self.peer_reset = False
        self.closed = self.aborted = self.ended = False
        self.run(self.connect())

    def run(self, coroutine: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await coroutine

        return self.loop.run_until_complete(bounded())

    async def connect(self) -> None:
        if self.family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
            self.peer = Peer(theirs)
            adopt(self.loop, ours, self.protocol)  # type: ignore[arg-type]
            return
        with bound() as sock:
            listener = Listener(self.loop, sock, lambda: self.protocol)
            listener.start(1)
            self.peer = connect(sock.getsockname())
            await self.protocol.happens("made")
            listener.stop()

    def fresh(self, size: int) -> bytes:
        """The next of a row in which each place can be told from its neighbours."""
        first, self.place = self.place, self.place + size
        return (b"%016x" % first * (size // 16 + 1))[:size]

    # The stream's side

    def is_written(self) -> bool:
        """Whether what is written now will arrive: after close() as long as something is pending."""
        transport = self.protocol.transport
        return not transport.is_closing() or transport.get_write_buffer_size() > 0

    def may_write(self) -> bool:
        return not self.ended

    @precondition(may_write)
    @rule(size=SIZES, kind=st.sampled_from([bytes, bytearray, memoryview]))
    def write(self, size: int, kind: Callable[[bytes], Any]) -> None:
        data = self.fresh(size)
        alive = self.is_written()
        argument = kind(data)
        self.protocol.transport.write(argument)
        if isinstance(argument, bytearray):
            argument[:] = bytes(len(argument))
        if alive:
            self.written += data

    @precondition(may_write)
    @rule(sizes=CHUNKS)
    def writelines(self, sizes: list[int]) -> None:
        parts = [self.fresh(size) for size in sizes]
        alive = self.is_written()
        self.protocol.transport.writelines(parts)
        if alive:
            self.written += b"".join(parts)

    @rule()
    def pause(self) -> None:
        self.protocol.transport.pause_reading()

    @rule()
    def resume(self) -> None:
        self.protocol.transport.resume_reading()

    @rule()
    def write_eof(self) -> None:
        if not self.protocol.transport.is_closing():
            self.ended = True
        self.protocol.transport.write_eof()

    @rule(high=st.one_of(st.none(), st.integers(0, 1 << 20)))
    def limits(self, high: int | None) -> None:
        self.protocol.transport.set_write_buffer_limits(high)

    @rule(in_callback=st.booleans())
    def close(self, in_callback: bool) -> None:
        if in_callback:
            self.protocol.on["data"] = lambda protocol: protocol.transport.close()
        else:
            self.closed = True
            self.protocol.transport.close()

    @precondition(lambda self: self.closed)
    @rule()
    def abort(self) -> None:
        self.aborted = True
        self.protocol.transport.abort()

    # The peer's

    def can_send(self) -> bool:
        return not (self.peer_ended or self.peer_gone)

    @precondition(can_send)
    @rule(size=SIZES)
    def peer_sends(self, size: int) -> None:
        """As much as the system takes at once."""
        try:
            n = self.peer.sock.send(self.fresh(size))
        except BlockingIOError:
            n = 0
        except ConnectionError:
            self.peer_gone = True
            return
        self.place -= size - n
        self.sent += (b"%016x" % (self.place - n) * (n // 16 + 1))[:n]

    @precondition(lambda self: not self.peer_gone)
    @rule(size=st.sampled_from([1, 1000, 100_000, 5_000_000]))
    def peer_receives(self, size: int) -> None:
        try:
            self.received += self.peer.sock.recv(size)
        except BlockingIOError:
            pass
        except ConnectionError:
            self.peer_gone = True

    @precondition(can_send)
    @rule()
    def peer_ends(self) -> None:
        self.peer_ended = True
        try:
            self.peer.end()
        except OSError:
            self.peer_gone = True

    @precondition(lambda self: not self.peer_gone)
    @rule(break_it=st.booleans())
    def peer_closes(self, break_it: bool) -> None:
        self.peer_gone = self.peer_reset = True
        if break_it:
            self.peer.reset()
        else:
            self.peer.close()

    @rule(turns=st.sampled_from([1, 2, 12]))
    def turn(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turn())

    # What holds

    @invariant()
    def bytes_are_in_order(self) -> None:
        assert self.sent.startswith(self.protocol.data)
        assert self.written.startswith(self.received)
        assert self.protocol.faults == []

    @invariant()
    def flow_control_is_consistent(self) -> None:
        transport = self.protocol.transport
        low, _ = transport.get_write_buffer_limits()
        last = next((name for name in reversed(self.protocol.names) if name in ("pause", "resume")), None)
        if last == "pause" and not transport.is_closing():
            assert transport.get_write_buffer_size() > min(low, 0)
        if last != "pause":
            assert transport.get_write_buffer_size() <= max(transport.get_write_buffer_limits()[1], 0)

    def teardown(self) -> None:
        try:
            self.run(self.finish())
        finally:
            self.loop.close()
            self.peer.close()

    async def finish(self) -> None:
        """Read all on both sides: everything arrives, unless something has broken."""
        transport = self.protocol.transport
        transport.resume_reading()
        if not self.peer_gone:
            reader = asyncio.create_task(self.peer.rest())
            if not transport.is_closing():
                await self.protocol.until(lambda: len(self.protocol.data) == len(self.sent) or transport.is_closing())
            transport.close()
            try:
                self.received += await reader
            except ConnectionError:
                self.peer_gone = True
        else:
            await settle()
            transport.abort()
        await self.protocol.happens("lost")
        await settle()
        self.bytes_are_in_order()
        assert transport.get_write_buffer_size() == 0
        assert "closed" in repr(transport)
        if not (self.peer_gone or self.aborted):
            assert self.received == self.written
            assert self.protocol.error is None


FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=lambda family: family.name)
LOOPS = pytest.mark.parametrize("loop", [asyncio, uvloop], ids=lambda loop: loop.__name__)


def check(loop: Any, family: int, examples: int) -> None:
    kind = type("Machine", (Machine,), {"new_loop": staticmethod(loop.new_event_loop), "family": family})
    kind.TestCase.settings = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    case = kind.TestCase()
    case.runTest()


@FAMILIES
@LOOPS
def test_random_use(loop: Any, family: int) -> None:
    check(loop, family, 8)


@pytest.mark.slow
@FAMILIES
@LOOPS
def test_much_random_use(loop: Any, family: int) -> None:
    check(loop, family, 300)
