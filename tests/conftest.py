"""What every test module may use, and what holds for every test.

Tests must be right on a machine that is five times slower, and busy; it may make them slow, never red:

- Wait for a condition, never for a duration: `harness.wait_until`, an Event, a read. Whoever waits for what must happen
  is given `patience.PATIENCE` seconds, the one limit; a program that does real work (a build, say) `patience.LONG`.
- `sleep()` is for what must *not* happen: then a slow machine only sees less of it. It is never there for something to
  be ready.
- Limits that a test sets (`open_timeout=0.1`) are those that must pass. What must not pass is left at its default, or
  is `PATIENCE`.
- What is short by nature (a ping's round trip) has no upper bound but PATIENCE; a lower bound is right anywhere.
- Tests that measure time or count instructions are marked `timed`, compare rather than judge a number of seconds, and
  run alone: `pytest -m timed`.
- Tests of several seconds, or that need a compiler, are marked `slow`: `pytest -m slow`. `pytest -m ''` runs all.
- Other tests run meanwhile (tests/support/parallel.py): ports come from `harness.free_port`, files are in `tmp_path`,
  and only one's own processes, connections and descriptors are counted.
- A test that hangs is told with its stacks after 300 s, a slow one after 1800 s (tests/support/hangs.py), or what
  `@pytest.mark.timeout` says.

What must not live here: helpers that are imported by name (tests/support).
"""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, settings

from tests.support.harness import ECHO, Daemon
from tests.support.patience import LONG, SLOWNESS
from tests.support.systemd import NotifySocket
from tidegate._core.counters import Row, use

pytest_plugins = ("tests.support.hangs", "tests.support.parallel")

# How long an example takes, or making it, says more about the machine than about the code.
settings.register_profile("tidegate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidegate")


@pytest.fixture
def row() -> Iterator[Row]:
    """What connections are counted in that a test makes in this process."""
    mine = Row()
    before = use(mine)
    yield mine
    use(before)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    """A service manager that listens, by a path and by an abstract name."""
    path = str(tmp_path / "notify")
    listening = NotifySocket(path if request.param == "path" else f"@{path}")
    with listening.socket:
        yield listening


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def few_objects() -> None:
    """For a module that collects garbage all the time: what the tests before it have left is looked at no more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def echo_daemon() -> Iterator[Daemon]:
    """An echo server with two workers, shared by a module's tests: none of them may stop or break it."""
    with Daemon(ECHO, workers=2) as daemon:
        yield daemon


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Before the first test, set up the process that tests run in.

    What is started by tests ignores no signal, though this run does: they send it. A shell that starts a run in the
    background has it ignore SIGINT, `nohup` SIGHUP, and all that it starts as well.

    What thousands of tests are made of stays as long as the process: those that collect garbage need not look at it.
    """
    gc.collect()
    gc.freeze()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # ignored here still, and not by those who are started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow or a timed test has more time, unless it says itself how much."""
    for item in items:
        slow = item.get_closest_marker("slow") or item.get_closest_marker("timed")
        if slow and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG / SLOWNESS))  # hangs.py scales it


class _Assertions(logging.Handler):
    """Keeps the assertions that have failed in what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[AssertionError] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], AssertionError):
            self.failed.append(record.exc_info[1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """What a handler or a hook asserts in this process is logged by the server that called it: it fails the test."""
    assertions = _Assertions()
    logging.getLogger().addHandler(assertions)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(assertions)
    if assertions.failed:
        raise assertions.failed[0]
