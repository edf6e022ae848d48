"""What the system tells: of processes that are there, of those that are gone, of what is none of ours."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import psutil
import pytest

from tests.process.test_proc import NOBODY, child
from tidegate._core.scoreboard import Scoreboard
from tidegate.metrics import procfs
from tidegate.metrics.procfs import Observer
from tidegate.process.proc import read

__all__ = ["child"]


def test_a_slot_has_the_time_of_all_its_workers(child: subprocess.Popen[str]) -> None:
    board = Scoreboard.create()
    board.retire(board.assign(0), "reload", 100.0)
    board.spawn(board.assign(0), child.pid)
    reading = Observer(board).read()
    usage = reading.usage["0"]
    assert 100.2 <= usage.cpu_seconds < 110
    assert usage.resident_memory_bytes == pytest.approx(psutil.Process(child.pid).memory_info().rss, rel=0.2)
    assert usage.open_fds == psutil.Process(child.pid).num_fds()
    assert reading.snapshot.slots[0].spawns == 1


def test_a_slot_in_a_handover(child: subprocess.Popen[str]) -> None:
    """Memory adds up; of descriptors it matters how near the limit one process is."""
    board = Scoreboard.create()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        # What it needs it has when it answers.
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"\n"
        for pid in (child.pid, other.pid):
            board.spawn(board.assign(0), pid)
        usage = Observer(board).read().usage["0"]
        processes = [psutil.Process(pid) for pid in (child.pid, other.pid)]
        assert usage.resident_memory_bytes == pytest.approx(sum(each.memory_info().rss for each in processes), rel=0.2)
        assert usage.open_fds == max(process.num_fds() for process in processes)
        assert usage.max_fds == min(process.rlimit(resource.RLIMIT_NOFILE)[0] for process in processes)


def test_a_slot_without_a_worker() -> None:
    board = Scoreboard.create()
    board.retire(board.assign(0), "crash", 3.0)
    board.assign(1)  # who is about to be forked
    usage = Observer(board).read().usage
    assert (usage["0"], usage["1"]) == (procfs.Usage(3.0), procfs.Usage(0.0))


def test_one_who_ends_meanwhile_is_waited_for(child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its end and its entry the slot would seem to have taken less than before."""
    board = Scoreboard.create()
    row = board.assign(0)
    board.spawn(row, child.pid)
    observer = Observer(board)
    before = observer.read().usage["0"].cpu_seconds
    child.kill()
    child.wait()
    monkeypatch.setattr(time, "sleep", lambda seconds: board.retire(row, "signal", 7.0))
    assert observer.read().usage["0"].cpu_seconds == 7.0 > before


def test_time_does_not_go_backwards_when_the_entry_never_comes(child: subprocess.Popen[str]) -> None:
    board = Scoreboard.create()
    row = board.assign(0)
    board.spawn(row, child.pid)
    observer = Observer(board)
    before = observer.read().usage["0"]
    child.kill()
    child.wait()
    assert observer.read().usage["0"] == procfs.Usage(before.cpu_seconds)


def test_the_supervisor_and_the_admin_process() -> None:
    board = Scoreboard.create()
    board.retire_admin(1000.0)
    assert set(Observer(board).read().usage) == {"supervisor"}  # which is this process
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        usage = Observer(board).read().usage
        os.write(writer, f"{sorted(usage)} {usage['admin'].cpu_seconds >= 1000}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"['admin', 'supervisor'] True"
    os.close(reader)
    os.close(writer)


def test_an_admin_process_goes_on_from_those_before_it(child: subprocess.Popen[str]) -> None:
    """While one of them is there, when it has ended, and when it has been entered: each of them once."""
    board = Scoreboard.create()
    board.retire_admin(1000.0)
    reader, writer = os.pipe()
    begin, begun = os.pipe()
    found = read(child.pid)
    assert found is not None
    if (pid := os.fork()) == 0:
        # The child is its sibling, and this test their parent.
        observer = Observer(board, [child.pid, NOBODY])
        told = [observer.read().usage["admin"].cpu_seconds]
        os.write(writer, b"x")
        os.read(begin, 1)
        told += [observer.read().usage["admin"].cpu_seconds for _ in range(2)]
        os.write(writer, " ".join(map(str, told)).encode())
        os._exit(0)
    assert os.read(reader, 1) == b"x"
    child.kill()
    child.wait()
    board.retire_admin(found.cpu_seconds + 0.25)
    os.write(begun, b"x")
    os.waitpid(pid, 0)
    first, second, third = map(float, os.read(reader, 1000).split())
    # The process before it has taken its time since the first reading of it, and the one that tells has its own.
    assert 1000 + found.cpu_seconds <= first < 1000 + found.cpu_seconds + 20
    assert first < second <= third < first + 20
    for descriptor in (reader, writer, begin, begun):
        os.close(descriptor)


def test_an_admin_process_before_that_ends_meanwhile_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard.create()
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        observer = Observer(board, [NOBODY])
        monkeypatch.setattr(time, "sleep", lambda seconds: board.retire_admin(100.0))
        told = [observer.read().usage["admin"].cpu_seconds for _ in range(2)]
        os.write(writer, " ".join(map(str, told)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    first, second = map(float, os.read(reader, 1000).split())
    assert 100 <= first <= second < 120, "waited for once, and counted once"
    os.close(reader)
    os.close(writer)


def test_children_that_the_supervisor_has_waited_for_are_not_its_own() -> None:
    board = Scoreboard.create()
    subprocess.run([sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.1: pass"], check=True)
    found = read(os.getpid())
    assert found is not None
    assert found.children_cpu_seconds >= 0.1
    usage = Observer(board).read().usage["supervisor"]
    assert usage.cpu_seconds < found.cpu_seconds + 0.1


def test_a_system_without_processes_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard.create()
    board.spawn(board.assign(0), NOBODY)
    monkeypatch.setattr(procfs, "read", lambda *_: None)
    reading = Observer(board).read()
    assert (reading.usage, reading.tcp) == ({}, {})
    assert len(reading.snapshot.slots) == 1


def test_the_kernels_counters() -> None:
    tcp = Observer(Scoreboard.create()).read().tcp
    assert {"ListenOverflows", "ListenDrops"} <= set(tcp)
    ((labels, dropped),) = procfs.tcp_counter("ListenDrops")(Observer(Scoreboard.create()).read())
    assert (labels, dropped >= 0) == ((), True)
    assert not list(procfs.tcp_counter("Unheard")(Observer(Scoreboard.create()).read()))


def test_no_name_that_usage_has_not() -> None:
    with pytest.raises(AssertionError):
        procfs.sampled("cpu")


def test_a_daemon_is_read_while_its_workers_come_and_go() -> None:
    """Twenty short lives: the slot's time never shrinks."""
    board = Scoreboard.create()
    observer = Observer(board)
    last = 0.0
    for _ in range(20):
        row = board.assign(0)
        process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        board.spawn(row, process.pid)
        for step in range(2):
            now = observer.read().usage["0"].cpu_seconds
            assert now >= last
            last = now
            if not step:
                process.stdin.close()  # type: ignore[union-attr]
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = 0
                board.retire(row, "reload", usage.ru_utime + usage.ru_stime)
