"""The daemon as process 1, as in a container: nobody above it reaps, and signals without a handler do not reach it.

What must not live here: what is the same for any other process id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.harness import wait_until
from tests.support.patience import PATIENCE

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
if os.geteuid() != 0:
    UNSHARE += ["--user", "--map-root-user"]


def may_unshare() -> bool:
    """Whether this machine lets us have process ids of our own."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not may_unshare(), reason="this machine does not let us make a process 1")

# Leaves a grandchild behind, which ends a little later as a child of process 1.
ORPHANING = """
import subprocess

for _ in range(3):
    subprocess.run("sleep 0.2 & exit 0", shell=True, check=True)

async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)
"""


@contextlib.contextmanager
def process_1(directory: Path, source: str) -> Iterator[psutil.Process]:
    """The supervisor, which is process 1 of its own namespace."""
    (directory / "application.py").write_text(source)
    command = [*UNSHARE, sys.executable, "-m", "tidegate", "serve", "application:handler"]
    command += ["--bind", f"unix:{directory}/socket", "--admin", "none", "--workers", "2"]
    with (directory / "log").open("wb") as log:
        outer = subprocess.Popen(command, cwd=directory, stderr=log)
    try:
        (supervisor,) = wait_until(psutil.Process(outer.pid).children, "process 1")
        wait_until(lambda: "ready: 2 of 2" in (directory / "log").read_text(), "readiness")
        yield supervisor
        assert outer.wait(PATIENCE) == 0
    finally:
        outer.kill()
        outer.wait()


def two_children(process: psutil.Process) -> list[psutil.Process]:
    """A process's children, zombies included, once there are two."""
    children = process.children()
    return children if len(children) == 2 else []


def test_it_ends_with_0(tmp_path: Path) -> None:
    with process_1(tmp_path, ORPHANING) as supervisor:
        supervisor.send_signal(signal.SIGTERM)
    assert "stopped with status 0" in (tmp_path / "log").read_text()


def test_it_reaps_orphans_and_knows_them_from_its_own(tmp_path: Path) -> None:
    with process_1(tmp_path, ORPHANING) as supervisor:
        assert len(supervisor.children()) >= 2

        assert len(wait_until(lambda: two_children(supervisor), "orphans are reaped")) == 2
        victim = supervisor.children()[0]
        victim.kill()
        log = tmp_path / "log"
        wait_until(lambda: log.read_text().count("is ready") == 3, "a successor")
        children = wait_until(lambda: two_children(supervisor), "its orphans are reaped")
        assert victim not in children
        assert psutil.STATUS_ZOMBIE not in {child.status() for child in children}
        supervisor.send_signal(signal.SIGTERM)
    assert "(SIGKILL)" in (tmp_path / "log").read_text()
