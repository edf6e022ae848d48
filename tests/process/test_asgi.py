"""ASGI applications under the daemon, with real processes: boot, HTTP and sockets through a reload and the end."""

from __future__ import annotations

import contextlib
import http.client
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import wire
from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient

pytestmark = pytest.mark.slow

APPLICATION = """
import asyncio, os
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

EVENTS = os.environ.get("EVENTS", os.devnull)

def note(text):
    with open(EVENTS, "a") as file:
        file.write(text + "\\n")

@asynccontextmanager
async def lifespan(app):
    if os.path.exists(EVENTS + ".fail"):
        raise RuntimeError("no database")
    yield {"started": True}
    note("shutdown")

async def page(request):
    await request.body()
    return PlainTextResponse(f"{request.state.started} {os.getpid()}")

async def events(request):
    async def ticks():
        for number in range(int(request.query_params.get("n", 1000000))):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0.02)
    return StreamingResponse(ticks(), media_type="text/event-stream")

async def echo(websocket):
    await websocket.accept()
    while (event := await websocket.receive())["type"] != "websocket.disconnect":
        await websocket.send_text(event["text"])
    note(f"disconnect {event['code']}")

routes = [Route("/", page, methods=["GET", "POST"]), Route("/events", events), WebSocketRoute("/ws", echo)]
app = Starlette(routes=routes, lifespan=lifespan)

def make():
    return app
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the application notes what happens to it."""
    path = tmp_path / "events"
    path.touch()
    monkeypatch.setenv("EVENTS", str(path))
    return path


@pytest.fixture
def daemon(notes: Path) -> Iterator[Daemon]:
    with Daemon(APPLICATION, target="application:app", workers=2) as made:
        yield made


def page(daemon: Daemon, method: str = "GET", body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
    try:
        connection.request(method, "/", body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_pages_sockets_and_metrics(daemon: Daemon) -> None:
    assert page(daemon)[0] == 200
    assert page(daemon, "POST", "x" * 100_000)[1].startswith("True ")
    with RawClient(daemon.port) as client:
        client.send(wire.request(path="/ws"))
        assert client.response()[0] == 101
        client.send(wire.frame(b"hi"))
        assert client.frame() == (0x81, b"hi")
        daemon.wait_metric("tidegate_connections", 1, state="open")
    daemon.wait_metric("tidegate_http_requests_total", 2, status="2xx")


def test_a_start_up_that_fails_is_status_3_with_its_message(notes: Path) -> None:
    Path(f"{notes}.fail").touch()
    with Daemon(APPLICATION, target="application:app", wait=False) as made:
        assert made.wait() == 3
        assert "failed to start: its startup failed" in made.log
        assert "RuntimeError: no database" in made.log


def test_a_reload_that_fails_keeps_the_old_generation(daemon: Daemon, notes: Path) -> None:
    before = set(daemon.workers())
    Path(f"{notes}.fail").touch()
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "no database" in daemon.log, "the failure of the reload")
    served = {int(page(daemon)[1].split()[1]) for _ in range(20)}
    assert served
    assert served <= before
    Path(f"{notes}.fail").unlink()


class Load:
    """Requests one after the other until it is told to stop, each on a connection of its own or on one that is kept."""

    def __init__(self, port: int, *, kept: bool) -> None:
        self.port, self.kept = port, kept
        self.answered, self.failures = 0, []  # type: ignore[var-annotated]
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        connection: Any = None
        while not self.over.is_set():
            fresh = connection is None
            if fresh:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as exc:
                if fresh:  # one that was kept may have been closed just now, as HTTP has it
                    self.failures.append(repr(exc))
                connection.close()
                connection = None
                continue
            if response.status != 200:
                self.failures.append(str(response.status))
            self.answered += 1
            if response.will_close or not self.kept:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        self.over.set()
        self.thread.join(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2], ids=["reload", "upgrade"])
def test_a_handover_under_a_mixed_load(daemon: Daemon, notes: Path, number: int) -> None:
    loads = [Load(daemon.port, kept=kept) for kept in (True, False)]
    sockets = [RawClient(daemon.port) for _ in range(4)]
    stream = RawClient(daemon.port)
    try:
        for client in sockets:
            client.send(wire.request(path="/ws"))
            assert client.response()[0] == 101
        stream.send(b"GET /events?n=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert stream.response()[0] == 200
        before = set(daemon.workers())
        daemon.signal(number)
        for client in sockets:
            assert client.close_frame()[0] == 1001
        wait_until(lambda: not before & set(daemon.workers()), "the end of the old workers")
        while b"0\r\n\r\n" not in stream.buffer:
            assert stream._read(), "the stream was cut"
        assert b"data: 59\n" in stream.buffer
    finally:
        for load in loads:
            load.stop()
        for client in (*sockets, stream):
            client.socket.close()
    assert [load.failures for load in loads] == [[], []]
    assert all(load.answered for load in loads)
    lines = notes.read_text().splitlines()
    assert lines.count("disconnect 1001") == 4
    trials = int(number == signal.SIGUSR2)  # the new program has been tried before
    assert lines.count("shutdown") == 2 + trials


def test_a_worker_that_is_killed_under_a_mixed_load_costs_what_it_had_begun(daemon: Daemon, notes: Path) -> None:
    """Its queue is its slot's: who connects meanwhile waits for the next one, and is not refused."""
    load = Load(daemon.port, kept=False)
    try:
        for _ in range(3):
            before, answered = set(daemon.workers()), load.answered
            with RawClient(daemon.port) as client:
                client.send(wire.request(path="/ws"))
                assert client.response()[0] == 101
                victim = before.pop()
                daemon.signal(signal.SIGKILL, victim)
                wait_until(lambda victim=victim: victim not in (new := daemon.workers()) and len(new) == 2, "another")
            wait_until(lambda answered=answered: load.answered > answered + 20, "answers")
    finally:
        load.stop()
    assert len(load.failures) <= 3, load.failures  # one request at most was begun each time
    assert not [failure for failure in load.failures if "Refused" in failure or failure.isdigit()]


def test_the_end_cuts_streams_at_graceful_timeout(notes: Path) -> None:
    with Daemon(APPLICATION, "--graceful-timeout", "1", target="application:app") as made:
        stream = RawClient(made.port)
        idle = http.client.HTTPConnection("127.0.0.1", made.port, timeout=PATIENCE)
        with stream, contextlib.closing(idle), RawClient(made.port) as client:
            idle.request("GET", "/")
            idle.getresponse().read()
            stream.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            assert stream.response()[0] == 200
            client.send(wire.request(path="/ws"))
            assert client.response()[0] == 101
            made.signal(signal.SIGTERM)
            assert client.close_frame()[0] == 1001
            assert made.wait() == 0
            assert idle.sock is None or idle.sock.recv(1) == b""
    assert sorted(notes.read_text().splitlines()) == ["disconnect 1001", "shutdown"]


def test_an_application_of_a_factory(notes: Path) -> None:
    with Daemon(APPLICATION, target="application:make()") as made:
        assert page(made)[0] == 200
