"""Daemons at their limits: too few descriptors, too many connections, addresses that come too often, proxies.

What must not live here: answers of one server (tests/asyncio/test_admission.py), counting (tests/test_limits.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import wire
from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.rawclient import RawClient

ADDRESS = """
    async def handler(websocket):
        await websocket.send(repr(websocket.remote_address))
        async for message in websocket:
            await websocket.send(message)
"""
OPEN_FILES = 128
BUSY, LAST = 96, 112  # numbers of descriptors from which on connections are answered 503, and cut
REJECTIONS = "tidegate_limit_rejections_total"


@contextlib.contextmanager
def few_descriptors() -> Iterator[Daemon]:
    daemon = Daemon(ECHO, "--close-timeout", "1")
    daemon.command = ["sh", "-c", f'ulimit -n {OPEN_FILES} && exec "$@"', "sh", *daemon.command]
    with daemon:
        yield daemon


def handshake(
    daemon: Daemon, headers: dict[str, str | None] | None = None, first: bytes = b""
) -> tuple[int, RawClient]:
    """The status of an opening handshake, and the connection."""
    client = RawClient(daemon.port)
    client.send(first + wire.request(headers=headers))
    status, fields, _ = client.response()
    assert status == 101 or fields["retry-after"]
    return status, client


def echoes(client: RawClient) -> bool:
    client.send(b"\x81\x82\0\0\0\0hi")
    return client.frame() == (0x81, b"hi")


@pytest.mark.slow
def test_descriptors_run_out_and_nothing_else_happens() -> None:
    with few_descriptors() as daemon, contextlib.ExitStack() as clients:
        present = []
        while (last := handshake(daemon))[0] == 101:
            present.append(clients.enter_context(last[1]))
            assert len(present) < OPEN_FILES
        last[1].socket.close()
        assert last[0] == 503
        assert BUSY - 40 < len(present) < BUSY
        assert echoes(present[0])
        # More than there are descriptors, and they stay.
        crowd = [clients.enter_context(RawClient(daemon.port)) for _ in range(3 * OPEN_FILES)]
        daemon.wait_metric(REJECTIONS, len(crowd) + 1, limit="descriptors")
        worker = psutil.Process(daemon.workers()[0])
        assert BUSY <= worker.num_fds() <= LAST + 1
        assert worker.cpu_percent(interval=0.5) < 50  # nobody spins
        assert all(map(echoes, present))
        # What was cut is gone; what was answered has little time.
        wait_until(lambda: worker.num_fds() <= BUSY, "refused clients are cut")
        present.pop().socket.close()
        present.pop().socket.close()
        wait_until(lambda: worker.num_fds() < BUSY - 1, "descriptors are free")
        status, client = handshake(daemon)
        assert status == 101
        assert echoes(client)
        assert all(map(echoes, present))
        client.socket.close()
        assert daemon.metrics().total("tidegate_handshakes_total", result="limited") == len(crowd) + 1
        assert daemon.stop() == 0


def test_connections_of_all_workers_together() -> None:
    with Daemon(ECHO, "--max-connections", "10", workers=3) as daemon, contextlib.ExitStack() as clients:
        present = [clients.enter_context(RawClient(daemon.port).open()) for _ in range(10)]
        workers = daemon.metrics().select("tidegate_connections", state="open")
        assert sum(1 for _, count in workers if count) > 1
        for _ in range(20):
            status, client = handshake(daemon)
            assert status == 503
            client.socket.close()
        daemon.wait_metric(REJECTIONS, 20, limit="daemon")
        present.pop().socket.close()
        daemon.wait_metric("tidegate_connections", 9, state="open")
        status, client = handshake(daemon)
        assert status == 101
        client.socket.close()


def test_addresses() -> None:
    """Limits per address count the client that a trusted proxy names, an IPv6 network as one."""
    options = ("--max-connections-per-address", "2", "--handshake-rate", "0.01,3", "--trusted-proxies", "127.0.0.1")
    with Daemon(ECHO, *options) as daemon, contextlib.ExitStack() as clients:

        def comes(address: str) -> tuple[int, RawClient]:
            status, client = handshake(daemon, {"X-Forwarded-For": address})
            return status, clients.enter_context(client)

        assert [comes("192.0.2.1")[0] for _ in range(3)] == [101, 101, 429]
        assert [comes(f"2001:db8::{host}")[0] for host in range(3)] == [101, 101, 429]
        for _ in range(3):
            status, client = comes("192.0.2.2")
            assert status == 101
            client.socket.close()
            daemon.wait_metric("tidegate_connections", 4, state="open")
        assert comes("192.0.2.2")[0] == 429
        daemon.wait_metric(REJECTIONS, 2, limit="address")
        daemon.wait_metric(REJECTIONS, 1, limit="rate")


@pytest.mark.parametrize("unix", [False, True])
def test_the_proxy_protocol(unix: bool, tmp_path: Path) -> None:
    header = b"PROXY TCP6 2001:db8::7 2001:db8::8 4711 443\r\n"
    path = tmp_path / "socket"
    options = ("--bind", f"unix:{path}") if unix else ("--trusted-proxies", "127.0.0.0/8")
    daemon = Daemon(ADDRESS, "--proxy-protocol", *options, bind=not unix)
    with daemon, RawClient(str(path) if unix else daemon.port) as client:
        client.send(header)
        client.open()
        assert client.frame() == (0x81, b"('2001:db8::7', 4711, 0, 0)")


def test_a_proxy_protocol_that_nobody_may_speak_is_a_mistake() -> None:
    with Daemon(ECHO, "--proxy-protocol", wait=False) as daemon:
        assert daemon.wait() == 2
        assert "--trusted-proxies as well" in daemon.log
