"""RFC 6455 and RFC 7692, judged by the Autobahn test suite: its fuzzing client against the running daemon.

Two applications are served to it, a handler and an ASGI application.

What must not live here: how the suite is run (autobahn.py), its cases (cases.py), our client (test_autobahn_client.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conformance import autobahn
from tests.conformance.cases import CHAPTERS, MAX_SIZE, check, check_compression
from tests.support.harness import ECHO, Daemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


ASGI = """
    async def handler(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            else:
                await send({**event, "type": "websocket.send"})
"""


@pytest.fixture(scope="module", params=[ECHO, ASGI], ids=["handler", "asgi"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """An echo server as people run it, but for the size of the messages that it takes."""
    with Daemon(request.param, "--max-size", str(MAX_SIZE), workers=2) as daemon:
        yield daemon
        assert daemon.poll() is None
        assert "Traceback" not in daemon.log


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: f"{chapter}-{CHAPTERS[chapter][0].replace(' ', '-')}")
def test_chapter(chapter: int, wstest: Path, daemon: Daemon, tmp_path: Path) -> None:
    """The server passes a chapter of Autobahn's test suite."""
    results = autobahn.fuzz_server(wstest, daemon.uri, f"{chapter}.*", tmp_path)
    check(results, CHAPTERS[chapter][1], tmp_path)


def test_compression(wstest: Path, daemon: Daemon, tmp_path: Path) -> None:
    """The chapters 12 and 13, with what the daemon negotiates by default."""
    check_compression(partial(autobahn.fuzz_server, wstest, daemon.uri), tmp_path)
