"""What a line of the log looks like.

What must not live here: what the daemon logs (tests/process).
"""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging
from tidegate import logs

logs.begin("supervisor", {level!r})
logging.getLogger("tidegate.supervisor").info("listening on %s", "somewhere")
logging.getLogger("somebody.else").debug("quiet")
logging.getLogger("tidegate.server").info("connection open")
logs.become("worker 3")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("tidegate.worker").error("failed", exc_info=True)
"""


def lines(level: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level)], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_line_has_time_role_level_and_message() -> None:
    first, second, *trace = lines("info")
    time, rest = first.split(" ", 1)
    assert len(time) == len("2026-11-21T03:32:15.123Z")
    assert time[10] + time[-1] == "TZ"
    assert rest == "supervisor INFO listening on somewhere"
    assert second.split(" ", 1)[1] == "worker 3 ERROR failed"
    assert trace[0].strip() == "Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in trace)


def test_levels() -> None:
    assert len([line for line in lines("debug") if " DEBUG quiet" in line or " INFO connection open" in line]) == 2
    assert not any("quiet" in line or "connection open" in line for line in lines("info"))
    assert " ERROR failed" in lines("error")[0]
