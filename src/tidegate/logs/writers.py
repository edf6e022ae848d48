"""From loggers to the output, without a wait in workers or the supervisor.

    Handler     of the standard library's logging: makes lines, and hands them to one of the two below
    Patient     for a process without threads: writes what goes at once, keeps the rest until `push()`
    Threaded    for a process with an event loop: a thread of its own writes and waits

Both keep a bounded number of bytes. A line for which there is no room is lost and counted; when there is room again, a
line says how many were lost. The same happens when the disk is full.

What must not live here: what a line looks like (formatters.py), what is written to (stream.py).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from .formatters import Json, Text
from .stream import Output

__all__ = ["WRITTEN", "Handler", "Patient", "Threaded"]

FLUSH: Final = 1.0  # seconds that the log may delay the end of a process
# Seconds between writes: waking the thread for each line would cost the logging thread more than the line itself.
GATHER: Final = 0.01
RETRY: Final = 0.25  # seconds until a write is tried again that failed, on a full disk say
WRITTEN: Final = "_tidegate_written"  # an attribute of records that are in the log
LOST: Final = "%d lines of the log were lost before this one: they came faster than they could be written"

Count = Callable[[int], object]


class Handler(logging.Handler):
    """The one handler of the daemon's processes.

    Parameters:
        output: what to write to.
        lines: what lines look like.
    """

    def __init__(self, output: Output, lines: Text | Json) -> None:
        super().__init__()
        self.output, self.lines = output, lines
        self.delivery: Patient | Threaded = Patient(output, self.notice)
        self._patience = FLUSH

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of an application's; the daemon's own records are written already."""
        if not vars(record).get(WRITTEN):
            self.write(record)

    def write(self, record: logging.LogRecord) -> None:
        """Make the line and hand it over, without raising and without waiting."""
        try:
            line = self.lines.line(record)
        except Exception:  # no memory, recursion: a line about it would fail as well
            self.delivery.lose()
        else:
            self.delivery.put(line)

    def notice(self, lost: int) -> bytes:
        """Return the line that says how many were lost."""
        return self.lines.line(logging.LogRecord("tidegate.log", logging.WARNING, "", 0, LOST, (lost,), None))

    def flush(self) -> None:
        """Wait a moment until lines are written, at the end of the process; after a failure, do not wait again."""
        self._patience = FLUSH if self.delivery.flush(self._patience) else 0.0

    def thread(self, count: Count | None) -> None:
        """Let a thread write from now on; `count` is called with the number of lost lines."""
        self.delivery = Threaded(self.output, self.notice, count)

    def forked(self) -> None:
        """Begin anew in a child: unwritten lines, threads and counts are its parent's.

        No thread writes: a child that an application has forked may end without the usual cleanup.
        """
        self.delivery = Patient(self.output, self.notice)
        self._patience = FLUSH


class _Delivery:
    """The counting of lost lines."""

    LIMIT: int

    def __init__(self, output: Output, notice: Callable[[int], bytes], count: Count | None = None) -> None:
        self.output, self._notice, self._count = output, notice, count
        self.lost = 0
        self._lost_noticed = 0  # of those lost, how many a line has told of

    def lose(self, lines: int = 1) -> None:
        """Count lines that are lost."""
        self.lost += lines
        if self._count is not None:
            self._count(lines)

    def _loss_notice(self) -> bytes:
        """Return a line about the lines lost since the last call; empty if none were."""
        news, self._lost_noticed = self.lost - self._lost_noticed, self.lost
        return self._notice(news) if news else b""


class Patient(_Delivery):
    """A bounded buffer that is written at each call, as far as that goes without waiting."""

    LIMIT = 2**18  # bytes: the supervisor's lines of a day

    def __init__(self, output: Output, notice: Callable[[int], bytes], count: Count | None = None) -> None:
        super().__init__(output, notice, count)
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._chunk = memoryview(b"")  # what is being written

    def put(self, line: bytes) -> None:
        """Write a line, or keep it, or lose it."""
        if self._size + len(line) > self.LIMIT:
            self.push()
        if self._size + len(line) > self.LIMIT:
            self.lose()
            return
        self._lines.append(line)
        self._size += len(line)
        self.push()

    def push(self) -> bool:
        """Write what goes without waiting; return whether that was all."""
        while self._chunk or self._next():
            try:
                written = self.output.write(self._chunk)
            except OSError:
                return False
            if not written:
                return False
            self._chunk = self._chunk[written:]
        return True

    def _next(self) -> bool:
        """Take the lines that go into one write; return whether there are any."""
        chunk = bytearray()
        while self._lines and (not chunk or len(chunk) + len(self._lines[0]) <= self.output.most):
            chunk += self._lines.popleft()
        self._size -= len(chunk)
        self._chunk = memoryview(chunk or self._loss_notice())
        return bool(self._chunk)

    def flush(self, seconds: float) -> bool:
        """Write all of it, or as much as goes in so many seconds; return whether that was all."""
        deadline = time.monotonic() + seconds
        while not (done := self.push()) and (left := deadline - time.monotonic()) > 0:
            self.output.wait(left)
            time.sleep(min(left, 0.01))  # a full disk can always be written to
        return done


class Threaded(_Delivery):
    """A bounded queue and the thread that empties it, which begins with the first line, and so after any fork."""

    LIMIT = 2**22  # bytes: a second of access log at the highest rate of handshakes

    def __init__(self, output: Output, notice: Callable[[int], bytes], count: Count | None = None) -> None:
        super().__init__(output, notice, count)
        # The one kind of queue to which a finaliser may put in the middle of another put.
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        # One number for each side, which needs no lock; what waits is the difference.
        self._put = self._written = 0
        self._held = b""  # a line that was taken and goes into the next write
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Bytes that wait to be written."""
        return self._put - self._written

    def put(self, line: bytes) -> None:
        """Leave a line to the thread, or lose it."""
        if self.waiting + len(line) > self.LIMIT:
            self.lose()
            return
        self._put += len(line)
        self._queue.put(line)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="tidegate: log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # too many threads, or the interpreter ends: what goes without waiting still goes
            self._thread = None
            while chunk := self._gather(wait=False)[0]:
                self._written += len(chunk)
                try:
                    rest = chunk[self.output.write(chunk) :]
                except OSError:
                    rest = chunk
                if rest:
                    self.lose(rest.count(b"\n"))

    def _run(self) -> None:
        """Write lines as they come; the thread is a daemon thread, and ends with the process."""
        while True:
            chunk, marks = self._gather(wait=True)
            self._write(chunk)
            self._written += len(chunk)
            if self.lost != self._lost_noticed and self.waiting < self.LIMIT // 2:
                self._write(self._loss_notice())
            for mark in marks:
                mark.set()
            if not self._held and not marks:
                time.sleep(GATHER)

    def _gather(self, *, wait: bool) -> tuple[bytes, list[threading.Event]]:
        """Return the lines that go into one write, and the events to set when that is done."""
        chunk, marks = bytearray(self._held), list[threading.Event]()
        self._held = b""
        try:
            while len(chunk) < self.output.most:
                item = self._queue.get(block=wait and not chunk and not marks)
                if not isinstance(item, bytes):
                    marks.append(item)
                elif chunk and len(chunk) + len(item) > self.output.most:
                    self._held = item
                    break
                else:
                    chunk += item
        except queue.Empty:
            pass
        return bytes(chunk), marks

    def _write(self, data: bytes) -> None:
        """Write all of it, however long that takes."""
        rest = memoryview(data)
        while rest:
            try:
                written = self.output.write(rest)
            except OSError:
                time.sleep(RETRY)
                continue
            if not written:
                self.output.wait(60.0)
            rest = rest[written:]

    def flush(self, seconds: float) -> bool:
        """Wait until all that was put so far is written, or for so many seconds; return whether that was all."""

        if self._thread is None:
            return True
        mark = threading.Event()
        self._queue.put(mark)
        return mark.wait(seconds)
