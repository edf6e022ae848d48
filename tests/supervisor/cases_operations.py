"""What is asked of a supervisor that is complete, and when, for test_operations.py.

What must not live here: what is to come of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.supervisor.staged import Given, Stage, fails, leave, once, replace, serve
from tidegate.config.bind import Unix
from tidegate.config.errors import ConfigError
from tidegate.config.schema import Config
from tidegate.supervisor.supervisor import Supervisor


def patient(given: Given) -> int:
    """Boot, serve when it is told to and end when it is told to."""
    end = given.end()
    return leave(end) if serve(end) else 0


def stuck_after(name: str) -> Callable[[Given], int]:
    """A patient one, unless there is a file of that name: then it takes longer to boot than anybody waits."""

    def worker(given: Given) -> int:
        if os.path.exists(name):
            os.unlink(name)
            time.sleep(20)
        return patient(given)

    return worker


class Asking:
    """The answers to what is asked: each goes to the log, as "NAME True text"."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.answers = 0
        stage.settings["settle"] = 0.0
        stage.worker = patient

    def ask(self, operation: str, name: str | None = None, **arguments: Any) -> None:
        """Ask for an operation, now."""

        def tell(done: bool | None, text: str) -> None:
            if done is not None:
                self.answers += 1
                print(name or operation, done, text, file=sys.stderr)

        self.stage.main.operations.request(operation, tell, **arguments)

    @property
    def over(self) -> bool:
        """Nothing is under way."""
        main = self.stage.main
        return not main.operations.current and not main.pool.retired


def ask(stage: Stage, *questions: tuple[str, dict[str, Any]]) -> None:
    """Ask for all of them as soon as the daemon is complete, and stop when the last is answered and over."""
    asking = Asking(stage)

    def begin() -> bool:
        if stage.main.complete and once("asked"):
            for name, arguments in questions:
                asking.ask(name, **arguments)
        return asking.answers == len(questions) and asking.over

    stage.stop_when(begin)


RELOAD: tuple[str, dict[str, Any]] = ("reload", {})


def scale(workers: int) -> tuple[str, dict[str, Any]]:
    return ("scale", {"workers": workers})


def reload(stage: Stage) -> None:
    ask(stage, RELOAD)


def reload_with_another_number_of_workers(stage: Stage, workers: str) -> None:
    stage.load = lambda: stage.config(workers=int(workers))
    ask(stage, RELOAD)


def scale_and_reload(stage: Stage) -> None:
    ask(stage, scale(4), RELOAD)


def settings_that_cannot_be(stage: Stage) -> None:
    def load() -> Config:
        raise ConfigError("--drain", "x", "seconds")

    stage.load = load
    ask(stage, RELOAD)


def settings_that_a_reload_cannot_change(stage: Stage) -> None:
    stage.load = lambda: stage.config(bind=(Unix("another"),))
    ask(stage, RELOAD)


def second_successor_fails(stage: Stage) -> None:
    def worker(given: Given) -> int:
        if os.path.exists("complete") and given.slot == 1:
            return fails(given, "no database", 3)
        return patient(given)

    ask(stage, RELOAD)
    stage.settings["workers"] = 3
    stage.worker = worker
    stage.after_each_turn(lambda: stage.main.complete and once("complete"))


def no_forks_once_complete(stage: Stage) -> None:
    fork = os.fork

    def failing() -> int:
        if stage.main.complete:
            raise BlockingIOError(11, "no process to be had")
        return fork()

    replace(os, "fork", failing)
    ask(stage, RELOAD, scale(3))


def one_at_a_time(stage: Stage) -> None:
    ask(stage, scale(3), RELOAD, RELOAD, scale(1))


def by_force(stage: Stage) -> None:
    """Ask for a reload whose first worker is stuck, and as soon as it is, for another one with force."""
    asking = Asking(stage)
    stage.worker = stuck_after("stuck")

    def begin() -> bool:
        if stage.main.complete and once("first"):
            open("stuck", "x").close()
            asking.ask("reload", "first")
        if os.path.exists("first") and not os.path.exists("stuck") and once("second"):
            asking.ask("reload", "second", force=True)
        return asking.answers == 2 and not stage.main.operations.current

    stage.stop_when(begin)


def stopped_meanwhile(stage: Stage) -> None:
    """Stop as soon as a reload is under way, whose workers are stuck."""
    asking = Asking(stage)

    def worker(given: Given) -> int:
        if os.path.exists("stuck"):
            time.sleep(20)
        return patient(given)

    def begin() -> bool:
        if stage.main.complete and not stage.main.operations.current:
            open("stuck", "x").close()
            asking.ask("reload")
            asking.ask("scale", workers=3)
        return stage.main.operations.current is not None

    stage.worker = worker
    stage.stop_when(begin)


def asked_when_it_stops(stage: Stage) -> None:
    asking = Asking(stage)
    end = Supervisor._stop

    def ending(self: Supervisor, *arguments: Any) -> None:
        end(self, *arguments)
        asking.ask("reload", "late")

    Supervisor._stop = ending  # type: ignore[assignment,method-assign]
    stage.stop_when_complete()


def numbers_of_workers_that_cannot_be(stage: Stage) -> None:
    ask(stage, scale(0), scale(257))


def recycling(stage: Stage) -> None:
    """Ask twice for the same worker; then tell how its slot's workers have ended."""
    asking = Asking(stage)

    def begin() -> bool:
        main = stage.main
        if main.complete and once("asked"):
            handle = main.pool.workers[1].current
            asking.ask("recycle", handle=handle, why="recycle_age")
            asking.ask("recycle", "again", handle=handle, why="recycle_age")
        if asking.answers < 2 or main.operations.current:
            return False
        exits = main.pool.scoreboard.read().slots[1].exits
        print({why: count for why, count in exits.items() if count}, file=sys.stderr)
        return True

    stage.stop_when(begin)
