"""How lines get to the output: that nobody waits, that what is lost is counted and told, that the end waits a little.

What must not live here: what lines look like (test_formatters.py), the daemon (tests/process/test_logs.py).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import wait_until
from tidegate.logs.formatters import Text
from tidegate.logs.stream import Output
from tidegate.logs.writers import Handler, Patient, Threaded

LINE = b"x" * 99 + b"\n"


class Pipe:
    """An output whose other end is read when a test wants it to be."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.output = Output(str(path))
        self.read = b""

    def drain(self) -> bytes:
        """What has come since the last time, and before."""
        try:
            while data := os.read(self._reader, 65536):
                self.read += data
        except BlockingIOError:
            pass
        return self.read

    def fill(self) -> None:
        """Leave no room."""
        while self.output.write(b"-" * 4095 + b"\n"):
            pass

    def close(self) -> None:
        os.close(self._reader)
        self.output.close()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path / "pipe")
    yield made
    made.close()


def notice(lost: int) -> bytes:
    return b"%d were lost\n" % lost


# Without threads.


def test_patient_writes_at_once(pipe: Pipe) -> None:
    patient = Patient(pipe.output, notice)
    patient.put(b"one\n")
    patient.put(b"two\n")
    assert pipe.drain() == b"one\ntwo\n"


def test_patient_keeps_what_cannot_be_written_and_loses_what_it_cannot_keep(pipe: Pipe) -> None:
    patient = Patient(pipe.output, notice)
    pipe.fill()
    for number in range(4000):
        patient.put(b"%04d" % number + LINE[4:])
    kept = Patient.LIMIT // len(LINE)
    assert patient.lost == 4000 - kept - 1  # that which is being written
    assert not patient.push()
    while not patient.push():
        pipe.drain()
    *lines, last = pipe.drain().replace(b"-", b"").strip().split(b"\n")
    assert [int(line[:4]) for line in lines if line] == list(range(4000 - patient.lost))
    assert last == b"%d were lost" % patient.lost
    patient.put(b"and on\n")
    assert pipe.drain().endswith(b"lost\nand on\n")


def test_patient_writes_whole_lines_where_others_write_too(pipe: Pipe) -> None:
    patient = Patient(pipe.output, notice)
    pipe.fill()
    for _ in range(1000):
        patient.put(LINE)
    written: list[int] = []
    write = pipe.output.write
    pipe.output.write = lambda data: written.append(write(data)) or written[-1]  # type: ignore[method-assign,func-returns-value]
    while not patient.push():
        pipe.drain()
    assert all(size % len(LINE) == 0 and size <= 4096 for size in written)


def test_patient_waits_for_room_at_the_end_but_not_for_long(pipe: Pipe) -> None:
    patient = Patient(pipe.output, notice)
    pipe.fill()
    patient.put(b"last words\n")
    patient.flush(0.05)
    assert b"last words" not in pipe.drain()
    patient.flush(10.0)
    assert pipe.drain().endswith(b"last words\n")


def test_a_full_disk_is_no_failure() -> None:
    output = Output("/dev/full")
    patient = Patient(output, notice)
    for _ in range(4000):
        patient.put(LINE)
    assert patient.lost
    patient.flush(0.02)
    output.close()


# With a thread.


def test_a_thread_writes(pipe: Pipe) -> None:
    threaded = Threaded(pipe.output, notice)
    before = threading.active_count()
    threaded.flush(1.0)
    assert threading.active_count() == before  # it has nothing to do
    for number in range(1000):
        threaded.put(b"%d\n" % number)
    wait_until(lambda: threaded.waiting == 0 or not pipe.drain(), "all is written")
    threaded.flush(10.0)
    assert pipe.drain().split() == [b"%d" % number for number in range(1000)]
    assert threaded.lost == 0


def test_whoever_logs_does_not_wait_and_is_told_what_was_lost(pipe: Pipe) -> None:
    counted: list[int] = []
    threaded = Threaded(pipe.output, notice, counted.append)
    pipe.fill()
    for _ in range(Threaded.LIMIT // len(LINE) + 1000):
        threaded.put(LINE)
    assert threaded.lost == sum(counted) >= 1000
    threaded.flush(0.05)  # in vain
    assert b"lost" not in pipe.drain()
    wait_until(lambda: b"%d were lost\n" % threaded.lost in pipe.drain(), "the line that says so")
    wait_until(lambda: not pipe.drain() or not threaded.waiting, "the rest")
    assert pipe.drain().count(LINE) == Threaded.LIMIT // len(LINE) + 1000 - threaded.lost
    threaded.put(b"and on\n")
    threaded.flush(10.0)
    assert pipe.drain().endswith(b"and on\n")


def test_a_long_line_is_written_whole(pipe: Pipe) -> None:
    threaded = Threaded(pipe.output, notice)
    long = b"y" * 300_000 + b"\n"
    for line in (b"before\n", long, b"after\n"):
        threaded.put(line)
    wait_until(lambda: pipe.drain().endswith(b"after\n"), "the line after it")
    assert pipe.read == b"before\n" + long + b"after\n"


def test_a_thread_survives_a_full_disk(tmp_path: Path) -> None:
    class Disk:
        most = 65536
        full = True
        written = b""

        def write(self, data: memoryview) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            self.written += data
            return len(data)

    disk = Disk()
    threaded = Threaded(disk, notice)  # type: ignore[arg-type]
    threaded.put(b"one\n")
    threaded.put(b"two\n")
    threaded.flush(0.05)
    disk.full = False
    threaded.flush(10.0)
    assert disk.written == b"one\ntwo\n"


def test_without_a_thread_to_be_had_lines_are_written_as_far_as_that_goes(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threaded = Threaded(pipe.output, notice)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        threaded.put(b"one\n")
        threaded.put(b"two\n")
        assert pipe.drain() == b"one\ntwo\n"
        pipe.fill()
        threaded.put(b"three\n")
        assert threaded.lost == 1
        assert threaded.waiting == 0
    pipe.drain()
    threaded.put(b"four\n")
    threaded.flush(10.0)
    assert b"four\n" in pipe.drain()


# The handler.


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_child_writes_by_itself_and_not_what_its_parent_has_not_written(pipe: Pipe) -> None:
    counted: list[int] = []
    handler = Handler(pipe.output, Text())
    handler.thread(counted.append)
    pipe.fill()
    record = logging.LogRecord("somebody", logging.INFO, "", 0, "of the parent", None, None)
    for _ in range(100):
        handler.emit(record)
    pid = os.fork()
    if pid == 0:
        handler.forked()
        assert isinstance(handler.delivery, Patient)  # what is put is written at once: it may end without a word
        record.msg = "of the child"
        handler.emit(record)
        handler.delivery.lose()
        handler.delivery.flush(10.0)
        os._exit(0 if counted == [] else 1)
    wait_until(lambda: b"of the child" in pipe.drain(), "the child's line")
    assert os.waitpid(pid, 0)[1] == 0
    handler.delivery.flush(10.0)
    assert pipe.drain().count(b"of the parent") == 100
    assert pipe.read.count(b"of the child") == 1


def test_what_cannot_be_made_a_line_is_counted(pipe: Pipe) -> None:
    class Broken(Text):
        def line(self, record: logging.LogRecord) -> bytes:
            raise MemoryError

    handler = Handler(pipe.output, Broken())
    handler.emit(logging.LogRecord("somebody", logging.INFO, "", 0, "hello", None, None))
    assert handler.delivery.lost == 1


def test_the_notice_is_a_line_like_others(pipe: Pipe) -> None:
    line = Handler(pipe.output, Text()).notice(12)
    assert b" WARNING 12 lines of the log were lost before this one" in line
