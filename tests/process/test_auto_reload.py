"""`--reload-on-change`: a real daemon whose files are edited.

What must not live here: which files concern it (tests/supervisor/test_file_watcher.py).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.harness import ECHO, Daemon, require, wait_until
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

GREETING = """
    import {module} as greetings
    async def handler(websocket):
        await websocket.send(greetings.TEXT)
        async for message in websocket: ...
"""
OPTIONS = ("--reload-on-change", "--settle", "0.1")


@pytest.fixture(autouse=True)
def watchfiles() -> None:
    require(importlib.util.find_spec("watchfiles"), "watchfiles")


def begin(daemon: Daemon) -> None:
    wait_until(lambda: "a reload follows each change" in daemon.log, "a watch")


def edit(daemon: Daemon, name: str, text: str) -> None:
    path = daemon.directory / name
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".new").write_text(textwrap.dedent(text))
    path.with_suffix(".new").rename(path)


def ended(daemon: Daemon, generation: int) -> None:
    wait_until(lambda: f"generation {generation} has ended" in daemon.log, f"the end of generation {generation}")


def file_watcher(daemon: Daemon) -> psutil.Process:
    (found,) = [child for child in psutil.Process(daemon.pid).children() if "file_watcher" in " ".join(child.cmdline())]
    return found


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(ECHO, *OPTIONS, workers=2, drain=None) as daemon:
        begin(daemon)
        yield daemon


async def test_an_edit_is_served(daemon: Daemon) -> None:
    """Of the application itself, then of a module that it has imported; and old connections end at once."""
    async with asyncio.timeout(PATIENCE), connect(daemon.uri, proxy=None) as old:
        edit(daemon, "words/one.py", "TEXT = 'new'")
        await asyncio.to_thread(ended, daemon, 1)
        edit(daemon, "application.py", GREETING.format(module="words.one"))
        with pytest.raises(ConnectionClosed) as closed:
            await old.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        await asyncio.to_thread(ended, daemon, 2)
        async with connect(daemon.uri, proxy=None) as websocket:
            assert await websocket.recv() == "new"
            edit(daemon, "words/one.py", "TEXT = 'newer'")
            await asyncio.to_thread(ended, daemon, 3)
        async with connect(daemon.uri, proxy=None) as websocket:
            assert await websocket.recv() == "newer"
    assert "changed: words/one.py" in daemon.log
    assert "changed: application.py" in daemon.log
    assert daemon.stop() == 0


async def test_a_broken_edit_shows_its_error_and_the_old_code_serves(daemon: Daemon) -> None:
    before = daemon.workers()
    async with asyncio.timeout(PATIENCE), connect(daemon.uri, proxy=None) as websocket:
        edit(daemon, "application.py", "async def handler(websocket)\n")
        await asyncio.to_thread(wait_until, lambda: "reload: failed" in daemon.log, "a failure")
        assert re.search(r"application\.py.*, line 1\n(.*\n)*.*SyntaxError", daemon.log)
        await asyncio.to_thread(wait_until, lambda: daemon.workers() == before, "the old workers alone")
        await websocket.send("still here")
        assert await websocket.recv() == "still here"
        metrics = await asyncio.to_thread(daemon.metrics)
        assert metrics.total("tidegate_last_reload_success") == 0
        edit(daemon, "application.py", ECHO)
        await asyncio.to_thread(ended, daemon, 1)
    assert not set(before) & set(daemon.workers())
    assert daemon.metrics().total("tidegate_last_reload_success") == 1
    assert daemon.stop() == 0


@pytest.mark.slow
async def test_an_edit_during_a_reload_begins_another() -> None:
    with Daemon(ECHO, *OPTIONS, workers=2, drain=None) as daemon:
        begin(daemon)
        edit(daemon, "application.py", "import time\ntime.sleep(30)\n")
        await asyncio.to_thread(wait_until, lambda: "generation 2 boots" in daemon.log, "a reload")
        edit(daemon, "application.py", GREETING.format(module="words"))
        edit(daemon, "words.py", "TEXT = 'here'")
        # The first may have read the second text already; the last has replaced whoever did.
        await asyncio.to_thread(wait_until, lambda: re.search(r"generation [123] has ended", daemon.log), "another")
        async with asyncio.timeout(PATIENCE), connect(daemon.uri, proxy=None) as websocket:
            assert await websocket.recv() == "here"
        assert daemon.stop() == 0


@pytest.mark.slow
def test_the_configuration_file() -> None:
    with Daemon(ECHO, wait=False) as other:  # whose directory is elsewhere
        path = other.directory / "tidegate.toml"
        path.write_text("workers = 1\n")
        with Daemon(ECHO, *OPTIONS, "--config", str(path), workers=None) as daemon:
            begin(daemon)
            path.write_text("workers = 3\n")
            wait_until(lambda: len(daemon.workers()) == 3, "three workers")
            assert re.search(r"changed: \S*tidegate\.toml", daemon.log)
            path.write_text("workers = 0\n")
            wait_until(lambda: "reload: failed" in daemon.log, "a failure")
            assert len(daemon.workers()) == 3
            assert daemon.stop() == 0


def test_what_concerns_nobody_and_other_signals(daemon: Daemon) -> None:
    before = daemon.workers()
    edit(daemon, "notes.txt", "")
    edit(daemon, ".venv/module.py", "")
    edit(daemon, "__pycache__/module.py", "")
    daemon.signal(signal.SIGTTIN)
    wait_until(lambda: len(daemon.workers()) == 3, "another worker")
    assert set(before) < set(daemon.workers())
    assert "changed:" not in daemon.log
    assert daemon.stop() == 0


def test_nobody_is_left(daemon: Daemon) -> None:
    process = file_watcher(daemon)
    assert daemon.stop() == 0
    assert not process.is_running()


def test_nobody_is_left_by_a_supervisor_that_is_killed(daemon: Daemon) -> None:
    process = file_watcher(daemon)
    daemon.signal(signal.SIGKILL)
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "its end")


def test_when_it_dies_the_daemon_goes_on(daemon: Daemon) -> None:
    process = file_watcher(daemon)
    process.kill()
    wait_until(lambda: "file changes are no longer noticed" in daemon.log, "a word of it")
    assert not process.is_running()
    daemon.signal(signal.SIGHUP)
    ended(daemon, 1)
    assert daemon.stop() == 0


@pytest.mark.slow
def test_an_upgrade_has_another_one(daemon: Daemon) -> None:
    process = file_watcher(daemon)
    daemon.signal(signal.SIGUSR2)
    ended(daemon, 1)
    wait_until(lambda: daemon.log.count("a reload follows each change") == 2, "another watch")
    assert not process.is_running()
    edit(daemon, "more.py", "")
    ended(daemon, 2)
    metrics = daemon.metrics()
    assert metrics.total("tidegate_upgrades_total", result="success") == 1
    assert metrics.total("tidegate_reloads_total", result="success") == 1
    assert daemon.stop() == 0


def test_without_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Daemon(ECHO, *OPTIONS, wait=False, env={"PYTHONPATH": path}) as daemon:
        assert daemon.wait() == 2
        assert "watchfiles is not installed" in daemon.log
        assert "pip install 'tidegate[reload]'" in daemon.log


def test_with_preload() -> None:
    with Daemon(ECHO, *OPTIONS, "--preload", wait=False) as daemon:
        assert daemon.wait() == 2
        words = "is not allowed (with --preload a reload takes no new code): leave out --preload"
        assert f"--reload-on-change 'true' {words}" in daemon.log
