"""`tidegate check` as a process: its one line, its exit status, and that nothing of it stays.

What must not live here: mistakes in settings one by one (test_sources.py, test_serve.py).
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ECHO, Daemon, require, wait_until
from tests.support.patience import PATIENCE

LIFESPAN = """
    import asyncio, os, time
    from contextlib import asynccontextmanager
    from tidegate import App

    async def handler(websocket): ...

    @asynccontextmanager
    async def lifespan():
        {before}
        yield
        {after}

    app = App(handler, lifespan=lifespan)
"""

# What a check that heeds no signal would wait for: longer than a test does.
AGES = ("--graceful-timeout", str(10 * PATIENCE), "--boot-timeout", str(10 * PATIENCE))


def checked(source: str | None, *options: str, **arguments: Any) -> tuple[int, str]:
    """The exit status of a check, and what it says."""
    arguments.setdefault("target", "application:app" if source is not ECHO else "application:handler")
    with Daemon(source, *options, command="check", wait=False, **arguments) as check:
        return check.wait(), check.log


def lifespan(before: str = "pass", after: str = "pass") -> str:
    return LIFESPAN.format(before=before, after=after)


def test_an_application_that_starts() -> None:
    status, log = checked(ECHO)
    assert status == 0
    assert log.startswith("tidegate check: the configuration is valid and application:handler starts (in ")
    assert log.count("\n") == 1


def test_its_worker_publishes_nothing_and_needs_no_bus() -> None:
    """Whatever the daemon would have: an upgrade begins with a check."""
    options = ("--publish-token", "0123456789abcdef", "--bus", "redis://127.0.0.1:1", "--bus-required")
    status, log = checked(ECHO, *options)
    assert (status, log.count("\n")) == (0, 1), log


def test_the_lifespan_is_entered_and_left_once() -> None:
    status, log = checked(lifespan("print('entered', flush=True)", "print('left', flush=True)"), workers=4)
    assert status == 0
    assert log.splitlines()[:2] == ["entered", "left"]
    assert log.count("entered") == log.count("left") == 1


def test_the_addresses_are_left_alone() -> None:
    with Daemon(ECHO, command="check", wait=False) as check, socket.create_server(("127.0.0.1", check.port)):
        assert check.wait() == 0


@pytest.mark.parametrize(
    ("source", "options", "status", "words"),
    [
        (lifespan("raise RuntimeError('no database')"), [], 3, "no database"),
        ("import nothing_of_this_name", [], 3, "the application application:app could not be loaded: importing"),
        ("app = 3", [], 3, "app is not an application"),
        ("App = 3", [], 3, "did you mean App?"),
        (lifespan(after="raise RuntimeError('still busy')"), [], 1, "still busy"),
        (
            lifespan(after="raise RuntimeError('still busy')"),
            [],
            1,
            "check: application:app starts, but its worker exited",
        ),
        (lifespan("os._exit(0)"), [], 1, "application:app is not ready: its worker exited with status 0"),
        (lifespan("os.kill(os.getpid(), 9)"), [], 1, "is not ready: its worker was killed by SIGKILL"),
        (
            lifespan("time.sleep(1000)"),
            ["--boot-timeout", "0.3"],
            1,
            "was not ready within 0.3 s, which is --boot-timeout",
        ),
        (lifespan("time.sleep(1000)"), ["--boot-timeout", "2"], 1, "in lifespan"),  # where it hangs
        (lifespan("await asyncio.sleep(1000)"), ["--boot-timeout", "0.3"], 1, "was not ready within"),
    ],
)
def test_an_application_that_does_not_start(source: str, options: list[str], status: int, words: str) -> None:
    ended, log = checked(source, *options)
    assert ended == status
    assert words in log
    assert log.count("tidegate check: ") == 1
    assert "is valid" not in log


@pytest.mark.slow
def test_an_application_that_does_not_end() -> None:
    status, log = checked(lifespan(after="await asyncio.sleep(1000)"), "--graceful-timeout", "0.2")
    assert status == 1
    assert "application:app starts, but does not stop within --graceful-timeout" in log


def test_a_mistake_in_the_configuration_is_status_2() -> None:
    assert checked(ECHO, "--log-level", "loud") == (
        2,
        "tidegate check: --log-level 'loud' is not allowed: give debug or info or warning or error\n",
    )
    status, log = checked(ECHO, env={"TIDEGATE_WRKERS": "2"})
    assert (status, log.count("\n")) == (2, 1)
    assert "did you mean TIDEGATE_WORKERS?" in log


def test_the_application_counts_as_in_the_daemon(tmp_path: Path) -> None:
    """In a folder of its own, which is gone afterwards; and in none without an admin address."""
    source = """
        import os
        print("folder:", os.environ.get("PROMETHEUS_MULTIPROC_DIR"), flush=True)
        async def app(websocket): ...
    """
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    assert checked(source, env=environment)[0] == 0
    status, log = checked(source, env=environment)
    assert status == 0
    assert f"folder: {tmp_path}/tidegate-metrics-" in log
    assert list(tmp_path.iterdir()) == []
    status, log = checked(source, env=environment, admin=False)
    assert (status, f"folder: {tmp_path}\n" in log) == (0, True)


def test_everything_may_be_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    (tmp_path / "program.py").write_text("async def handler(websocket): ...\n")
    file.write_text('application = "program:handler"\nworkers = 2\n')
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    status, log = checked(None, "--config", str(file), target=None, workers=None, drain=None, env=env)
    assert status == 0
    assert "program:handler starts" in log


def test_the_application_is_whom_the_daemon_becomes(tmp_path: Path) -> None:
    """Its folder is closed to whom it becomes: an application that root could import cannot be loaded."""
    require(os.geteuid() == 0, "being root")
    status, log = checked(lifespan("print(os.getuid())"), "--user", "nobody")
    assert (status, "print" in log) == (3, False)
    assert "could not be loaded" in log
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "program.py").write_text("import os\nprint(os.getuid(), flush=True)\nhandler = None\n")
        status, log = checked(None, "--user", "nobody", "--working-dir", folder, target="program:handler")
    assert log.splitlines()[0] == str(pwd.getpwnam("nobody").pw_uid)
    assert (status, "handler is not an application" in log) == (3, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--user", "nobody-of-this-name"],
            "--user 'nobody-of-this-name' is not allowed (there is no such user): give",
        ),
        (["--working-dir", "/nowhere"], "--working-dir '/nowhere' is not allowed (no such file or directory): give"),
        (["--cpu-affinity", "1023"], "--cpu-affinity '1023' is not allowed (1023 is not usable here): give"),
    ],
)
def test_what_the_system_does_not_allow_is_status_2(options: list[str], words: str) -> None:
    status, log = checked(ECHO, *options)
    assert (status, log.count("\n")) == (2, 1)
    assert words in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_ends_the_check_ends_its_worker(number: int) -> None:
    source = lifespan("print('entered', flush=True); time.sleep(1000)")
    with Daemon(source, *AGES, command="check", target="application:app", wait=False) as check:
        wait_until(lambda: "entered" in check.log, "the lifespan")
        assert check.stop(number) == 1
        assert "is valid" not in check.log
