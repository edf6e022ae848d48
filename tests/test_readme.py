"""The README's promises that can be run: its commands exist, and its server serves.

What must not live here: running the two set-up commands themselves, which is what .ci/run does with the second; the
block of production (tests/deploy/test_newcomer.py); links and names (tests/deploy/test_guides.py).
"""

from __future__ import annotations

import re
import shlex

from websockets.sync.client import connect

from tests.harness import ROOT, Daemon
from tests.patience import PATIENCE

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = 150
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_first_two_blocks_are_run_and_test() -> None:
    (language, run), (other, test), *_ = BLOCKS
    assert language == other == "sh"
    assert run.splitlines()[-1] == ".venv/bin/tidegate demo"
    assert test.splitlines()[-1] == ".venv/bin/pytest"
    for line in (run + test).splitlines():
        assert shlex.split(line)[0] in ("python3", ".venv/bin/pip", ".venv/bin/tidegate", ".venv/bin/pytest")


def test_it_is_a_page() -> None:
    assert len(README.splitlines()) <= LINES, "details belong into deploy/guides"


def test_the_server_serves() -> None:
    (source,) = (text for language, text in BLOCKS if language == "python")
    with Daemon(source, target="echo:handler", workers=2) as daemon:
        with connect(daemon.uri) as websocket:
            websocket.send("hello")
            assert websocket.recv(timeout=PATIENCE) == "hello"
        assert daemon.stop() == 0
