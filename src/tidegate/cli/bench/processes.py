"""The processes of a round: started, told when to begin, watched, and added up.

What must not live here: what one of them does (process.py), which rounds there are (rounds.py).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import msgspec

from ..._core.histogram import Histogram
from .plan import Plan
from .results import Report, Round

__all__ = ["ProcessFailed", "Processes"]

LEAD = 0.05  # seconds from the order to begin until all have it
GRACE = 10.0  # seconds beyond what the plan may take, after which a process hangs
LINE = 2**22  # bytes of a report at most
REST = 1024  # bytes of what a process says when it fails


class ProcessFailed(Exception):
    """A process that makes load ended by itself."""


class Processes:
    """Those of one round.

    Parameters:
        plan: what they do together.
        count: how many; fewer if there is less to do.
        changed: called with this object after each report.

    Attributes:
        latest: the last report of each.
        latencies: of all of them, so far.
        recent: those of the last reports, until the live view replaces it.
    """

    def __init__(self, plan: Plan, count: int, changed: Callable[[Processes], object]) -> None:
        self.plan = plan
        self._plans = plan.split(count)
        self._changed = changed
        self._running: list[asyncio.subprocess.Process] = []
        self.latest = [Report(stage="starting") for _ in self._plans]
        self.latencies = Histogram()
        self.recent = Histogram()
        self.began = 0.0

    async def start(self) -> None:
        """Start them, and have them open their connections.

        Raises:
            ProcessFailed: if one cannot.
        """
        for plan in self._plans:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"{__package__}.process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE,
                start_new_session=True,  # Ctrl-C is for this one
            )
            self._running.append(process)
            self._tell(process, msgspec.json.encode(plan))
        await self._until("ready")

    def begin(self) -> float:
        """Have them send; the moment from which on it is measured, of time.monotonic()."""
        storm = self.plan.mode == "handshakes"
        self.began = time.monotonic() + LEAD + (0.0 if storm else self.plan.warm_up)
        for process in self._running:
            self._tell(process, msgspec.json.encode({"begins": round(self.began * 1e9)}))
        return self.began

    async def finish(self) -> Round:
        """Wait for the end; the result.

        Raises:
            ProcessFailed: if one does not come to it.
        """
        plan = self.plan
        try:
            async with asyncio.timeout(plan.warm_up + plan.duration + plan.timeout + GRACE):
                await self._until("final")
        except TimeoutError:
            raise ProcessFailed("a process that makes load hangs") from None
        await self._end()
        return Round.of(self.plan.uri, self.latest, self.latencies)

    def stop(self) -> None:
        """Have them end early, with what there is."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()

    def kill(self) -> None:
        """End them, whatever they do."""
        for process in self._running:
            if process.returncode is None:
                process.kill()

    async def abandon(self) -> None:
        """End them because of a failure."""
        self.kill()
        await self._end()

    async def _end(self) -> None:
        self.stop()
        for process in self._running:
            try:
                async with asyncio.timeout(GRACE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    def _tell(self, process: asyncio.subprocess.Process, line: bytes) -> None:
        assert process.stdin is not None
        if not process.stdin.is_closing():
            process.stdin.write(line + b"\n")

    async def _until(self, stage: str) -> None:
        """Take reports until all are at a stage."""
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(self._running)):
                    group.create_task(self._follow(index, stage))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _follow(self, index: int, stage: str) -> None:
        process = self._running[index]
        assert process.stdout is not None
        while self.latest[index].stage not in (stage, "final"):
            line = await process.stdout.readline()
            if not line:
                assert process.stderr is not None
                said = (await process.stderr.read())[-REST:].decode(errors="replace").strip()
                status = await process.wait()
                last = said.splitlines()[-1] if said else "it said nothing"
                raise ProcessFailed(f"a process that makes load ended with status {status}: {last}")
            report = msgspec.json.decode(line, type=Report)
            self.latest[index] = report
            if report.latencies is not None:
                new = Histogram.load(report.latencies)
                self.latencies.merge(new)
                self.recent.merge(new)
            self._changed(self)
