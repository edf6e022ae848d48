"""Who hangs and who has lived long enough, with workers of a few lines: who is judged, and what becomes of them.

What must not live here: real workers and clients (tests/process/test_health.py).
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.supervisor.staged import supervise

# A worker whose heart beats until `hangs(slot)` says otherwise; then it does `hang()`.
STAGE = """
from tidegate.supervisor import health

def beating(config, slot, sockets, row, pipe, hangs=lambda slot: False, hang=lambda: time.sleep(20)):
    logs.become(f"worker {slot}", thread=False)
    logs.show_stacks()
    end = Pipe(pipe, Order)
    end.send(Report("booted"))
    while not end.ended:
        row.tick(time.monotonic(), 0.0)
        if hangs(slot):
            hang()
        select.select([end], [], [], 0.05)
        for order in end.receive():
            if order.serve:
                end.send(Report("ready"))
            if order.end:
                end.send(Report("draining"))
                end.send(Report("gone"))
                return 0
    return 0

def once(name):
    # Whether this is the first time that anybody asks for this name.
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

def exits(reason):
    return sum(slot.exits[reason] for slot in main.pool.scoreboard.read().slots)

def whole():
    return len(main.pool.workers) == sum(slot.ready and not slot.leaving for slot in main.pool.workers)

module.TICK = 0.05  # so that silence is measured in many of them
settings.update(settle=0.0, worker_timeout=1.0)
worker = beating
"""


def stage(tmp_path: Path, program: str, status: int = 0) -> str:
    return supervise(tmp_path, STAGE + textwrap.dedent(program), status)


# Who hangs.


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        def blocked():
            if once("hung"):
                time.sleep(20)
        def worker(*args):
            return beating(*args, hangs=lambda slot: slot == 1 and main.scoreboard_is_up(), hang=blocked)
        Supervisor.scoreboard_is_up = lambda self: os.path.exists("complete")
        def condition():
            if main.complete and not os.path.exists("complete"):
                open("complete", "x").close()
            return exits("hung") and whole()
        stop_when(condition)
        """,
    )
    assert log.count("its event loop has not turned") == 1
    assert log.count("in blocked") == 2  # after half of the time, and at the end
    assert "Fatal Python error: Aborted" in log
    assert log.index("its stacks follow") < log.index("in blocked") < log.index("has hung for")
    assert "because it hung: the next one follows at once" in log
    assert log.count("is ready after") == 3
    assert "worker 0 (pid" in log
    assert "worker 0 hangs" not in log


def test_one_that_goes_on_in_time_is_left_alone(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        def nap():
            while not os.path.exists("shown"):
                time.sleep(0.01)
        def worker(*args):
            hangs = lambda slot: slot == 0 and os.path.exists("complete") and once("napped")
            return beating(*args, hangs=hangs, hang=nap)
        settings["worker_timeout"] = 3.0
        def condition():
            if main.complete:
                once("complete")
            shown = any(note.shown for note in main.health._notes.values())
            if shown and time.monotonic() > main.__dict__.setdefault("since", time.monotonic()) + 0.2:
                once("shown")
            return os.path.exists("shown") and not shown
        stop_when(condition)
        """,
    )
    assert log.count("its stacks follow") == 1
    assert log.count("in nap") == 1
    assert "goes on after" in log
    assert "is aborted" not in log
    assert log.count("is ready after") == 2


def test_one_that_does_not_end_by_sigabrt_is_killed(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        pool.DUMP_GRACE = 0.1
        def stubborn():
            if once("hung"):
                signal.signal(signal.SIGABRT, signal.SIG_IGN)
                time.sleep(20)
        def worker(*args):
            return beating(*args, hangs=lambda slot: slot == 1 and os.path.exists("complete"), hang=stubborn)
        stop_when(lambda: (not main.complete or once("complete") or True) and exits("hung") and whole())
        """,
    )
    assert "signal 9 (SIGKILL), because it hung" in log
    assert "for lack of memory" not in log


def test_nobody_is_judged_while_it_boots(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            row.tick(time.monotonic() - 100.0, 0.0)
            if slot == 1:
                time.sleep(1.5)
            return beating(config, slot, sockets, row, pipe)
        stop_when(lambda: main.complete)
        """,
    )
    assert "hang" not in log


@pytest.mark.slow
def test_nobody_is_judged_who_ends(tmp_path: Path) -> None:
    """An order to end has limits of its own."""
    log = stage(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            beating(config, slot, sockets, row, pipe)
            time.sleep(1.5)
            return 0
        def condition():
            if main.complete and once("asked"):
                main.operations.request("recycle", handle=main.pool.workers[0].current, why="recycle_age")
            return main.complete and exits("recycle_age")
        settings["graceful_timeout"] = 5.0
        stop_when(condition)
        """,
    )
    assert "hang" not in log


def test_nobody_is_judged_without_a_heartbeat(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            return obedient(config, slot, sockets, row, pipe)
        stop_when(lambda: main.complete and min(h.served for h in main.pool.working()) > 1.5)
        """,
    )
    assert "hang" not in log


def test_without_a_timeout_nobody_is_judged(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        settings["worker_timeout"] = None
        health.SILENT = 0.5
        def worker(*args):
            hangs = lambda slot: slot == 1 and os.path.exists("complete") and once("hung")
            return beating(*args, hangs=hangs, hang=lambda: time.sleep(1.5))
        seen = set()
        def condition():
            if main.complete:
                once("complete")
                seen.update((handle.slot.index, handle.silent) for handle in main.pool.working())
            return (1, True) in seen and not any(handle.silent for handle in main.pool.working())
        stop_when(condition)
        """,
    )
    assert "hang" not in log
    assert log.count("is ready after") == 2


@pytest.mark.slow
def test_what_the_supervisor_slept_through_is_nobodys_silence(tmp_path: Path) -> None:
    """All of them stand still for three times the timeout, as when the machine sleeps."""
    log = stage(
        tmp_path,
        """
        def worker(*args):
            return beating(*args, hangs=lambda slot: os.path.exists("sleep") and once(f"slept{slot}"),
                           hang=lambda: time.sleep(3.3))
        def condition():
            if main.complete and once("sleep"):
                time.sleep(3.0)
            return os.path.exists("slept0") and os.path.exists("slept1") and (
                min(main.pool.scoreboard.row(h.row).heartbeat for h in main.pool.working()) > main.slept + 3.5)
        def turning(self):
            if self.complete and not hasattr(self, "slept"):
                self.slept = time.monotonic()
        Supervisor.turning = turning
        stop_when(lambda: (main.turning() or True) and condition())
        """,
    )
    assert "aborted" not in log
    assert log.count("is ready after") == 2


# Who has lived long enough.


def test_a_lifetime(tmp_path: Path) -> None:
    """Both are recycled, one after the other, each when its successor serves."""
    log = stage(
        tmp_path,
        """
        settings["max_lifetime"] = 1.0
        stop_when(lambda: exits("recycle_age") >= 2)
        """,
    )
    assert log.count("is to be recycled: it has served for 1 s") >= 2
    assert log.count("has taken over") >= 2
    first, second = (index for index in range(len(log)) if log.startswith("is to be recycled", index))
    assert first < log.index("has taken over") < second


def test_connections_served(tmp_path: Path) -> None:
    """Only those whose handshake went well count."""
    log = stage(
        tmp_path,
        """
        settings["max_connections_served"] = 10
        def worker(config, slot, sockets, row, pipe):
            for _ in range(20):
                row.accepted()
                row.handshake("ok" if slot == 1 else "bad_request", 0.0)
            return beating(config, slot, sockets, row, pipe)
        health.UNSTEADY = 1.0
        stop_when(lambda: exits("recycle_connections") >= 2)
        """,
    )
    assert "worker 0" not in "".join(line for line in log.splitlines() if "is to be recycled" in line)
    assert log.count("it has served 20 connections") >= 2
    # The first was so soon that the second had to wait.
    assert "the next one has 1 s at least; is the limit too low?" in log
    assert "the next one has 2 s at least; is the limit too low?" in log


def test_memory(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        settings["max_rss"] = 200 * 2**20
        health.MEMORY_INTERVAL = 0.05
        def worker(config, slot, sockets, row, pipe):
            hoard = b"x" * 300 * 2**20 if slot == 1 and once("heavy") else b""
            return beating(config, slot, sockets, row, pipe)
        stop_when(lambda: exits("recycle_memory") >= 1 and whole())
        """,
    )
    assert log.count("is to be recycled: it takes 3") == 1
    assert log.count("has taken over") == 1


def test_recycling_that_fails_is_not_tried_again_at_once(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        settings.update(max_lifetime=0.2, workers=1)
        health.RETRY = 0.6
        def worker(config, slot, sockets, row, pipe):
            if os.path.exists("serves"):
                with open("failures", "a") as file:
                    file.write("x")
                return 1
            return beating(config, slot, sockets, row, pipe)
        def condition():
            if main.complete:
                once("serves")
            return main.health._failures == 2 and time.monotonic() > main.health._not_before - 0.2
        stop_when(condition)
        """,
    )
    assert (tmp_path / "failures").read_text() == "xx"
    assert log.count("is to be recycled") == 2
    assert log.count("is ready after") == 1
    assert log.count("failed: worker 0") == 2


def test_nobody_is_recycled_while_something_else_is_under_way(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        settings.update(max_lifetime=0.6, settle=2.0)
        def condition():
            if main.complete and once("asked"):
                main.operations.request("reload")
            return main.pool.generation.number == 2
        stop_when(condition)
        """,
    )
    assert "is to be recycled" not in log


@pytest.mark.parametrize("workers", [2, 4, 8, 32])
def test_the_limits_of_the_slots_are_far_apart(workers: int) -> None:
    from typing import Any, cast

    from tidegate.supervisor.health import Watch

    watch = Watch(cast("Any", None), cast("Any", None))
    shares = sorted(watch._share(slot) for slot in range(workers))
    assert shares[0] >= 0.9
    assert shares[-1] <= 1.1
    around = [b - a for a, b in zip(shares, [*shares[1:], shares[0] + 0.2], strict=True)]
    assert min(around) > 0.2 / workers / 3
