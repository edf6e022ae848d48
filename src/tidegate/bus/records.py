"""What a bus records of itself for operators: what it published, how long things took, and lines of the log.

    Line       a line of the log that could be due much too often
    Records    of one bus

Times go straight into the row of the process, counts into `Counts`, from which a worker takes them once a second. What
must not live here: names of metrics (metrics/catalog.py), what is done about a state (topics.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from .._core.counters import current
from ..exceptions import BusBusy, BusDown

if TYPE_CHECKING:
    from ..channels import Message, Position
    from ..exceptions import BusError
    from .base import State
    from .order import Counts

__all__ = ["INTERVAL", "Line", "Records"]

INTERVAL: Final = 10.0
"""Seconds between two lines of the log about the same thing."""


class Line:
    """A line of the log: it is written at once, then at most once in `INTERVAL` seconds, with how often it was due.

    Parameters:
        write: writes it; called with how often it was due since it was written last.
        burst: how many may be written in those seconds.
    """

    def __init__(self, write: Callable[[int], None], burst: int = 1) -> None:
        self._write = write
        self._burst = self._left = burst
        self._due = 0
        self._timer: asyncio.TimerHandle | None = None

    def due(self) -> None:
        """Have the line written, now or later."""
        self._due += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._later)
        if self._left:
            self._left -= 1
            self.flush()

    def flush(self) -> None:
        """Write what has waited."""
        due, self._due = self._due, 0
        if due:
            self._write(due)

    def _later(self) -> None:
        self._timer, self._left = None, self._burst
        if self._due:
            self._due -= 1
            self.due()

    def end(self) -> None:
        """Write what has waited, as nothing follows."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()


class Records:
    """The records of one bus.

    Parameters:
        counts: what happened to its channels.
        logger: where it logs.

    Attributes:
        is_up: whether messages come.
        reason: why they do not.
        changed_at: `time.monotonic()` of the last change of `is_up`.
    """

    def __init__(self, counts: Counts, logger: logging.Logger) -> None:
        self._counts = counts
        self.logger = logger
        self._row = current()
        self._state: State | None = None
        self.is_up = False
        self.reason = "it is not started"
        self.changed_at = time.monotonic()
        self._outages = 0
        self._lasted = 0.0  # seconds, until the last change
        self._states = Line(self._write_state, 3)  # up, down, up again
        self._losses = Line(self._write_losses)
        self._slow = Line(self._write_slow)

    def end(self) -> None:
        """End the lines of the log."""
        for line in (self._states, self._losses, self._slow):
            line.end()

    def published(self, began: float, result: Position | BusError | None) -> None:
        """Count what became of a publication that began at that `time.monotonic()`."""
        if isinstance(result, Exception):
            self._counts.failures[_failure(result)] += 1
            return
        self._counts.published += 1
        if result is not None:
            self._row.published(time.monotonic() - began)

    def delivered(self, messages: Sequence[Message], began: float) -> None:
        """Count what came at once, and was given to members from that Unix time on until now."""
        self._row.fanned_out(messages, began)

    def slow(self) -> None:
        """Count a member that is closed for its slowness."""
        self._counts.closes["slow"] += 1
        self._slow.due()

    def told(self, state: State) -> None:
        """Take a change of the engine's state."""
        self._counts.changes[state.kind] += 1
        before, self._state = self._state, state
        if before is not None and before.kind != "down" and state.kind == "again":
            self._losses.due()
        self._become(state.kind != "down", state.reason)

    def heard(self, silence: str = "") -> None:
        """Take it that the engine has answered; or why it has not, though its state is up."""
        if self._state is not None and self._state.kind != "down":
            self._become(not silence, silence)

    def _become(self, is_up: bool, reason: str) -> None:
        self.reason = "" if is_up else reason
        if is_up == self.is_up and (is_up or self._outages):
            return
        now = time.monotonic()
        self._outages += not is_up
        self._lasted, self.is_up, self.changed_at = now - self.changed_at, is_up, now
        self._states.due()

    def _write_state(self, due: int) -> None:
        often = f" ({due} changes since the last line)" if due > 1 else ""
        if not self.is_up:
            text = "the bus is down: %s; publishes wait or fail until it is up again%s"
            self.logger.warning(text, self.reason, often)
        elif self._outages:
            text = "the bus is up again after %.2f s; what was missed is read from the history, if any%s"
            self.logger.info(text, self._lasted, often)
        else:
            self.logger.info("the bus is up")

    def _write_losses(self, due: int) -> None:
        assert self._state is not None
        why = self._state.reason or "the connection was renewed"
        often = f" ({due} times)" if due > 1 else ""
        self.logger.warning("the bus may have lost messages: %s; they are read from the history, if any%s", why, often)

    def _write_slow(self, due: int) -> None:
        self.logger.warning(
            "%d %s too slow for what channels bring, and closed with 1013, to come back and go on from there",
            due,
            "client was" if due == 1 else "clients were",
        )


def _failure(error: Exception) -> str:
    """Return the reason for which a failed publication is counted."""
    if isinstance(error, BusDown):
        return "uncertain" if error.uncertain else "down"
    return "busy" if isinstance(error, BusBusy) else "refused"
