"""The rounds of a benchmark, one after the other, shown while they run.

What must not live here: the numbers of a round (results.py), how they are shown (report.py).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from .plan import Plan
from .processes import Processes
from .results import Round, ServerCost
from .server_metrics import Unreadable, Usage, read

__all__ = ["Rounds"]


class Rounds:
    """Rounds at one server, or at two by turns.

    Parameters:
        plans: one for each server; the first is the one that `metrics` belongs to.
        rounds: how many at each.
        processes: how many make the load of a round.
        metrics: URL of what the server says of itself, or None.
        changed: called when there is something new to show, with the processes and the number of the round.

    Attributes:
        results: the rounds that are done, of each plan.
        interrupted: whether a signal has ended it early.
        note: what went wrong with the metrics.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        rounds: int,
        processes: int,
        metrics: str | None,
        changed: Callable[[Processes, int], object],
    ) -> None:
        self._plans, self._count, self._processes = plans, rounds, processes
        self._metrics, self._changed = metrics, changed
        self._running: Processes | None = None
        self.results: list[list[Round]] = [[] for _ in plans]
        self.interrupted = False
        self.note = ""

    async def run(self) -> None:
        """Run them all.

        Raises:
            ProcessFailed: if a process of load does.
        """
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._interrupt)
        try:
            for number in range(self._count):
                # The one that was last goes first, so that neither is always measured after the other.
                order = list(enumerate(self._plans))
                for place, plan in reversed(order) if number % 2 else order:
                    if not self.interrupted:
                        metrics = self._metrics if place == 0 else None
                        self.results[place].append(await self._round(plan, number, metrics))
        finally:
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)

    def _interrupt(self) -> None:
        if self._running is not None:
            if self.interrupted:
                self._running.kill()
            else:
                self._running.stop()
        self.interrupted = True

    async def _round(self, plan: Plan, number: int, metrics: str | None) -> Round:
        processes = Processes(plan, self._processes, lambda changed: self._changed(changed, number))
        self._running = processes
        try:
            before = await self._usage(metrics)
            await processes.start()
            held = await self._usage(metrics)
            begins = processes.begin()
            watching = asyncio.create_task(self._usage_at(begins, metrics))
            ending = asyncio.create_task(self._usage_at(begins + plan.duration, metrics))
            result = await processes.finish()
            if plan.mode == "handshakes" or self.interrupted:
                ending.cancel()
                with suppress(asyncio.CancelledError):
                    await ending
                after = await self._usage(metrics)
            else:
                after = await ending
            began = await watching if watching.done() or not self.interrupted else None
            watching.cancel()
        except BaseException:
            await processes.abandon()
            raise
        finally:
            self._running = None
        result.server = cost(result, before, held, began, after)
        return result

    async def _usage(self, url: str | None) -> Usage | None:
        if url is None:
            return None
        try:
            return await read(url)
        except Unreadable as error:
            self.note = f"no metrics of {url}: {error}"
            return None

    async def _usage_at(self, moment: float, url: str | None) -> Usage | None:
        await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
        return await self._usage(url)


def cost(
    result: Round, before: Usage | None, held: Usage | None, began: Usage | None, after: Usage | None
) -> ServerCost | None:
    """What a round cost the server."""
    if before is None and after is None:
        return None
    server = ServerCost()
    if result.connections and before and held and before.memory is not None and held.memory is not None:
        server.memory_per_connection = (held.memory - before.memory) / result.connections
    if began is not None and after is not None:
        server.cpu_seconds = after.cpu_seconds - began.cpu_seconds
        if result.messages:
            server.cpu_per_message = server.cpu_seconds / result.messages
    return server
