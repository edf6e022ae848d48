"""Listening sockets whose connections are streams: batches, stopping, what a factory raises, no descriptors left.

What must not live here: what a connection does then (test_stream), system calls that fail by injection
(test_stream_faults), servers (tests/asyncio/test_listening.py).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.transports import (
    KINDS,
    STREAM,
    Kind,
    Recording,
    bound,
    connect,
    descriptors,
    exceptions,
    settle,
)
from tests.support.harness import ROOT
from tests.support.patience import PATIENCE
from tidegate._core.listener import Listener


class Factory:
    """Makes Recordings, and keeps them. `on` is what each does in its callbacks."""

    def __init__(self, **on: Callable[[Recording], object]) -> None:
        self.made: list[Recording] = []
        self.on = on

    def __call__(self) -> Recording:
        self.made.append(Recording(**self.on))
        return self.made[-1]

    async def makes(self, count: int) -> None:
        """Wait for so many protocols with a connection."""
        async with asyncio.timeout(PATIENCE):
            while len(self.made) < count:
                await asyncio.sleep(0)
            for protocol in self.made:
                await protocol.happens("made")

    async def ends(self) -> None:
        """Abort all connections."""
        for protocol in self.made:
            protocol.transport.abort()
        for protocol in self.made:
            await protocol.happens("lost")
        await settle()
        assert [protocol.faults for protocol in self.made] == [[]] * len(self.made)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=lambda family: family.name)
@pytest.mark.parametrize("kind", KINDS, ids=repr)
async def test_more_than_a_batch(kind: Kind, family: int) -> None:
    """All that wait in the queue are accepted, though the kernel says so only once; who is served meanwhile, is."""
    factory = Factory(data=lambda protocol: protocol.transport.write(b"yes"))
    with bound(family) as sock:
        async with kind.serving(sock, factory, 400):
            peers = [connect(sock.getsockname(), family) for _ in range(300)]
            for peer in peers:
                peer.sock.send(b"there?")
            for peer in peers:
                assert await peer.receive(3) == b"yes"
            assert len(factory.made) == 300
            await factory.ends()
            for peer in peers:
                peer.close()


async def test_accepting_leaves_the_others_their_turns() -> None:
    """A turn accepts a batch, and what else the loop has to do comes in between."""
    factory = Factory()
    with bound() as sock:
        async with STREAM.serving(sock, factory, 400):
            peers = [connect(sock.getsockname()) for _ in range(300)]
            counts = []
            while len(factory.made) < 300:
                counts.append(len(factory.made))
                await asyncio.sleep(0)
            steps = [after - before for before, after in itertools.pairwise([*counts, 300])]
            assert max(steps) <= 128  # a batch, and one of the line
            await factory.ends()
            for peer in peers:
                peer.close()


async def test_a_socket_that_others_accept_from_too() -> None:
    """It takes no more than a share in a turn, and in the end all."""
    factory = Factory()
    with bound(socket.AF_UNIX) as sock:
        async with STREAM.serving(sock, factory, 100):
            peers = [connect(sock.getsockname(), socket.AF_UNIX) for _ in range(80)]
            counts = [0]
            while len(factory.made) < 80:
                await asyncio.sleep(0)
                counts.append(len(factory.made))
            steps = [after - before for before, after in itertools.pairwise(counts)]
            assert max(steps) <= 32  # a share, and one of the line
            await factory.ends()
            for peer in peers:
                peer.close()


async def test_stopping_within_a_batch() -> None:
    """What is accepted stays; what is in the queue is reset when the socket closes."""
    before = descriptors()
    with bound() as sock:
        factory = Factory(made=lambda protocol: listener.stop())
        listener = Listener(asyncio.get_running_loop(), sock, factory)
        listener.start(100)
        peers = [connect(sock.getsockname()) for _ in range(10)]
        await factory.makes(1)
        await settle()
        assert len(factory.made) == 1
        sock.close()
        await peers[0].send(b"x")
        await factory.made[0].receives(1)
        with pytest.raises(ConnectionError):
            await peers[5].receive(1)
        await factory.ends()
        for peer in peers:
            peer.close()
    assert descriptors() == before


async def test_stopping_and_starting_again() -> None:
    factory = Factory()
    with bound() as sock:
        listener = Listener(asyncio.get_running_loop(), sock, factory)
        listener.stop()  # which does nothing
        for count in range(1, 4):
            listener.start(10)
            peer = connect(sock.getsockname())
            await factory.makes(2 * count - 1)
            listener.stop()
            listener.stop()
            waiting = connect(sock.getsockname())  # for the next start
            await settle()
            assert len(factory.made) == 2 * count - 1
            waiting.reset()
            peer.close()
        await factory.ends()


async def test_its_connections() -> None:
    """Those that it accepted and that are not lost, and no others of the loop."""
    first, second = Factory(), Factory()
    with bound() as one, bound() as other:
        async with STREAM.serving(one, first) as listener, STREAM.serving(other, second):
            peers = [connect(one.getsockname()), connect(one.getsockname()), connect(other.getsockname())]
            await first.makes(2)
            await second.makes(1)
            assert {*listener.streams()} == {protocol.transport for protocol in first.made}
            first.made[0].transport.abort()
            await first.made[0].happens("lost")
            await settle()
            listener.stop()
            assert listener.streams() == [first.made[1].transport]
            await first.ends()
            await second.ends()
            for peer in peers:
                peer.close()


async def test_descriptors_of_a_listener() -> None:
    """It has none of its own; the epoll set goes with its last member."""
    before = descriptors()
    with bound() as sock:
        listener = Listener(asyncio.get_running_loop(), sock, Factory())
        with_socket = descriptors()
        listener.start(10)
        assert len(descriptors() - with_socket) == 1
        listener.stop()
        assert descriptors() == with_socket
        assert listener.sock is sock
        assert sock.fileno() >= 0
    assert descriptors() == before


async def test_accepted_sockets() -> None:
    """They never block, are closed in a child that runs another program, and send at once."""
    factory = Factory()
    with bound() as sock:
        async with STREAM.serving(sock, factory):
            peer = connect(sock.getsockname())
            await factory.makes(1)
            number = factory.made[0].transport.get_extra_info("socket").fileno()
            assert not os.get_inheritable(number)
            assert not os.get_blocking(number)
            await factory.ends()
            peer.close()


async def test_peers_that_are_gone_before_they_are_accepted() -> None:
    factory = Factory()
    with bound() as sock:
        async with STREAM.serving(sock, factory):
            for _ in range(5):
                connect(sock.getsockname()).reset()
            peer = connect(sock.getsockname())
            await peer.send(b"x")
            async with asyncio.timeout(PATIENCE):
                while not any(protocol.data for protocol in factory.made):
                    await asyncio.sleep(0)
            for protocol in factory.made[:-1]:
                await protocol.happens("lost")
                assert isinstance(protocol.error, ConnectionResetError)
            await factory.ends()
            peer.close()


# What is raised


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), FileNotFoundError("x"), asyncio.CancelledError()], ids=repr)
async def test_a_factory_that_raises(error: BaseException) -> None:
    """That connection is closed, and the next are accepted."""
    factory, errors = Factory(), [error, error]

    def make() -> Recording:
        if errors:
            raise errors.pop()
        return factory()

    with bound() as sock, exceptions() as told:
        async with STREAM.serving(sock, make):
            before = descriptors()
            peers = [connect(sock.getsockname()) for _ in range(3)]
            await factory.makes(1)
            assert await peers[0].rest() == await peers[1].rest() == b""
            await factory.ends()
            for peer in peers:
                peer.close()
            assert descriptors() == before
        assert [context["exception"] for context in told] == [error, error]
        assert all("could not begin" in context["message"] for context in told)


async def test_a_connection_made_that_raises() -> None:
    """Its protocol is told what it raised, whether it has closed by then or not."""
    error = ZeroDivisionError("x")

    def act(protocol: Recording) -> None:
        if len(factory.made) == 2:
            protocol.transport.close()
        if len(factory.made) == 3:
            protocol.transport.write(bytes(10))
        raise error

    factory = Factory(made=act)
    with bound() as sock, exceptions() as told:
        async with STREAM.serving(sock, factory):
            before = descriptors()
            peers = [connect(sock.getsockname()) for _ in range(3)]
            await factory.makes(3)
            for protocol in factory.made:
                await protocol.happens("lost")
            await settle()
            assert [protocol.error for protocol in factory.made] == [error, None, error]
            for protocol, context in zip(factory.made, told, strict=True):
                assert context["exception"] is error
                assert context["transport"] is protocol.transport
                assert context["protocol"] is protocol
            for peer in peers:
                peer.close()
            assert descriptors() == before


@pytest.mark.parametrize("within", ["factory", "made"])
def test_what_ends_the_loop(new_loop: Callable[[], asyncio.AbstractEventLoop], within: str) -> None:
    """Run again, it accepts those that were behind in the queue."""
    first = [KeyboardInterrupt()]

    def raise_once(_: Any = None) -> None:
        if first:
            raise first.pop()

    factory = Factory(**({"made": raise_once} if within == "made" else {}))
    served = []

    def make() -> Recording:
        if within == "factory":
            raise_once()
        return factory()

    async def main() -> None:
        with bound() as sock:
            async with STREAM.serving(sock, make):
                before = descriptors()
                peers = [connect(sock.getsockname()) for _ in range(5)]
                await factory.makes(5 if within == "made" else 4)
                served.append(len(factory.made))
                await factory.ends()
                for peer in peers:
                    peer.close()
                assert descriptors() == before

    loop = new_loop()
    try:
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        assert served == [5 if within == "made" else 4]
    finally:
        loop.close()


# What the system has no more of

PROGRAM = """
import asyncio, os, resource, socket, sys, time
import uvloop
from tidegate._core.listener import Listener

class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        made.append(transport)
    def data_received(self, data):
        made[0].write(data)

made, told = [], []

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = Listener(loop, sock, Protocol)
    listener.start(100)
    peers = [socket.create_connection(sock.getsockname()) for _ in range(12)]
    highest = max(map(int, os.listdir("/proc/self/fd")))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, hard))
    while not told:
        await asyncio.sleep(0)
    served = len(made)
    assert 0 < served < 12, served
    # Those that are there are served; nobody spins.
    peers[0].send(b"x")
    peers[0].setblocking(False)
    while True:
        try:
            assert peers[0].recv(1) == b"x"
            break
        except BlockingIOError:
            await asyncio.sleep(0.001)
    used = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - used < 0.2, "it spins"
    assert len(told) <= 2, told
    assert told[0]["exception"].errno == 24, told
    assert told[0]["socket"] is sock and "accept" in told[0]["message"], told
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    while len(made) < 12:
        await asyncio.sleep(0.01)
    listener.stop()
    print("fine")

with asyncio.Runner(loop_factory={"uvloop": uvloop, "asyncio": asyncio}[sys.argv[1]].new_event_loop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_more_descriptors(loop: str) -> None:
    """It is told, those that have one are served, and a second later accepting goes on."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, loop], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


async def test_a_socket_that_is_shut_down() -> None:
    """accept() fails for good: that is told, and not tried again and again."""
    with bound() as sock, exceptions() as told:
        async with STREAM.serving(sock, Factory()):
            sock.shutdown(socket.SHUT_RDWR)
            async with asyncio.timeout(PATIENCE):
                while not told:
                    await asyncio.sleep(0)
            await settle()
            assert len(told) == 1
            assert isinstance(told[0]["exception"], OSError)
