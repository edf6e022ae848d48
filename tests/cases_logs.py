"""What processes do to the doors of the log, for test_logs.py; each case has a process of its own.

What must not live here: tests.
"""

from __future__ import annotations

import logging
import logging.config
import os
import signal
from typing import Any

from tidegate import logs


def two_roles(level: str) -> None:
    """Lines of a supervisor, then of a worker, of several levels and loggers."""
    logs.begin("supervisor", level)
    logging.getLogger("tidegate.supervisor").info("listening on %s", "somewhere")
    logging.getLogger("somebody.else").debug("quiet")
    logging.getLogger("tidegate.access").info("handshake")
    logs.set_role("worker 3")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("tidegate.worker").error("failed", exc_info=True)


def access_log() -> None:
    access = logging.getLogger("tidegate.access")
    logs.begin("supervisor", "error", access=True)
    access.info("one")
    logs.set_role("admin", access=False)
    access.info("two")
    logs.set_role("worker 0", access=True)
    access.info("three")


def formats_and_files() -> None:
    assert logs.fileno() == 2
    logs.begin("supervisor", "info", format="json", file="log")
    fd = logs.fileno()
    assert fd > 2
    log = logging.getLogger()
    log.info("one")
    os.rename("log", "log.1")
    logs.reopen()
    log.info("two")
    logs.set_role("worker 0", "error", format="text")
    log.info("three")
    log.error("four")
    assert logs.fileno() == fd
    assert logs.lost() == 0
    logs.begin("supervisor", "info", file="other")
    log.info("five")
    logs.catch_up()
    assert len(log.handlers) == 1


def no_file_to_open_anew() -> None:
    logs.reopen()
    os.mkdir("a")
    logs.begin("supervisor", "info", file="a/log")
    os.rename("a", "b")
    logs.reopen()


def given_to_another_user() -> None:
    given: list[tuple[Any, ...]] = []
    os.fchown = lambda *arguments: given.append(arguments)
    logs.chown(1, 2)
    logs.begin("supervisor", "info")
    logs.chown(1, 2)
    assert given == []
    logs.begin("supervisor", "info", file="log")
    logs.chown(1, 2)
    assert given == [(logs.fileno(), 1, 2)]


def arranged_by_the_application() -> None:
    logs.begin("supervisor", "info")
    logs.set_role("worker 0")
    logging.getLogger("one").info("one")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    logging.getLogger("two").info("two")
    logging.basicConfig(format="mine %(message)s", force=True)
    logging.getLogger("three").info("three")


def long_queue() -> None:
    logs.begin("supervisor", "info")
    logs.set_role("worker 0")
    for number in range(5000):
        logging.getLogger("one").info("%d", number)


def no_reader(*role: str) -> None:
    """Write a lot to a pipe that nobody reads, as this role if one is given."""
    _, writer = os.pipe()
    os.dup2(writer, 2)
    logs.begin("supervisor", "info")
    if role:
        logs.set_role(*role)
    signal.alarm(20)  # the end of it all, unless it ends before
    for _ in range(10):
        logging.getLogger("one").info("x" * 100_000)
