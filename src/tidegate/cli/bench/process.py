"""A process that makes load: `python -m tidegate.cli.bench.process`, told on standard input what to do.

    in    a Plan; then {"begins": ...}, nanoseconds of the monotonic clock; the end of the input ends it early
    out   reports, each an object on a line: `ready` when the connections are open, several a second while it measures,
          and `final` at the end

What must not live here: adding up processes (processes.py), what a connection does (_core/load.pyx).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import uvloop

from ..._core.histogram import Histogram
from ..._core.load import Load, LoadConnection
from .opening import Opener, kind_of
from .plan import Plan
from .results import Report

__all__ = ["main"]

OPENING = 64  # handshakes at the same time
REPORTS = 0.25  # seconds from one to the next
KINDS = 20  # of errors that are told apart
OTHERS = "other errors"
SECOND = 1_000_000_000


class Process:
    """The load of one plan.

    Parameters:
        plan: what to do.
        out: where reports go.
    """

    def __init__(self, plan: Plan, out: Any) -> None:
        self._plan, self._out = plan, out
        self._load = Load(plan.in_flight, plan.rate, plan.mode == "fan", self._lost)
        self._opener = Opener(plan, self._load)
        self._open: set[LoadConnection] = set()
        self._errors: Counter[str] = Counter()
        self._opened = 0
        self._stop = asyncio.Event()
        self._unanswered = 0
        self._openings = Histogram()
        self._begins = self._ends = 0
        self._processor = 0.0

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Do it all."""
        try:
            await self._opener.resolve()
        except OSError as exc:
            self._count(kind_of(exc), self._plan.sockets)
            self._report("final")
            return
        if self._plan.mode != "handshakes":
            await self._until_stopped(self._open_all(), orders)
        self._report("ready")
        line = b"" if self._stop.is_set() else await orders.readline()
        if line:
            self._begins = msgspec.json.decode(line)["begins"]
            await self._until_stopped(self._measured(), orders)
        self._load.stop()
        if self._begins:
            self._unanswered = self._load.give_up(min(time.monotonic_ns(), self._last_moment()))
        self._report("final")
        await self._close_all()

    async def _until_stopped(self, doing: Any, orders: asyncio.StreamReader) -> None:
        """Run a step until it is done, or the orders end."""
        task = asyncio.ensure_future(doing)
        watch = asyncio.ensure_future(self._watch(orders))
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        for each in (task, watch):
            each.cancel()
        for result in await asyncio.gather(task, watch, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _watch(self, orders: asyncio.StreamReader) -> None:
        while not orders.at_eof():
            await asyncio.sleep(0.05)
        self._stop.set()

    # Opening.

    async def _open_all(self) -> None:
        """Open all connections: some at the same time, spread over the time that was given."""
        count = self._plan.sockets
        begin = time.monotonic()
        numbers = iter(range(count))

        async def one_after_another() -> None:
            for number in numbers:
                left = begin + self._plan.ramp_up * number / count - time.monotonic()
                if left > 0:
                    await asyncio.sleep(left)
                connection = await self._open_one()
                if connection is not None:
                    self._open.add(connection)

        with self._reporting("opening"):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(OPENING, count)):
                    group.create_task(one_after_another())

    async def _open_one(self) -> LoadConnection | None:
        since = time.monotonic_ns()
        try:
            connection = await self._opener.open()
        except Exception as exc:
            self._count(kind_of(exc))
            return None
        now = time.monotonic_ns()
        self._openings.record(now - since)
        self._opened += 1
        return connection

    def _lost(self, connection: LoadConnection, reason: str) -> None:
        self._open.discard(connection)
        self._count(reason)

    def _count(self, kind: str, times: int = 1) -> None:
        if kind not in self._errors and len(self._errors) >= KINDS:
            kind = OTHERS
        self._errors[kind] += times

    # Measuring.

    def _last_moment(self) -> int:
        return self._ends + round(self._plan.timeout * SECOND)

    async def _measured(self) -> None:
        self._ends = self._begins + round(self._plan.duration * SECOND)
        if self._plan.mode == "handshakes":
            await self._storm()
            return
        loop = asyncio.get_running_loop()
        await self._sleep_until(self._begins - round(self._plan.warm_up * SECOND))
        if self._plan.mode != "idle" and self._open:
            self._load.start(loop, self._open, self._begins, self._ends)
        await self._sleep_until(self._begins)
        self._processor = time.process_time()
        while time.monotonic_ns() < self._ends and self._open:
            await self._sleep_until(min(self._ends, time.monotonic_ns() + round(REPORTS * SECOND)))
            self._report("measuring")
        self._processor = time.process_time() - self._processor
        self._load.stop()
        while self._load.flying and self._open and time.monotonic_ns() < self._last_moment():
            await asyncio.sleep(0.01)

    async def _sleep_until(self, moment: int) -> None:
        while (left := moment - time.monotonic_ns()) > 0 and self._open:
            await asyncio.sleep(min(left / SECOND, REPORTS))

    async def _storm(self) -> None:
        """Open and close, so many in all, so many at the same time."""
        await asyncio.sleep(max(0, self._begins - time.monotonic_ns()) / SECOND)
        processor = time.process_time()
        left = iter(range(self._plan.handshakes))

        async def one_after_another() -> None:
            for _ in left:
                since = time.monotonic_ns()
                connection = await self._open_one()
                if connection is not None:
                    self._load.latencies.record(time.monotonic_ns() - since)
                    connection.abort()

        try:
            with self._reporting("measuring"):
                async with asyncio.timeout(self._plan.duration), asyncio.TaskGroup() as group:
                    for _ in range(min(self._plan.connections, self._plan.handshakes)):
                        group.create_task(one_after_another())
        except TimeoutError:
            pass
        finally:
            self._ends = time.monotonic_ns()
            self._processor = time.process_time() - processor

    # The end.

    async def _close_all(self) -> None:
        for connection in self._open:
            connection.close()
        limit = time.monotonic() + 1
        while any(connection.is_open for connection in self._open) and time.monotonic() < limit:
            await asyncio.sleep(0.01)
        for connection in self._open:
            connection.abort()

    @contextlib.contextmanager
    def _reporting(self, stage: str) -> Iterator[None]:
        """Report every `REPORTS` seconds meanwhile."""

        async def report() -> None:
            while True:
                await asyncio.sleep(REPORTS)
                self._report(stage)

        reporting = asyncio.create_task(report())
        try:
            yield
        finally:
            reporting.cancel()

    def _report(self, stage: str) -> None:
        load = self._load
        storm = self._plan.mode == "handshakes"
        now = time.monotonic_ns()
        report = Report(
            stage=stage,
            opened=self._opened,
            open=len(self._open),
            answered=self._opened if storm else load.answered,
            sent=self._opened if storm else load.sent,
            bytes_received=load.bytes_received,
            unexpected=load.unexpected,
            unanswered=self._unanswered,
            seconds=max(0, min(now, self._ends) - self._begins) / SECOND if self._begins else 0.0,
            processor_seconds=self._processor if stage == "final" else 0.0,
            errors=dict(self._errors),
            latencies=load.take_latencies().dump(),
            handshakes=self._openings.dump() if stage == "final" else None,
        )
        self._out.write(msgspec.json.encode(report) + b"\n")
        self._out.flush()


async def _run() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    line = await orders.readline()
    if line:
        await Process(msgspec.json.decode(line, type=Plan), sys.stdout.buffer).run(orders)


def main() -> None:
    """Run it, until it is done or standard input ends; Ctrl-C is for the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        uvloop.run(_run())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
