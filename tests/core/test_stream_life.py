"""What only a stream of ours can do wrong: the life of its descriptor, batches of an epoll set, nested loops, contexts.

What must not live here: what holds for every transport (test_stream).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.core import cases_nested
from tests.core.test_stream import Filling
from tests.core.transports import (
    LARGE,
    STREAM,
    Peer,
    Recording,
    bound,
    connect,
    connection,
    descriptors,
    exceptions,
    settle,
)
from tests.support import programs
from tidegate._core.stream import adopt

# Pieces


@pytest.mark.parametrize("pieces", [[b"", b""], [b"a", b""], [b"", b"a"], [b"", bytes(LARGE), b"", b"z", b""]])
async def test_empty_pieces(pieces: list[bytes]) -> None:
    """They neither stop what follows nor are sent without end (as asyncio does)."""
    async with connection(STREAM) as (protocol, peer):
        protocol.transport.writelines(pieces)
        protocol.transport.writelines(pieces)
        protocol.transport.close()
        assert await peer.rest() == b"".join(pieces) * 2


@pytest.mark.parametrize("wrap", [lambda data: data, memoryview], ids=["bytearray", "memoryview"])
async def test_memory_that_changes_after_write(wrap: Callable[[bytearray], Any]) -> None:
    """What was written is what it was then, and the memory is its owner's again. asyncio's keep a view."""
    async with connection(STREAM) as (protocol, peer):
        data = bytearray(LARGE)
        protocol.transport.write(wrap(data))
        protocol.transport.writelines([wrap(data), b"x"])
        data[:] = b"\xff" * LARGE
        data.clear()
        protocol.transport.close()
        assert await peer.rest() == bytes(2 * LARGE) + b"x"


# The descriptor


async def test_a_number_that_another_socket_has_now() -> None:
    """Nothing that an old transport is asked for touches it."""
    async with connection(STREAM) as (protocol, _):
        transport = protocol.transport
        number = transport.get_extra_info("socket").fileno()
        transport.close()
        await protocol.happens("lost")
        await settle()
        assert number not in descriptors()
        ours, theirs = socket.socketpair()
        spare = []
        while ours.fileno() != number:  # until the number is taken
            spare.append(ours)
            ours = socket.socket(fileno=os.dup(ours.fileno()))
            assert len(spare) < 1000
        ours.setblocking(False)
        transport.write(b"stray")
        transport.writelines([b"stray", b"stray"])
        transport.write_eof()
        transport.pause_reading()
        transport.resume_reading()
        transport.close()
        transport.abort()
        sock = transport.get_extra_info("socket")
        assert sock is None or sock.fileno() == -1
        theirs.send(b"for the new one")
        await settle()
        assert ours.recv(100) == b"for the new one"
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        del transport
        gc.collect()
        os.fstat(number)
        for sock in (ours, theirs, *spare):
            sock.close()


async def test_a_member_that_ends_another_of_its_batch() -> None:
    """Its event is in the batch already, and must be void, though the number may be a new connection's."""
    protocols: list[Recording] = []

    def abort_others(protocol: Recording) -> None:
        for other in protocols:
            if other is not protocol:
                other.transport.abort()

    with bound() as sock:

        def factory() -> Recording:
            protocols.append(Recording(data=abort_others))
            return protocols[-1]

        async with STREAM.serving(sock, factory):
            peers = [connect(sock.getsockname()) for _ in range(10)]
            await settle()
            assert len(protocols) == 10
            for peer in peers:
                peer.sock.send(b"x")
            await settle()
            assert [protocol.names for protocol in protocols].count(["made", "data"]) == 1
            assert [protocol.names for protocol in protocols].count(["made", "lost"]) == 9
            for protocol in protocols:
                protocol.transport.abort()
            await settle()
            for peer in peers:
                peer.close()


def test_unclosed_ones_warn_and_close(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    before = descriptors()

    def run() -> None:
        loop = new_loop()
        ours, theirs = socket.socketpair()

        async def main() -> None:
            adopt(loop, ours, asyncio.Protocol())

        loop.run_until_complete(main())
        loop.close()
        theirs.close()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run()
        gc.collect()
    # The socket object tells, too, if it is collected first.
    assert any(str(warning.message).startswith("unclosed transport <Stream open") for warning in told)
    del told
    gc.collect()  # the warning has held it
    assert descriptors() == before


async def test_nothing_is_left_of_a_lost_one() -> None:
    """Neither the descriptor, nor the protocol, nor itself, nor the epoll set."""
    before = descriptors()

    async def live() -> tuple[weakref.ref[Any], ...]:
        async with connection(STREAM) as (protocol, peer):
            protocol.transport.write(bytes(LARGE))
            await peer.send(b"x")
            await protocol.receives(1)
            transport = protocol.transport
            transport.get_extra_info("socket")
        assert transport.get_protocol() is None
        return (weakref.ref(protocol),)

    references = await live()
    await settle()
    gc.collect()
    assert [reference() for reference in references] == [None]
    assert descriptors() == before


def test_a_fork_keeps_its_hands_off(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A child that runs no loop of its parent's may drop and collect all it has: the parent goes on."""

    async def main() -> None:
        async with connection(STREAM) as (protocol, peer):
            number = protocol.transport.get_extra_info("socket").fileno()
            pid = os.fork()
            if pid == 0:
                try:
                    gc.collect()
                    os.close(number)
                    asyncio.set_event_loop(None)
                    own = new_loop()
                    asyncio.events._set_running_loop(None)
                    own.run_until_complete(in_child())
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # noqa: ASYNC222
            await peer.send(b"still there?")
            assert await protocol.receives(12) == b"still there?"
            protocol.transport.write(b"yes")
            assert await peer.receive(3) == b"yes"
            peer.end()
            await protocol.happens("lost")

    async def in_child() -> None:
        async with connection(STREAM) as (protocol, peer):
            await peer.send(b"child")
            assert await protocol.receives(5) == b"child"

    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


# adopt()


async def test_adopt() -> None:
    """A connected socket becomes a transport, which closes it."""
    for pair in (socket.socketpair(), tcp_pair()):
        ours, theirs = pair
        protocol, peer = Recording(), Peer(theirs)
        names = ours.getsockname(), ours.getpeername()
        transport = adopt(asyncio.get_running_loop(), ours, protocol)  # type: ignore[arg-type]
        assert protocol.names == ["made"]
        assert (transport.get_extra_info("sockname"), transport.get_extra_info("peername")) == names
        if transport.get_extra_info("socket").family == socket.AF_INET:
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        await peer.send(b"x")
        await protocol.receives(1)
        peer.close()
        await protocol.happens("lost")
        await settle()
        assert ours.fileno() == -1


async def test_adopting_what_is_no_stream() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="Stream Socket"):
            adopt(asyncio.get_running_loop(), sock, asyncio.Protocol())
        assert sock.fileno() >= 0


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with bound() as sock:
        sock.listen()
        theirs = socket.create_connection(sock.getsockname())
        return sock.accept()[0], theirs


async def test_adopting_what_is_broken_already() -> None:
    ours, theirs = tcp_pair()
    Peer(theirs).reset()
    protocol = Recording()
    transport = adopt(asyncio.get_running_loop(), ours, protocol)  # type: ignore[arg-type]
    assert transport.get_extra_info("peername", "unknown") == "unknown"
    await protocol.happens("lost")
    assert isinstance(protocol.error, ConnectionResetError)


async def test_adopting_for_a_protocol_that_raises() -> None:
    """It comes out of adopt(), and nothing is left open or told later."""

    def close(protocol: Recording) -> None:
        protocol.transport.close()
        raise ZeroDivisionError

    def fail(protocol: Recording) -> None:
        raise ZeroDivisionError

    for act in (close, fail):
        ours, theirs = socket.socketpair()
        protocol, before = Recording(made=act), descriptors()
        with exceptions() as told:
            with pytest.raises(ZeroDivisionError):
                adopt(asyncio.get_running_loop(), ours, protocol)  # type: ignore[arg-type]
            assert len(before - descriptors()) == 1
            await settle()
            assert told == []
            assert protocol.names == ["made"]
        theirs.close()


# Nested loops: only asyncio's can be


@pytest.mark.parametrize("case", [cases_nested.in_a_callback, cases_nested.in_the_next_turn])
def test_a_nested_loop(case: Callable[[], None]) -> None:
    """In a process of its own: what makes loops nest changes asyncio."""
    done = programs.run(case)
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr[-2000:]


# Contexts

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def test_callbacks_run_in_the_context_of_the_server() -> None:
    seen = []
    names = ("made", "data", "eof", "lost", "resume")
    protocol = Recording(**{name: lambda protocol: seen.append(variable.get()) for name in names})
    variable.set("of the server")
    async with connection(STREAM, protocol) as (_, peer):
        variable.set("of the test")
        await peer.send(b"x")
        await protocol.happens("data")
        protocol.transport.write(bytes(LARGE))
        await peer.receive(LARGE)
        await protocol.happens("resume")
        peer.end()
        await protocol.happens("lost")
    assert seen == ["of the server"] * 5


# What ends the loop


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["data", "eof", "resume", "lost", "get", "updated"])
def test_what_ends_the_loop(
    name: str, exception: type[BaseException], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """It comes out of run_until_complete(). Run again, the loop goes on with this connection and all others.

    Of the loops' own transports, uvloop's tell the exception handler, asyncio's forget what was to follow.
    """

    def act(protocol: Recording) -> None:
        if protocol is first and not protocol.events.count(("acted",)):
            protocol.events.append(("acted",))
            raise exception

    if name in ("get", "updated"):
        first: Recording = Filling(size=100_000, **{"data" if name == "updated" else name: act})
    else:
        first = Recording(**{name: act})
    second = Recording()
    ready: list[Any] = []

    async def main() -> None:
        async with connection(STREAM, first) as (_, peer), connection(STREAM, second) as (_, other):
            first.transport.write(bytes(LARGE))
            first.transport.close() if name == "lost" else None
            await peer.send(b"first" * 50_000)
            other.sock.send(b"second")
            if name == "eof":
                peer.end()
            reader = asyncio.create_task(peer.rest())
            await second.receives(6)
            if name != "lost":
                await first.receives(250_000)
                peer.end()
            await first.happens("lost")
            with contextlib.suppress(ConnectionError):
                await reader
            ready.append("done")

    loop = new_loop()
    try:
        task = loop.create_task(main())
        with pytest.raises(exception):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        assert ready == ["done"]
        assert ("acted",) in first.events
    finally:
        loop.close()


async def test_what_ends_the_loop_within_a_call() -> None:
    """pause_writing() is called by write(), out of which it comes; nothing is lost."""

    def end(protocol: Recording) -> None:
        raise KeyboardInterrupt

    async with connection(STREAM, Recording(pause=end)) as (protocol, peer):
        with pytest.raises(KeyboardInterrupt):
            protocol.transport.write(bytes(LARGE))
        protocol.transport.close()
        assert await peer.rest() == bytes(LARGE)


class Batch:
    """Connections that are read in one look, or in one turn of the line; the first to be read ends the loop."""

    def __init__(self, paused: bool) -> None:
        self.paused = paused
        self.protocols: list[Recording] = []

    def factory(self) -> Recording:
        self.protocols.append(Recording(data=self.end))
        return self.protocols[-1]

    def end(self, protocol: Recording) -> None:
        if sum(len(protocol.data) for protocol in self.protocols) == 1:
            raise KeyboardInterrupt

    async def send(self, peers: list[Peer]) -> None:
        if not self.paused:
            for peer in peers:
                peer.sock.send(b"x")
            return
        for protocol in self.protocols:
            protocol.transport.pause_reading()
        for peer in peers:
            peer.sock.send(b"x")
        await settle()
        for protocol in self.protocols:
            protocol.transport.resume_reading()

    async def main(self) -> None:
        with bound() as sock:
            async with STREAM.serving(sock, self.factory):
                peers = [connect(sock.getsockname()) for _ in range(5)]
                await settle()
                await self.send(peers)
                for protocol in self.protocols:
                    await protocol.receives(1)
                for peer in peers:
                    peer.close()
                for protocol in self.protocols:
                    await protocol.happens("lost")


@pytest.mark.parametrize("paused", [False, True])
def test_the_others_of_a_batch(new_loop: Callable[[], asyncio.AbstractEventLoop], paused: bool) -> None:
    """They are told only once, and so have to be served though the loop ends; at the latest when it runs again."""
    batch, loop = Batch(paused), new_loop()
    try:
        task = loop.create_task(batch.main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        assert [protocol.data for protocol in batch.protocols] == [b"x"] * 5
    finally:
        loop.close()
