"""A daemon whose settings are in a file and in the environment.

What must not live here: what may be in either (tests/cli/test_sources.py), how a reload goes on (test_reload.py).
"""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

import pytest

from tests.support.harness import ECHO, Daemon, free_port, wait_until
from tests.support.rawclient import RawClient
from tests.support.wire import frame


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


MARKED = """
    async def handler(websocket):
        await websocket.send(f"{websocket.ping_interval:g}" if websocket.ping_interval else "none")
"""


def ping_interval(daemon: Daemon) -> str:
    with RawClient(daemon.port) as client:
        return client.open().frame()[1].decode()


def test_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("workers = 1\nping_interval = 7\nping_timeout = 3\nsettle = 0\n")
    options = ["--config", str(file), "--ping-timeout", "5"]
    with Daemon(MARKED, *options, workers=None, env={"TIDEGATE_MAX_QUEUE": "8"}) as daemon:
        assert ping_interval(daemon) == "7"
        file.write_text('workers = 2\nping_interval = "none"\nsettle = 0\n')
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "generation 1 has ended" in daemon.log, "the next generation")
        assert ping_interval(daemon) == "none"
        assert len(daemon.workers()) == 2
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrkers = 2\n", "{file}:1: there is no setting wrkers: did you mean workers?"),
        ("workers = 0\n", "{file}:1: workers '0' is not allowed: give a whole number from 1 to 256, or auto"),
        ("workers =\n", "{file}:1: this is not TOML: "),
        (None, "{file}: the configuration file cannot be read: No such file or directory"),
        ('umask = "077"\nworkers = 2\n', "--umask cannot change while the daemon runs"),
    ],
)
def test_a_reload_of_a_broken_file_changes_nothing(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("workers = 1\nping_interval = 7\n")
    with Daemon(MARKED, "--config", str(file), workers=None) as daemon:
        workers = daemon.workers()
        file.unlink() if text is None else file.write_text(text)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "reload: failed: " + words.format(file=file) in daemon.log, "its failure")
        assert ping_interval(daemon) == "7"
        assert daemon.workers() == workers
        assert daemon.get("/readyz")[0] == 200
        assert daemon.stop() == 0
