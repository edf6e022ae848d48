"""Steering a real group of sockets, in the kernel that runs the tests.

What must not live here: which sockets are to get connections.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.harness import require
from tidegate.supervisor.sockets.listener import BALANCES
from tidegate.supervisor.sockets.reuseport import Group

CONNECTIONS = 60


class Sockets:
    """A group of sockets that listen, in a certain order."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack, self.group = stack, Group()
        self.sockets: dict[int, socket.socket] = {}
        self.port = 0

    def listen(self, slot: int) -> None:
        sock = self.stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", self.port))
        sock.setblocking(False)
        sock.listen(2 * CONNECTIONS)
        self.port = sock.getsockname()[1]
        self.sockets[slot] = sock
        self.group.listens(slot)

    def close(self, slot: int) -> None:
        self.sockets.pop(slot).close()
        self.group.closed(slot)

    def steer(self, *around: int) -> None:
        self.group.steer(next(iter(self.sockets.values())), frozenset(around))

    def reached(self) -> set[int]:
        """The slots that get connections. Of four, the odds that one is left out by chance are 1 to 30 millions."""
        for _ in range(CONNECTIONS):
            self.stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        reached = set()
        for slot, sock in self.sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.accept()[0].close()
                    reached.add(slot)
        return reached


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    require(BALANCES, "a system whose SO_REUSEPORT balances")
    with contextlib.ExitStack() as stack:
        yield Sockets(stack)


def test_around_some_and_back(sockets: Sockets) -> None:
    for slot in (3, 0, 2, 1):
        sockets.listen(slot)
    assert sockets.reached() == {0, 1, 2, 3}
    sockets.steer(3, 2)
    assert sockets.reached() == {0, 1}
    sockets.steer(0)
    assert sockets.reached() == {1, 2, 3}
    sockets.steer()
    assert sockets.reached() == {0, 1, 2, 3}


def test_around_all_is_around_none(sockets: Sockets) -> None:
    for slot in range(2):
        sockets.listen(slot)
    sockets.steer(0, 1)
    assert sockets.reached() == {0, 1}


def test_one_that_begins_to_listen_waits_for_its_turn(sockets: Sockets) -> None:
    for slot in range(2):
        sockets.listen(slot)
    sockets.steer(1)
    sockets.listen(2)
    assert sockets.reached() == {0}
    sockets.steer(1)
    assert sockets.reached() == {0, 2}


def test_numbers_follow_sockets_that_are_closed(sockets: Sockets) -> None:
    for slot in (5, 0, 4, 1, 2):
        sockets.listen(slot)
    for slot in (0, 5):
        sockets.steer(slot)
        sockets.close(slot)
    sockets.steer(4)
    assert sockets.reached() == {1, 2}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=30))
def test_numbers_are_those_of_the_kernel(steps: list[tuple[bool, int]]) -> None:
    """The kernel's rule, written down once more: the last socket takes the number of one that is closed."""
    group, kernel = Group(), []
    for listens, slot in steps:
        if listens and slot not in kernel:
            kernel.append(slot)
            group.listens(slot)
        elif not listens and slot in kernel:
            kernel[kernel.index(slot)] = kernel[-1]
            kernel.pop()
            group.closed(slot)
        assert group._numbered == kernel
        assert group.slots == set(kernel)
