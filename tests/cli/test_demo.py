"""`tidegate demo` from its command line: what it prints, and that it is there.

What must not live here: the page, which wants a browser (tests/browser/test_demo.py).
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate.cli.demo import LONGEST


def test_two_workers_a_page_and_metrics() -> None:
    with Daemon(None, command="demo", target=None, workers=None) as daemon:
        assert f"page     http://{daemon.address}/\n" in daemon.log
        assert f"daemon   http://{daemon.admin}/\n" in daemon.log
        assert f"metrics  http://{daemon.admin}/metrics\n" in daemon.log
        assert len(daemon.workers()) == 2
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{daemon.address}/", timeout=PATIENCE) as page:
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"
            assert "<title>tidegate demo</title>" in page.read().decode()
        assert daemon.metrics().total("tidegate_connections") == 0
        with opener.open(f"http://{daemon.address}/tidegate.js", timeout=PATIENCE) as script:
            assert b"export class Tidegate" in script.read()
        assert daemon.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("length", ["", "x" * 80], ids=["temporary", "with a long path"])
def test_it_has_a_control_socket_in_a_folder_of_its_own(tmp_path: Path, length: str) -> None:
    """The socket is the same after an upgrade in place, and its folder is gone with the daemon."""
    parent = tmp_path / length
    parent.mkdir(exist_ok=True)
    with Daemon(None, command="demo", target=None, workers=None, env={"TMPDIR": str(parent)}) as daemon:
        (path,) = re.findall(r"^control  (.*)$", daemon.log, re.MULTILINE)
        assert Path(path).parent.parent == (parent if len(str(parent)) <= LONGEST else Path("/tmp"))
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        for command in ("reload", "upgrade", "status"):
            done = subprocess.run(
                [sys.executable, "-m", "tidegate", command, "--control", path],
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, done.stderr
        assert daemon.stop() == 0
        assert not Path(path).parent.exists()


def test_a_control_socket_that_was_named(tmp_path: Path) -> None:
    with Daemon(None, "--control", f"{tmp_path}/c", command="demo", target=None, workers=None, wait=False) as daemon:
        wait_until(lambda: f"control  {tmp_path}/c\n" in daemon.log, "the line")
    with Daemon(None, "--control", "none", command="demo", target=None, workers=None, wait=False) as daemon:
        wait_until(lambda: "Ctrl-C stops it.\n" in daemon.log, "the last line")
        assert "control  " not in daemon.log


def test_a_mistake_is_told_in_a_line() -> None:
    with Daemon(None, "--workers", "3", command="demo", target=None, workers=None, wait=False) as daemon:
        assert daemon.wait() == 2
        assert "--workers" in daemon.log
        assert daemon.log.count("\n") == 1
