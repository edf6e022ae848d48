"""Whether messages come over a link to an engine, and how a lost one is tried again: for all engines with a link.

    Watch      asks the engine for a message when none has come for a while, and says when that does not come either
    Backoff    seconds until the next attempt
    end        ends the task that makes the attempts

An open socket says nothing: after a failover a subscriber may sit on a node that answers, takes commands, and gets no
messages. What must not live here: how a probe is published, what is done without a link (the engines).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from .._core.counters import current

__all__ = ["PROBE_CHANNEL", "SILENCE", "Backoff", "Watch", "end"]

PROBE_CHANNEL: Final = "tg:w:"
"""What the name of a process's own channel begins with; probes go there."""

SILENCE: Final = 2.0
"""Seconds without a message before a probe, and seconds that it may take."""

TICKS: Final = 4
"""How often a silence is looked at in one such time."""


CANCEL_AGAIN: Final = 0.5
"""Seconds after which a task that has not ended is cancelled once more."""


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended.

    Once may not be enough: asyncio.wait_for() of CPython 3.11 loses a cancellation that comes together with a result,
    and libraries take one for their own.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN)


class Watch:
    """Watch one link, until it is lost or `stop()`.

    Time is counted in turns of the event loop, not by the clock: in a process that was stopped or busy for long, what
    had come meanwhile is read before the next look.

    Parameters:
        probe: publishes to a channel that only this process has subscribed, as anything else is published; raises
            nothing, does not wait.
        lost: called once, with the reason, when nothing comes for two silences, the second of them with a probe.
        silence: seconds.

    Attributes:
        is_probing: whether a probe is on its way.
    """

    def __init__(self, probe: Callable[[], object], lost: Callable[[str], object], silence: float = SILENCE) -> None:
        self._probe, self._lost = probe, lost
        self._tick_seconds = silence / TICKS
        self._silence = silence
        self._ticks = 0
        self._sent_at = 0.0
        self.is_probing = False
        self._row = current()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)

    def heard(self) -> None:
        """Take it that a message has come; what only answers a command is none."""
        self._ticks = 0

    def probed(self) -> None:
        """Take it that a probe has come, and record how long it took."""
        if self.is_probing:
            self.is_probing = False
            self._row.observe("bus_probe", time.monotonic() - self._sent_at)

    def stop(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks > 2 * TICKS:
            self._lost(f"nothing has come for {2 * self._silence:g} seconds, not even what this process published")
            return
        if self._ticks == TICKS:
            if not self.is_probing:
                self.is_probing, self._sent_at = True, time.monotonic()
            self._probe()
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)


class Backoff:
    """Seconds until the next attempt: doubled each time, jittered so that processes do not all come back at once.

    Parameters:
        first, most: the bounds of the delay.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._delay = first

    def next(self) -> float:
        """Return the seconds to wait now."""
        delay, self._delay = self._delay, min(2 * self._delay, self._most)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin with the first delay again: the last attempt was a success that has lasted."""
        self._delay = self._first
