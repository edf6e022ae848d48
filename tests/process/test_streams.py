"""Standard streams that whoever starts a process has closed, and what is printed before forks.

What must not live here: where the log goes (tests/logs).
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import connect

from tests.process import cases_streams as cases
from tests.support import programs
from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_whatever_is_closed_is_filled(closed: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *programs.program(cases.fill)]
    subprocess.run(
        command,
        env=programs.environment(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    assert (tmp_path / "done").exists()


def test_whatever_is_open_stays(tmp_path: Path) -> None:
    done = programs.run(cases.fill, cwd=tmp_path, input="")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a word"


class Closed(Daemon):
    """One that is started with standard streams closed."""

    def __init__(self, closed: str, *options: str) -> None:
        super().__init__(ECHO, *options)
        self.command = ["sh", "-c", f'exec "$@" {closed}', "sh", *self.command]


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_daemon_serves_reloads_and_ends_well(closed: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Closed(closed, "--log-file", str(log), "--settle", "0.1") as daemon:
        with connect(daemon.uri) as websocket:
            websocket.send("served")
            assert websocket.recv() == "served"
        [before] = daemon.workers()
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: before not in daemon.workers() and daemon.workers(), "another worker serves")
        assert daemon.stop() == 0
    text = log.read_text()
    assert "SIGABRT" not in text
    assert "exited with status 0" in text


def test_in_the_background_of_a_terminal_a_daemon_writes_its_log_and_serves(tmp_path: Path) -> None:
    """Although `stty tostop` asks for the others to be stopped who write there."""
    pidfile = tmp_path / "pid"
    daemon = Daemon(ECHO, "--pidfile", str(pidfile), workers=2, wait=False, env=programs.environment())
    daemon.command = programs.program(cases.in_background, *daemon.command)
    with daemon:
        daemon.wait_ready()
        supervisor = psutil.Process(int(pidfile.read_text()))
        assert daemon.process is not None
        try:
            wait_until(lambda: "ready: 2 of 2 workers" in daemon.log, "its log is on the terminal")
            with connect(daemon.uri) as websocket:
                websocket.send("served")
                assert websocket.recv() == "served"
            assert supervisor.status() != psutil.STATUS_STOPPED
            assert sum(supervisor.cpu_times()[:2]) < 5
            supervisor.terminate()
            assert daemon.process.wait(PATIENCE) == 0
        finally:
            for each in [*supervisor.children(), supervisor] if supervisor.is_running() else []:
                each.kill()
        assert "SIGTTOU" not in daemon.log  # which would end one of the workers
        assert "stopped with status 0" in daemon.log


def test_without_standard_error_the_log_goes_nowhere_and_costs_nothing() -> None:
    with Closed("2>&-") as daemon:
        supervisor = psutil.Process(daemon.pid)
        before = sum(supervisor.cpu_times()[:2])
        wait_until(lambda: daemon.get("/livez")[0] == 200, "it turns")
        signalled = [daemon.signal(signal.SIGUSR1) for _ in range(10)]
        wait_until(lambda: daemon.get("/livez")[0] == 200, "it turns still")
        assert len(signalled) == 10
        assert sum(supervisor.cpu_times()[:2]) - before < 2
        assert "tidegate_supervisor_log_messages_dropped_total 0.0" in daemon.get("/metrics")[1]
        assert daemon.stop() == 0


def test_what_a_preloaded_application_printed_comes_out_once() -> None:
    source = """
        print("imported")  # into a buffer, since standard output is a file

        async def handler(websocket):
            async for message in websocket:
                await websocket.send(message)
    """
    with Daemon(source, "--preload", workers=3, env={"PYTHONUNBUFFERED": ""}) as daemon:
        wait_until(lambda: "imported" in daemon.log, "it is written before the forks, not at the end")
        assert daemon.stop() == 0
        assert daemon.log.count("imported") == 1


def test_what_is_printed_before_a_fork_of_an_application_comes_out_once() -> None:
    source = """
        import os, sys

        async def handler(websocket):
            print("before the fork")
            if not (pid := os.fork()):
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(pid, 0)
    """
    with Daemon(source, env={"PYTHONUNBUFFERED": ""}) as daemon:
        with connect(daemon.uri) as websocket:
            list(websocket)
        assert daemon.stop() == 0
        assert daemon.log.count("before the fork") == 1
