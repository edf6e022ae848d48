"""What a channel costs beside a plain broadcast to the same connections, and joining and leaving among many.

Processor time, in turns with both, the quickest of each; shown with pytest -rA. The sockets are real, the loop is
turned by hand. What must not live here: the bus above (tests/bus), what is sent (tests/core/test_members.py).
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.core.test_broadcast_backlog import Member as Connection
from tests.core.test_broadcast_backlog import SocketLoop
from tests.support.wire import TEXT
from tidegate._core.broadcast import broadcast
from tidegate._core.deflate import Deflate
from tidegate.asyncio.membership import ConnectionMember, ConnectionTable
from tidegate.channels import ChannelLimits, Message

MESSAGE = Message("c", b"x" * 128, True)
ROUNDS = 40


class Names:
    """What a member asks of a bus."""

    def __init__(self) -> None:
        self.count = 0
        self.limits = ChannelLimits()

    def name_sender(self) -> str:
        self.count += 1
        return f"w.{self.count}"


class Audience:
    """Connections, and the table of them as members of a channel."""

    def __init__(self, size: int, deflate: bool) -> None:
        self.loop = SocketLoop()
        self.table = ConnectionTable()
        self.connections = [Connection(self.loop) for _ in range(size)]
        names: Any = Names()
        for connection in self.connections:
            if deflate:
                connection._use_deflate(Deflate(False, False, 15, 15, None))
            self.table.add(ConnectionMember(connection, names))  # type: ignore[arg-type]

    def broadcast(self) -> None:
        broadcast(self.connections, TEXT, MESSAGE.payload)
        self.loop.run()

    def fan_out(self) -> None:
        self.table.fan_out(MESSAGE, False)
        self.loop.run()

    def microseconds(self, send: Callable[[], None]) -> float:
        """Of one delivery."""
        before = time.process_time()
        send()
        spent = time.process_time() - before
        assert all(connection.received for connection in self.connections)
        return 1e6 * spent / len(self.connections)


@contextmanager
def audience(size: int, deflate: bool) -> Iterator[Audience]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * size + 100)), hard))
    made = Audience(size, deflate)
    yield made
    for connection in made.connections:
        connection.stream.abort()
        connection.peer.close()
    made.loop.run()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timed
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
def test_a_channel_costs_as_much_as_a_broadcast(deflate: bool) -> None:
    with audience(2_000, deflate) as measured:
        times = [
            (measured.microseconds(measured.fan_out), measured.microseconds(measured.broadcast)) for _ in range(ROUNDS)
        ]
    channel, plain = (min(turn[i] for turn in times) for i in (0, 1))
    print(
        f"microseconds a delivery: {channel:.2f} in a channel, {plain:.2f} by broadcast(): {channel / plain - 1:+.1%}"
    )
    assert channel <= 1.1 * plain


@pytest.mark.timed
def test_a_hundred_thousand_join_and_leave() -> None:
    names: Any = Names()
    loop = SocketLoop()
    connection: Any = Connection(loop)
    members = [ConnectionMember(connection, names) for _ in range(100_000)]
    table = ConnectionTable()
    before = time.process_time()
    for member in members:
        table.add(member)
    random.Random(7).shuffle(members)
    for member in members:
        table.discard(member)
    spent = time.process_time() - before
    print(f"seconds for 100,000 members: {spent:.3f}")
    connection.stream.abort()
    connection.peer.close()
    loop.run()
    assert spent <= 0.5


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
def test_the_channel_that_is_measured(deflate: bool) -> None:
    with audience(50, deflate) as measured:
        assert measured.microseconds(measured.fan_out) >= 0
        assert measured.microseconds(measured.broadcast) >= 0
