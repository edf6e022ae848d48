"""What an application does to logging, and that the daemon's log has the daemon's lines all the same.

What must not live here: lines and where they go (test_formatters.py, test_stream.py).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.logs import cases_loggers as cases
from tests.support import programs
from tests.support.harness import ROOT, Daemon
from tidegate.logs.loggers import NAMES

CONFIGURATIONS = {
    "dictConfig": """
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"mine": {"class": "logging.FileHandler", "filename": "mine"}},
            "root": {"handlers": ["mine"], "level": "ERROR"},
        })
    """,
    "fileConfig": """
        import io, logging.config
        logging.config.fileConfig(io.StringIO('''
            [loggers]
            keys=root
            [handlers]
            keys=mine
            [formatters]
            keys=
            [logger_root]
            level=ERROR
            handlers=mine
            [handler_mine]
            class=FileHandler
            args=("mine",)
        '''.replace("            ", "")))
    """,
    "disable": """
        import logging
        logging.disable(logging.CRITICAL)
    """,
    "force": """
        import logging
        logging.basicConfig(filename="mine", level=logging.ERROR, force=True)
    """,
    "by hand": """
        import logging
        for logger in (logging.getLogger(), logging.getLogger("tidegate")):
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
            logger.disabled = True
    """,
}

HANDLER = """
async def handler(websocket):
    async for message in websocket:
        if message == "fail":
            raise ValueError("the shop is shut")
        logging.getLogger("mine").error("a word of the application's")
        await websocket.send(message)
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_configuration_of_an_application_silences_the_daemon(name: str, preload: tuple[str, ...]) -> None:
    source = textwrap.dedent(CONFIGURATIONS[name]) + HANDLER
    with Daemon(source, "--access-log", *preload) as daemon:
        with connect(daemon.uri) as websocket:
            websocket.send("x")
            websocket.recv()
        with connect(daemon.uri) as websocket:
            websocket.send("fail")
            with pytest.raises(ConnectionClosedError) as caught:
                websocket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        assert daemon.stop() == 0
        assert daemon.log.count("ERROR [127.0.0.1:") == 1
        assert daemon.log.count("ValueError: the shop is shut") == 1
        assert daemon.log.count("handshake method=GET") == 2
        assert len(re.findall(r"worker 0 INFO \[.*\] close code=1011", daemon.log)) == 1
        assert daemon.log.count("supervisor INFO stopped with status 0") == 1
        # The application's own lines go where it wants them.
        mine = daemon.directory / "mine"
        own = mine.read_text() if mine.exists() else ""
        assert own.count("a word of the application's") == (name in ("dictConfig", "fileConfig", "force"))
        assert "the shop is shut" not in own


def logged(case: Callable[[], None]) -> str:
    """What a case writes to standard error."""
    done = programs.run(case)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_an_application_says_of_them_by_name_is_heeded() -> None:
    said = logged(cases.by_name)
    assert said.count("a line") == 1
    assert "noise" not in said
    assert "less than that" not in said


def test_each_line_is_written_once_whatever_propagates() -> None:
    said = logged(cases.whatever_propagates)
    assert [line.split(" INFO ")[-1].split(" DEBUG ")[-1] for line in said.splitlines()] == [
        *("a line", "an application's, below ours", "another", "an application's")
    ]


def test_a_library_that_looks_at_every_record_sees_them() -> None:
    """As error trackers do: they put a function of their own in the place of `Logger.callHandlers`."""
    said = logged(cases.every_record_looked_at)
    assert said.count("seen: failed") == 1
    assert said.count("ERROR failed") == 1


def test_a_program_without_a_daemon_configures_them_like_all_others() -> None:
    logged(cases.without_a_daemon)


def test_every_logger_is_known() -> None:
    sources = [path.read_text() for path in (ROOT / "src" / "tidegate").rglob("*.py")]
    found = {name for source in sources for name in re.findall(r'getLogger\("(tidegate[^"]*)"\)', source)}
    assert found <= set(NAMES)
    assert {"tidegate.access", "tidegate.server"} <= found
