"""`tidegate bench` as a program, against real servers: ours, and one of another library.

What must not live here: what a connection of load does (tests/core/test_load.py), how numbers look
(test_bench_results.py).
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import resource
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets

from tests.asyncio.ends import echo, idle, serving
from tests.cli.asked import run as run_here
from tests.cli.asked import words
from tests.cli.pipes import piped
from tests.cli.terminal import Terminal
from tests.support.harness import Daemon, free_port
from tests.support.patience import PATIENCE
from tidegate.asyncio.server import ServerConnection, broadcast
from tidegate.cli.bench.opening import Handshake, Wording
from tidegate.cli.bench.server_metrics import Unreadable, parse
from tidegate.client import Agreed, ClientOptions, check_response
from tidegate.datastructures import Headers
from tidegate.server import accept_key
from tidegate.uri import parse_uri

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

QUICK = ("--duration", "0.3", "--warm-up", "0.1", "--connections", "5")


class Written(asyncio.WriteTransport):
    """A transport of which what is written is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))


bench = functools.partial(piped, sys.executable, "-m", "tidegate", "bench")


async def result(*arguments: str, status: int = 0, **environment: str) -> dict[str, Any]:
    """The object of --json."""
    async with bench(*arguments, "--json", "-", **environment) as process, asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == status, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


async def one_round(*arguments: str, status: int = 0, **environment: str) -> dict[str, Any]:
    """The only round of the object of --json."""
    (found,) = (await result(*arguments, status=status, **environment))["rounds"]
    assert isinstance(found, dict)
    return found


async def test_numbers_agree_with_a_server_that_counts() -> None:
    counts = {"messages": 0, "bytes": 0}

    async def counting(websocket: ServerConnection) -> None:
        async for message in websocket:
            assert isinstance(message, str)
            counts["messages"] += 1
            counts["bytes"] += len(message)
            await websocket.send(message)

    async with serving(counting) as server:
        found = await one_round(
            server.uri, "--warm-up", "0", "--duration", "0.5", "--connections", "4", "--size", "100"
        )
    # Those that were on their way at the end are beyond what is measured.
    assert found["messages"] <= counts["messages"] <= found["messages"] + 2 * 4
    assert counts["bytes"] == counts["messages"] * 100
    assert found["connections"] == 4
    assert found["rate"] == pytest.approx(found["messages"] / found["seconds"])
    assert found["latency"]["count"] == found["messages"] == sum(count for _, count in found["histogram"])
    assert abs(found["bytes_received"] - found["messages"] * 102) <= 8 * 102
    # In a closed loop, connections / latency is the rate (Little's law).
    assert found["rate"] == pytest.approx(4 / found["latency"]["mean"], rel=0.2)
    assert not found["errors"]


async def test_json() -> None:
    """The object of --json has the plan, the rounds and their latencies, under these names."""
    async with serving(echo) as server:
        found = await result(server.uri, *QUICK)
    assert list(found) == ["tidegate", "python", "processors", "plan", "interrupted", "rounds", "comparison"]
    assert found["plan"]["connections"] == 5
    assert (found["plan"]["uri"], found["plan"]["mode"], found["interrupted"]) == (server.uri, "echo", False)
    latency = found["rounds"][0]["latency"]
    assert list(latency) == ["count", "min", "mean", "p50", "p90", "p99", "p99_9", "max"]
    names = ["min", "p50", "p90", "p99", "p99_9", "max"]
    assert [latency[name] for name in names] == sorted(latency[name] for name in names)
    assert found["rounds"][0]["handshake"]["count"] == 5


@pytest.mark.slow
async def test_another_library() -> None:
    async def handler(websocket: websockets.ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with websockets.serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for more in ((), ("--compression", "--size", "5000"), ("--binary", "--in-flight", "10", "--size", "200000")):
            found = await one_round(uri, *QUICK, *more)
            assert found["messages"] > 0
            assert not found["errors"]
        assert found["bytes_received"] >= (found["messages"] - 50) * 200000


async def test_a_server_that_sends_back_each_byte() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        found = await one_round(uri, *QUICK, "--raw", "--in-flight", "4")
    assert found["messages"] > 0
    assert (found["connections"], found["unanswered"], found["errors"]) == (5, 0, {})
    assert found["bytes_received"] >= (found["messages"] - 20) * 70  # frames with their masks


@pytest.mark.slow
async def test_a_stall_is_in_the_latencies_of_a_rate() -> None:
    """The server stands still for 0.5 s: all that was due meanwhile waited, and half of it for 0.25 s or more."""
    stalled = False

    async def stalling(websocket: ServerConnection) -> None:
        nonlocal stalled
        async for message in websocket:
            if not stalled and time.monotonic() > begin + 0.2:
                stalled = True
                time.sleep(0.5)  # noqa: ASYNC251 - that is what is tested
            await websocket.send(message)

    rate = ("--duration", "1.5", "--warm-up", "0", "--connections", "2", "--rate", "200")
    async with serving(stalling) as server:
        begin = time.monotonic() + 3600
        task = asyncio.create_task(one_round(server.uri, *rate))
        async with asyncio.timeout(PATIENCE):
            while not server.server.connections:
                await asyncio.sleep(0.005)
        begin = time.monotonic()
        found = await task
    assert stalled
    assert found["latency"]["count"] == 300
    waited = sum(count for seconds, count in found["histogram"] if seconds >= 0.25)
    assert waited >= 40  # 50 of the 100 that were due
    assert found["latency"]["max"] >= 0.45


async def test_a_rate_is_kept() -> None:
    async with serving(echo) as server:
        found = await one_round(server.uri, *QUICK, "--rate", "100", "--processes", "2", "--duration", "1")
    assert 98 <= found["latency"]["count"] <= 102


@pytest.mark.slow
async def test_what_is_never_answered() -> None:
    async with serving(idle) as server:
        quick = ("--duration", "0.3", "--warm-up", "0", "--connections", "2", "--timeout", "0.2")
        found = await one_round(server.uri, *quick)
        assert (found["messages"], found["unanswered"]) == (0, 2)
        by_rate = await one_round(server.uri, *quick, "--rate", "100")
        assert by_rate["unanswered"] == by_rate["latency"]["count"] == 30
        assert by_rate["latency"]["min"] >= 0.15


async def test_a_fan() -> None:
    async def fan_out(websocket: ServerConnection) -> None:
        async for message in websocket:
            broadcast(websocket.server.connections, message)

    async with serving(fan_out) as server:
        found = await one_round(server.uri, "--fan", "7", "--duration", "0.3", "--warm-up", "0")
    assert found["connections"] == 8
    assert found["latency"]["count"] > 0
    assert 0 <= found["messages"] - found["latency"]["count"] * 7 < 7
    assert found["unexpected"] == 0


async def test_handshakes() -> None:
    """As many connections are opened and closed as was asked for, over all processes."""
    async with serving(idle) as server:
        found = await one_round(server.uri, "--handshakes", "50", "--connections", "8", "--processes", "2")
    assert found["messages"] == found["connections"] == found["latency"]["count"] == 50
    assert found["rate"] > 0


async def test_every_answer_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was right has those after it recognized, if they are right as well: in pieces too, and with frames."""
    head = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n"
    right, other = head + "\r\n", head + "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
    wording = Wording(parse_uri("ws://h/"), ClientOptions(), Headers({"X-Name": "value"}))
    checked = 0

    def counted(*arguments: Any) -> Agreed:
        nonlocal checked
        checked += 1
        return check_response(*arguments)

    async def answered(answer: str, *, known: bool, rest: bytes = b"", cut: int = 0) -> bool:
        """Whether it is right."""
        transport, handshake = Written(), Handshake(wording)
        handshake.connected(transport)
        (request,) = transport.writes
        assert request.startswith(b"GET / HTTP/1.1\r\nHost: h\r\n")
        assert b"X-Name: value\r\n" in request
        key = re.search(rb"Sec-WebSocket-Key: (.+)\r\n", request)
        assert key is not None
        keys.add(key[1])
        before = checked
        data = answer.format(accept_key(key[1].decode())).encode() + rest
        assert not cut or handshake.feed(data[:cut]) is None
        found = handshake.feed(data[cut:])
        assert (checked == before) is known
        if handshake.done.exception() is None:
            assert found == rest
        return handshake.done.exception() is None

    keys: set[bytes] = set()
    monkeypatch.setattr("tidegate.cli.bench.opening.check_response", counted)
    assert await answered(right, known=False)
    assert await answered(right, known=True)
    assert await answered(right, known=True, rest=b"\x81\x00")
    assert await answered(right, known=False, cut=30)
    assert await answered(other, known=False, rest=b"\x81\x00")
    assert await answered(other, known=True)
    assert not await answered(right.replace("{}", "x" * 28), known=False)
    assert not await answered(right.replace("101", "204"), known=False)
    assert await answered(other, known=True)
    assert len(keys) == 9


async def test_idle_connections() -> None:
    async with serving(idle) as server:
        task = asyncio.create_task(one_round(server.uri, "--idle", "--connections", "20", "--duration", "1"))
        async with asyncio.timeout(PATIENCE):
            while len(server.server.connections) < 20:
                await asyncio.sleep(0.01)
        found = await task
    assert (found["connections"], found["messages"], found["latency"], found["errors"]) == (20, 0, None, {})


async def test_ramp_up() -> None:
    begin = time.monotonic()
    async with serving(echo) as server:
        found = await one_round(server.uri, *QUICK, "--ramp-up", "1")
    assert time.monotonic() - begin > 0.8 + 0.4
    assert found["connections"] == 5


@pytest.mark.slow
async def test_comparing() -> None:
    """The rounds of two servers alternate, and the ratios tell which one is faster."""

    async def slow(websocket: ServerConnection) -> None:
        async for message in websocket:
            await asyncio.sleep(0.02)
            await websocket.send(message)

    async with serving(echo) as fast, serving(slow) as other:
        found = await result(fast.uri, *QUICK, "--compare", other.uri, "--rounds", "2")
    assert [each["uri"] for each in found["rounds"]] == [fast.uri] * 2 + [other.uri] * 2
    assert (found["comparison"]["uri"], found["comparison"]["over"]) == (fast.uri, other.uri)
    assert found["comparison"]["rate"] > 1 > found["comparison"]["p50"]


@pytest.mark.slow
async def test_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with serving(echo, ssl=context) as server:
        uri = server.uri.replace("ws:", "wss:")
        for options, environment in ((("--insecure",), {}), ((), {"SSL_CERT_FILE": str(tmp_path / "ca.pem")})):
            found = await one_round(uri, *QUICK, *options, **environment)
            assert found["messages"] > 0
            assert not found["errors"]
        found = await one_round(uri, *QUICK, status=1)
    assert found["errors"] == {"TLS: unable to get local issuer certificate": 5}


async def test_what_the_server_says_of_itself() -> None:
    with Daemon(workers=1) as daemon:
        metrics = f"http://{daemon.admin}/metrics"
        found = await one_round(daemon.uri, *QUICK, "--duration", "1", "--metrics", metrics)
        assert 0 < found["server"]["cpu_seconds"] < PATIENCE
        assert found["server"]["cpu_per_message"] == found["server"]["cpu_seconds"] / found["messages"]
        assert found["server"]["memory_per_connection"] is not None


@pytest.mark.slow
async def test_errors_by_kind() -> None:
    async def leaving(websocket: ServerConnection) -> None:
        await websocket.recv()
        await websocket.close(1011)

    nobody = f"ws://127.0.0.1:{free_port()}/"
    assert (await one_round(nobody, *QUICK, status=1))["errors"] == {"connect: Connection refused": 5}
    async with serving(leaving) as server:
        found = await one_round(server.uri, *QUICK, status=1)
        assert found["errors"] == {"closed by the server with 1011": 5}
        found = await one_round(server.uri, *QUICK, "--compression", status=1)
        assert found["errors"] == {"handshake: the server does not agree on compression": 5}
    async with serving(echo, process_request=lambda websocket, _: websocket.respond(403, "no\n")) as server:
        assert (await one_round(server.uri, *QUICK, status=1))["errors"] == {"handshake: HTTP 403": 5}
        storm = await one_round(server.uri, "--handshakes", "6", "--connections", "2", status=1)
        assert storm["errors"] == {"handshake: HTTP 403": 6}
    with socket.create_server(("127.0.0.1", 0)) as listener:  # which accepts nobody
        silent = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        found = await one_round(silent, *QUICK, "--timeout", "0.2", status=1)
    assert found["errors"] == {"handshake: timed out": 5}


async def test_interrupted() -> None:
    """Ctrl-C ends it with status 130 and the results so far."""
    long = ("--duration", "3600", "--warm-up", "0", "--json", "-")
    got = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)
            got.set()

    async with serving(handler) as server, bench(server.uri, *long) as process, asyncio.timeout(PATIENCE):
        await got.wait()
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == 130
    found = json.loads(out)
    assert found["interrupted"]
    assert found["rounds"][0]["messages"] > 0
    assert found["rounds"][0]["seconds"] < PATIENCE


async def test_at_a_terminal() -> None:
    async with serving(echo) as server, Terminal("bench", server.uri, "--duration", "3600") as terminal:
        await terminal.until(lambda shown: any("messages/s" in line for line in shown))
        assert any("connections" in line for line in terminal.shown)
        terminal.type("\x03")
        assert await terminal.ended() == 130
        shown = await terminal.until(lambda shown: any("p99.9" in line for line in shown))
        assert any("█" in line for line in shown)
        assert terminal.is_as_before()


async def test_with_a_pipe(tmp_path: Path) -> None:
    """No live view, and the same figures as in the file."""
    path = tmp_path / "result.json"
    async with serving(echo) as server, bench(server.uri, *QUICK, "--json", str(path)) as process:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    assert not err
    found = json.loads(path.read_text())["rounds"][0]
    assert f"messages/s: {found['messages']:,} in 0.3 s" in out.decode()
    assert "\x1b" not in out.decode()


MISTAKES = {
    ("http://localhost/",): "http://localhost/ isn't a valid URI: scheme isn't ws or wss",
    ("ws://h/", "--connections", "0"): "--connections '0' is not allowed: give a whole number from 1 to 1000000",
    ("ws://h/", "--rate", "-1"): "--rate '-1' is not allowed: give a number above 0",
    ("ws://h/", "--rate", "nan"): "--rate 'nan' is not allowed: give a number above 0",
    ("ws://h/", "--fan", "2", "--idle"): "--idle and --fan exclude each other",
    ("ws://h/", "--fan", "2", "--processes", "2"): "--processes cannot be given with --fan",
    ("ws://h/", "--idle", "--text"): "--text and --binary cannot be given with --idle",
    ("ws://h/", "--metrics", "h:1"): "--metrics must be an http:// or https:// URL, not 'h:1'",
    ("ws://h/", "--size", "2GiB"): "--size must be up to 1073741824 bytes",
    ("ws://h/", "--size", "1GiB", "--in-flight", "10"): "--connections x --in-flight x --size must be up to 4 GiB",
    ("ws://h/", "--raw", "--compression"): "--raw and --compression exclude each other",
    ("ws://h/", "--raw", "--handshakes", "9"): "--raw cannot be given with --handshakes",
    ("ws://h/", "--compare", "x"): "x isn't a valid URI",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_mistakes(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Each mistake is one line that names the option, the value and what is allowed."""
    assert run_here("bench", *arguments) == 2
    out, err = words(capsys)
    assert not out
    assert err.startswith(f"tidegate bench: {MISTAKES[arguments]}")
    assert len(err.splitlines()) == 1


async def test_too_few_descriptors() -> None:
    """What the system does not allow is said before anything is opened."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"),
        *(sys.executable, "-m", "tidegate", "bench", "ws://127.0.0.1:1/", "--connections", "500"),
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=limit,
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    expected = "--connections must be up to 36 for each of --processes: the system allows 100 open files (ulimit -n)"
    assert err.decode() == f"tidegate bench: {expected}\n"


def test_pages_of_metrics() -> None:
    ours = 'tidegate_process_cpu_seconds_total{worker="0"} 1.5\ntidegate_process_cpu_seconds_total{worker="1"} 2\n'
    ours += 'tidegate_process_cpu_seconds_total{worker="admin"} 9\n'
    assert parse(ours) == (3.5, None)
    assert parse("process_cpu_seconds_total 2\nprocess_resident_memory_bytes 1024\n") == (2, 1024)
    with pytest.raises(Unreadable, match="there is neither"):
        parse("up 1\n")
    with pytest.raises(Unreadable, match="no page of metrics"):
        parse("<html> {\n")
