"""`tidegate top` with real daemons: at pseudo-terminals, and with pipes.

What must not live here: how things are laid out (test_dashboard.py), what is told (tests/admin).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest

from tests.asyncio.ends import serving
from tests.cli.asked import run as run_here
from tests.cli.asked import words
from tests.cli.pipes import piped
from tests.cli.terminal import Terminal
from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE, complaints
from tidegate.asyncio.client import connect
from tidegate.asyncio.server import ServerConnection
from tidegate.cli import top
from tidegate.cli.top import endpoint

COMMAND = (sys.executable, "-X", "dev", "-W", "error", "-m", "tidegate", "top")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2) as daemon:
        yield daemon


async def run(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    """Run the command with pipes: status, standard output, standard error."""
    async with piped(*COMMAND, *arguments, **environment) as process, asyncio.timeout(PATIENCE * 2):
        out, err = await process.communicate()
    return process.returncode, out.decode(), complaints(err.decode())


@contextlib.asynccontextmanager
async def clients(daemon: Daemon, count: int, messages: int) -> AsyncIterator[None]:
    """So many clients, who have had so many messages each, and of whom the daemon knows that."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            websocket = await stack.enter_async_context(connect(daemon.uri))
            for _ in range(messages):
                await websocket.send("hello")
                assert await websocket.recv() == "hello"
        yield


async def wait_open(daemon: Daemon, count: int) -> None:
    await asyncio.to_thread(daemon.wait_metric, "tidegate_connections", count, state="open")


# Pipes


async def test_a_table(daemon: Daemon) -> None:
    async with clients(daemon, 3, 4):
        status, out, err = await run("--admin", daemon.admin)
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith(f"tidegate 0.1.0 (pid {daemon.pid}): ready, up ")
    assert lines[0].endswith("2 of 2 workers ready")
    assert lines[2].startswith("connections 3 open latency p50 p90 p99")
    assert lines[10] == "slot pid generation age connections in/s out/s memory cpu lag stage"
    for slot, pid in enumerate(daemon.workers()):
        assert lines[11 + slot].startswith(f"{slot} {pid} 1 ")
        assert lines[11 + slot].endswith(" ready")
    assert f"worker 0 started (pid {daemon.workers()[0]}, generation 1)" in out
    await wait_open(daemon, 0)


async def test_numbers_are_those_of_metrics(daemon: Daemon) -> None:
    async with clients(daemon, 3, 5), piped(*COMMAND, "--admin", f"http://{daemon.admin}/", "--json") as process:
        metrics = await asyncio.to_thread(daemon.metrics)
        told: dict[str, Any] = {"totals": {}}
        async with asyncio.timeout(PATIENCE):
            while told["totals"].get("messages_sent") != metrics.total("tidegate_messages_sent_total"):
                assert process.stdout is not None
                told = json.loads(await process.stdout.readline())
    assert told["connections"] == {"handshaking": 0, "open": 3, "closing": 0, "http": 0}
    assert sum(worker["connections"] for worker in told["workers"]) == 3
    for name in ("connections_accepted", "messages_received", "messages_sent", "received_bytes", "sent_bytes"):
        assert told["totals"][name] == metrics.total(f"tidegate_{name}_total")
    await wait_open(daemon, 0)


async def test_one_message(daemon: Daemon) -> None:
    status, out, err = await run("--admin", daemon.admin, "--json", "--once")
    assert (status, err, out.count("\n")) == (0, "", 1)
    told = json.loads(out)
    assert told["interval"] > 0
    assert [worker["pid"] for worker in told["workers"]] == daemon.workers()
    assert told["history"]
    assert told["events"]


@pytest.mark.slow
async def test_messages_until_interrupted(daemon: Daemon) -> None:
    async with piped(*COMMAND, "--json", TIDEGATE_ADMIN=daemon.admin) as process, asyncio.timeout(PATIENCE):
        assert process.stdout is not None
        messages = [json.loads(await process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert messages[0]["events"]
    assert messages[0]["time"] < messages[1]["time"] < messages[2]["time"]
    assert (process.returncode, err) == (130, b"")


async def test_nobody_reads_any_more(daemon: Daemon) -> None:
    """As `tidegate top --json | head -1`."""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--json", "--admin", daemon.admin, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 1) == b"{"
    os.close(reading)
    async with asyncio.timeout(PATIENCE):
        assert await process.communicate() == (None, b"")
    assert process.returncode == 0


# Terminals


def says(*words: str) -> Any:
    """Whether each of these is on the screen, between blanks of any number."""
    return lambda shown: all(word in " ".join(" ".join(shown).split()) for word in words)


async def test_what_goes_on_is_shown(daemon: Daemon) -> None:
    async with Terminal("top", "--admin", daemon.admin) as terminal:
        shown = await terminal.until(says("0 open", "q ends", "up to "))
        assert len(shown) == 24
        async with clients(daemon, 2, 3):
            await terminal.until(says("2 open", "█"))
        await terminal.until(says("0 open", "1000: "))
        for number in range(2):
            await terminal.until(says(f"worker {number} started"))
        terminal.type("x?q")
        assert await terminal.ended() == 0
        assert terminal.is_as_before()
        assert terminal.raw.startswith(b"\x1b[?1049h")
        assert terminal.raw.endswith(b"\x1b[?1049l\x1b[?25h") or terminal.raw.endswith(b"\x1b[?25h\x1b[?1049l")


async def test_resizing(daemon: Daemon) -> None:
    """The layout follows the size of the terminal."""
    async with Terminal("top", "--admin", daemon.admin) as terminal:
        await terminal.until(says("memory cpu lag stage", "q ends"))
        terminal.resize(50, 16)
        await terminal.until(lambda shown: len(shown) == 16 and says("cpu stage")(shown) and shown[-1] == "q ends")
        terminal.resize(120, 40)
        await terminal.until(lambda shown: len(shown) == 40 and says("generation", "lag stage")(shown))
        terminal.type("q")
        assert await terminal.ended() == 0


async def test_scrolling(daemon: Daemon) -> None:
    """Arrow keys, in both modes of a terminal, scroll the workers."""
    async with Terminal("top", "--admin", daemon.admin, lines=5) as terminal:
        await terminal.until(says("workers 1 to 1 of 2 are shown"))
        terminal.type("\x1b[B")
        await terminal.until(says("workers 2 to 2 of 2 are shown"))
        terminal.type("\x1bOA")
        await terminal.until(says("workers 1 to 1 of 2 are shown"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_signals(daemon: Daemon, number: int, status: int) -> None:
    """A signal ends the command, and the terminal is restored."""
    async with Terminal("top", "--admin", daemon.admin) as terminal:
        await terminal.until(says("q ends"))
        terminal.process.send_signal(number)
        assert await terminal.ended() == status
        assert terminal.is_as_before()
        assert "Traceback" not in " ".join(terminal.shown)


async def test_the_shell_has_the_terminal_in_between(daemon: Daemon) -> None:
    async with Terminal("top", "--admin", daemon.admin) as terminal:
        await terminal.until(says("q ends"))
        process = psutil.Process(terminal.process.pid)
        terminal.type("\x1a")
        await asyncio.to_thread(wait_until, lambda: process.status() == psutil.STATUS_STOPPED, "it stops")
        assert terminal.is_as_before()
        process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(wait_until, lambda: terminal.raw.count(b"\x1b[?1049h") == 2, "it goes on")
        terminal.type("q")
        assert await terminal.ended() == 0
        assert terminal.is_as_before()


async def test_no_more_than_a_table_for_a_terminal_that_cannot(daemon: Daemon) -> None:
    async with Terminal("top", "--admin", daemon.admin, "--once") as terminal:
        assert await terminal.ended() == 0
        await terminal.until(says("2 of 2 workers ready", "connections", "worker 1 started"))
        assert b"\x1b[?1049h" not in terminal.raw
        assert terminal.is_as_before()


@pytest.mark.slow
async def test_the_admin_process_and_the_daemon_go_and_come_back() -> None:
    with Daemon(workers=1) as daemon:
        async with Terminal("top", "--admin", daemon.admin) as terminal:
            await terminal.until(says("1 of 1 workers ready"))
            (admin,) = (pid for pid, title in daemon.titles().items() if title == "tidegate: admin")
            daemon.signal(signal.SIGKILL, admin)
            await terminal.until(lambda shown: "what is shown is 0 s old: the connection to" in shown[0])
            await terminal.until(lambda shown: "1 of 1 workers ready" in shown[0])
            assert await asyncio.to_thread(daemon.stop) == 0
            await terminal.until(lambda shown: f" old: no daemon answers at {daemon.admin}" in shown[0])
            daemon.close()
            daemon.start()
            await asyncio.to_thread(daemon.wait_ready)
            await terminal.until(lambda shown: f"(pid {daemon.pid}): ready" in shown[0])
            terminal.type("q")
            assert await terminal.ended() == 0


# Refusals


async def hello(websocket: ServerConnection) -> None:
    await websocket.send('{"version":"0.0.1"}')
    await websocket.wait_closed()


async def test_nobody_is_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        status, out, err = await run("--admin", address)
    assert (status, out) == (5, "")
    assert err == (
        f"tidegate top: no daemon answers at {address} (connection refused):"
        " name the address that its --admin has, with --admin or TIDEGATE_ADMIN\n"
    )


async def test_something_else_is_there(daemon: Daemon) -> None:
    status, out, err = await run("--admin", f"http://{daemon.admin}/elsewhere", "--json")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"tidegate top: http://{daemon.admin}/elsewhere is not an admin address of this version")
    assert "HTTP 404: there is nothing here" in err


async def test_another_version() -> None:
    async with serving(hello) as server:
        status, _, err = await run("--admin", server.uri)
        assert (status, err.count("\n")) == (1, 1)
        assert f"{server.uri} has another version of tidegate than this command: try --json" in err
        async with piped(*COMMAND, "--json", "--admin", server.uri) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b'{"version":"0.0.1"}\n'


@pytest.mark.slow
async def test_a_token() -> None:
    token = "open-sesame-1234567"
    with Daemon(env={"TIDEGATE_ADMIN_TOKEN": token}) as daemon:
        status, out, err = await run("--admin", daemon.admin)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "requires the daemon's --admin-token: give it in TIDEGATE_ADMIN_TOKEN" in err
        assert "HTTP 401" in err
        for arguments, variables in ((("--admin-token", token), {}), ((), {"TIDEGATE_ADMIN_TOKEN": token})):
            status, out, err = await run("--admin", daemon.admin, *arguments, **variables)
            assert (status, err) == (0, "")
            assert "1 of 1 workers ready" in out


async def test_no_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def silence(websocket: ServerConnection) -> None:
        await websocket.wait_closed()

    monkeypatch.setattr(top, "PATIENCE", 0.1)
    async with serving(silence) as server:
        assert await asyncio.to_thread(run_here, "top", "--admin", server.uri) == 6
    assert words(capsys) == ("", f"tidegate top: {server.uri} has not answered in time\n")


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("127.0.0.1:9465", "ws://127.0.0.1:9465/live"),
        ("[::1]:9465", "ws://[::1]:9465/live"),
        ("http://gate.example", "ws://gate.example/live"),
        ("https://gate.example/admin/?a=b#c", "wss://gate.example/admin/live"),
        ("wss://[::1]:1/", "wss://[::1]:1/live"),
    ],
)
def test_addresses(given: str, uri: str) -> None:
    """HOST:PORT and URLs lead to the URL of /live."""
    assert endpoint(given) == uri


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--admin", "9465"),
            "--admin '9465' is not allowed (the host is missing, as in 0.0.0.0:9465): give HOST:PORT,",
        ),
        (("--admin", "ftp://localhost"), "the schemes are http, https, ws, wss"),
        (("--admin", "http://"), "the host is missing"),
        (("--admin", "http://localhost:a"), "localhost:a"),
        (("--admin", "none"), "--admin is none: give the daemon's admin address, with --admin"),
        (("--admin-token", "short"), "--admin-token '...' is not allowed: give 16 or more letters"),
        (("more",), "more"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake on the command line is one line and status 2."""
    assert run_here("top", *arguments) == 2
    out, err = words(capsys)
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tidegate top: ")
    assert said in err


def test_mistakes_in_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEGATE_ADMIN", "none")
    assert run_here("top") == 2
    assert words(capsys)[1].startswith("tidegate top: TIDEGATE_ADMIN is none: ")
    monkeypatch.setenv("TIDEGATE_ADMIN_TOKEN", "not a token")
    assert run_here("top", "--admin", "127.0.0.1:1") == 2
    assert words(capsys)[1].startswith("tidegate top: TIDEGATE_ADMIN_TOKEN '...' is not allowed: ")
