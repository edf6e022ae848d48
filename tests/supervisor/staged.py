"""A supervisor in a process of its own, whose children are a few lines of Python that do as a case wants.

    supervise(case, tmp_path)    in a test: run it; the log of the supervisor
    Stage                        in that process: what a case may set, and the supervisor once it runs
    Given                        what a worker is given
    obedient(), follow()         lives of workers that others are made of

A case is a function of a module cases_*.py here, which is given a Stage. What must not live here: cases, tests.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import programs
from tests.support.patience import PATIENCE
from tidegate import logs
from tidegate._core.counters import Row
from tidegate.config.bind import Unix
from tidegate.config.schema import Config
from tidegate.ipc.pipe import Command, Pipe, Report
from tidegate.supervisor.event_loop import EventLoop
from tidegate.supervisor.signals import Signals
from tidegate.supervisor.supervisor import Supervisor


class Given(NamedTuple):
    """What the supervisor gives to a worker."""

    config: Config
    slot: int
    sockets: list[socket.socket]
    row: Row
    pipe: socket.socket

    def end(self) -> Pipe[Command]:
        """The worker's end of its pipe. It may be made once."""
        return Pipe(self.pipe, Command)


def obedient(given: Given) -> int:
    """Be ready at once, and end when it is told to."""
    end = given.end()
    end.send(Report("ready"))
    return follow(end)


def follow(end: Pipe[Command]) -> int:
    """Wait for the first order, and end."""
    while not end.ended:
        select.select([end], [], [])
        if end.receive():
            break
    return leave(end)


def serve(end: Pipe[Command], each_turn: Callable[[], Any] = lambda: None, wait: float | None = None) -> bool:
    """Boot, serve when it is told to, and return when it is told to stop: True; False if the supervisor has ended.

    `each_turn` is called before each wait, of `wait` seconds at most.
    """
    end.send(Report("booted"))
    while not end.ended:
        each_turn()
        select.select([end], [], [], wait)
        for command in end.receive():
            if command.serve:
                end.send(Report("ready"))
            if command.stop:
                return True
    return False


def leave(end: Pipe[Command]) -> int:
    """Say that it has ended: the exit status."""
    end.send(Report("draining"))
    end.send(Report("gone"))
    return 0


def fails(given: Given, why: str, status: int) -> int:
    """Say why it cannot begin."""
    given.end().send(Report("gone", why, status), wait=True)
    return status


class Stage:
    """A supervisor that is about to run.

    Attributes:
        settings: those of its configuration.
        worker: the life of each of its workers.
        load: what reads the configuration again, for a reload; None for the same.
        main: the supervisor, once it runs.
    """

    main: Supervisor

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {
            "application": "application:handler",
            "bind": (Unix("socket"),),
            "admin": None,
            "workers": 2,
            "graceful_timeout": 2.0,
        }
        self.worker: Callable[[Given], int] = obedient
        self.load: Callable[[], Config] | None = None
        self._looks: list[Callable[[], Any]] = []

    def config(self, **changes: Any) -> Config:
        """The configuration, changed."""
        return Config(**{**self.settings, **changes})

    def after_each_turn(self, look: Callable[[], Any]) -> None:
        """Call it whenever the loop of the supervisor has turned."""
        self._looks.append(look)

    def stop_when(self, condition: Callable[[], Any]) -> None:
        """Send the supervisor SIGTERM when a condition, looked at in every turn of its loop, is true."""

        def look() -> None:
            if not self.main.pool.stop_mode and condition():
                os.kill(os.getpid(), signal.SIGTERM)

        self.after_each_turn(look)

    def stop_when_complete(self) -> None:
        """Send it when every worker has been ready."""
        self.stop_when(lambda: self.main.complete)

    def run(self) -> int:
        """Run the supervisor: its exit status. In its children, live their lives, and end."""
        turn = EventLoop.run_once

        def turn_and_look(poll: EventLoop) -> None:
            turn(poll)
            for look in self._looks:
                look()

        replace(EventLoop, "run_once", turn_and_look)
        logs.begin("supervisor", "debug")
        signals = Signals()
        signals.catch()
        self.main = Supervisor(self.config(), signals, worker=self._live, admin=_no_admin, hub=_no_hub, load=self.load)
        outcome = self.main.run()
        if not isinstance(outcome, int):
            os._exit(outcome())
        assert not list(self.main.pool.children())
        return outcome

    def _live(self, config: Config, slot: int, sockets: list[socket.socket], row: Row, pipe: socket.socket) -> int:
        return self.worker(Given(config, slot, sockets, row, pipe))


def _no_admin(*_: Any) -> int:
    raise AssertionError("without an admin address there is no admin process")


def _no_hub(*_: Any) -> int:
    raise AssertionError("no worker here asks for a hub")


def replace(owner: Any, name: str, value: Any) -> None:
    """Put something in the place of what a module or an object has under a name, which must be there."""
    assert hasattr(owner, name), f"{owner} has no {name}"
    setattr(owner, name, value)


def once(name: str) -> bool:
    """Whether this is the first time that any process asks for this name."""
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def play(module: str, name: str, *arguments: str) -> int:
    """Have a case set the stage, and run the supervisor: its exit status."""
    stage = Stage()
    programs.main(module, name, stage, *arguments)
    return stage.run()


def supervise(case: Callable[..., None], tmp_path: Path, *arguments: str, status: int = 0) -> str:
    """The log of a supervisor that a case has set the stage for, and that ends with this status."""
    done = programs.run(
        play, case.__module__, case.__qualname__, *arguments, python=("-X", "dev"), timeout=PATIENCE, cwd=tmp_path
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "socket").exists()
    return done.stderr
