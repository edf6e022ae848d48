"""What a line of the daemon's log looks like, and which process wrote it.

    2026-11-21T03:32:15.123Z supervisor INFO listening on 127.0.0.1:8765

One line per event, on standard error. Every process of the daemon calls `begin()` once, under its own name: the
supervisor with the level, and its children, which inherit the handler, with their role alone.

What must not live here: what is logged, and the metrics.
"""

from __future__ import annotations

import logging
import sys
import time

__all__ = ["begin", "reopen"]


class _Format(logging.Formatter):
    """Time (UTC), process role, level, message; a traceback follows on lines of its own."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(role)s %(levelname)s %(message)s")
        self.role = "tidegate"

    def format(self, record: logging.LogRecord) -> str:
        record.role = self.role
        return super().format(record)


_format = _Format()


def reopen() -> None:
    """Open the log's file anew, where it is a file: somebody has moved it."""


def begin(role: str, level: str | None = None) -> None:
    """Name this process in every line from now on; with a level, send the lines of every logger to standard error."""
    _format.role = role
    if level is not None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_format)
        logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
        if level != "debug":
            # A line for each connection, at the level of a library's user, is not what an operator calls an event.
            logging.getLogger("tidegate.server").setLevel(max(logging.WARNING, logging.getLogger().level))
