"""The daemon's loggers: an application's configuration of logging cannot silence them.

    Own      their class
    adopt    make it their class, in a process of the daemon

`logging.config` disables every logger that exists unless it is told not to, takes all handlers off the root, and
`logging.disable()` silences all: right for an application's own loggers, but not for the daemon's. What a configuration
says of these by their names applies: their handlers get what is logged besides the daemon's log, and levels and filters
apply. Handlers of the root logger do not get it, or each line would be on standard error twice.

What must not live here: what a line looks like, where it goes; a program that uses the library alone, whose
configuration is the last word.
"""

from __future__ import annotations

import logging
from typing import Final

from .writers import WRITTEN, Handler

__all__ = ["NAMES", "Own", "adopt"]

TOP: Final = "tidegate"
NAMES: Final = (
    TOP,
    *(f"{TOP}.{name}" for name in ("access", "admin", "bus", "bus.outside", "client", "hub", "log", "metrics")),
    *(f"{TOP}.{name}" for name in ("server", "supervisor", "worker")),
)


class Own(logging.Logger):
    """A logger of the daemon, which writes to the daemon's log whatever handlers are removed."""

    output: Handler | None = None

    @property
    def disabled(self) -> bool:
        """Always False: `logging.config` disables loggers that it does not know."""
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass

    def isEnabledFor(self, level: int) -> bool:
        """Return whether the level is high enough, whatever `logging.disable()` was given."""
        return level >= self.getEffectiveLevel()

    def handle(self, record: logging.LogRecord) -> None:
        """Write a record to the daemon's log, and pass it to other handlers."""

        if not (kept := self.filter(record)):
            return
        record = kept if isinstance(kept, logging.LogRecord) else record
        if Own.output is not None:
            Own.output.write(record)
            vars(record)[WRITTEN] = True
        if self.hasHandlers():  # without one, the standard library would write it to standard error
            self.callHandlers(record)


def adopt(handler: Handler) -> None:
    """Make the daemon's loggers its own, and let them write by way of this handler."""
    Own.output = handler
    for name in NAMES:
        logger = logging.getLogger(name)
        if not isinstance(logger, Own):
            logger.__class__ = Own
    top = logging.getLogger(TOP)
    top.propagate = False
    if handler not in top.handlers:  # for loggers below it that are an application's
        top.handlers = [handler]
