"""Queues of slots without a worker: lent, reclaimed, closed when they have been empty for a while.

What must not live here: the workers that serve what they are lent (tests/process/test_scale.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tidegate.config.bind import Tcp
from tidegate.config.schema import Config
from tidegate.ipc.pipe import Command, Pipe, Report
from tidegate.supervisor.event_loop import Timer
from tidegate.supervisor.sockets import accept_queues as module
from tidegate.supervisor.sockets.accept_queues import AcceptQueues
from tidegate.supervisor.sockets.listeners import Listeners
from tidegate.supervisor.worker_handle import Generation, Handle, Slot

FIRST = Generation(1, Config(application="application:handler"))


class Fleet:
    """Three slots with real sockets, whose workers are the other ends of their pipes."""

    def __init__(self) -> None:
        self.listeners = Listeners()
        self.listeners.bind([Tcp("127.0.0.1", 0)], 3)
        self.queues = AcceptQueues(self.listeners)
        self.workers = [Slot(index, FIRST) for index in range(3)]
        self.ends: dict[int, Pipe[Command]] = {}
        for slot in self.workers:
            assert slot.index is not None
            self.listeners.listen(slot.index, 16)
            self.queues.listens(slot.index)
            self.fill(slot)

    def fill(self, slot: Slot) -> None:
        ours, theirs = socket.socketpair()
        handle = Handle(slot, FIRST, None)
        handle.pipe, handle.stage = Pipe(ours, Report), "ready"
        slot.current = handle
        assert slot.index is not None
        if slot.index in self.ends:
            self.ends[slot.index].close()
        self.ends[slot.index] = Pipe(theirs, Command)

    def empty(self, slot: Slot) -> None:
        assert slot.current is not None
        slot.current.pipe.close()
        slot.remove(slot.current)

    def received(self) -> dict[int, list[Command]]:
        """What each worker was told since the last time."""
        heard = {index: end.receive() for index, end in self.ends.items()}
        return {index: commands for index, commands in heard.items() if commands}

    def close(self) -> None:
        for slot in self.workers:
            if slot.current is not None:
                self.empty(slot)
        for end in self.ends.values():
            end.close()
        self.listeners.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


def test_nothing_is_lent_while_everybody_works(fleet: Fleet) -> None:
    assert fleet.queues.tend(fleet.workers, []) == []
    assert fleet.received() == {}


def test_a_slot_that_waits_is_lent_once_and_taken_back(fleet: Fleet) -> None:
    slot = fleet.workers[1]
    fleet.empty(slot)
    slot.retry = Timer(module.time.monotonic() + 5, lambda: None)
    fleet.queues.tend(fleet.workers, [])
    ((keeper, commands),) = fleet.received().items()
    assert keeper != 1
    assert commands == [Command(adopt=1, sockets=1)]
    (sock,) = fleet.ends[keeper].receive_sockets(1)
    with sock, fleet.listeners.at(1)[0].dup() as own:
        assert sock.getsockname() == own.getsockname()
        assert not sock.get_inheritable()
    fleet.queues.tend(fleet.workers, [])
    assert fleet.received() == {}
    slot.retry = None
    fleet.fill(slot)
    fleet.queues.tend(fleet.workers, [])
    assert fleet.received() == {keeper: [Command(release=1)]}


def test_a_slot_whose_worker_is_silent_is_lent_to_one_that_is_not(fleet: Fleet) -> None:
    first, second, third = (slot.current for slot in fleet.workers)
    assert first is not None
    assert second is not None
    assert third is not None
    first.silent = second.silent = True
    fleet.queues.tend(fleet.workers, [])
    assert fleet.received() == {2: [Command(adopt=0, sockets=1), Command(adopt=1, sockets=1)]}
    for sock in fleet.ends[2].receive_sockets(2):
        sock.close()
    first.silent = False
    fleet.queues.tend(fleet.workers, [])
    assert fleet.received() == {2: [Command(release=0)]}
    third.silent = second.silent = True
    fleet.queues.tend(fleet.workers, [])
    assert set(fleet.received()) == {0}


def test_when_all_are_silent_everything_stays_as_it_is(fleet: Fleet) -> None:
    for slot in fleet.workers:
        assert slot.current is not None
        slot.current.silent = True
    fleet.queues.tend(fleet.workers, [])
    assert fleet.received() == {}


def test_a_slot_that_is_filled_at_once_is_not_lent(fleet: Fleet) -> None:
    slot = fleet.workers[1]
    fleet.empty(slot)
    slot.retry = Timer(module.time.monotonic() + 0.1, lambda: None)
    fleet.queues.tend(fleet.workers, [])
    assert fleet.received() == {}


def test_when_its_keeper_dies_another_gets_it(fleet: Fleet) -> None:
    lonely, others = fleet.workers[0], fleet.workers[1:]
    fleet.empty(lonely)
    lonely.retry = Timer(module.time.monotonic() + 5, lambda: None)
    fleet.queues.tend(fleet.workers, [])
    (first,) = fleet.received()
    dying = next(slot for slot in others if slot.index == first)
    fleet.empty(dying)
    fleet.queues.tend(fleet.workers, [])
    ((second, commands),) = fleet.received().items()
    assert second != first
    assert Command(adopt=0, sockets=1) in commands
    fleet.empty(next(slot for slot in others if slot.index == second))
    fleet.queues.tend(fleet.workers, [])  # nobody is left, and that is no error


def test_a_retired_slot_is_closed_when_nobody_has_come_for_a_while(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    slot = fleet.workers.pop()
    fleet.empty(slot)
    address = fleet.listeners.at(2)[0].getsockname()
    assert fleet.queues.tend(fleet.workers, [slot]) == []
    ((keeper, _),) = fleet.received().items()
    now += module.STRAGGLERS - 1
    assert fleet.queues.tend(fleet.workers, [slot]) == []
    now += 2
    assert fleet.queues.tend(fleet.workers, [slot]) == []
    assert fleet.received() == {keeper: [Command(release=2)]}
    now += module.STRAGGLERS
    assert fleet.queues.tend(fleet.workers, [slot]) == [slot]
    assert fleet.queues.tend(fleet.workers, []) == []
    with socket.create_connection(address):  # the others are still there
        pass


def test_somebody_in_the_queue_keeps_it_open(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    slot = fleet.workers.pop()
    fleet.empty(slot)
    address = fleet.listeners.at(2)[0].getsockname()
    callers = []
    while not fleet.listeners.waiting(2):
        callers.append(socket.create_connection(address))
    for _ in range(20):
        now += module.STRAGGLERS
        assert fleet.queues.tend(fleet.workers, [slot]) == []
    for caller in callers:
        caller.close()


def test_where_steering_is_impossible_a_retired_slot_stays_lent(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(fleet.listeners, "steer", lambda around: not around)
    slot = fleet.workers.pop()
    fleet.empty(slot)
    for _ in range(20):
        assert fleet.queues.tend(fleet.workers, [slot]) == []
        now += module.STRAGGLERS
    ((_, commands),) = fleet.received().items()
    assert commands == [Command(adopt=2, sockets=1)]
