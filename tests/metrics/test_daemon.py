"""A real daemon's /metrics agree with what its clients did, and survive the death of a worker."""

import asyncio
import http.client
import shutil
import signal
import subprocess

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.harness import Daemon, Metrics, require, wait_until
from tests.support.patience import PATIENCE

APPLICATION = """
    async def handler(websocket):
        async for message in websocket:
            if message == "bye":
                await websocket.close(4000, "as asked")
            await websocket.send(message)
"""


def counters(metrics: Metrics) -> dict[object, float]:
    """Every value that must never shrink."""
    return {
        (name, *sorted(labels.items())): value
        for name, labels, value in metrics.samples
        if name.endswith(("_total", "_count", "_sum", "_bucket"))
    }


async def converse(websocket: ClientConnection, texts: int, binaries: int) -> None:
    for i in range(texts):
        await websocket.send("x" * i)
        await websocket.recv()
    for i in range(binaries):
        await websocket.send(b"y" * i)
        await websocket.recv()


async def test_metrics_agree_with_the_clients() -> None:
    with Daemon(APPLICATION, workers=2) as daemon:
        async with asyncio.timeout(PATIENCE):
            clients = [await connect(daemon.uri, proxy=None) for _ in range(12)]
            await asyncio.gather(*(converse(client, 10, 5) for client in clients))

            metrics = daemon.metrics()
            assert metrics.total("tidegate_connections", state="open") == 12
            assert metrics.total("tidegate_connections_accepted_total") == 12
            assert metrics.total("tidegate_handshakes_total", result="ok") == 12
            for direction in ("received", "sent"):
                assert metrics.total(f"tidegate_messages_{direction}_total", opcode="text") == 120
                assert metrics.total(f"tidegate_messages_{direction}_total", opcode="binary") == 60
                assert metrics.total(f"tidegate_{direction}_bytes_total") == 12 * (sum(range(10)) + sum(range(5)))
                assert metrics.total("tidegate_message_size_bytes_count", direction=direction) == 180
                assert metrics.total("tidegate_message_size_bytes_bucket", direction=direction, le="64.0") == 180
                assert metrics.total("tidegate_message_size_bytes_sum", direction=direction) == metrics.total(
                    f"tidegate_{direction}_bytes_total"
                )
            assert metrics.total("tidegate_handler_duration_seconds_count") == 180
            assert metrics.total("tidegate_closes_total") == 0

            for client in clients[:5]:
                await client.close()
            for client in clients[5:8]:
                await client.close(3001)
            for client in clients[8:11]:
                await client.send("bye")
                await client.wait_closed()
            clients[11].transport.abort()
            await asyncio.to_thread(daemon.wait_metric, "tidegate_closes_total", 12)

        metrics = daemon.metrics()
        assert metrics.total("tidegate_closes_total", code="1000", initiator="remote") == 5
        assert metrics.total("tidegate_closes_total", code="3xxx", initiator="remote") == 3
        assert metrics.total("tidegate_closes_total", code="4xxx", initiator="local") == 3
        assert metrics.total("tidegate_closes_total", code="1006", initiator="abort") == 1
        assert metrics.total("tidegate_connection_duration_seconds_count") == 12
        assert metrics.total("tidegate_connections") == 0
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("method", "headers", "status", "result"),
    [
        ("GET", {}, 426, "upgrade_required"),
        ("POST", {}, 405, "method_not_allowed"),
        ("GET", {f"X-{i}": "1" for i in range(200)}, 431, "too_large"),
        ("GET", {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}, 400, "bad_request"),
    ],
)
def test_handshakes_that_fail(
    echo_daemon: Daemon, method: str, headers: dict[str, str], status: int, result: str
) -> None:
    before = echo_daemon.metrics()
    client = http.client.HTTPConnection(echo_daemon.address, timeout=PATIENCE)
    client.request(method, "/", headers=headers)
    assert client.getresponse().status == status
    client.close()
    before_count = before.total("tidegate_handshakes_total", result=result)
    echo_daemon.wait_metric("tidegate_handshakes_total", before_count + 1, result=result)


async def test_pings_are_measured() -> None:
    with Daemon(APPLICATION, "--ping-interval", "0.05") as daemon:
        async with asyncio.timeout(PATIENCE), connect(daemon.uri, proxy=None):
            while daemon.metrics().total("tidegate_ping_rtt_seconds_count") < 3:
                await asyncio.sleep(0.05)
        assert daemon.metrics().total("tidegate_ping_rtt_seconds_sum") > 0


async def test_nothing_shrinks_when_a_worker_is_killed() -> None:
    with Daemon(APPLICATION, workers=2) as daemon:
        async with asyncio.timeout(PATIENCE):
            clients = [await connect(daemon.uri, proxy=None) for _ in range(20)]
            await asyncio.gather(*(converse(client, 20, 0) for client in clients))
            before = counters(daemon.metrics())
            daemon.signal(signal.SIGKILL, daemon.workers()[0])

            def replaced() -> bool:
                nonlocal before
                metrics = daemon.metrics()
                now = counters(metrics)
                assert [key for key in before if now.get(key, -1) < before[key]] == []
                before = now
                return metrics.total("tidegate_worker_stage", stage="ready") == 2 and (
                    metrics.total("tidegate_worker_spawns_total", worker=0) == 2
                )

            wait_until(replaced, "a successor that is ready")
            metrics = daemon.metrics()
            assert metrics.total("tidegate_messages_received_total") == 400
            assert metrics.total("tidegate_worker_exits_total") == 1
            assert metrics.total("tidegate_worker_exits_total", worker=0, reason="oom_suspect") == 1
            assert metrics.total("tidegate_connections", worker=0) == 0
            for client in clients:
                client.transport.abort()


def test_promtool_has_no_complaint_about_a_daemon(echo_daemon: Daemon) -> None:
    promtool = shutil.which("promtool")
    require(promtool, "promtool (Debian package prometheus)")
    assert promtool is not None
    text = echo_daemon.get("/metrics")[1]
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
