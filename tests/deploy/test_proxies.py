"""Clients behind each reverse proxy of deploy/: they talk, their address is known, and no restart refuses them.

What must not live here: how a proxy is run (fronts.py).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from tests.deploy.fronts import KINDS, Front, caddy_version, read
from tests.process.clients import Crowd
from tests.support.harness import wait_until
from tests.support.patience import PATIENCE
from tidegate.config.schema import settings

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

STAYING = 10


@pytest.fixture(scope="module", params=KINDS)
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    """A proxy and the daemon behind it, shared by a module's tests: each leaves both as they were."""
    with Front(KINDS[request.param]) as found:
        yield found


async def test_what_is_said_arrives(front: Front) -> None:
    messages = ["hello", "€" * 10_000, b"\0" * 2**20, "", "last"]
    async with connect(front.uri, proxy=None) as websocket:
        for message in messages:
            await websocket.send(message)
        assert [await websocket.recv() for _ in messages] == messages
        pong = await websocket.ping()
        assert await pong >= 0
    assert websocket.close_code == 1000


async def test_closing_goes_both_ways(front: Front) -> None:
    async with connect(f"{front.uri}/closes", proxy=None) as websocket:
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as asked")
    before = front.daemon.metrics().total("tidegate_closes_total", code="4xxx", initiator="remote")
    async with connect(front.uri, proxy=None) as websocket:
        await websocket.close(4322)
    await asyncio.to_thread(
        front.daemon.wait_metric, "tidegate_closes_total", before + 1, code="4xxx", initiator="remote"
    )


async def test_the_client_is_known_and_cannot_lie(front: Front) -> None:
    forged = {"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.8"}
    uri = f"{front.uri}/client"
    # Another address of the loopback: not the proxy's own, which the daemon sees.
    async with connect(uri, additional_headers=forged, local_addr=("127.0.0.2", 0), host="127.0.0.1", proxy=None) as it:
        address, port, headers = json.loads(await it.recv())
        assert address == "127.0.0.2"
        if not front.kind.tls_ends_here:  # a PROXY header tells the port too
            assert port == it.local_address[1]
        assert {name.lower(): value for name, value in headers.items()}["host"] == f"localhost:{front.port}"


async def test_a_reload_of_the_daemon_refuses_nobody(front: Front) -> None:
    async with Crowd(front.uri, staying=STAYING, rate=20) as crowd:
        before = front.daemon.metrics().total("tidegate_reloads_total", result="success")
        front.daemon.signal(signal.SIGHUP)
        await asyncio.to_thread(front.daemon.wait_metric, "tidegate_reloads_total", before + 1, 30, result="success")
        await crowd.seen(STAYING)
    assert crowd.closed == {1001: STAYING}
    assert not crowd.refused
    assert crowd.went


@pytest.mark.slow
async def test_an_upgrade_of_the_daemon_refuses_nobody(front: Front) -> None:
    async with Crowd(front.uri, staying=STAYING, rate=20) as crowd:
        before = front.daemon.metrics().total("tidegate_upgrades_total", result="success")
        front.daemon.signal(signal.SIGUSR2)
        await asyncio.to_thread(front.daemon.wait_metric, "tidegate_upgrades_total", before + 1, 40, result="success")
        await crowd.seen(STAYING)
    assert crowd.closed == {1001: STAYING}
    assert not crowd.refused


async def test_connections_outlive_a_reload_of_the_proxy(front: Front) -> None:
    kept = front.kind.program != "caddy" or caddy_version() >= (2, 7)  # as the Caddyfile says
    async with connect(front.uri, proxy=None) as old:
        await asyncio.to_thread(front.reload)
        if not kept:
            with pytest.raises(ConnectionClosed):
                await old.recv()
        async with connect(front.uri, proxy=None) as new:
            for websocket in [old, new] if kept else [new]:
                await websocket.send("still there")
                assert await websocket.recv() == "still there"


@pytest.mark.slow
async def test_an_end_and_a_start_of_the_daemon(front: Front) -> None:
    """1001 arrives, then the proxy says that nobody is there, then somebody is."""
    daemon = front.daemon
    async with connect(front.uri, proxy=None) as websocket:
        assert await asyncio.to_thread(daemon.stop) == 0
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    try:
        with pytest.raises((InvalidStatus, InvalidMessage, ssl.SSLError, OSError, EOFError)) as refused:
            await connect(front.uri, proxy=None)
        if isinstance(refused.value, InvalidStatus):
            assert refused.value.response.status_code in (502, 503)
    finally:
        daemon.close()
        daemon.start()
    await asyncio.to_thread(daemon.wait_ready)
    async with asyncio.timeout(PATIENCE):
        while not await served(front):
            await asyncio.sleep(0.1)  # until the proxy asks again


async def served(front: Front) -> bool:
    """Whether a client gets through."""
    try:
        async with connect(front.uri, proxy=None) as websocket:
            await websocket.send("hello")
            return await websocket.recv() == "hello"
    except (InvalidStatus, InvalidMessage, ssl.SSLError, OSError, EOFError):
        return False


@pytest.mark.parametrize("name", ["nginx", "haproxy", pytest.param("caddy", marks=pytest.mark.slow)])
async def test_who_comes_during_a_drain_is_told_when_to_come_back(name: str) -> None:
    """By the daemon, or by a proxy that knows already."""
    with Front(KINDS[name]) as front:
        front.daemon.signal(signal.SIGWINCH)
        await asyncio.to_thread(wait_until, lambda: front.daemon.get("/readyz")[0] == 503, "a drain")
        with pytest.raises(InvalidStatus) as refused:
            await connect(front.uri, proxy=None)
        # Caddy says 502 if the daemon was quicker to answer than it was to ask.
        assert refused.value.response.status_code in ((502, 503) if name == "caddy" else (503,))
        assert refused.value.response.headers["Retry-After"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nginx", "nginx-stream", "haproxy", "haproxy-tcp"])
async def test_pings_keep_connections_and_silence_ends_them(name: str) -> None:
    """With the times of the file in small: it is these settings that decide, and the daemon's pings that count."""
    small = {"90s": "2s"}
    with Front(KINDS[name], "--ping-interval", "0.5", changes=small) as front:
        async with connect(front.uri, ping_interval=None, proxy=None) as websocket:
            await asyncio.sleep(5)  # as long as it takes for a proxy that counts wrong
            await websocket.send("still there")
            assert await websocket.recv() == "still there"
    with Front(KINDS[name], "--ping-interval", "none", changes=small) as front:
        async with connect(front.uri, ping_interval=None, proxy=None) as websocket:
            await websocket.wait_closed()
            assert websocket.close_code == 1006


@pytest.mark.slow
def test_haproxy_asks_whether_the_daemon_is_ready() -> None:
    """A daemon that drains gets nobody new, before a client has asked it in vain."""
    with Front(KINDS["haproxy"]) as front:
        front.daemon.signal(signal.SIGWINCH)
        wait_until(lambda: re.search(r"Server tidegate/local is (DOWN|going DOWN)", front.logged()), "DOWN")
        front.daemon.signal(signal.SIGHUP)
        wait_until(lambda: re.search(r"Server tidegate/local is UP", front.logged()), "UP")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("nginx/tidegate.conf", r"^\s*proxy_(?:read|send)_timeout (\d+)s;"),
        ("nginx/stream.conf", r"^\s*proxy_timeout (\d+)s;"),
        ("haproxy/haproxy.cfg", r"^\s*timeout tunnel (\d+)s"),
        ("haproxy/haproxy-tcp.cfg", r"^\s*timeout (?:client|server) (\d+)s"),
    ],
)
def test_the_daemon_decides_who_is_gone(name: str, pattern: str) -> None:
    """No proxy is quicker than a ping and the wait for its answer."""
    declared = settings()
    known = declared["ping_interval"].default + declared["ping_timeout"].default
    found = re.findall(pattern, read(name), re.MULTILINE)
    assert found
    assert all(int(seconds) > 2 * known for seconds in found)


def test_plain_http_is_sent_to_tls() -> None:
    with (
        Front(KINDS["nginx"]) as front,
        closing(http.client.HTTPConnection("127.0.0.1", front.other_port, timeout=PATIENCE)) as connection,
    ):
        connection.request("GET", "/room?a=b")
        response = connection.getresponse()
        assert (response.status, response.headers["Location"]) == (308, "https://127.0.0.1/room?a=b")
