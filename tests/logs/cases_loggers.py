"""What applications and libraries do to loggers of ours, for test_loggers.py; each case has a process of its own.

What must not live here: tests; what a daemon's application does to all of them (test_loggers.py).
"""

from __future__ import annotations

import logging
import logging.config
import sys
from typing import Any

from tidegate import logs


def by_name() -> None:
    logs.begin("supervisor", "info")
    logger = logging.getLogger("tidegate.worker")
    logger.addHandler(logging.FileHandler("/dev/stdout"))
    logger.addFilter(lambda record: "noise" not in record.msg)
    logger.info("a line")
    logger.info("noise")
    logging.getLogger("tidegate.server").setLevel("ERROR")
    logging.getLogger("tidegate.server").warning("less than that")


def whatever_propagates() -> None:
    logs.begin("supervisor", "info")
    logging.getLogger("tidegate.worker").info("a line")
    logging.getLogger("tidegate.shop").info("an application's, below ours")
    logging.config.dictConfig(
        {
            **{"version": 1, "disable_existing_loggers": False, "incremental": True},
            "loggers": {"tidegate": {"level": "DEBUG", "propagate": True}},
        }
    )
    logging.getLogger("tidegate").propagate = True
    logging.getLogger("tidegate.worker").debug("another")
    logging.getLogger("shop").info("an application's")


def every_record_looked_at() -> None:
    logs.begin("supervisor", "info")
    before = logging.Logger.callHandlers

    def look(self: Any, record: logging.LogRecord) -> None:
        sys.stderr.write(f"seen: {record.getMessage()}\n")
        before(self, record)

    logging.Logger.callHandlers = look  # type: ignore[method-assign]
    logging.getLogger("tidegate.server").error("failed")


def without_a_daemon() -> None:
    from tidegate.asyncio import access_log, server

    assert access_log
    assert server
    logging.config.dictConfig({"version": 1})
    assert type(logging.getLogger("tidegate.access")) is logging.Logger
    assert logging.getLogger("tidegate.access").disabled
