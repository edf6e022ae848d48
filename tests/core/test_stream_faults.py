"""System calls of streams and listeners that fail: the right callback, others go on, nothing is left, nobody spins.

faults.c makes them fail, faults.py is the program in which they do. What must not live here: errors that a peer brings
about by itself (test_stream_errors).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.core.faults import SCENARIOS
from tests.support.harness import ROOT, require
from tests.support.patience import PATIENCE

# What connection_lost() is told by errno, if that is no plain OSError.
KINDS = {
    "ECONNRESET": "ConnectionResetError",
    "EPIPE": "BrokenPipeError",
    "ETIMEDOUT": "TimeoutError",
}

# Nothing happens: the call is made again, or the next is as good.
HARMLESS = ("EINTR", "ECONNABORTED", "EPERM", "EBADF")


def environment() -> dict[str, str]:
    """Without what is loaded before the libraries, as a sanitizer is."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(shutil.which("gcc"), "gcc")
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", path, source, "-ldl"], env=environment(), check=True
    )
    return path


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def results(request: pytest.FixtureRequest, shim: Path) -> dict[str, Any]:
    """By scenario."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.faults", request.param],
        cwd=ROOT,
        env={**environment(), "LD_PRELOAD": " ".join([*os.environ.get("LD_PRELOAD", "").split(), str(shim)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: "-".join(map(str, scenario)))
def test_a_call_that_fails(results: dict[str, Any], scenario: tuple[str, str, int, str]) -> None:
    call, error, _, use = scenario
    result = results[" ".join(map(str, scenario))]
    assert result["faults"] == []
    assert result["left"] == 0
    assert not result["spins"]
    lasting = error not in HARMLESS
    peers = 6 if use == "connect" else 4
    if call == "accept4":
        # The connection waits in the queue until then.
        assert result["lost"] == []
        assert result["told"] == ([error] if lasting else [])
        assert result["fine"] == [True] * peers
    else:
        assert result["lost"] == ([KINDS.get(error, "OSError")] if lasting else [])
        assert result["told"] == ([error] if lasting and call == "epoll_ctl" else [])
        assert result["fine"].count(True) == peers - len(result["lost"])
        assert result["fine"][-1]


@pytest.mark.parametrize(("call", "error"), [("epoll_create1", "EMFILE"), ("epoll_ctl", "ENOSPC")])
def test_a_listener_that_cannot_start(results: dict[str, Any], call: str, error: str) -> None:
    assert results[f"start {call} {error}"] == {"told": error, "left": 0}
