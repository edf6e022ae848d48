"""One worker's life, from its fork on, told what to do by a test in the place of its supervisor.

What must not live here: the policy of the drain (test_drain.py), the supervisor's decisions (tests/supervisor).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import programs, wire
from tests.support.harness import ECHO, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tests.worker.living import live
from tidegate._core.scoreboard import Scoreboard
from tidegate.ipc.pipe import Command, Pipe, Report, StopMode

LIFESPAN = """
    import asyncio
    from contextlib import asynccontextmanager
    from tidegate import App

    @asynccontextmanager
    async def lifespan():
        print("entered", flush=True)
        try:
            {inside}
            yield
            print("leaving", flush=True)
        finally:
            print("left", flush=True)

    async def handler(websocket):
        async for message in websocket:
            await websocket.send(message)

    app = App(handler, lifespan=lifespan)
"""


class Worker:
    """A worker, as its supervisor has it."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        sockets: list[socket.socket],
        *,
        told_to_serve: bool = True,
        last_words: float = 5,
        **settings: Any,
    ) -> None:
        self.told_to_serve = told_to_serve
        ours, theirs = socket.socketpair()
        numbers = [sock.fileno() for sock in sockets]
        command = programs.program(
            live,
            json.dumps([scoreboard.fd, theirs.fileno(), *numbers]),
            str(scoreboard.assign(3)),
            json.dumps(settings),
            str(last_words),
        )
        with open("log", "wb") as log, theirs:
            self.process = subprocess.Popen(
                command,
                pass_fds=[scoreboard.fd, theirs.fileno(), *numbers],
                stdout=log,
                stderr=log,
                env=programs.environment(),
            )
        self.pid = self.process.pid
        self.pipe = Pipe(ours, Report)
        self.reports: list[Report] = []
        self.port: int = sockets[0].getsockname()[1]

    def told(self, stage: str) -> Report:
        """Wait until it tells this stage."""
        while True:
            for report in self.reports:
                if report.stage == stage:
                    return report
            assert not self.pipe.ended, (self.reports, self.log)
            assert select.select([self.pipe], [], [], PATIENCE)[0], self.reports
            for report in self.pipe.receive():
                self.reports.append(report)
                if report.stage == "booted" and self.told_to_serve:
                    self.pipe.send(Command(serve=True))

    def order(self, level: StopMode) -> None:
        assert self.pipe.send(Command(level))

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(PATIENCE)

    @property
    def log(self) -> str:
        return Path("log").read_text()


Start = Callable[..., Worker]


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    scoreboard = Scoreboard.create(4, 4)
    yield scoreboard
    scoreboard.close()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scoreboard: Scoreboard) -> Iterator[Start]:
    """Starts a worker with an application's text."""
    monkeypatch.chdir(tmp_path)
    workers: list[Worker] = []
    listening: list[socket.socket] = []

    def start(source: str, attribute: str = "handler", *, sockets: int = 1, **settings: Any) -> Worker:
        (tmp_path / "shop_application.py").write_text(textwrap.dedent(source))
        for _ in range(sockets):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            listening.append(sock)
        application = f"shop_application:{attribute}"
        workers.append(Worker(scoreboard, listening[-sockets:], application=application, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        worker.pipe.close()
    for sock in listening:
        sock.close()


def test_it_serves_counts_and_drains(start: Start, scoreboard: Scoreboard) -> None:
    worker = start(ECHO, drain=0.0)
    worker.told("ready")
    assert " ".join(psutil.Process(worker.pid).cmdline()).strip() == "tidegate: worker 3"
    with RawClient(worker.port) as client:
        client.open()
        beat = wait_until(lambda: scoreboard.row(0).heartbeat, "a heartbeat")
        wait_until(lambda: scoreboard.row(0).heartbeat > beat, "another one")
        assert scoreboard.read().counts.words("connections_open") == (1,)
        worker.order(StopMode.GRACEFUL)
        assert client.close_frame()[0] == 1001
    assert worker.ended() == 0
    assert [report.stage for report in worker.reports] == ["starting", "booted", "ready"]
    worker.reports += worker.pipe.receive()
    assert [report.stage for report in worker.reports] == ["starting", "booted", "ready", "draining", "gone"]
    assert "worker 3 ERROR" not in worker.log


def test_it_is_ready_only_when_it_listens_on_every_socket(start: Start) -> None:
    worker = start(ECHO, sockets=3)
    with pytest.raises(ConnectionRefusedError):
        RawClient(worker.port)
    worker.told("ready")
    ports = {c.laddr.port for c in psutil.Process(worker.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert len(ports) == 3


def test_settings_and_options_reach_serve(start: Start) -> None:
    source = """
        from tidegate import App

        async def handler(websocket):
            async for message in websocket:
                await websocket.send(message)

        app = App(handler, subprotocols=["chat"])
    """
    worker = start(source, "app", max_size=10, server_header=None)
    worker.told("ready")
    with RawClient(worker.port) as client:
        client.send(wire.request(headers={"Sec-WebSocket-Protocol": "chat"}))
        status, headers, _ = client.response()
        assert (status, headers["sec-websocket-protocol"], "server" in headers) == (101, "chat", False)
        client.send(b"\x81\x8b\0\0\0\0hello world")
        assert client.close_frame()[0] == 1009


def test_requests_of_a_slot_that_was_adopted_before_are_answered(start: Start) -> None:
    source = """
        import asyncio

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            while (await receive()).get("more_body"):
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
            await asyncio.sleep(0.2)  # time for a worker to end that does not wait for this
            await send({"type": "http.response.body", "body": b"end"})
    """
    worker = start(source, "app")
    worker.told("ready")
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        assert worker.pipe.send(Command(adopt=0, sockets=1), [first])
        with RawClient(first.getsockname()[1]) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
            client.until(b"more\r\n")
            worker.pipe.send(Command(release=0))
            worker.pipe.send(Command(adopt=0, sockets=1), [second])
            with RawClient(second.getsockname()[1]) as other:
                other.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                other.until(b"end\r\n")
            worker.order(StopMode.GRACEFUL)
            worker.told("draining")
            client.send(b"x")
            client.until(b"end\r\n0\r\n\r\n")
            client.expect_end()
    assert worker.ended() == 0


def test_a_term_signal_drains(start: Start) -> None:
    worker = start(ECHO)
    worker.told("ready")
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.ended() == 0


def test_other_signals_do_nothing(start: Start) -> None:
    worker = start(ECHO)
    worker.told("ready")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(worker.pid, number)
        with RawClient(worker.port) as client:
            client.open()


def test_a_supervisor_that_is_gone(start: Start) -> None:
    worker = start(ECHO, drain=0.0)
    worker.told("ready")
    with RawClient(worker.port) as client:
        client.open()
        worker.pipe.close()
        assert client.close_frame()[0] == 1001
    assert worker.ended() == 0
    assert "the supervisor is gone" in worker.log


def test_a_worker_without_a_supervisor_ends_itself_whatever_it_does(start: Start) -> None:
    """By the alarm that it has set."""
    source = """
        import time

        async def handler(websocket):
            await websocket.wait_closed()
            while True:
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
    """
    worker = start(source, drain=0.0, graceful_timeout=0.2, last_words=0.2)
    worker.told("ready")
    with RawClient(worker.port) as client:
        client.open()
        worker.pipe.close()
        assert client.close_frame()[0] == 1001
    assert worker.ended() == -signal.SIGALRM


def test_the_lifespan_is_around_all_of_it(start: Start) -> None:
    worker = start(LIFESPAN.format(inside="pass"), "app")
    worker.told("ready")
    assert "entered" in worker.log
    worker.order(StopMode.GRACEFUL)
    assert worker.ended() == 0
    assert worker.log.split() == ["entered", "leaving", "left"]


def test_a_lifespan_that_cares_in_which_task_it_is(start: Start) -> None:
    inside = "group = await asyncio.TaskGroup().__aenter__(); task = group.create_task(asyncio.sleep(0))"
    worker = start(LIFESPAN.format(inside=inside).replace("yield", "async with asyncio.timeout(60): yield"), "app")
    worker.told("ready")
    worker.order(StopMode.GRACEFUL)
    assert worker.ended() == 0


@pytest.mark.parametrize("how", ["signal", "order", "end of file"])
def test_an_end_while_the_lifespan_is_being_entered(start: Start, how: str) -> None:
    worker = start(LIFESPAN.format(inside="await asyncio.sleep(1000)"), "app")
    wait_until(lambda: "entered" in worker.log, "the lifespan")
    if how == "signal":
        os.kill(worker.pid, signal.SIGTERM)
    elif how == "order":
        worker.order(StopMode.GRACEFUL)
    else:
        worker.pipe.close()
    assert worker.ended() == 0
    assert "left" in worker.log
    assert "leaving" not in worker.log


def test_an_end_during_an_import_is_at_once(start: Start) -> None:
    worker = start("import time; print('importing', flush=True); time.sleep(1000)")
    wait_until(lambda: "importing" in worker.log, "the import")
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.ended() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "importing shop_application failed"),
        ("async def handler(): ...", "must take the connection alone"),
        (LIFESPAN.format(inside="raise RuntimeError('no database')"), "no database"),
    ],
)
def test_what_cannot_begin_says_why(start: Start, source: str, words: str) -> None:
    worker = start(source, "app" if "lifespan" in source else "handler")
    gone = worker.told("gone")
    assert (gone.exit, worker.ended()) == (3, 3)
    assert gone.error is not None
    assert words in gone.error
    assert "shop_application" in gone.error
    assert "Traceback" not in worker.log  # it is the supervisor that shows it


def test_a_lifespan_that_fails_at_its_end(start: Start) -> None:
    source = LIFESPAN.format(inside="pass").replace('print("leaving", flush=True)', "raise RuntimeError('lost')")
    worker = start(source, "app")
    worker.told("ready")
    worker.order(StopMode.GRACEFUL)
    assert worker.ended() == 1
    assert "the lifespan of shop_application:app failed at its end" in worker.log
    assert "RuntimeError: lost" in worker.log


def test_a_crash_in_native_code_leaves_a_traceback(start: Start) -> None:
    source = """
        import ctypes, resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        async def handler(websocket):
            ctypes.string_at(0)
    """
    worker = start(source)
    worker.told("ready")
    with RawClient(worker.port) as client:
        client.open()
        client.expect_end()
    assert worker.ended() == -signal.SIGSEGV
    assert "in handler" in worker.log
