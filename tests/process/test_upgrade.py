"""Upgrades in place: another program takes the supervisor's process, under load, and nobody notices.

What must not live here: what is left from one program to the other (tests/ipc/test_handover_state.py).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.process.clients import Crowd
from tests.process.test_reload import generations
from tests.releases.between import between
from tests.support.harness import ECHO, ROOT, Daemon, wait_until


class Versions:
    """Installed copies of the package, of which one is the present one: what PYTHONPATH leads to is a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link = folder / "current"
        self.environment = {"PYTHONPATH": str(self.link)}

    def add(self, version: str) -> Path:
        """Install a copy that says that it is this version."""
        package = self.folder / version / "tidegate"
        shutil.copytree(ROOT / "src" / "tidegate", package, ignore=shutil.ignore_patterns("__pycache__", "*.c"))
        file = package / "version.py"
        file.write_text(re.sub(r'^(version\b.*= )".*"$', rf'\1"{version}"', file.read_text(), flags=re.MULTILINE))
        return package

    def choose(self, version: str) -> None:
        draft = self.folder / "draft"
        draft.symlink_to(version)
        os.replace(draft, self.link)


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    versions = Versions(tmp_path)
    versions.add("1.1.1")
    versions.choose("1.1.1")
    return versions


@pytest.fixture
def daemon(versions: Versions) -> Iterator[Daemon]:
    with Daemon(ECHO, "--settle", "0.1", workers=2, drain=0.2, env=versions.environment) as daemon:
        yield daemon


def version(daemon: Daemon) -> str:
    ((labels, _),) = daemon.metrics().select("tidegate_build_info")
    return labels["version"]


def upgrade(daemon: Daemon) -> None:
    """Ask for it, and wait for its end and that of the old workers."""
    count = len(re.findall(r"generation \d+ has ended", daemon.log))
    daemon.signal(signal.SIGUSR2)
    wait_until(lambda: len(re.findall(r"generation \d+ has ended", daemon.log)) > count, "the upgrade")


@pytest.mark.slow
async def test_to_another_version_and_back(daemon: Daemon, versions: Versions) -> None:
    assert version(daemon) == "1.1.1"
    versions.add("2.2.2")
    pid, started = daemon.pid, daemon.metrics().total("tidegate_start_time_seconds")
    async with Crowd(daemon.uri, staying=100, rate=100) as crowd:
        for number, wanted in enumerate(("2.2.2", "1.1.1", "2.2.2"), start=2):
            versions.choose(wanted)
            await asyncio.to_thread(upgrade, daemon)
            await asyncio.to_thread(wait_until, lambda wanted=wanted: version(daemon) == wanted, wanted)
            await crowd.seen(100 * (number - 1))
            assert generations(daemon) == {number}
            assert daemon.metrics().total("tidegate_closes_total", code="1001") == 100 * (number - 1)
        assert crowd.closed == {1001: 300}
    assert not crowd.refused
    assert daemon.pid == pid
    assert daemon.poll() is None
    # The scoreboard is the same, and so are its counters.
    assert daemon.metrics().total("tidegate_start_time_seconds") == started
    assert daemon.metrics().total("tidegate_connections_accepted_total") >= crowd.went + 400
    assert len(daemon.processes()) == 4
    assert daemon.stop() == 0


REFUSED = "upgrade: failed: it ended with status"
BROKEN = {
    # Without its folder, one that is installed elsewhere might be found.
    "an empty package": lambda package: (shutil.rmtree(package), package.mkdir(), (package / "__init__.py").touch()),
    "a syntax error": lambda package: (package / "supervisor" / "supervisor.py").write_text("class Supervisor:\n"),
    "native code that cannot be loaded": lambda package: [
        path.write_bytes(b"") for path in (package / "_core").glob("scoreboard*.so")
    ],
    "a worker that dies": lambda package: (package / "worker" / "main.py").write_text(
        "import os\ndef run(*arguments): os._exit(9)\n"
    ),
    "another format": lambda package: (package / "ipc" / "handover_state.py").write_text(
        (package / "ipc" / "handover_state.py").read_text().replace("FORMAT = 1", "FORMAT = 99")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_version_is_refused(daemon: Daemon, versions: Versions, broken: str) -> None:
    BROKEN[broken](versions.add("2.2.2"))
    before = daemon.titles()
    async with Crowd(daemon.uri, staying=20, rate=50) as crowd:
        versions.choose("2.2.2")
        daemon.signal(signal.SIGUSR2)
        await asyncio.to_thread(
            wait_until, lambda: "upgrade: failed: it ended with status" in daemon.log, "a refusal", 60
        )
        assert daemon.get("/readyz")[0] == 200
        # What was broken is whole again.
        versions.choose("1.1.1")
        assert daemon.titles() == before
        assert not crowd.closed
        await asyncio.to_thread(upgrade, daemon)
        await crowd.seen(20)
    assert not crowd.refused
    assert daemon.stop() == 0


async def test_an_application_that_does_not_start_any_more(daemon: Daemon) -> None:
    (daemon.directory / "application.py").write_text("import nothing_of_that_name\n")
    before = daemon.workers()
    daemon.signal(signal.SIGUSR2)
    await asyncio.to_thread(
        wait_until, lambda: "upgrade: failed: it ended with status 3" in daemon.log, "a refusal", 60
    )
    assert "nothing_of_that_name" in daemon.log
    assert daemon.workers() == before
    assert daemon.stop() == 0


BREAKS = """
def change(task, state):
    if task == "take":
        with open("application.py", "w") as file:
            file.write("import nothing_of_that_name")
"""


@pytest.mark.slow
async def test_a_preloaded_application_that_breaks_after_the_check(tmp_path: Path) -> None:
    """The next program has begun, and no worker of its own can: those before it stay, and it says what to do."""
    with Daemon(ECHO, "--preload", "--settle", "0", env=between(tmp_path, BREAKS)) as daemon:
        before = daemon.workers()
        daemon.signal(signal.SIGUSR2)
        await asyncio.to_thread(wait_until, lambda: "upgrade: failed" in daemon.log, "a refusal")
        words = "(the application could not be imported when this program started): correct it, and upgrade again"
        assert f"upgrade: failed: --preload 'true' is not allowed {words}" in daemon.log
        assert "nothing_of_that_name" in daemon.log
        assert daemon.workers() == before
        between(tmp_path, BREAKS.replace("take", "nothing"))
        (daemon.directory / "application.py").write_text(textwrap.dedent(ECHO))
        await asyncio.to_thread(upgrade, daemon)
        assert len(daemon.workers()) == 1
        assert daemon.workers() != before
        assert daemon.stop() == 0


async def test_a_log_that_cannot_be_opened_any_more(tmp_path: Path) -> None:
    """The check tells, before the program that would need it is there."""
    folder = tmp_path / "log"
    folder.mkdir()
    with Daemon(ECHO, "--log-file", str(folder / "tidegate.log"), "--settle", "0") as daemon:
        before = daemon.workers()
        moved = folder.rename(tmp_path / "moved") / "tidegate.log"
        daemon.signal(signal.SIGUSR2)
        await asyncio.to_thread(wait_until, lambda: "upgrade: failed" in moved.read_text(), "a refusal")
        assert f"--log-file '{folder}/tidegate.log' is not allowed (no such file or directory)" in moved.read_text()
        assert daemon.workers() == before
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_a_pid_file_that_cannot_be_written_any_more(tmp_path: Path) -> None:
    """It is missed by whoever looks for it, and not by those who are connected."""
    path = tmp_path / "run" / "pid"
    path.parent.mkdir()
    with Daemon(ECHO, "--pidfile", str(path), "--settle", "0") as daemon:
        path.parent.rename(tmp_path / "moved")
        await asyncio.to_thread(upgrade, daemon)
        assert f"{path} could not be written: no such file or directory: the daemon goes on without it" in daemon.log
        assert generations(daemon) == {2}
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_several_addresses_and_a_unix_socket(tmp_path: Path, versions: Versions) -> None:
    from websockets.asyncio.client import unix_connect

    path = tmp_path / "socket"
    options = ("--bind", f"unix:{path}", "--settle", "0")
    with Daemon(ECHO, *options, workers=2, drain=0, env=versions.environment) as daemon:
        for _ in range(2):
            await asyncio.to_thread(upgrade, daemon)
            async with unix_connect(str(path)) as websocket:
                await websocket.send("still here")
                assert await websocket.recv() == "still here"
        assert daemon.stop() == 0
        assert not path.exists()


@pytest.mark.slow
async def test_a_signal_to_end_at_any_moment(versions: Versions) -> None:
    for moment in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.2):
        with Daemon(ECHO, "--settle", "0.1", workers=2, drain=0, env=versions.environment) as daemon:
            daemon.signal(signal.SIGUSR2)
            await asyncio.sleep(moment)
            assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.slow
async def test_a_worker_that_dies_while_nobody_looks(daemon: Daemon) -> None:
    """Between two programs, or right before: its slot is filled."""
    before = daemon.workers()  # and none that the next program has begun by now
    daemon.signal(signal.SIGUSR2)
    await asyncio.to_thread(wait_until, lambda: daemon.log.count("tidegate 1.1.1 started") == 2, "the next program")
    for pid in before:
        with_suppress_kill(pid)
    await asyncio.to_thread(wait_until, lambda: generations(daemon) == {2} and len(daemon.workers()) == 2, "both")
    assert daemon.stop() == 0


def with_suppress_kill(pid: int) -> None:
    try:
        psutil.Process(pid).kill()
    except psutil.NoSuchProcess:
        pass
