"""What /proc tells of a process: one that is there, one that is gone, one that is none of ours.

What must not live here: the processes of a daemon (tests/metrics/test_procfs.py).
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tidegate.process.proc import open_fds, read, resident_memory, state

NOBODY = 2**22 + 1  # no system has so many processes

BUSY = """
import sys, time
while time.process_time() < {seconds}:
    pass
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process of ours that has taken a quarter of a second."""
    command = [sys.executable, "-S", "-c", BUSY.format(seconds=0.25)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_process(child: subprocess.Popen[str]) -> None:
    found = read(child.pid, os.getpid())
    known = psutil.Process(child.pid)
    assert found is not None
    assert 0.2 <= found.cpu_seconds == pytest.approx(sum(known.cpu_times()[:2]), abs=0.05)
    assert found.children_cpu_seconds == 0
    assert found.resident_memory_bytes == pytest.approx(known.memory_info().rss, rel=0.2)
    assert found.open_fds == known.num_fds()
    assert found.max_fds == known.rlimit(resource.RLIMIT_NOFILE)[0]


def test_this_process() -> None:
    found = read(os.getpid())
    assert found is not None
    assert found.open_fds == len(os.listdir("/proc/self/fd")) - 1


def test_older_systems_are_asked_for_every_name(child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def without_size(path: str, **options: bool) -> os.stat_result:
        return os.stat_result([*stat(path, **options)[:6], 0, *stat(path, **options)[7:10]])

    for pid in (child.pid, os.getpid()):
        expected = psutil.Process(pid).num_fds() - (pid == os.getpid())  # which has one more while it looks
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", without_size)
            found = read(pid)
        assert found is not None
        assert found.open_fds == expected


def test_what_the_system_does_not_tell(child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)
        found = read(child.pid)
    assert found is not None
    assert found.open_fds is None
    assert found.resident_memory_bytes > 0


def test_no_limit() -> None:
    program = "import os; from tidegate.process.proc import read; print(read(os.getpid()).max_fds)"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(["/bin/sh", "-c", f'ulimit -n {hard if hard >= 0 else "unlimited"}; exec "$@"', "sh",
                           sys.executable, "-c", program], capture_output=True, text=True, check=True)  # fmt: skip
    assert float(done.stdout) == (hard if hard >= 0 else math.inf)


def test_who_is_not_there_and_who_is_not_ours(child: subprocess.Popen[str]) -> None:
    assert read(NOBODY) is None
    assert read(child.pid, parent=1) is None
    child.kill()
    child.wait()
    assert read(child.pid, os.getpid()) is None


def test_a_name_with_anything_in_it(child: subprocess.Popen[str]) -> None:
    program = (
        "import ctypes, os; ctypes.CDLL(None).prctl(15, b') S 1 (', 0, 0, 0)\n"
        "from tidegate.process.proc import read; print(read(os.getpid(), os.getppid()).open_fds)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 3


def test_state(child: subprocess.Popen[str]) -> None:
    """A letter, such as that of a process that is stopped, and nothing for a process that is not there."""
    assert state(os.getpid()) == "R"
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert state(child.pid) == "T"
    assert (state(NOBODY), resident_memory(NOBODY), open_fds(NOBODY)) == ("", None, None)
