"""The epoll set of an event loop: there while it has members, and fair among them.

What must not live here: what a member does (test_stream, test_listener), nested loops and what raises
(test_stream_life).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
from collections.abc import Callable

from tests.core.transports import STREAM, Peer, Recording, bound, connect, connection, descriptors, settle
from tidegate._core.listener import Listener
from tidegate._core.stream import adopt


def epoll_sets() -> set[int]:
    """Descriptors of epoll sets."""
    found = set()
    for number in descriptors():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventpoll]":
                found.add(number)
    return found


def pair(loop: asyncio.AbstractEventLoop) -> tuple[Recording, Peer]:
    """A stream without a listener, and its peer."""
    ours, theirs = socket.socketpair()
    protocol = Recording()
    adopt(loop, ours, protocol)  # type: ignore[arg-type]
    return protocol, Peer(theirs)


async def test_one_set_for_all_members() -> None:
    """It comes with the first, and goes with the last."""
    loop, before = asyncio.get_running_loop(), epoll_sets()
    with bound() as sock:
        listener = Listener(loop, sock, Recording)
        assert epoll_sets() == before
        listener.start(5)
        (ours,) = epoll_sets() - before
        pairs = [pair(loop) for _ in range(3)]
        assert epoll_sets() - before == {ours}
        listener.stop()
        for protocol, _ in pairs:
            assert epoll_sets() - before == {ours}
            protocol.transport.abort()
            await protocol.happens("lost")
            await settle()
        assert epoll_sets() == before
        for _, peer in pairs:
            peer.close()


async def test_a_new_set_after_the_last_has_left() -> None:
    """From within a callback of the last member as well."""
    loop = asyncio.get_running_loop()
    pairs = []

    def replace(protocol: Recording) -> None:
        pairs.append(pair(loop))

    for name in ("data", "lost"):
        ours, theirs = socket.socketpair()
        protocol, peer = Recording(**{name: replace}), Peer(theirs)
        adopt(loop, ours, protocol)  # type: ignore[arg-type]
        await peer.send(b"x")
        await protocol.receives(1)
        protocol.transport.abort()
        await protocol.happens("lost")
        await settle()
        successor, its_peer = pairs.pop()
        await its_peer.send(b"y")
        await successor.receives(1)
        its_peer.close()
        await successor.happens("lost")
        peer.close()


def test_each_loop_has_its_own(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that ends takes it along; the next begins anew, though it may have the same address in memory."""
    before = epoll_sets()

    async def main() -> None:
        async with connection(STREAM) as (protocol, peer):
            await peer.send(b"x")
            await protocol.receives(1)

    for _ in range(5):
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
        assert epoll_sets() == before


async def test_more_members_are_ready_than_a_look_brings() -> None:
    loop = asyncio.get_running_loop()
    pairs = [pair(loop) for _ in range(600)]
    for _, peer in pairs:
        peer.sock.send(b"x")
    await settle()
    assert all(protocol.data == b"x" for protocol, _ in pairs)
    for _, peer in pairs:
        peer.close()
    for protocol, _ in pairs:
        await protocol.happens("lost")


async def test_who_has_much_to_read_waits_for_the_others() -> None:
    """A read each in a turn: the first has not read all when the last has read a little."""
    order: list[str] = []
    with bound() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        protocols: list[Recording] = []

        def factory() -> Recording:
            name = "big" if not protocols else "small"
            protocols.append(Recording(data=lambda protocol: order.append(name)))
            return protocols[-1]

        async with STREAM.serving(sock, factory):
            big, small = connect(sock.getsockname()), connect(sock.getsockname())
            await settle()
            for protocol in protocols:
                protocol.transport.pause_reading()
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < 400_000:
                    sent += big.sock.send(bytes(10_000))
            small.sock.send(b"x")
            await settle()
            for protocol in protocols:
                protocol.transport.resume_reading()
            await protocols[0].receives(sent)
            await protocols[1].receives(1)
            assert order[:2] == ["big", "small"]
            assert order.count("big") > 1
            for peer in (big, small):
                peer.close()
            for protocol in protocols:
                await protocol.happens("lost")


async def test_it_is_at_rest_when_nothing_happens() -> None:
    """Sockets that are readable, writable or at their end are told once."""
    loop, before = asyncio.get_running_loop(), epoll_sets()
    idle, paused, ended = pair(loop), pair(loop), pair(loop)
    paused[0].transport.pause_reading()
    ended[0].stay = True
    for _, peer in (paused, ended):
        await peer.send(b"x")
    ended[1].end()
    await settle()
    (ours,) = epoll_sets() - before
    assert select.select([ours], [], [], 0) == ([], [], [])
    for protocol, peer in (idle, paused, ended):
        peer.close()
        protocol.transport.abort()
        await protocol.happens("lost")
