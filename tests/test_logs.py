"""The doors of the log: who begins it, who becomes another, who opens it anew.

What must not live here: lines, outputs and queues (tests/logs), what the daemon logs (tests/process).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENCE

PROGRAM = """
import logging
from tidegate import logs

logs.begin("supervisor", {level!r})
logging.getLogger("tidegate.supervisor").info("listening on %s", "somewhere")
logging.getLogger("somebody.else").debug("quiet")
logging.getLogger("tidegate.access").info("handshake")
logs.become("worker 3")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("tidegate.worker").error("failed", exc_info=True)
"""


def run(program: str, *arguments: str, status: int = 0) -> list[str]:
    """What a program writes to standard error, by line."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    return done.stderr.splitlines()


def lines(level: str) -> list[str]:
    return run(PROGRAM.format(level=level))


def test_a_line_has_time_role_level_and_message() -> None:
    first, second, *trace = lines("info")
    time, rest = first.split(" ", 1)
    assert len(time) == len("2026-11-21T03:32:15.123Z")
    assert time[10] + time[-1] == "TZ"
    assert rest == "supervisor INFO listening on somewhere"
    assert second.split(" ", 1)[1] == "worker 3 ERROR failed"
    assert trace[0] == "    Traceback (most recent call last):"


def test_levels() -> None:
    """The level decides which lines the log has."""
    assert len([line for line in lines("debug") if " DEBUG quiet" in line]) == 1
    assert not any("quiet" in line for line in lines("info"))
    assert " ERROR failed" in lines("error")[0]


def test_the_access_log_is_off_unless_it_is_asked_for() -> None:
    assert not any("handshake" in line for line in lines("debug"))
    program = """if True:
        import logging
        from tidegate import logs
        access = logging.getLogger("tidegate.access")
        logs.begin("supervisor", "error", access=True)
        access.info("one")
        logs.become("admin", access=False)
        access.info("two")
        logs.become("worker 0", access=True)
        access.info("three")
    """
    assert [line.split(" ", 1)[1] for line in run(program)] == ["supervisor INFO one", "worker 0 INFO three"]


def test_formats_and_files(tmp_path: Path) -> None:
    program = """if True:
        import logging, os, sys
        from tidegate import logs
        os.chdir(sys.argv[1])
        assert logs.fileno() == 2
        logs.begin("supervisor", "info", format="json", file="log")
        fd = logs.fileno()
        assert fd > 2
        log = logging.getLogger()
        log.info("one")
        os.rename("log", "log.1")
        logs.reopen()
        log.info("two")
        logs.become("worker 0", "error", format="text")
        log.info("three")
        log.error("four")
        assert logs.fileno() == fd
        assert logs.lost() == 0
        logs.begin("supervisor", "info", file="other")
        log.info("five")
        logs.catch_up()
        assert len(log.handlers) == 1
    """
    assert run(program, str(tmp_path)) == []
    (one,) = map(json.loads, (tmp_path / "log.1").read_text().splitlines())
    assert (one["role"], one["message"]) == ("supervisor", "one")
    two, four = (tmp_path / "log").read_text().splitlines()
    assert json.loads(two)["message"] == "two"
    assert four.endswith(" worker 0 ERROR four")
    assert (tmp_path / "other").read_text().endswith(" supervisor INFO five\n")


def test_a_file_that_cannot_be_opened_anew_is_said_in_the_one_before(tmp_path: Path) -> None:
    program = """if True:
        import os, sys
        from tidegate import logs
        logs.reopen()
        os.mkdir("a")
        logs.begin("supervisor", "info", file="a/log")
        os.rename("a", "b")
        logs.reopen()
    """
    assert run(f"import os; os.chdir({str(tmp_path)!r})\n{program}") == []
    assert "ERROR the log stays in the file that it was in: " in (tmp_path / "b" / "log").read_text()


def test_the_file_may_be_given_to_another_user_and_standard_error_is_not(tmp_path: Path) -> None:
    program = """if True:
        import os, sys
        from tidegate import logs
        given = []
        os.fchown = lambda *arguments: given.append(arguments)
        logs.give(1, 2)
        logs.begin("supervisor", "info")
        logs.give(1, 2)
        assert given == []
        logs.begin("supervisor", "info", file=sys.argv[1])
        logs.give(1, 2)
        assert given == [(logs.fileno(), 1, 2)]
    """
    assert run(program, str(tmp_path / "log")) == []


def test_an_application_that_arranges_its_own_logging_gets_its_way(tmp_path: Path) -> None:
    program = """if True:
        import logging, logging.config
        from tidegate import logs
        logs.begin("supervisor", "info")
        logs.become("worker 0")
        logging.getLogger("one").info("one")
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        logging.getLogger("two").info("two")
        logging.basicConfig(format="mine %(message)s", force=True)
        logging.getLogger("three").info("three")
    """
    # The queue and theirs are written side by side.
    assert sorted(line.rpartition("worker 0 ")[2] for line in run(program)) == ["INFO one", "INFO two", "mine three"]


def test_what_is_in_the_queue_is_written_at_the_end() -> None:
    program = """if True:
        import logging
        from tidegate import logs
        logs.begin("supervisor", "info")
        logs.become("worker 0")
        for number in range(5000):
            logging.getLogger("one").info("%d", number)
    """
    assert [int(line.rpartition(" ")[2]) for line in run(program)] == list(range(5000))


def test_the_end_does_not_wait_for_a_reader_who_does_not_read() -> None:
    program = """if True:
        import logging, os, signal, sys
        from tidegate import logs
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        logs.begin("supervisor", "info")
        logs.become(*sys.argv[1:])
        signal.alarm(20)  # the end of it all, unless it ends before
        for number in range(10):
            logging.getLogger("one").info("x" * 100_000)
    """
    assert run(program, "worker 0") == []
    assert run(program.replace("logs.become(*sys.argv[1:])", ""), "worker 0") == []
