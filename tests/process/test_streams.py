"""Standard streams that whoever starts a process has closed, and what is printed before forks.

What must not live here: where the log goes (tests/logs).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import connect

from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE

PROGRAM = """
import os, sys
from tidegate.process import streams
streams.fill()
for number in range(3):
    assert os.get_inheritable(number)
opened = os.open("/dev/null", os.O_RDONLY)
assert opened > 2, opened
sys.stdout.write("a word")
sys.stderr.write("")
assert sys.stdin.read() == ""
streams.flush()
open("done", "w").close()
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_whatever_is_closed_is_filled(closed: str, tmp_path: Path) -> None:
    command = f'exec "$0" -c "$1" {closed}'
    subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    assert (tmp_path / "done").exists()


def test_whatever_is_open_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
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


IN_BACKGROUND = """
import os, pty, sys, termios
child, terminal = pty.fork()
if child == 0:
    settings = termios.tcgetattr(1)
    settings[3] |= termios.TOSTOP
    termios.tcsetattr(1, termios.TCSANOW, settings)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.execv(sys.argv[1], sys.argv[1:])
    os._exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
while True:
    try:
        os.write(1, os.read(terminal, 65536))
    except OSError:
        break
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_in_the_background_of_a_terminal_a_daemon_writes_its_log_and_serves(tmp_path: Path) -> None:
    """Although `stty tostop` asks for the others to be stopped who write there."""
    pidfile = tmp_path / "pid"
    daemon = Daemon(ECHO, "--pidfile", str(pidfile), workers=2, wait=False)
    daemon.command = [sys.executable, "-c", IN_BACKGROUND, *daemon.command]
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
        assert "one worker" not in daemon.log
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
