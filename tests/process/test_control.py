"""The commands that ask a running daemon: each with its effect, its words and its exit status, with real processes.

What must not live here: the protocol's corners (tests/supervisor/test_control.py), the commands' own (tests/cli).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.process.cases_control import ask_as
from tests.process.clients import Crowd
from tests.process.users import opened
from tests.support import programs
from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

QUICK = ("--settle", "0.1", "--control", "control.sock")


def path(daemon: Daemon) -> str:
    return str(daemon.directory / "control.sock")


def started(daemon: Daemon, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A command that asks the daemon, as it runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "tidegate", *arguments, "--control", path(daemon)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def asked(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    with started(daemon, *arguments) as command:
        out, err = command.communicate(timeout=PATIENCE)
    return command.returncode, out, err


def status(daemon: Daemon) -> Any:
    code, out, err = asked(daemon, "status", "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def said(daemon: Daemon, data: bytes) -> list[Any]:
    """What the daemon answers to some bytes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path(daemon))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while got := sock.recv(65536):
                received += got
    return [json.loads(line) for line in received.splitlines()]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(ECHO, *QUICK, workers=2, drain=0.2) as daemon:
        yield daemon


# Status.


def test_status(daemon: Daemon) -> None:
    """`tidegate status` shows a row for each worker and the number of connections."""
    with RawClient(daemon.port) as client:
        client.open()
        code, out, err = asked(daemon, "status")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith("tidegate ")
        assert f"(pid {daemon.pid}): ready, up " in lines[0]
        assert lines[0].rstrip().endswith(" 2 of 2 workers ready, 1 connections open")
        assert lines[1].split()[:4] == ["slot", "pid", "generation", "age"]
        rows = [line.split() for line in lines[2:]]
        assert [int(row[1]) for row in rows] == daemon.workers()
        assert sum(int(row[5]) for row in rows) == 1
        found = status(daemon)
        assert found["pid"] == daemon.pid
        assert found["connections"]["open"] == 1
        assert found.keys() == json.loads(daemon.get("/status")[1]).keys()


def test_status_needs_no_admin_address() -> None:
    with Daemon(ECHO, *QUICK, admin=False, wait=False) as daemon:
        wait_until(lambda: "ready: 1 of 1" in daemon.log, "ready")
        assert status(daemon)["workers_ready"] == 1
        assert daemon.stop() == 0


# Reload.


def test_reload(daemon: Daemon) -> None:
    """`tidegate reload` replaces all workers by those of the next generation."""
    before = daemon.workers()
    code, out, err = asked(daemon, "reload")
    assert (code, out) == (0, "tidegate reload: generation 2 serves with 2 workers\n")
    assert err == "tidegate reload: generation 2 boots\n"
    wait_until(lambda: len(daemon.workers()) == 2, "the new ones alone")
    assert not set(before) & set(daemon.workers())
    assert {slot["workers"][0]["generation"] for slot in status(daemon)["slots"]} == {2}


def test_a_broken_application(daemon: Daemon) -> None:
    before = daemon.workers()
    (daemon.directory / "application.py").write_text("raise RuntimeError('no such table: users')\n")
    code, out, err = asked(daemon, "reload")
    assert (code, out) == (1, "")
    assert "tidegate reload: worker 0 (pid " in err
    assert "RuntimeError: no such table: users" in err
    wait_until(lambda: daemon.workers() == before, "the old ones alone")
    (daemon.directory / "application.py").write_text("async def handler(websocket): ...\n")
    assert asked(daemon, "reload")[0] == 0


def test_an_error_of_megabytes_is_shortened_and_not_lost(daemon: Daemon) -> None:
    (daemon.directory / "application.py").write_text("raise ValueError('first' + 'x' * 5_000_000 + 'last')\n")
    code, _, err = asked(daemon, "reload")
    assert code == 1
    assert len(err) < 100_000
    assert "ValueError: firstxxx" in err
    assert err.endswith("xxxlast\n")
    log = daemon.log[daemon.log.index("reload: failed") :]
    assert ("ValueError: firstxxx" in log, "xxxlast" in log, len(log) < 100_000) == (True, True, True)


def test_two_reloads_at_once(daemon: Daemon) -> None:
    assert asked(daemon, "reload", "--no-wait")[:2] == (0, "")
    commands = [started(daemon, "reload") for _ in range(3)]
    for command in commands:
        out, _ = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0
        assert re.fullmatch(r"tidegate reload: generation \d serves with 2 workers\n", out)
    assert daemon.stop() == 0


@pytest.mark.slow
def test_force_gives_up_what_is_under_way() -> None:
    source = """
        import pathlib, time
        while pathlib.Path("wait").exists():
            time.sleep(0.01)
        async def handler(websocket): ...
    """
    with Daemon(source, *QUICK) as daemon:
        (daemon.directory / "wait").touch()
        with started(daemon, "reload") as first:
            assert first.stderr is not None
            assert first.stderr.readline() == "tidegate reload: generation 2 boots\n"
            assert status(daemon)["workers_ready"] == 1
            assert "reload" in asked(daemon, "status")[1].splitlines()[1]
            (daemon.directory / "wait").unlink()
            code, _, err = asked(daemon, "reload", "--force")
            assert code == 0, err
            first.wait(PATIENCE)
        # It may just have been done.
        assert first.returncode in (0, 1)
        assert daemon.stop() == 0


@pytest.mark.slow
def test_who_does_not_wait_any_longer(daemon: Daemon) -> None:
    (daemon.directory / "application.py").write_text("import time\ntime.sleep(2)\nasync def handler(websocket): ...\n")
    code, _, err = asked(daemon, "reload", "--timeout", "0.7")
    assert code == 6
    assert f"not done within 0.7 s: the daemon at {path(daemon)} goes on with it" in err
    wait_until(lambda: "generation 2 serves" in daemon.log, "the reload")


def test_who_is_interrupted(daemon: Daemon) -> None:
    with started(daemon, "reload") as command:
        assert command.stderr is not None
        assert command.stderr.readline() == "tidegate reload: generation 2 boots\n"
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, err) == (130, "tidegate reload: interrupted: the daemon goes on with it\n")
    wait_until(lambda: "generation 2 serves" in daemon.log, "the reload")


# Scale and drain.


async def test_scale(daemon: Daemon) -> None:
    """`tidegate scale` changes the number of workers, and refuses nobody meanwhile."""
    async with Crowd(daemon.uri, staying=20, rate=50) as crowd:
        assert (await asyncio.to_thread(asked, daemon, "scale", "4"))[:2] == (0, "tidegate scale: 4 workers\n")
        assert len(daemon.workers()) == 4
        assert (await asyncio.to_thread(asked, daemon, "scale", "1"))[:2] == (0, "tidegate scale: 1 worker\n")
        assert len(daemon.workers()) == 1
    assert not crowd.refused
    found = await asyncio.to_thread(status, daemon)
    assert (found["workers_desired"], found["workers_ready"]) == (1, 1)


def test_drain_and_reload(daemon: Daemon) -> None:
    with RawClient(daemon.port) as client:
        client.open()
        command = started(daemon, "drain")
        assert client.close_frame()[0] == 1001
    out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, out, err) == (
        0,
        "tidegate drain: no connection is left; a reload makes the daemon serve again\n",
        "",
    )
    assert daemon.get("/readyz")[0] == 503
    assert asked(daemon, "reload")[0] == 0
    assert daemon.get("/readyz")[0] == 200
    with RawClient(daemon.port) as client:
        client.open()


def test_upgrade(daemon: Daemon) -> None:
    """What it is made of: test_upgrade.py. Here: the answer comes from the new program, on the old connection."""
    before = daemon.workers()
    code, out, err = asked(daemon, "upgrade")
    assert code == 0, err
    assert out.startswith("tidegate upgrade: ")
    found = status(daemon)
    assert found["pid"] == daemon.pid
    assert found["workers_ready"] == 2
    wait_until(lambda: len(daemon.workers()) == 2, "the new ones alone")
    assert not set(before) & set(daemon.workers())


# Stop.


@pytest.mark.parametrize("option", [None, "--now", "--cut"])
def test_stop(daemon: Daemon, option: str | None) -> None:
    """`tidegate stop` closes connections with 1001, or cuts them, and reports the status."""
    with RawClient(daemon.port) as client:
        client.open()
        command = started(daemon, "stop", *([option] if option else []))
        if option == "--cut":
            with contextlib.suppress(EOFError, ConnectionResetError):
                while client.frame():
                    pass
        else:
            assert client.close_frame()[0] == 1001
    out, _ = command.communicate(timeout=PATIENCE)
    assert (command.returncode, out) == (0, "tidegate stop: stopped with status 0\n")
    # Its end is its parent's to see, and that is this process.
    assert psutil.Process(daemon.pid).status() == psutil.STATUS_ZOMBIE
    assert daemon.wait() == 0
    assert not os.path.exists(path(daemon))
    code, _, err = asked(daemon, "stop")
    assert code == 5
    assert f"no daemon listens on {path(daemon)}" in err


@pytest.mark.slow
def test_a_stop_may_become_more_urgent() -> None:
    with Daemon(ECHO, *QUICK, "--graceful-timeout", "60", drain=50) as daemon, RawClient(daemon.port) as client:
        client.open()
        with started(daemon, "stop") as first:
            assert first.stderr is not None
            assert first.stderr.readline() == "tidegate stop: stopping, connections left: 1\n"
            assert status(daemon)["state"] == "draining"
            assert asked(daemon, "reload")[::2] == (1, "tidegate reload: the daemon is stopping\n")
            assert asked(daemon, "stop", "--cut")[0] == 0
            out, _ = first.communicate(timeout=PATIENCE)
        assert (first.returncode, out) == (0, "tidegate stop: stopped with status 0\n")
        assert daemon.wait() == 0


def test_a_daemon_that_is_killed(daemon: Daemon) -> None:
    (daemon.directory / "application.py").write_text("import time\ntime.sleep(60)\n")
    with started(daemon, "reload") as command:
        assert command.stderr is not None
        assert command.stderr.readline() == "tidegate reload: generation 2 boots\n"
        daemon.signal(signal.SIGKILL)
        _, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert "closed the connection without an answer" in err
    assert asked(daemon, "status")[0] == 5  # the file is there yet
    assert os.path.exists(path(daemon))


# Who may ask, and what they may send.


def test_the_file_is_for_its_user_alone(daemon: Daemon) -> None:
    assert stat.S_IMODE(os.stat(path(daemon)).st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(daemon: Daemon) -> None:
    def as_nobody() -> tuple[str, str]:
        done = programs.run(ask_as, "65534", path(daemon), "stop")
        return done.stdout, done.stderr

    daemon.directory.chmod(0o755)
    assert as_nobody() == ("", "may not connect\n")
    os.chmod(path(daemon), 0o666)  # somebody has opened it to all: who they are is known all the same
    out, err = as_nobody()
    assert err == ""
    assert json.loads(out) == {
        "done": False,
        "text": "user 65534 may not ask this daemon: only user 0 and root may",
    }
    assert status(daemon)["state"] == "ready"
    assert "of user 65534 is not allowed to ask" in daemon.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_daemons_own_user_may_ask() -> None:
    """Bound by root, for the user whom the daemon has become."""
    with tempfile.TemporaryDirectory(prefix="tidegate-test-") as folder:
        os.chmod(folder, 0o777)
        place = Path(folder) / "control.sock"
        (place.parent / "application.py").write_text("async def handler(websocket): ...\n")
        options = ("--working-dir", folder, "--control", "control.sock", "--user", "nobody")
        with opened(Daemon(None, *options)) as daemon:
            assert (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode)) == (65534, 0o600)
            for uid in ("65534", "0"):
                done = programs.run(ask_as, uid, str(place), "status")
                assert json.loads(done.stdout)["status"]["pid"] == daemon.pid
            assert daemon.stop() == 0
        assert not place.exists()


def test_garbage_and_silence(daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(20):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(path(daemon))
            silent.send(b'{"command":'[:number])
        for data in (
            b"\n",
            b"\0" * 100_000,
            os.urandom(3000) + b"\n",
            b"[" * 4000 + b"\n",
            b"GET /status HTTP/1.1\r\n",
        ):
            (answer,) = said(daemon, data)
            assert answer["done"] is False
        (answer,) = said(daemon, b'{"command":"stop"}\n' * 10_000)
        assert answer["text"].startswith("one request for each connection")
        for _ in range(300):
            with socket.socket(socket.AF_UNIX) as hasty:
                hasty.connect(path(daemon))
                hasty.send(b'{"command":"status"}\n')
        assert status(daemon)["state"] == "ready"
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


def test_nothing_stays_open() -> None:
    """Neither in the supervisor, after many have asked, nor in workers that were forked while somebody did."""
    with Daemon(ECHO, *QUICK, workers=1) as daemon, socket.socket(socket.AF_UNIX) as idle:
        said(daemon, b'{"command":"status"}\n')
        supervisor = psutil.Process(daemon.pid)
        before = supervisor.num_fds()
        for _ in range(100):
            said(daemon, b'{"command":"status"}\n')
        assert supervisor.num_fds() == before
        idle.connect(path(daemon))
        assert asked(daemon, "reload")[0] == 0
        wait_until(lambda: len(daemon.workers()) == 1, "the new one alone")
        assert not [name for name in unix_sockets(daemon.workers()[0]) if "control.sock" in name]
        assert [name for name in unix_sockets(daemon.pid) if "control.sock" in name]
        assert daemon.stop() == 0


def unix_sockets(pid: int) -> list[str]:
    """The paths of a process's Unix sockets."""
    names = {}
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        names[fields[6]] = fields[7] if len(fields) > 7 else ""
    inodes = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes += re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{number}"))
    return [names[inode] for inode in inodes if names.get(inode)]


# The socket's place.


def test_in_the_runtime_directory(tmp_path: Path) -> None:
    with Daemon(ECHO, env={"RUNTIME_DIRECTORY": str(tmp_path)}) as daemon:
        done = subprocess.run(
            [sys.executable, "-m", "tidegate", "status", "--json"],
            env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        assert json.loads(done.stdout)["pid"] == daemon.pid
        assert daemon.stop() == 0
    assert not list(tmp_path.iterdir())


def test_none(tmp_path: Path) -> None:
    """`--control none` makes no socket."""
    with Daemon(ECHO, "--control", "none", env={"RUNTIME_DIRECTORY": str(tmp_path)}) as daemon:
        # The folder of the application's metrics is there, and no socket.
        assert [path for path in tmp_path.iterdir() if not path.name.startswith("tidegate-metrics-")] == []
        assert daemon.stop() == 0
    assert not list(tmp_path.iterdir())


def test_two_daemons_cannot_have_the_same(daemon: Daemon) -> None:
    with Daemon(ECHO, "--control", path(daemon), wait=False) as other:
        assert other.wait() == 4
        assert f"unix:{path(daemon)} could not be bound: another tidegate (pid {daemon.pid}) has it" in other.log
    assert status(daemon)["pid"] == daemon.pid


@pytest.mark.slow
def test_a_killed_daemons_is_taken_over(tmp_path: Path) -> None:
    options = ("--control", str(tmp_path / "control.sock"))
    with Daemon(ECHO, *options) as killed:
        killed.signal(signal.SIGKILL)
        assert killed.process is not None
        killed.process.wait()
        assert (tmp_path / "control.sock").exists()
    with Daemon(ECHO, *options) as daemon:
        assert daemon.stop() == 0
    assert not (tmp_path / "control.sock").exists()
