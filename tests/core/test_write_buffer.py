"""Writing on a transport, ours and the event loops' own: what arrives, flow control, arguments.

What must not live here: half-close (test_stream), errors of the connection (test_stream_errors), what only ours does
(test_stream_life).
"""

from __future__ import annotations

import array
import asyncio
import functools
import logging
import socket
from typing import Any

import pytest

from tests.core.transports import KINDS, LARGE, STREAM, Kind, Recording, connection, settle

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=repr)


@functools.cache
def numbered(size: int) -> bytes:
    """Bytes of which each place can be told."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4))


async def test_bytes_of_each_type(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        transport = protocol.transport

        class Bytes(bytes):
            pass

        pieces = [b"a", bytearray(b"b"), memoryview(b"c"), memoryview(bytearray(b"xdx"))[1:2], Bytes(b"e"), b""]
        words = memoryview(array.array("I", [1, 2]))  # of which len() is two
        for piece in pieces:
            transport.write(piece)
        transport.write(words)
        transport.writelines(iter(pieces))
        transport.writelines([])
        expected = b"abcde" + bytes(words) + b"abcde"
        assert await peer.receive(len(expected)) == expected
        if kind is STREAM:  # asyncio counts its items
            transport.writelines([words, b"!"])
            assert await peer.receive(9) == bytes(words) + b"!"


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("wrong", ["text", 5, [b"list"]])
async def test_what_are_no_bytes(kind: Kind, full: bool, wrong: Any) -> None:
    """They raise TypeError, and nothing of the call is written."""
    async with connection(kind) as (protocol, peer):
        size = LARGE if full else 0
        protocol.transport.write(bytes(size))
        with pytest.raises(TypeError):
            protocol.transport.write(wrong)
        if kind is STREAM:
            with pytest.raises(TypeError, match="bytes-like"):
                protocol.transport.writelines([b"fine", wrong])
        protocol.transport.write(b"x")
        protocol.transport.close()
        assert await peer.rest() == bytes(size) + b"x"


@pytest.mark.parametrize("size", [1, 100_000])
async def test_many_pieces(kind: Kind, size: int) -> None:
    """More than one system call takes, and more than the socket takes."""
    pieces = [bytes([i]) * size for i in range(200)]
    async with connection(kind) as (protocol, peer):
        protocol.transport.writelines(pieces)
        protocol.transport.writelines(pieces)
        protocol.transport.close()
        assert await peer.rest() == b"".join(pieces) * 2
        await protocol.happens("lost")
        assert protocol.error is None


async def test_large_writes_arrive_in_order(kind: Kind) -> None:
    data = numbered(LARGE)
    async with connection(kind) as (protocol, peer):
        step = 999_999
        for i in range(0, LARGE, step):
            protocol.transport.write(data[i : i + step])
            protocol.transport.write(b"")
        protocol.transport.close()
        assert await peer.rest() == data


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=lambda family: family.name)
async def test_small_writes_until_the_socket_is_full(kind: Kind, family: int) -> None:
    """The last is not taken at all, or in part."""
    async with connection(kind, family=family) as (protocol, peer):
        count = 0
        while count < 100 or not protocol.transport.get_write_buffer_size():
            protocol.transport.write(b"%01000d" % count)
            count += 1
            await asyncio.sleep(0)
        protocol.transport.close()
        assert await peer.rest() == b"".join(b"%01000d" % i for i in range(count))


# Flow control


async def test_marks(kind: Kind) -> None:
    """pause_writing() above the high mark, within write(); resume_writing() at the low mark; once each."""
    async with connection(kind) as (protocol, peer):
        transport = protocol.transport
        if kind is STREAM:  # uvloop's has another low mark until it is set
            assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=300_000, low=100_000)
        assert transport.get_write_buffer_size() == 0
        while not transport.get_write_buffer_size():
            transport.write(bytes(100_000))
            await settle()
        before = transport.get_write_buffer_size()
        assert before <= 100_000
        transport.write(bytes(300_000 - before))
        assert transport.get_write_buffer_size() == 300_000
        assert "pause" not in protocol.names
        transport.write(b"x")
        assert protocol.names == ["made", "pause"]
        transport.write(bytes(1000))
        assert transport.get_write_buffer_size() == 301_001
        sizes = []
        protocol.on["resume"] = lambda protocol: sizes.append(transport.get_write_buffer_size())
        reader = asyncio.create_task(peer.rest())
        await protocol.happens("resume")
        assert sizes[0] <= 100_000
        transport.close()
        await reader
        await protocol.happens("lost")
        assert protocol.names == ["made", "pause", "resume", "lost"]


async def test_limits(kind: Kind) -> None:
    """Each is derived from the other as asyncio has it, and what makes no sense is refused."""
    async with connection(kind) as (protocol, _):
        transport = protocol.transport
        for arguments, limits in [
            ({"high": 1000}, (250, 1000)),
            ({"low": 1000}, (1000, 4000)),
            ({"high": 0}, (0, 0)),
            ({"high": 7, "low": 7}, (7, 7)),
            ({}, (16384, 65536)),
        ]:
            transport.set_write_buffer_limits(**arguments)
            assert transport.get_write_buffer_limits() == limits
        for wrong in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(**wrong)
        assert transport.get_write_buffer_limits() == (16384, 65536)


async def test_lower_limits_pause_at_once(kind: Kind) -> None:
    async with connection(kind) as (protocol, _):
        transport = protocol.transport
        transport.set_write_buffer_limits(high=2 * LARGE)
        transport.write(bytes(LARGE))
        await settle()
        assert "pause" not in protocol.names
        transport.set_write_buffer_limits(high=0)
        assert protocol.names == ["made", "pause"]


async def test_a_mark_of_zero(kind: Kind) -> None:
    """Whatever waits pauses; when all is written, it resumes."""
    async with connection(kind) as (protocol, peer):
        protocol.transport.set_write_buffer_limits(high=0)
        protocol.transport.write(bytes(LARGE))
        assert protocol.names == ["made", "pause"]
        await peer.receive(LARGE)
        await protocol.happens("resume")
        assert protocol.transport.get_write_buffer_size() == 0


async def test_writing_more_when_resumed(kind: Kind) -> None:
    """As drain() has it: each resume brings the next piece, in order, and then the end."""
    left = [bytes([i]) * 1_000_000 for i in range(1, 20)]
    expected = bytes(LARGE) + b"".join(left)

    def more(protocol: Recording) -> None:
        if left:
            protocol.transport.write(left.pop(0))
            protocol.transport.set_write_buffer_limits(high=65536)
        if not left:
            protocol.transport.close()
        elif protocol.names[-1] == "resume":
            asyncio.get_running_loop().call_soon(more, protocol)

    async with connection(kind, Recording(resume=more)) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        assert await peer.rest() == expected
        await protocol.happens("lost")
        assert protocol.error is None


async def test_writing_within_pause_writing(kind: Kind) -> None:
    protocol = Recording(pause=lambda protocol: protocol.transport.write(b"within"))
    async with connection(kind, protocol) as (_, peer):
        protocol.transport.write(bytes(LARGE))
        protocol.transport.close()
        assert await peer.rest() == bytes(LARGE) + b"within"
        assert protocol.names.count("pause") == 1


# The end


async def test_close_writes_what_is_pending(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(numbered(LARGE))
        protocol.transport.close()
        protocol.transport.close()
        await settle()
        assert "lost" not in protocol.names
        assert await peer.rest() == numbered(LARGE)
        await protocol.happens("lost")
        assert protocol.error is None


async def test_abort_drops_what_is_pending(kind: Kind) -> None:
    async with connection(kind) as (protocol, peer):
        protocol.transport.write(bytes(LARGE))
        protocol.transport.close()
        protocol.transport.abort()
        assert "lost" not in protocol.names
        await protocol.happens("lost")
        assert protocol.error is None
        assert protocol.transport.get_write_buffer_size() == 0
        assert len(await peer.rest()) < LARGE


async def test_writing_after_the_end(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """It does nothing; that somebody goes on and on is logged, once. The loops' own raise errors later on."""
    async with connection(kind) as (protocol, peer):
        transport = protocol.transport
        transport.write(b"before")
        transport.close()
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(3):
                transport.write(b"after")
            await protocol.happens("lost")
            if kind is STREAM:
                for _ in range(3):
                    transport.write(b"after")
                    transport.writelines([b"after", b"after"])
                assert [record.getMessage() for record in caplog.records] == ["socket.send() raised exception."]
        assert await peer.rest() == b"before"
        transport.close()
        if kind is STREAM:
            transport.write_eof()
            transport.abort()
            transport.set_write_buffer_limits(high=0)
        await settle()
        assert protocol.names == ["made", "lost"]
