"""The README's promises that can be run: its commands exist, and its server serves.

What must not live here: running the two set-up commands themselves, which is what .ci/run does with the second.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from websockets.sync.client import connect

from tests.harness import ROOT, Daemon
from tidegate.cli.sources import Loader
from tidegate.kinds import Unix

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_first_two_blocks_are_run_and_test() -> None:
    (language, run), (other, test), *_ = BLOCKS
    assert language == other == "sh"
    assert run.splitlines()[-1] == ".venv/bin/tidegate demo"
    assert test.splitlines()[-1] == ".venv/bin/pytest"
    for line in (run + test).splitlines():
        assert shlex.split(line)[0] in ("python3", ".venv/bin/pip", ".venv/bin/tidegate", ".venv/bin/pytest")


def test_the_server_serves() -> None:
    (source,) = (text for language, text in BLOCKS if language == "python")
    with Daemon(source, target="echo:handler", workers=2) as daemon:
        with connect(daemon.uri) as websocket:
            websocket.send("hello")
            assert websocket.recv(timeout=10) == "hello"
        assert daemon.stop() == 0


def test_the_settings_are_settings(tmp_path: Path) -> None:
    (text,) = (text for language, text in BLOCKS if language == "toml")
    (tmp_path / "tidegate.toml").write_text(text, encoding="utf-8")
    bind = re.search(r'`TIDEGATE_BIND="([^"]+)"`', README)
    assert bind is not None
    config = Loader({}, {}, str(tmp_path / "tidegate.toml")).load()
    assert config.bind[1] == Unix("/run/tidegate.sock")
    assert len(Loader({}, {"TIDEGATE_BIND": bind[1], "TIDEGATE_APPLICATION": "echo:handler"}).load().bind) == 2
