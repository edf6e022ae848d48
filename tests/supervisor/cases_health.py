"""Workers that hang, nap and live long, and until when, for test_health.py.

What must not live here: what is to come of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.supervisor.staged import Given, Stage, leave, obedient, once, replace, serve
from tidegate import logs
from tidegate.supervisor import health, pool
from tidegate.supervisor import supervisor as module


def never(slot: int) -> bool:
    return False


def beating(given: Given, hangs: Callable[[int], bool] = never, hang: Callable[[], None] = lambda: None) -> int:
    """A worker whose heart beats until `hangs(slot)`; then it does `hang()`."""
    logs.set_role(f"worker {given.slot}", thread=False)
    logs.show_stacks()
    end = given.end()

    def beat() -> None:
        given.row.tick(time.monotonic(), 0.0)
        if hangs(given.slot):
            hang()

    return leave(end) if serve(end, beat, 0.05) else 0


class Watched:
    """A stage whose workers' hearts beat, with a timeout of a second; and what can be asked of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        replace(module, "TICK", 0.05)  # so that silence is measured in many of them
        stage.settings.update(settle=0.0, worker_timeout=1.0)
        stage.worker = beating

    @property
    def complete(self) -> bool:
        """Whether every worker has been ready; from then on there is a file that says so to the workers."""
        if self.stage.main.complete:
            once("complete")
        return self.stage.main.complete

    def exits(self, reason: str) -> int:
        """How many workers have ended for this reason."""
        return sum(slot.exits[reason] for slot in self.stage.main.pool.scoreboard.read().slots)

    @property
    def whole(self) -> bool:
        """Whether each slot has a worker that serves, and no other."""
        workers = self.stage.main.pool.workers
        return all(slot.ready and not slot.leaving for slot in workers)


def is_complete() -> bool:
    """Whether every worker has been ready, as a worker may ask."""
    return os.path.exists("complete")


# Who hangs.


def one_hangs(stage: Stage) -> None:
    watched = Watched(stage)

    def blocked() -> None:
        if once("hung"):
            time.sleep(20)

    def done() -> bool:
        return watched.complete and bool(watched.exits("hung")) and watched.whole

    stage.worker = lambda given: beating(given, lambda slot: slot == 1 and is_complete(), blocked)
    stage.stop_when(done)


def one_goes_on_in_time(stage: Stage) -> None:
    """It naps until its stacks are shown, and a little longer."""
    watched = Watched(stage)
    since = float("inf")

    def nap() -> None:
        while not os.path.exists("shown"):
            time.sleep(0.01)

    def done() -> bool:
        nonlocal since
        if not watched.complete:
            return False
        shown = any(note.shown for note in stage.main.health._notes.values())
        if shown:
            since = min(since, time.monotonic())
            if time.monotonic() > since + 0.2:
                once("shown")
        return os.path.exists("shown") and not shown

    stage.settings["worker_timeout"] = 3.0
    stage.worker = lambda given: beating(given, lambda slot: slot == 0 and is_complete() and once("napped"), nap)
    stage.stop_when(done)


def one_does_not_end_by_sigabrt(stage: Stage) -> None:
    watched = Watched(stage)

    def stubborn() -> None:
        if once("hung"):
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
            time.sleep(20)

    replace(pool, "DUMP_GRACE", 0.1)
    stage.worker = lambda given: beating(given, lambda slot: slot == 1 and is_complete(), stubborn)
    stage.stop_when(lambda: watched.complete and watched.exits("hung") and watched.whole)


def one_boots_for_long(stage: Stage) -> None:
    Watched(stage)

    def worker(given: Given) -> int:
        given.row.tick(time.monotonic() - 100.0, 0.0)
        if given.slot == 1:
            time.sleep(1.5)
        return beating(given)

    stage.worker = worker
    stage.stop_when_complete()


def one_takes_long_to_end(stage: Stage) -> None:
    watched = Watched(stage)

    def worker(given: Given) -> int:
        beating(given)
        time.sleep(1.5)
        return 0

    def done() -> bool:
        main = stage.main
        if main.complete and once("asked"):
            main.operations.request("recycle", handle=main.pool.workers[0].current, why="recycle_age")
        return main.complete and bool(watched.exits("recycle_age"))

    stage.settings["graceful_timeout"] = 5.0
    stage.worker = worker
    stage.stop_when(done)


def no_heartbeats(stage: Stage) -> None:
    Watched(stage)
    stage.worker = obedient
    stage.stop_when(lambda: stage.main.complete and min(handle.served for handle in stage.main.pool.working()) > 1.5)


def no_timeout(stage: Stage) -> None:
    watched = Watched(stage)
    seen: set[tuple[int | None, bool]] = set()

    def done() -> bool:
        working = stage.main.pool.working()
        if watched.complete:
            seen.update((handle.slot.index, handle.silent) for handle in working)
        return (1, True) in seen and not any(handle.silent for handle in working)

    replace(health, "SILENT", 0.5)
    stage.settings["worker_timeout"] = None
    stage.worker = lambda given: beating(
        given, lambda slot: slot == 1 and is_complete() and once("hung"), lambda: time.sleep(1.5)
    )
    stage.stop_when(done)


def all_sleep(stage: Stage) -> None:
    """All of them stand still for three times the timeout, as when the machine sleeps."""
    Watched(stage)
    slept = 0.0

    def done() -> bool:
        nonlocal slept
        main = stage.main
        if not main.complete:
            return False
        if once("sleep"):
            slept = time.monotonic()
            time.sleep(3.0)
        if not (os.path.exists("slept0") and os.path.exists("slept1")):
            return False
        return min(main.pool.scoreboard.row(handle.row).heartbeat for handle in main.pool.working()) > slept + 3.5

    stage.worker = lambda given: beating(
        given, lambda slot: os.path.exists("sleep") and once(f"slept{slot}"), lambda: time.sleep(3.3)
    )
    stage.stop_when(done)


# Who has lived long enough.


def lifetime(stage: Stage) -> None:
    watched = Watched(stage)
    stage.settings["max_lifetime"] = 1.0
    stage.stop_when(lambda: watched.exits("recycle_age") >= 2)


def connections_served(stage: Stage) -> None:
    watched = Watched(stage)

    def worker(given: Given) -> int:
        for _ in range(20):
            given.row.accepted()
            given.row.handshake("ok" if given.slot == 1 else "bad_request", 0.0)
        return beating(given)

    replace(health, "UNSTEADY", 1.0)
    stage.settings["max_connections_served"] = 10
    stage.worker = worker
    stage.stop_when(lambda: watched.exits("recycle_connections") >= 2)


def memory(stage: Stage) -> None:
    watched = Watched(stage)

    def worker(given: Given) -> int:
        hoard = b"x" * 300 * 2**20 if given.slot == 1 and once("heavy") else b""
        status = beating(given)
        del hoard
        return status

    replace(health, "MEMORY_INTERVAL", 0.05)
    stage.settings["max_rss"] = 200 * 2**20
    stage.worker = worker
    stage.stop_when(lambda: watched.exits("recycle_memory") >= 1 and watched.whole)


def recycling_fails(stage: Stage) -> None:
    """Each successor ends at once, and leaves an "x" in a file."""
    watched = Watched(stage)

    def worker(given: Given) -> int:
        if not is_complete():
            return beating(given)
        with open("failures", "a") as file:
            file.write("x")
        return 1

    def done() -> bool:
        health = stage.main.health
        return watched.complete and health._failures == 2 and time.monotonic() > health._not_before - 0.2

    replace(health, "RETRY", 0.6)
    stage.settings.update(max_lifetime=0.2, workers=1)
    stage.worker = worker
    stage.stop_when(done)


def something_else_is_under_way(stage: Stage) -> None:
    Watched(stage)

    def done() -> bool:
        if stage.main.complete and once("asked"):
            stage.main.operations.request("reload")
        return stage.main.pool.generation.number == 2

    stage.settings.update(max_lifetime=0.6, settle=2.0)
    stage.stop_when(done)
