"""Whose declaration holds, and that the admin process is told it, once, as soon as it reads.

What must not live here: what is declared (tests/bus/test_declaration.py), real workers (tests/process/test_doors.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from tidegate.config.schema import Config
from tidegate.ipc.pipe import Command, Pipe, Report, StopMode
from tidegate.supervisor.declarations import Declarations
from tidegate.supervisor.worker_handle import Generation, Handle, Role, Slot

CONFIG = Config(application="application:handler")


class Child:
    """A child as the supervisor has it, and its own end of the pipe."""

    def __init__(self, generation: int = 1, role: Role = Role.WORKER) -> None:
        self.handle = Handle(Slot(0, Generation(generation, CONFIG), role), Generation(generation, CONFIG), None)
        ours, theirs = socket.socketpair()
        self.handle.pipe, self.pipe = Pipe(ours, Report), Pipe(theirs, Command)

    def ready(self, said: bytes | None) -> None:
        """It serves, and says what its application declares; an older release does not."""
        assert self.pipe.send(Report("ready", declares=msgspec.UNSET if said is None else msgspec.Raw(said)))
        self.handle.receive_reports()

    def told(self) -> list[bytes]:
        return [bytes(word.declares) for word in self.pipe.receive() if word.declares is not msgspec.UNSET]

    def close(self) -> None:
        self.handle.close()
        self.pipe.close()


@pytest.fixture
def children() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.close()


def test_the_newest_worker_that_serves_says_what_holds(children: list[Child]) -> None:
    old, new, admin = Child(1), Child(2), Child(role=Role.ADMIN)
    children += [old, new, admin]
    declarations = Declarations(lambda: [new.handle, old.handle])

    def told() -> list[bytes]:
        declarations.tend(admin.handle)
        return admin.told()

    assert told() == []
    assert declarations.current is msgspec.UNSET
    old.ready(b'{"old":1}')
    assert told() == [b'{"old":1}']
    assert told() == []
    new.ready(b'{"new":1}')
    assert told() == [b'{"new":1}']
    new.handle.stop_mode = StopMode.GRACEFUL  # the reload fails
    assert told() == [b'{"old":1}']
    old.handle.stop_mode = StopMode.GRACEFUL
    assert told() == []
    assert bytes(declarations.current) == b'{"old":1}'


def test_a_worker_that_came_later_in_the_same_generation_has_read_the_newer_program(children: list[Child]) -> None:
    first, second, silent = Child(1), Child(1), Child(1)
    children += [first, second, silent]
    declarations = Declarations(lambda: [second.handle, silent.handle, first.handle])
    first.ready(b"1")
    second.ready(b"2")
    silent.ready(None)
    declarations.tend(None)
    assert bytes(declarations.current) == b"2"


def test_an_admin_process_is_told_later_if_it_does_not_read(children: list[Child]) -> None:
    """And the next one is told as well."""
    worker, admin, after = Child(), Child(role=Role.ADMIN), Child(role=Role.ADMIN)
    children += [worker, admin, after]
    declarations = Declarations(lambda: [worker.handle])
    while admin.handle.pipe.send(Command(reopen=True)):
        pass
    worker.ready(b'{"channels":{}}')
    declarations.tend(admin.handle)
    assert admin.told() == []
    declarations.tend(admin.handle)
    assert admin.told() == [b'{"channels":{}}']
    declarations.tend(after.handle)
    assert after.told() == [b'{"channels":{}}']


def test_what_was_said_survives_an_upgrade(children: list[Child]) -> None:
    worker = Child()
    children.append(worker)
    worker.ready(b'{"channels":{"h:":{}}}')
    state = worker.handle.state()
    again = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
    assert again.declares == msgspec.Raw(b'{"channels":{"h:":{}}}')
