"""The log of a real daemon: a reader who does not read, a file that is moved, a full disk, hostile clients.

What must not live here: lines, outputs and queues by themselves (tests/logs).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from tests.support import wire
from tests.support.harness import APPLICATIONS, ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tests.support.wire import frame

# Echoes, and logs as much as it is told to.
TALKATIVE = """
    import logging, os

    async def handler(websocket):
        async for message in websocket:
            if message.isdigit():
                websocket.logger.error("x" * int(message))
            await websocket.send(message)
"""


RAISES = """
    async def handler(websocket):
        await websocket.recv()
        raise ValueError("first" + "x" * 8_000_000 + "last")
"""


SAYS_ALL = """
    import logging

    async def handler(websocket):
        logging.getLogger("shop").info("of the application")
        for level in ("debug", "info", "warning"):
            getattr(websocket.logger, level)("%s of the connection", level)
"""


class Reader:
    """The end of a pipe that is read when a test wants it to be."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.read = b""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self.writer)  # the thread, if there is one, reads to the end
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self.reader)

    def start(self) -> None:
        """Read from now on."""
        self._thread.start()

    def _run(self) -> None:
        while data := os.read(self.reader, 65536):
            self.read += data


@pytest.mark.slow
@pytest.mark.parametrize("format", ["text", "json"])
async def test_an_error_of_megabytes_is_shortened_and_not_lost(format: str) -> None:
    with Daemon(RAISES, "--log-format", format) as daemon:
        async with connect(daemon.uri, proxy=None) as client:
            await client.send("x")
            await client.wait_closed()
            assert client.close_code == 1011
        await asyncio.to_thread(wait_until, lambda: "xxxlast" in daemon.log, "the error")
        assert "ValueError: firstxxx" in daemon.log
        assert len(daemon.log) < 100_000
        assert daemon.metrics().total("tidegate_log_messages_dropped_total") == 0
        assert daemon.stop() == 0


async def echo(daemon: Daemon, *messages: str) -> None:
    async with connect(daemon.uri) as websocket:
        for message in messages:
            await websocket.send(message)
            assert await websocket.recv() == message


async def lose_lines(daemon: Daemon) -> None:
    """Log, in lines long and short, until there is no more room."""
    before = lost = daemon.metrics().total("tidegate_log_messages_dropped_total")
    while lost == before:
        await echo(daemon, *["100000"] * 50, *["100"] * 50)
        lost = daemon.metrics().total("tidegate_log_messages_dropped_total")


def lines_of(*paths: Path) -> list[str]:
    return [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("form", ["text", pytest.param("json", marks=pytest.mark.slow)])
@pytest.mark.slow
async def test_clients_go_on_while_nobody_reads_the_log(form: str) -> None:
    with Reader() as reader, Daemon(TALKATIVE, "--log-format", form, workers=2, stderr=reader.writer) as daemon:
        await lose_lines(daemon)
        # The supervisor does its work too.
        first = daemon.workers()[0]
        daemon.signal(signal.SIGKILL, first)
        wait_until(lambda: len(daemon.workers()) == 2 and first not in daemon.workers(), "a new worker")
        daemon.signal(signal.SIGUSR1)
        await lose_lines(daemon)  # those that the dead one has lost, it cannot tell of any more
        assert not fcntl.fcntl(reader.writer, fcntl.F_GETFL) & os.O_NONBLOCK
        reader.start()
        wait_until(lambda: b" lines of the log were lost before this one" in reader.read, "the line that says so")
        await echo(daemon, "and on")
        assert daemon.stop() == 0
    assert daemon.process is not None
    assert b"stopped with status 0" in reader.read


@pytest.mark.slow
async def test_a_daemon_whose_log_nobody_reads_ends_in_time() -> None:
    with Reader() as reader, Daemon(TALKATIVE, stderr=reader.writer) as daemon:
        await echo(daemon, *["100000"] * 60)
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_a_reader_that_is_gone_harms_nobody() -> None:
    reader, writer = os.pipe()
    with Daemon(TALKATIVE, "--access-log", stderr=writer) as daemon:
        os.close(reader)
        await echo(daemon, *["100000"] * 60)
        os.close(writer)
        (worker,) = daemon.workers()
        daemon.signal(signal.SIGKILL, worker)
        wait_until(lambda: daemon.workers() not in ([], [worker]), "a new worker")
        daemon.wait_ready()
        await echo(daemon, "still here")
        assert daemon.stop() == 0


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
async def test_a_connection_s_logger_logs_at_the_level_of_the_daemon(level: str) -> None:
    """And what every connection would add to the log, `info` leaves out."""
    with Daemon(SAYS_ALL, "--log-level", level) as daemon:
        async with connect(daemon.uri) as websocket:
            await websocket.wait_closed()
        assert daemon.stop() == 0
        said = daemon.log
    assert ("debug of the connection" in said) is (level == "debug")
    assert ("info of the connection" in said) is (level != "warning")
    assert "warning of the connection" in said
    assert ("of the application" in said) is (level != "warning")
    for line in ("connection open", "connection closed", "server closing"):
        assert (line in said) is (level == "debug")


@pytest.mark.slow
async def test_standard_error_may_be_a_socket() -> None:
    """As under systemd, whose journal reads the other end."""
    ours, theirs = socket.socketpair()
    with ours, Daemon(TALKATIVE, stderr=theirs.fileno()) as daemon:
        theirs.close()
        await echo(daemon, *["100000"] * 60)
        assert daemon.stop() == 0
        ours.settimeout(PATIENCE)
        assert b"supervisor INFO tidegate " in ours.recv(1000)


@pytest.mark.slow
async def test_a_full_disk_harms_nobody() -> None:
    with Daemon(TALKATIVE, "--log-file", "/dev/full", "--access-log") as daemon:
        await lose_lines(daemon)
        await echo(daemon, "still here")
        assert daemon.stop() == 0


async def test_rotation_loses_no_line() -> None:
    """Each process goes on in the old file until it has opened the new one: none of their lines is in neither."""
    rotations, clients = 6, 0
    with Daemon(ECHO, "--log-file", "tidegate.log", "--access-log", "--log-format", "json", workers=2) as daemon:
        log, stop = daemon.directory / "tidegate.log", False

        async def come_and_go() -> None:
            nonlocal clients
            while not stop:
                await echo(daemon, "hello")
                clients += 1

        tasks = [asyncio.create_task(come_and_go()) for _ in range(4)]
        for number in range(rotations):
            seen = clients
            while clients < seen + 20:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(log.rename, log.with_suffix(f".{number}"))
            daemon.signal(signal.SIGUSR1)
            # Every worker writes to the new one.
            await asyncio.to_thread(
                wait_until,
                lambda: log.exists() and {"worker 0", "worker 1"} <= {json.loads(x)["role"] for x in lines_of(log)},
                "lines of each worker in the new file",
            )
        stop = True
        await asyncio.gather(*tasks)
        assert daemon.stop() == 0
        files = [*(log.with_suffix(f".{number}") for number in range(rotations)), log]
        events = [json.loads(line) for line in lines_of(*files)]
        assert daemon.log == ""  # standard error has nothing of it
    for message in ("handshake", "close"):
        seen_of = [event["connection"] for event in events if event["message"] == message]
        assert len(seen_of) == len(set(seen_of)) == clients
    assert events[-1]["message"] == "stopped with status 0"


async def test_a_file_that_cannot_be_opened_anew_stays_in_use() -> None:
    with Daemon(ECHO, "--log-file", "log/tidegate.log", "--access-log", wait=False) as daemon:
        assert daemon.wait() == 2  # there is no such folder
        words = "is not allowed (no such file or directory): give a path that can be written"
        assert f"--log-file 'log/tidegate.log' {words}" in daemon.log


async def test_a_reload_changes_how_and_what_is_logged(tmp_path: Path) -> None:
    settings = tmp_path / "tidegate.toml"
    settings.write_text("access_log = false\n")
    with Daemon(ECHO, "--config", str(settings)) as daemon:
        await echo(daemon, "hello")
        settings.write_text('access_log = true\nlog_format = "json"\n')
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: '"message":"generation 1 has ended"' in daemon.log, "the end of the reload")
        await echo(daemon, "hello")
        wait_until(lambda: '"message":"close"' in daemon.log, "the line of its end")
        assert daemon.log.count("handshake") == 1
        assert daemon.stop() == 0


def hostile() -> Any:
    """Requests that decent clients do not make."""
    part = st.binary(max_size=40).map(lambda data: data.replace(b"\r\n\r\n", b""))
    return st.tuples(part, part, part).map(
        lambda parts: b"GET /%s HTTP/1.1\r\nUser-Agent: %s\r\n%s\r\nHost: x\r\n\r\n" % parts
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_masked_at_every_level(form: str) -> None:
    """Of requests, of answers, of the admin address, of the access log, and of exceptions."""
    token = "0123456789abcdef-secret"
    options = ("--log-level", "debug", "--log-format", form, "--access-log", "--trusted-proxies", "127.0.0.1")
    environment = {"TIDEGATE_ADMIN_TOKEN": token}
    with Daemon(
        APPLICATIONS / "tells_secrets.py", *options, target="application:app", wait=False, env=environment
    ) as daemon:
        wait_until(lambda: daemon.get("/readyz")[0] == 200, "it serves")
        assert daemon.get("/status", {"Authorization": f"Bearer {token}"})[0] == 200
        headers = {
            "Cookie": "session=cookie-secret",
            "Authorization": "Basic YWxhZGRpbjpzZWNyZXQ=",
            "Proxy-Authorization": "Digest response=proxy-secret",
            "Sec-WebSocket-Protocol": "chat, x.bearer.c3VicHJvdG9jb2wtc2VjcmV0",
            "Referer": "https://user:referer-secret@example.com/?code=code-secret",
        }
        with RawClient(daemon.port) as client:
            client.send(wire.request(path="/?room=blue&access_token=query-secret", headers=headers))
            assert client.response()[0] == 101
            client.close_frame()
        with RawClient(daemon.port) as client:
            client.send(b"GET / HTTP/1.1\r\nAuthorization : Bearer broken0-secret\r\n\r\n")
            assert client.response()[0] == 400
        wait_until(lambda: "for you" in daemon.log, "the handler's error")
        assert daemon.stop() == 0
        log = daemon.log
    assert "secret" not in log.replace("secrets", "")
    assert "YWxhZGRpbjpzZWNyZXQ" not in log
    assert "c3VicHJvdG9jb2wtc2VjcmV0" not in log
    assert "room=blue&access_token=***" in log
    assert "Authorization: Basic ***" in log


def test_hostile_clients_forge_nothing() -> None:
    """Whatever they send, JSON can be parsed, each line is one of ours, and there is one for each connection."""
    sent = 0
    with Daemon(ECHO, "--log-format", "json", "--access-log", "--log-file", "log", "--open-timeout", "500ms") as daemon:

        @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(hostile())
        def attack(request: bytes) -> None:
            nonlocal sent
            with RawClient(daemon.port) as client:
                client.send(request)
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(65536):
                    pass
            sent += 1

        attack()
        assert daemon.stop() == 0
        events = [json.loads(line) for line in (daemon.directory / "log").read_bytes().split(b"\n")[:-1]]
    keys = ["time", "level", "role", "logger", "message"]
    assert all(list(event)[:5] == keys for event in events)
    assert len([event for event in events if event["message"] == "handshake"]) == sent


def test_close_reasons_of_clients_forge_nothing_in_text() -> None:
    forged = "2026-11-21T00:00:00.000Z supervisor INFO all is well"
    with Daemon(ECHO, "--access-log") as daemon:
        for _ in range(5):
            reason = f"\n{forged} \x1b[2J{chr(random.randrange(0x80, 0xA0))}".encode()
            with RawClient(daemon.port).open() as client:
                client.send(frame(struct.pack("!H", 4000) + reason, 8))
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(65536):
                    pass
        wait_until(lambda: daemon.log.count(" close code=4000 ") == 5, "the lines of their ends")
        assert daemon.stop() == 0
        assert not any(line.startswith(forged) for line in daemon.log.splitlines())
        assert all(line.isprintable() for line in daemon.log.split("\n"))


def test_a_crash_in_native_code_is_in_the_file_also_after_it_was_opened_anew() -> None:
    source = """
        import faulthandler

        async def handler(websocket):
            faulthandler._sigsegv()
    """
    with Daemon(source, "--log-file", "log") as daemon:
        log = daemon.directory / "log"
        log.rename(daemon.directory / "log.1")
        daemon.signal(signal.SIGUSR1)
        wait_until(log.exists, "the new file")
        wait_until(lambda: _open_files(daemon.workers()[0]).count(str(log)) == 1, "the worker has opened it")
        with RawClient(daemon.port) as client:
            client.send(wire.request())
            wait_until(lambda: "Fatal Python error: Segmentation fault" in log.read_text(), "the traceback")
        wait_until(lambda: "was killed by signal 11" in log.read_text(), "what the supervisor says")


def _open_files(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(link) for link in folder.iterdir()]
