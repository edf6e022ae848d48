"""Signals in the middle of a boot: whenever one comes, it is heeded, the status is 0, and nobody is left.

What must not live here: signals to a daemon that serves (test_stop.py).
"""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from tests.support.harness import APPLICATIONS, Daemon, wait_until
from tests.support.patience import PATIENCE

# What a boot that is not heeded would wait for: longer than a test does.
AGES = ("--graceful-timeout", str(10 * PATIENCE), "--boot-timeout", str(10 * PATIENCE))


def turns(number: int, quick: int) -> list[Any]:
    """So many, of which only the first few are not slow."""
    return [*range(quick), *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(quick, number))]


@pytest.mark.parametrize("turn", turns(20, quick=4))
def test_a_signal_at_any_moment_of_a_boot(turn: int) -> None:
    moment = random.Random(turn).uniform(0, 0.9)
    with Daemon(APPLICATIONS / "slow_start.py", *AGES, target="application:app", workers=3, wait=False) as daemon:
        wait_until(lambda: daemon.log, "the first line")
        time.sleep(moment)
        status = daemon.stop()
        assert status == 0
        assert "Traceback" not in daemon.log
        assert "in time" not in daemon.log  # nobody had to be killed


@pytest.mark.parametrize("turn", turns(10, quick=3))
def test_a_signal_before_the_first_line(turn: int) -> None:
    """The interpreter itself takes a moment until anybody could heed a signal: then it ends by it, alone."""
    with Daemon(APPLICATIONS / "slow_start.py", *AGES, target="application:app", workers=3, wait=False) as daemon:
        time.sleep(turn * 0.02)
        status = daemon.stop()
        assert status == 0 or (status == -signal.SIGTERM and not daemon.log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_other_ways_to_end_a_boot(number: int) -> None:
    with Daemon(APPLICATIONS / "slow_start.py", *AGES, target="application:app", workers=3, wait=False) as daemon:
        wait_until(lambda: daemon.log, "the first line")
        assert daemon.stop(number) == 0


def test_an_import_that_holds_the_interpreter_cannot_hold_the_end() -> None:
    source = """
        import time
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
    """
    with Daemon(source, *AGES, workers=2, wait=False) as daemon:
        wait_until(lambda: len(daemon.workers()) == 2, "workers")
        assert daemon.stop() == 0


def test_a_lifespan_that_is_interrupted_is_left_in_order() -> None:
    with Daemon(APPLICATIONS / "interrupted.py", *AGES, target="application:app", wait=False) as daemon:
        wait_until(lambda: "entering" in daemon.log, "the lifespan")
        assert daemon.stop() == 0
        assert "left" in daemon.log


def test_the_admin_address_answers_from_the_beginning() -> None:
    with Daemon("import time; time.sleep(1000)", *AGES, workers=2, wait=False) as daemon:
        wait_until(lambda: daemon.get("/readyz")[0], "an answer")
        assert daemon.get("/readyz")[0] == 503
        assert daemon.get("/livez")[0] == 200
        assert daemon.stop() == 0
