"""What asyncio promises of a transport, of ours and of the event loops' own: order of callbacks, reading, half-close.

Each test runs four times: on streams and on the loop's transports, on asyncio and on uvloop. What must not live here:
writing (test_write_buffer), errors (test_stream_errors), what only ours can do wrong (test_stream_life).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.transports import KINDS, LARGE, STREAM, Kind, Recording, connection, descriptors, settle
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=repr)
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=lambda f: f.name)


# Order


@FAMILIES
async def test_callbacks_in_their_order(kind: Kind, family: int) -> None:
    async with connection(kind, family=family) as (protocol, peer):
        await peer.send(b"hello")
        await protocol.receives(5)
        protocol.transport.write(b"HELLO")
        assert await peer.receive(5) == b"HELLO"
        peer.end()
        assert await peer.rest() == b""
        await protocol.happens("lost")
        assert protocol.events == [("made",), ("data", b"hello"), ("eof",), ("lost", None)]


ACTIONS: dict[str, Callable[[Recording], object]] = {
    "close": lambda protocol: protocol.transport.close(),
    "abort": lambda protocol: protocol.transport.abort(),
    "write": lambda protocol: protocol.transport.write(b"w"),
    "write and close": lambda protocol: (protocol.transport.write(b"w"), protocol.transport.close()),
    "close and write": lambda protocol: (protocol.transport.close(), protocol.transport.write(b"w")),
    "close and abort": lambda protocol: (protocol.transport.close(), protocol.transport.abort()),
    "pause": lambda protocol: (protocol.transport.pause_reading(), protocol.transport.resume_reading()),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", ["made", "data", "eof", "pause", "resume", "lost"])
async def test_an_action_in_each_callback(kind: Kind, name: str, action: str) -> None:
    def act(protocol: Recording) -> None:
        ACTIONS[action](protocol)
        protocol.events.append(("acted",))

    protocol = Recording(**{name: act})
    async with connection(kind, protocol) as (_, peer):
        transport = protocol.transport
        await peer.send(b"hello")
        await protocol.until(lambda: "data" in protocol.names or transport.is_closing())
        if not transport.is_closing():
            transport.write(bytes(LARGE))
        reader = asyncio.create_task(peer.rest())
        await protocol.until(lambda: "resume" in protocol.names or transport.is_closing())
        with contextlib.suppress(OSError):
            peer.end()
        await protocol.happens("lost")
        with contextlib.suppress(ConnectionError):
            await reader
    names = protocol.names
    assert "acted" in names
    if "close" in action or "abort" in action:
        after = names[names.index("acted") + 1 :]
        assert set(after) <= {"lost", "pause", "resume"}, names


async def test_no_callback_within_a_call(kind: Kind) -> None:
    """What is there to be read comes in a turn of its own, not within the call that lets it in."""
    async with connection(kind) as (protocol, peer):
        transport = protocol.transport
        transport.pause_reading()
        await peer.send(b"waiting")
        await settle()
        before = len(protocol.events)
        transport.resume_reading()
        transport.write(b"x")
        transport.writelines([b"y", b"z"])
        assert len(protocol.events) == before
        await protocol.receives(7)
        transport.close()
        transport.abort()
        assert protocol.names[-1] == "data"
        await protocol.happens("lost")


# Reading


@FAMILIES
async def test_more_than_a_read_brings(kind: Kind, family: int) -> None:
    """All of it is in the socket when reading begins: nothing that comes later makes it go on."""
    async with connection(kind, family=family, receive_buffer=1 << 20) as (protocol, peer):
        protocol.transport.pause_reading()
        await settle()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = 0
        for _ in range(40):
            try:
                sent += peer.sock.send(os.urandom(8) * 2048)
            except BlockingIOError:
                break
        assert sent > 150_000, "the system's limits of socket buffers are too low for this test"
        protocol.transport.resume_reading()
        await protocol.receives(sent)
        assert len(protocol.data) == sent
        assert protocol.names == ["made", "data"]


async def test_pauses_between_reads(kind: Kind) -> None:
    """A read that leaves something, a pause in it, and the rest after that, though no new bytes arrive."""

    def pause(protocol: Recording) -> None:
        protocol.transport.pause_reading()

    protocol = Recording(data=pause)
    async with connection(kind, protocol, receive_buffer=1 << 20) as (_, peer):
        protocol.transport.pause_reading()
        await settle()
        sent = 0
        while sent < 300_000:
            try:
                sent += peer.sock.send(bytes(10_000))
            except BlockingIOError:
                break
        while len(protocol.data) < sent:
            before = len(protocol.events)
            await settle()
            assert len(protocol.events) == before
            assert not protocol.transport.is_reading()
            protocol.transport.resume_reading()
            assert protocol.transport.is_reading()
            await protocol.until(lambda before=before: len(protocol.events) > before)  # type: ignore[misc]
        assert len(protocol.data) == sent


async def test_data_and_the_end_while_paused(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.pause_reading()
        await peer.send(b"last words")
        peer.end()
        await settle()
        assert protocol.names == ["made"]
        protocol.transport.resume_reading()
        await protocol.happens("lost")
        assert protocol.events == [("made",), ("data", b"last words"), ("eof",), ("lost", None)]


async def test_data_and_the_end_before_the_connection_is_accepted(kind: Kind) -> None:
    """One event tells of both."""
    protocol = Recording(made=lambda protocol: protocol.transport.write(b"hi"))
    async with connection(kind, protocol) as (_, peer):
        await peer.send(b"x" * 1000)
        peer.end()
        assert await peer.rest() == b"hi"
        await protocol.happens("lost")
        assert protocol.data == b"x" * 1000
        assert protocol.names == ["made", "data", "eof", "lost"]


async def test_pausing_twice_and_after_the_end(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        transport = protocol.transport
        for _ in range(2):
            transport.pause_reading()
        for _ in range(2):
            transport.resume_reading()
        await peer.send(b"x")
        await protocol.receives(1)
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()
        await protocol.happens("lost")
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()
        assert protocol.names == ["made", "data", "lost"]


async def test_nothing_is_read_after_close(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        protocol.transport.close()
        await peer.send(b"nobody reads this")
        await settle()
        assert protocol.transport.is_closing()
        assert "data" not in protocol.names
        with contextlib.suppress(ConnectionError):  # closed with something unread, a socket resets
            await peer.rest()
        await protocol.happens("lost")
        assert "data" not in protocol.names


async def test_descriptors_that_a_peer_passes_along(kind: Kind) -> None:
    """They end a read on a Unix socket before all is read, and are not let in."""
    async with connection(kind, family=socket.AF_UNIX) as (protocol, peer):
        protocol.transport.pause_reading()
        await settle()
        before = descriptors()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [peer.sock.fileno()]))]
        for letter in (b"a", b"b", b"c"):
            peer.sock.sendmsg([letter], rights)
            peer.sock.sendmsg([letter.upper()])
        protocol.transport.resume_reading()
        assert await protocol.receives(6) == b"aAbBcC"
        assert descriptors() == before


async def test_urgent_data(kind: Kind) -> None:
    """It ends a read before all is read, and is left out."""
    async with connection(kind) as (protocol, peer):
        protocol.transport.pause_reading()
        await settle()
        peer.sock.send(b"ab")
        peer.sock.send(b"!", socket.MSG_OOB)
        peer.sock.send(b"cd")
        protocol.transport.resume_reading()
        assert await protocol.receives(4) == b"abcd"


async def test_asyncio_streams_on_it(kind: Kind) -> None:
    """asyncio's StreamReader and StreamWriter get along with it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    class Joined(asyncio.StreamReaderProtocol):
        """A Recording as well, as far as connection() looks."""

        faults: list[str] = []

        def __init__(self) -> None:
            reader = asyncio.StreamReader()
            super().__init__(reader, echo)
            self.transport: Any = None
            self.ends = {"made": asyncio.Event(), "lost": asyncio.Event()}

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            super().connection_made(transport)
            self.ends["made"].set()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.ends["lost"].set()

        async def happens(self, name: str) -> None:
            await self.ends[name].wait()

    async with asyncio.timeout(PATIENCE), connection(kind, Joined()) as (_, peer):
        line = b"x" * 50_000 + b"\n"
        sender = asyncio.create_task(peer.send(line * 100))
        assert await peer.receive(len(line) * 100) == line * 100
        await sender
        peer.end()
        assert await peer.rest() == b""


# Half-close


async def test_a_peer_that_ends_its_side(kind: Kind) -> None:
    """eof_received() that returns true keeps the other direction."""
    async with connection(kind, Recording(stay=True)) as (protocol, peer):
        peer.end()
        await protocol.happens("eof")
        if kind is STREAM:  # the others tell the end again
            protocol.transport.pause_reading()
            protocol.transport.resume_reading()
        protocol.transport.write(bytes(LARGE))
        assert len(await peer.receive(LARGE)) == LARGE
        assert not protocol.transport.is_closing()
        protocol.transport.write(b"bye")
        protocol.transport.close()
        assert await peer.rest() == b"bye"
        await protocol.happens("lost")
        assert protocol.names == ["made", "eof", "pause", "resume", "lost"]
        assert protocol.error is None


async def test_a_peer_that_ends_while_much_is_pending(kind: Kind) -> None:
    """eof_received() that returns false closes as close() does: what was written arrives."""
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        peer.end()
        await protocol.happens("eof")
        assert protocol.transport.is_closing()
        assert len(await peer.rest()) == LARGE
        await protocol.happens("lost")
        assert protocol.error is None


@pytest.mark.parametrize("size", [0, 10, LARGE])
async def test_write_eof(kind: Kind, size: int) -> None:
    """The end comes after what is pending; the other direction goes on."""
    async with connection(kind) as (protocol, peer):
        transport = protocol.transport
        assert transport.can_write_eof()
        transport.write(bytes(size))
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"more")
        assert len(await peer.rest()) == size
        await peer.send(b"an answer")
        assert await protocol.receives(9) == b"an answer"
        assert not transport.is_closing()
        peer.end()
        await protocol.happens("lost")
        assert protocol.error is None


async def test_both_sides_end(kind: Kind) -> None:
    async with connection(kind, Recording(stay=True)) as (protocol, peer):
        protocol.transport.write_eof()
        assert await peer.rest() == b""
        peer.end()
        await protocol.happens("eof")
        await settle()
        assert protocol.names == ["made", "eof"]
        protocol.transport.close()
        await protocol.happens("lost")
        assert protocol.error is None


async def test_close_after_write_eof(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        protocol.transport.write_eof()
        protocol.transport.close()
        assert len(await peer.rest()) == LARGE
        await protocol.happens("lost")
        assert protocol.error is None


# Other protocols


class Filling(Recording, asyncio.BufferedProtocol):
    """Has what is read put into a small buffer of its own."""

    def __init__(self, size: int = 3, **options: Any) -> None:
        Recording.__init__(self, **options)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> bytearray:
        if "get" in self.on:
            self.on["get"](self)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.tell("data", bytes(self.buffer[:nbytes]))


async def test_a_buffered_protocol(kind: Kind) -> None:
    async with connection(kind, Filling()) as (protocol, peer):
        await peer.send(b"0123456789")
        assert await protocol.receives(10) == b"0123456789"
        assert [len(event[1]) for event in protocol.events[1:]] == [3, 3, 3, 1]
        await peer.send(b"abc")
        peer.end()
        await protocol.happens("lost")
        assert protocol.data == b"0123456789abc"
        assert protocol.names == ["made", "data", "eof", "lost"]


async def test_a_buffered_protocol_that_pauses_and_closes(kind: Kind) -> None:
    protocol = Filling(data=lambda protocol: protocol.transport.pause_reading())
    async with connection(kind, protocol) as (_, peer):
        await peer.send(b"012345")
        assert await protocol.receives(3) == b"012"
        await settle()
        assert protocol.data == b"012"
        protocol.on["data"] = lambda protocol: protocol.transport.close()
        protocol.transport.resume_reading()
        await protocol.happens("lost")
        assert protocol.data == b"012345"


async def test_another_protocol_in_the_middle(kind: Kind) -> None:
    """From a plain one to a buffered one and back, within data_received() as well."""
    second, third = Filling(), Recording()

    def change(to: Recording) -> Callable[[Recording], None]:
        def change(protocol: Recording) -> None:
            to.transport = protocol.transport
            to.events.append(("made",))
            protocol.transport.set_protocol(to)
            assert protocol.transport.get_protocol() is to

        return change

    first = Recording(data=change(second))
    async with connection(kind, first) as (_, peer):
        await peer.send(b"first")
        await first.receives(5)
        await peer.send(b"second")
        await second.receives(6)
        change(third)(second)
        await peer.send(b"third")
        await third.receives(5)
        peer.end()
        await third.happens("lost")
        assert first.names == ["made", "data"]
        assert second.data == b"second"
        assert third.names == ["made", "data", "eof", "lost"]
        first.tell("lost", None)  # for connection()


# What is known


@FAMILIES
async def test_addresses(kind: Kind, family: int) -> None:
    """Both are known, while it is open and when it is lost."""
    async with connection(kind, family=family) as (protocol, peer):
        transport = protocol.transport
        expected = {"sockname": peer.sock.getpeername(), "peername": peer.sock.getsockname()}
        for name, address in expected.items():
            assert transport.get_extra_info(name) == address
        sock = transport.get_extra_info("socket")
        assert (sock.family, sock.getsockname()) == (family, expected["sockname"])
        if family != socket.AF_UNIX:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert transport.get_extra_info("sslcontext") is None
        assert transport.get_extra_info("nonsense", 5) == 5
        transport.close()
        await protocol.happens("lost")
        await settle()
        for name, address in expected.items():
            assert transport.get_extra_info(name) == address


async def test_the_local_address_makes_no_socket_object(kind: Kind) -> None:
    """Each ASGI connection asks for it, and would keep one."""

    def made() -> int:
        return sum(isinstance(each, socket.socket) for each in gc.get_objects())

    async with connection(kind, family=socket.AF_INET) as (protocol, peer):
        before = made()
        assert protocol.transport.get_extra_info("sockname") == peer.sock.getpeername()
        assert made() == before


async def test_addresses_that_are_first_asked_for_after_the_end(kind: Kind) -> None:
    async with connection(kind, family=socket.AF_INET6) as (protocol, peer):
        expected = {"sockname": peer.sock.getpeername(), "peername": peer.sock.getsockname()}
        protocol.transport.abort()
        await protocol.happens("lost")
        await settle()
        if kind is STREAM:
            for name, address in expected.items():
                assert protocol.transport.get_extra_info(name) == address
            assert protocol.transport.get_extra_info("socket", "gone") == "gone"


async def test_the_address_of_a_unix_client_that_has_one(kind: Kind) -> None:
    async with connection(kind, family=socket.AF_UNIX) as (protocol, peer):
        name = f"\0tidegate-test-{os.getpid()}-{id(peer)}"
        peer.sock.bind(name)  # after it has connected: it is a client's to do
        assert protocol.transport.get_extra_info("sockname") == peer.sock.getpeername()


async def test_what_it_says_of_itself(kind: Kind) -> None:
    async with connection(kind) as (protocol, _):
        transport = protocol.transport
        assert isinstance(repr(transport), str)
        assert not transport.is_closing()
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        if kind is STREAM:
            assert "paused" in repr(transport)
        transport.close()
        assert transport.is_closing()
        assert "clos" in repr(transport)
        await protocol.happens("lost")
        await settle()
        assert "closed" in repr(transport)
        assert transport.is_closing()
