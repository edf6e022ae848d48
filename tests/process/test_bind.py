"""What a daemon can listen on, who else may not, and how connections spread over its workers.

What must not live here: the grammar of addresses (tests/test_config.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from websockets.asyncio.client import connect, unix_connect

from tests.support.harness import APPLICATIONS, ECHO, Daemon, free_port, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these


def ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def echoes(uri: str) -> bool:
    async with connect(uri, proxy=None) as client:
        await client.send("hello")
        return await client.recv() == "hello"


async def test_two_hundred_connections_are_spread_over_two_workers() -> None:
    with Daemon(APPLICATIONS / "names_its_process.py", workers=2) as daemon:
        clients = [connect(daemon.uri, compression=None, ping_interval=None, proxy=None) for _ in range(200)]
        opened = await asyncio.gather(*clients)
        workers = Counter([int(await client.recv()) for client in opened])
        assert set(workers) == set(daemon.workers())
        # Each is one of two by a hash of the client's port: fewer than 60 of 200 has a chance of 1 in 10**8.
        assert min(workers.values()) >= 60
        await asyncio.gather(*(client.close() for client in opened))
        assert daemon.stop() == 0


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    """The daemon listens on an IPv6 address, which the log has in brackets."""
    with Daemon(ECHO, host="::1", workers=2) as daemon:
        assert await echoes(daemon.uri)
        assert f"listening on [::1]:{daemon.port}" in daemon.log
        assert daemon.stop() == 0


async def test_a_host_name_and_several_addresses() -> None:
    port, other = free_port(), free_port()
    options = ("--bind", f"localhost:{port}", "--bind", f"127.0.0.1:{other}")
    with Daemon(ECHO, *options, bind=False, workers=2) as daemon:
        for uri in (f"ws://localhost:{port}/", f"ws://127.0.0.1:{other}/"):
            assert await echoes(uri)
        assert daemon.stop() == 0


async def test_a_port_that_the_system_chooses() -> None:
    with Daemon(ECHO, "--bind", "127.0.0.1:0", bind=False, workers=2) as daemon:
        line = next(line for line in daemon.log.splitlines() if "listening on" in line)
        assert await echoes(f"ws://127.0.0.1:{int(line.rpartition(':')[2])}/")
        assert daemon.stop() == 0


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Daemon(APPLICATIONS / "names_its_process.py", "--bind", f"unix:{path}", bind=False, workers=2) as daemon:
        workers = set()
        while workers != set(daemon.workers()):
            async with unix_connect(str(path)) as client:
                workers.add(int(await client.recv()))
        # Neither the death of a worker nor the end of one takes the file with it.
        for number, worker in zip((signal.SIGKILL, signal.SIGTERM), daemon.workers(), strict=True):
            daemon.signal(number, worker)
            wait_until(lambda worker=worker: worker not in daemon.workers(), "its end")
        wait_until(lambda: daemon.metrics().total("tidegate_worker_stage", stage="ready") == 2, "successors")
        async with unix_connect(str(path)) as client:
            assert int(await client.recv()) in daemon.workers()
        assert daemon.stop() == 0
    assert not path.exists()


async def test_no_name_is_in_the_abstract() -> None:
    with Daemon(ECHO, "--bind", "unix:@name", bind=False) as daemon:
        path = daemon.directory / "@name"
        assert stat.S_ISSOCK(path.stat().st_mode)
        async with unix_connect(str(path)) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert daemon.stop() == 0
        assert not path.exists()


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
async def test_every_address_of_ipv6_is_none_of_ipv4() -> None:
    port = free_port()
    with Daemon(ECHO, "--bind", f"[::]:{port}", bind=False) as daemon:
        assert await echoes(f"ws://[::1]:{port}/")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
        assert daemon.stop() == 0
    with Daemon(ECHO, "--bind", f"[::]:{port}", "--bind", f"0.0.0.0:{port}", bind=False) as daemon:
        for host in ("[::1]", "127.0.0.1"):
            assert await echoes(f"ws://{host}:{port}/")
        assert daemon.stop() == 0


async def test_a_unix_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Daemon(ECHO, "--bind", f"unix:{path}", bind=False) as daemon:
        daemon.signal(signal.SIGKILL)
        wait_until(lambda: not daemon.titles(), "all ended")
    assert stat.S_ISSOCK(path.stat().st_mode)
    with Daemon(ECHO, "--bind", f"unix:{path}", bind=False) as daemon:
        async with unix_connect(str(path)) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert daemon.stop() == 0


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with Daemon(ECHO, "--bind", f"unix:{path}", bind=False, wait=False) as daemon:
        assert daemon.wait() == 4
        assert f"unix:{path}" in daemon.log
        assert "is not a socket" in daemon.log
    assert path.read_text() == "precious"


async def test_a_socket_that_is_handed_over(tmp_path: Path) -> None:
    """As a service manager does it: it listens, starts the daemon, and clients may come before that is up."""
    (tmp_path / "application.py").write_text("async def handler(websocket):\n    await websocket.send('hello')\n")
    admin = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "tidegate", "serve", "application:handler", "--bind", f"fd://{number}"]
        command += ["--admin", f"127.0.0.1:{admin}", "--workers", "2"]
        process = await asyncio.to_thread(subprocess.Popen, command, cwd=tmp_path, pass_fds=[number])
        try:
            async with connect(f"ws://127.0.0.1:{port}/", proxy=None, open_timeout=PATIENCE) as client:
                assert await client.recv() == "hello"
        finally:
            process.terminate()
            assert await asyncio.to_thread(process.wait, 20) == 0


@pytest.mark.parametrize("number", [9999, 2])
def test_a_descriptor_that_is_no_socket(number: int) -> None:
    with Daemon(ECHO, "--bind", f"fd://{number}", bind=False, wait=False) as daemon:
        assert daemon.wait() == 4
        assert f"fd://{number} could not be bound" in daemon.log


@pytest.mark.parametrize("listening", [True, False], ids=["listening", "bound"])
def test_a_port_that_another_program_has(listening: bool) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listening:
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with Daemon(ECHO, "--bind", address, bind=False, wait=False) as daemon:
            assert daemon.wait() == 4
            assert f"{address} could not be bound: address already in use" in daemon.log


@pytest.mark.slow
def test_a_port_that_another_program_shares_with_anybody() -> None:
    """Its SO_REUSEPORT would let us join, on the very address or on one that covers it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("0.0.0.0", 0))
        other.listen()
        for host in ("127.0.0.1", "0.0.0.0"):
            with Daemon(ECHO, "--bind", f"{host}:{other.getsockname()[1]}", bind=False, wait=False) as daemon:
                assert daemon.wait() == 4


def test_an_admin_port_that_another_program_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with Daemon(ECHO, "--admin", address, admin=False, wait=False) as daemon:
            assert daemon.wait() == 4
            (error,) = (line for line in daemon.log.splitlines() if " ERROR " in line)
            assert address in error
            assert "give another address with --admin, or none" in error


def test_an_address_for_clients_and_for_the_admin() -> None:
    address = f"127.0.0.1:{free_port()}"
    with Daemon(ECHO, "--bind", address, "--admin", address, bind=False, admin=False, wait=False) as daemon:
        assert daemon.wait() == 4
        (error,) = (line for line in daemon.log.splitlines() if " ERROR " in line)
        words = f"the admin address {address} could not be bound: it is given twice: give another address with --admin"
        assert words in error


def test_a_port_that_another_program_takes_while_the_application_loads() -> None:
    with Daemon(APPLICATIONS / "waits.py", workers=2, wait=False) as daemon, socket.socket() as other:
        wait_until(lambda: len(daemon.workers()) == 2, "workers")
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", daemon.port))
        other.listen()
        (daemon.directory / "go").touch()
        assert daemon.wait() == 4
        (error,) = (line for line in daemon.log.splitlines() if " ERROR " in line)
        assert f"{daemon.address} could not be bound: address already in use" in error
        assert "Traceback" not in daemon.log


@pytest.mark.slow
async def test_the_file_of_a_unix_socket_is_removed_under_the_daemon(tmp_path: Path) -> None:
    path, control = tmp_path / "socket", tmp_path / "control"
    options = ("--bind", f"unix:{path}", "--control", str(control), "--settle", "0")
    with Daemon(ECHO, *options, bind=False, workers=2) as daemon:
        path.unlink()
        control.unlink()
        wait_until(lambda: f"unix:{path} is gone" in daemon.log, "a word of it")
        wait_until(control.exists, "the control socket")
        reload = [sys.executable, "-m", "tidegate", "reload", "--control", str(control)]
        done = await asyncio.to_thread(subprocess.run, reload, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, f"unix:{path} was gone, and has been bound again" in done.stderr) == (0, True)
        for _ in range(5):
            async with unix_connect(str(path)) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
        assert daemon.log.count(" is gone") == 1
        assert daemon.stop() == 0
    assert (path.exists(), control.exists()) == (False, False)


def test_an_address_of_another_machine() -> None:
    with Daemon(ECHO, "--bind", "192.0.2.1:8765", bind=False, wait=False) as daemon:
        assert daemon.wait() == 4
        assert "192.0.2.1:8765 could not be bound" in daemon.log


async def test_a_second_daemon_on_the_same_address_fails_and_names_the_first() -> None:
    with Daemon(ECHO, workers=2) as daemon:
        with Daemon(ECHO, "--bind", daemon.address, bind=False, wait=False) as second:
            assert second.wait() == 4
            assert f"{daemon.address} could not be bound" in second.log
            assert f"pid {daemon.pid}" in second.log
        for _ in range(10):
            assert await echoes(daemon.uri)
        assert daemon.stop() == 0


def test_a_second_daemon_fails_also_before_the_first_is_ready() -> None:
    with Daemon("import time; time.sleep(1000)", wait=False) as daemon:
        wait_until(daemon.workers, "a worker")
        with Daemon(ECHO, "--bind", daemon.address, bind=False, wait=False) as second:
            assert second.wait() == 4
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_a_successor_may_bind_while_the_first_drains() -> None:
    with Daemon(ECHO, "--drain", "20") as daemon:
        async with connect(daemon.uri, proxy=None) as first, connect(daemon.uri, proxy=None) as second:
            daemon.signal(signal.SIGTERM)
            await asyncio.wait(
                [asyncio.create_task(first.wait_closed()), asyncio.create_task(second.wait_closed())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            with Daemon(ECHO, "--bind", daemon.address, bind=False, workers=2) as successor:
                assert await echoes(daemon.uri)
                assert successor.stop() == 0
            assert daemon.poll() is None
            daemon.signal(signal.SIGTERM)
            assert await asyncio.to_thread(daemon.wait) == 0


def test_a_port_is_refused_until_a_worker_is_ready() -> None:
    """A load balancer takes an open port for a server that serves."""
    with Daemon(APPLICATIONS / "waits.py", wait=False) as daemon:
        wait_until(daemon.workers, "a worker")
        with pytest.raises(ConnectionRefusedError):
            RawClient(daemon.port)
        (daemon.directory / "go").touch()
        daemon.wait_ready()
        with RawClient(daemon.port) as client:
            client.open()
        assert daemon.stop() == 0


def test_no_descriptor_of_the_supervisor_is_left_in_a_worker() -> None:
    """What a worker holds beyond its own keeps addresses and pipes open when their owner is gone."""
    with Daemon(ECHO, workers=3) as daemon:
        listening = {}
        for worker in daemon.workers():
            links = [os.readlink(entry) for entry in Path(f"/proc/{worker}/fd").iterdir()]
            sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
            table = Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]
            listening[worker] = {line.split()[9] for line in table if line.split()[3] == "0A"} & sockets
        assert [len(inodes) for inodes in listening.values()] == [1, 1, 1]
        assert len(set.union(*listening.values())) == 3
        assert daemon.stop() == 0
