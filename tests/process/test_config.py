"""A daemon whose settings are in a file and in the environment.

What must not live here: what may be in either (tests/cli/test_sources.py).
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from tests.harness import ECHO, Daemon, free_port
from tests.rawclient import RawClient, frame


def test_a_daemon_of_a_file_alone(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "program.py").write_text("async def handler(websocket):\n    await websocket.send('hello')\n")
    (tmp_path / "tidegate.toml").write_text(
        f'application = "program:handler"\nbind = ["127.0.0.1:{port}"]\nworkers = 2\ndrain = 0\n'
    )
    options = ["--config", str(tmp_path / "tidegate.toml")]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": path, "TIDEGATE_WORKERS": "3"}
    with Daemon(None, *options, target=None, workers=None, drain=None, bind=False, env=env) as daemon:
        assert len(daemon.workers()) == 3
        with RawClient(port) as client:
            assert client.open().frame() == (0x81, b"hello")
        assert daemon.stop() == 0


def test_mistakes_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("workers = 2\n\ngraceful_timout = 3\n")
    with Daemon("", "--config", str(file), wait=False) as daemon:
        assert daemon.wait() == 2
        expected = f"{file}:3: there is no setting graceful_timout: did you mean graceful_timeout?"
        assert daemon.log == f"tidegate serve: {expected}\n"


def test_what_is_printed_runs(tmp_path: Path) -> None:
    """--print-config of a command line, which starts nothing, is another daemon's file."""
    file = tmp_path / "tidegate.toml"
    with Daemon(ECHO, "--print-config", workers=2, wait=False) as printed:
        assert printed.wait() == 0
        file.write_text(printed.log)
        port = printed.port
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    (tmp_path / "application.py").write_text(textwrap.dedent(ECHO))
    with Daemon(None, "--config", str(file), target=None, workers=None, drain=None, bind=False, env=env) as daemon:
        assert len(daemon.workers()) == 2
        with RawClient(port) as client:
            client.open().send(frame(b"hello"))
            assert client.frame() == (0x81, b"hello")
        assert daemon.stop() == 0
