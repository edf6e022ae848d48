"""The README's promises that can be run: its commands exist, and its server serves.

What must not live here: running the two set-up commands themselves, which is what .ci/run does with the second; the
block of production (tests/deploy/test_newcomer.py); links and names (tests/deploy/test_guides.py).
"""

from __future__ import annotations

import re
import shlex
import struct

from websockets.sync.client import connect

from tests.support.harness import ROOT, Daemon
from tests.support.patience import PATIENCE

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = 150
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_first_two_blocks_are_run_and_test() -> None:
    """Each is one command to paste: a line whose steps stop at the first that fails."""
    (language, run), (other, test), *_ = BLOCKS
    assert language == other == "sh"
    assert steps(run)[-1] == ".venv/bin/tidegate demo"
    assert steps(test)[-1] == ".venv/bin/pytest"
    for step in steps(run) + steps(test):
        assert shlex.split(step)[0] in ("python3", ".venv/bin/pip", ".venv/bin/tidegate", ".venv/bin/pytest")


def steps(block: str) -> list[str]:
    """The steps of a block that is one line."""
    (line,) = block.splitlines()
    return line.split(" && ")


def test_it_shows_the_admin_page() -> None:
    """A picture of some size that is no burden to whoever clones the project, before any command."""
    (name,) = re.findall(r"^!\[[^\]]+\]\((.*\.png)\)$", README, re.MULTILINE)
    assert README.index(name) < README.index("```")
    picture = (ROOT / name).read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert len(picture) < 150 * 1024
    width, height = struct.unpack_from(">II", picture, 16)
    assert width >= 800
    assert height >= 400


def test_it_is_a_page() -> None:
    assert len(README.splitlines()) <= LINES, "details belong into deploy/guides"


def test_the_server_serves() -> None:
    (source,) = (text for language, text in BLOCKS if language == "python")
    with Daemon(source, target="echo:handler", workers=2) as daemon:
        with connect(daemon.uri) as websocket:
            websocket.send("hello")
            assert websocket.recv(timeout=PATIENCE) == "hello"
        assert daemon.stop() == 0
