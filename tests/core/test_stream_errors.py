"""What goes wrong on a transport, ours and the event loops' own: resets in each state, protocols that raise.

What must not live here: system calls that fail otherwise (test_stream_faults), listening sockets (test_listener).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.test_stream import Filling
from tests.core.transports import KINDS, LARGE, LOOP, STREAM, Kind, Recording, connection, exceptions, settle

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=repr)

GONE = (ConnectionResetError, BrokenPipeError)


# Resets


async def test_a_reset_while_idle(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        peer.reset()
        await protocol.happens("lost")
        assert isinstance(protocol.error, ConnectionResetError)
        assert protocol.names == ["made", "lost"]


async def test_a_reset_after_data(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        await peer.send(b"some")
        peer.reset()
        await protocol.happens("lost")
        assert isinstance(protocol.error, ConnectionResetError)
        assert protocol.data in (b"", b"some")


async def test_a_reset_while_paused(kind: Kind) -> None:
    """It is told when reading goes on."""
    async with connection(kind) as (protocol, peer):
        protocol.transport.pause_reading()
        await settle()
        peer.reset()
        await settle()
        assert protocol.names == ["made"]
        protocol.transport.resume_reading()
        await protocol.happens("lost")
        assert isinstance(protocol.error, ConnectionResetError)


async def test_a_reset_while_paused_and_writing(kind: Kind) -> None:
    """It is told at once: what is pending can never be written."""
    async with connection(kind) as (protocol, peer):
        protocol.transport.pause_reading()
        protocol.transport.write(bytes(LARGE))
        await settle()
        peer.reset()
        await protocol.happens("lost")
        assert isinstance(protocol.error, GONE)
        assert "resume" not in protocol.names


async def test_a_reset_while_much_is_pending(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        await settle()
        peer.reset()
        await protocol.happens("lost")
        assert isinstance(protocol.error, GONE)
        assert protocol.transport.get_write_buffer_size() == 0


async def test_a_reset_after_close_with_something_pending(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        protocol.transport.close()
        await settle()
        peer.reset()
        await protocol.happens("lost")
        assert isinstance(protocol.error, GONE)


async def test_a_reset_after_write_eof(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write_eof()
        await settle()
        peer.reset()
        await protocol.happens("lost")
        assert isinstance(protocol.error, ConnectionResetError)


async def test_a_reset_after_the_peers_end(kind: Kind) -> None:
    """Nothing is read any more: a write finds out."""
    async with connection(kind, Recording(stay=True)) as (protocol, peer):
        peer.end()
        await protocol.happens("eof")
        peer.reset()
        await settle()
        assert not protocol.transport.is_closing()
        protocol.transport.write(b"anybody?")
        await protocol.happens("lost")
        assert isinstance(protocol.error, GONE)


async def test_a_reset_after_both_ends(kind: Kind) -> None:
    """Nobody finds out, until it is closed."""
    async with connection(kind, Recording(stay=True)) as (protocol, peer):
        peer.end()
        await protocol.happens("eof")
        protocol.transport.write_eof()
        peer.reset()
        await settle()
        protocol.transport.close()
        await protocol.happens("lost")
        if kind is STREAM:  # uvloop's finds out by then
            assert protocol.error is None


@pytest.mark.parametrize("name", ["made", "data", "eof"])
async def test_a_reset_during_a_callback(kind: Kind, name: str) -> None:
    """What the callback writes and asks finds a broken connection, and does not raise."""

    def act(protocol: Recording) -> None:
        if resets:
            resets.pop()()
            protocol.transport.write(b"x" * 100_000)
            protocol.transport.writelines([b"y", b"z"])
            protocol.transport.get_extra_info("peername")

    resets: list[Callable[[], None]] = []
    protocol = Recording(data=act, eof=act, stay=True)
    async with connection(kind, protocol) as (_, peer):
        resets.append(peer.reset)
        if name == "made":
            act(protocol)
        elif name == "data":
            await peer.send(b"x")
        else:
            peer.end()
        await protocol.happens("lost")
        assert isinstance(protocol.error, GONE)


async def test_a_peer_that_closes_with_something_unread(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(b"never read")
        await settle()
        peer.close()  # which resets
        await protocol.happens("lost")
        assert isinstance(protocol.error, ConnectionResetError)


async def test_write_eof_on_a_broken_connection(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        peer.reset()
        with contextlib.suppress(OSError):  # of asyncio's
            protocol.transport.write_eof()
        protocol.transport.abort()
        await protocol.happens("lost")


# Protocols that raise


class Broken(Exception):
    """What a protocol raises."""


def raising(exception: BaseException) -> Callable[[Recording], None]:
    def act(protocol: Recording) -> None:
        raise exception

    return act


def judge(told: list[dict[str, Any]], protocol: Recording, exception: BaseException) -> None:
    """The exception handler was told once, with everything that one asks."""
    (context,) = told
    assert isinstance(context["message"], str)
    assert context["exception"] is exception
    assert context["transport"] is protocol.transport
    assert context["protocol"] is protocol


@pytest.mark.parametrize("exception", [Broken("of the protocol"), asyncio.CancelledError(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("name", ["data", "eof"])
async def test_a_protocol_that_raises(kind: Kind, name: str, exception: BaseException) -> None:
    """It is told that its connection is lost, with what it has raised."""
    protocol = Recording(**{name: raising(exception)})
    with exceptions() as told:
        async with connection(kind, protocol) as (_, peer):
            await peer.send(b"x")
            peer.end()
            await protocol.happens("lost")
            judge(told, protocol, exception)
            assert protocol.error is exception
            assert protocol.names == ["made", "data", *(["eof"] if name == "eof" else []), "lost"]
            assert await peer.rest() == b""


async def test_a_protocol_that_raises_an_os_error(kind: Kind) -> None:
    """That is no error of the connection."""
    exception = FileNotFoundError("of the protocol")
    protocol = Recording(data=raising(exception))
    with exceptions() as told:
        async with connection(kind, protocol) as (_, peer):
            await peer.send(b"x")
            await protocol.happens("lost")
            assert protocol.error is exception
            if kind is STREAM:  # asyncio keeps it to itself
                judge(told, protocol, exception)


@pytest.mark.parametrize("name", ["pause", "resume"])
async def test_flow_control_that_raises(kind: Kind, name: str) -> None:
    """The connection goes on."""
    exception = Broken("of flow control")
    protocol = Recording(**{name: raising(exception)})
    with exceptions() as told:
        async with connection(kind, protocol) as (_, peer):
            protocol.transport.write(bytes(LARGE))
            protocol.transport.close()
            assert len(await peer.rest()) == LARGE
            await protocol.happens("lost")
            judge(told, protocol, exception)
            assert protocol.error is None


async def test_connection_lost_that_raises(kind: Kind) -> None:
    exception = Broken("of connection_lost()")
    protocol = Recording(lost=raising(exception))
    with exceptions() as told:
        async with connection(kind, protocol) as (_, peer):
            protocol.transport.close()
            assert await peer.rest() == b""
            await settle()
            assert [context["exception"] for context in told] == [exception]
            if kind is STREAM:  # the others tell of a handle of the loop
                judge(told, protocol, exception)


@pytest.mark.parametrize("name", ["get", "data"])
async def test_a_buffered_protocol_that_raises(kind: Kind, name: str) -> None:
    exception = Broken("of the protocol")
    protocol = Filling(**{name: raising(exception)})
    with exceptions() as told:
        async with connection(kind, protocol) as (_, peer):
            await peer.send(b"x")
            await protocol.happens("lost")
            if kind is LOOP and name == "get":  # uvloop makes another of it
                exception = exception if protocol.error is exception else protocol.error
            judge(told, protocol, exception)
            assert protocol.error is exception


@pytest.mark.parametrize("buffer", [bytearray(), b"read-only", "text"])
async def test_a_buffer_that_is_none(kind: Kind, buffer: Any) -> None:
    protocol = Filling()
    protocol.buffer = buffer
    with exceptions() as told:
        async with connection(kind, protocol) as (_, peer):
            await peer.send(b"x")
            await protocol.happens("lost")
            assert isinstance(protocol.error, (RuntimeError, BufferError, TypeError))
            judge(told, protocol, protocol.error)


async def test_an_exception_handler_that_raises(kind: Kind) -> None:
    """The connection ends all the same."""
    protocol = Recording(data=raising(Broken()))
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: 1 / 0)  # type: ignore[arg-type]
    async with connection(kind, protocol) as (_, peer):
        await peer.send(b"x")
        await protocol.happens("lost")
        assert isinstance(protocol.error, Broken)


async def test_others_go_on_beside_one_that_raises(kind: Kind) -> None:
    with exceptions():
        async with (
            connection(kind, Recording(data=raising(Broken()))) as (broken, first),
            connection(kind) as (
                fine,
                second,
            ),
        ):
            for _ in range(3):
                with contextlib.suppress(OSError):
                    first.sock.send(b"x")
                second.sock.send(b"y")
            await broken.happens("lost")
            assert await fine.receives(3) == b"yyy"
            assert fine.names == ["made", "data"]
