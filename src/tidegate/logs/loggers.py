"""The daemon's loggers: an application's configuration of logging has no hold on them.

    Own      the class that they get
    adopt    give it to them, in a process of the daemon

`logging.config` disables every logger that exists unless it is told not to, takes all handlers off the root, and
`logging.disable()` silences everybody: right for an application's own, and it does not know of the daemon's. What it
says of these by their names is heeded: their handlers get what is logged besides the daemon's log, levels and filters
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
    *(f"{TOP}.{name}" for name in ("access", "admin", "client", "log", "metrics", "server", "supervisor", "worker")),
)


class Own(logging.Logger):
    """A logger of a daemon, which writes to the daemon's log whatever becomes of everybody's handlers."""

    output: Handler | None = None

    @property
    def disabled(self) -> bool:
        """Never: that is what `logging.config` does to loggers that it has not heard of."""
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass

    def isEnabledFor(self, level: int) -> bool:
        """Whether the level is high enough, whatever `logging.disable()` has said."""
        return level >= self.getEffectiveLevel()

    def handle(self, record: logging.LogRecord) -> None:
        """Write it to the daemon's log, and give it to whoever else wants it."""
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
