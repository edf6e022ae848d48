"""How a daemon ends when it is told to: what its clients see, its exit status, and that nobody stays behind.

What must not live here: ends that nobody asked for (test_crash.py), signals in the middle of a boot (test_boot.py).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support import wire
from tests.support.harness import APPLICATIONS, ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient


async def open_clients(daemon: Daemon, count: int) -> list[ClientConnection]:
    """So many open connections, a few at a time."""
    clients: list[ClientConnection] = []
    while len(clients) < count:
        batch = [
            connect(daemon.uri, compression=None, ping_interval=None, proxy=None, open_timeout=PATIENCE)
            for _ in range(min(50, count - len(clients)))
        ]
        clients += await asyncio.gather(*batch)
    return clients


async def end_of(client: ClientConnection) -> tuple[int | None, float]:
    """The close code that a client sees, and when it saw it."""
    await client.wait_closed()
    return client.close_code, time.monotonic()


async def ends_of(clients: Sequence[ClientConnection]) -> list[tuple[int | None, float]]:
    """What `end_of()` says of each, in their order."""
    return await asyncio.gather(*map(end_of, clients))


async def stopped(daemon: Daemon, timeout: float = PATIENCE) -> int:
    """The exit status, waited for while clients go on answering."""
    return await asyncio.to_thread(daemon.wait, timeout)


async def test_every_client_sees_1001_and_every_handshake_503() -> None:
    with Daemon(ECHO, "--drain", "2", workers=2) as daemon:
        clients = await open_clients(daemon, 500)
        halves = [RawClient(daemon.port) for _ in range(20)]
        for half in halves:
            half.send(wire.request()[:40])
        daemon.wait_metric("tidegate_connections", 500, state="open")
        daemon.wait_metric("tidegate_connections", 20, state="handshaking")
        daemon.signal(signal.SIGTERM)
        ends = await ends_of(clients)
        assert [code for code, _ in ends] == [1001] * 500
        for half in halves:
            status, headers, body = half.response()
            assert (status, headers["retry-after"].isdigit(), bool(body)) == (503, True, True)
            half.expect_end()
            half.socket.close()
        assert await stopped(daemon) == 0


@pytest.mark.slow
async def test_a_client_without_a_request_is_told_too() -> None:
    """Connected, and not a byte sent: it may have been waiting in the queue when the order came."""
    with Daemon() as daemon:
        silent = [RawClient(daemon.port) for _ in range(50)]
        daemon.signal(signal.SIGTERM)
        assert {client.response()[0] for client in silent} == {503}
        for client in silent:
            client.socket.close()
        assert await stopped(daemon) == 0


@pytest.mark.slow
async def test_closing_is_spread_over_the_drain_window() -> None:
    with Daemon(ECHO, "--drain", "2") as daemon:
        clients = await open_clients(daemon, 40)
        daemon.signal(signal.SIGTERM)
        ends = sorted(moment for _, moment in await ends_of(clients))
        # Each of the forty has its own twentieth of a second, the first one at once.
        assert ends[-1] - ends[0] > 1.0
        assert ends[20] - ends[0] > 0.5
        assert await stopped(daemon) == 0


@pytest.mark.slow
async def test_the_longest_idle_are_closed_first() -> None:
    with Daemon(ECHO, "--drain", "2") as daemon:
        clients = await open_clients(daemon, 10)
        talkers = clients[::2]
        for client in talkers:
            await client.send("hello")
            await client.recv()
        daemon.signal(signal.SIGTERM)
        ends = dict(zip(clients, [moment for _, moment in await ends_of(clients)], strict=True))
        assert set(sorted(clients, key=ends.__getitem__)[5:]) == set(talkers)
        assert await stopped(daemon) == 0


async def test_without_a_drain_window_all_are_closed_at_once() -> None:
    with Daemon(ECHO, "--drain", "0", workers=2) as daemon:
        clients = await open_clients(daemon, 100)
        daemon.signal(signal.SIGINT)
        assert {code for code, _ in await ends_of(clients)} == {1001}
        assert await stopped(daemon) == 0


def nobody_listens(port: int) -> bool:
    try:
        RawClient(port).socket.close()
    except ConnectionRefusedError:
        return True
    return False


async def test_readiness_is_off_and_nobody_is_accepted_while_draining() -> None:
    with Daemon(ECHO, "--drain", "500", "--graceful-timeout", "1000") as daemon:
        clients = await open_clients(daemon, 2)
        daemon.signal(signal.SIGTERM)
        assert (await end_of(await first(clients)))[0] == 1001
        assert daemon.get("/readyz")[0] == 503
        assert daemon.get("/livez")[0] == 200
        # The worker has begun; the supervisor has yet to let go of the address.
        await asyncio.to_thread(wait_until, lambda: nobody_listens(daemon.port), "an address that is closed")
        daemon.signal(signal.SIGTERM)
        assert {code for code, _ in await ends_of(clients)} == {1001}
        assert await stopped(daemon) == 0


async def first(clients: Sequence[ClientConnection]) -> ClientConnection:
    """The client whose connection ends first."""
    ends = {asyncio.create_task(client.wait_closed()): client for client in clients}
    done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return ends[done.pop()]


@pytest.mark.parametrize("order", ["supervisor first", pytest.param("supervisor last", marks=pytest.mark.slow)])
async def test_a_signal_to_every_process_is_one_order(order: str) -> None:
    """As systemd's KillMode=control-group and supervisord's stopasgroup send it: a drain, not cut short, no noise."""
    with Daemon(ECHO, drain=1, workers=2) as daemon:
        clients = await open_clients(daemon, 10)
        pids = [daemon.pid, *(pid for pid in daemon.titles() if pid != daemon.pid)]
        began = asyncio.get_running_loop().time()
        daemon.signal(signal.SIGSTOP)  # so that it learns of all at once, as if no time had passed between
        for pid in pids if order == "supervisor first" else reversed(pids):
            daemon.signal(signal.SIGTERM, pid)
        daemon.signal(signal.SIGCONT)
        ends = await ends_of(clients)
        assert {code for code, _ in ends} == {1001}
        assert await stopped(daemon) == 0
        assert asyncio.get_running_loop().time() - began > 0.4, "spread over the window"
        assert [line for line in daemon.log.splitlines() if " WARNING " in line or " ERROR " in line] == []


async def test_handlers_are_awaited_and_the_lifespan_is_left_after_them() -> None:
    with Daemon(APPLICATIONS / "tells_its_end.py", "--drain", "0", target="application:app") as daemon:
        clients = await open_clients(daemon, 3)
        daemon.signal(signal.SIGTERM)
        assert {code for code, _ in await ends_of(clients)} == {1001}
        assert await stopped(daemon) == 0
        words = [line for line in daemon.log.splitlines() if line.startswith(("lifespan", "handler"))]
        assert words == ["lifespan entered", *["handler ended"] * 3, "lifespan left"]


@pytest.mark.parametrize("attribute", ["handler", pytest.param("stubborn", marks=pytest.mark.slow)])
async def test_a_handler_that_never_returns_is_cut_at_the_timeout(attribute: str) -> None:
    with Daemon(APPLICATIONS / "endless.py", "--graceful-timeout", "1", target=f"application:{attribute}") as daemon:
        (client,) = await open_clients(daemon, 1)
        assert await client.recv() == "here"
        daemon.signal(signal.SIGTERM)
        assert (await end_of(client))[0] == 1001
        assert await stopped(daemon) == 0
        assert "aborted: 0 open connections, 1 handlers" in daemon.log
        assert ("handler cancelled" in daemon.log) == (attribute == "handler")
        assert ("are abandoned" in daemon.log) == (attribute == "stubborn")


@pytest.mark.slow
async def test_a_worker_that_blocks_its_loop_is_killed_a_little_later() -> None:
    with Daemon(APPLICATIONS / "endless.py", "--graceful-timeout", "1", target="application:blocked") as daemon:
        (client,) = await open_clients(daemon, 1)
        await client.recv()
        await client.send("now")
        wait_until(lambda: daemon.metrics().total("tidegate_heartbeat_age_seconds") > 0.5, "the worker hangs")
        daemon.signal(signal.SIGTERM)
        assert await stopped(daemon) == 0
        assert "it is killed" in daemon.log
        assert (await end_of(client))[0] == 1006


async def test_a_client_that_does_not_answer_is_waited_for_no_longer_than_close_timeout() -> None:
    with Daemon(ECHO, "--drain", "0", "--close-timeout", "0.3") as daemon, RawClient(daemon.port) as client:
        client.open()
        daemon.signal(signal.SIGTERM)
        first_byte, payload = client.frame()
        assert (first_byte & 0x0F, int.from_bytes(payload[:2], "big")) == (8, 1001)
        assert await stopped(daemon) == 0
        assert "aborted:" not in daemon.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(number: int) -> None:
    """Neither the window, nor a handler that goes on, nor a client that does not answer is waited for."""
    options = ("--drain", "500", "--graceful-timeout", "1000", "--close-timeout", "1000")
    with Daemon(APPLICATIONS / "endless.py", *options, workers=2) as daemon, RawClient(daemon.port) as rude:
        rude.open()
        clients = await open_clients(daemon, 10)
        for client in clients:
            await client.recv()
        daemon.signal(number)
        await first(clients)
        assert daemon.poll() is None
        daemon.signal(number)
        assert {code for code, _ in await ends_of(clients)} == {1001}
        assert await stopped(daemon) == 0


@pytest.mark.parametrize("draining", [False, True], ids=["serving", "draining"])
async def test_quit_cuts(draining: bool) -> None:
    with Daemon(APPLICATIONS / "endless.py", "--drain", "500", "--graceful-timeout", "1000", workers=2) as daemon:
        clients = await open_clients(daemon, 10)
        for client in clients:
            await client.recv()
        if draining:
            daemon.signal(signal.SIGTERM)
            await first(clients)
        daemon.signal(signal.SIGQUIT)
        assert {code for code, _ in await ends_of(clients)} <= {1001, 1006}
        assert await stopped(daemon) == 0


async def test_signals_of_a_terminal_reach_workers_in_vain() -> None:
    """Ctrl-C goes to every process of the foreground; what the supervisor makes of it is what counts."""
    with Daemon(ECHO, workers=2) as daemon:
        (client,) = await open_clients(daemon, 1)
        for worker in daemon.workers():
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
                daemon.signal(number, worker)
        await client.send("still here")
        assert await client.recv() == "still here"
        await client.close()
        assert daemon.stop() == 0


async def test_development_mode_finds_nothing_to_warn_of() -> None:
    with Daemon(
        APPLICATIONS / "tells_its_end.py", "--drain", "0", target="application:app", workers=2, python=("-X", "dev")
    ) as daemon:
        clients = await open_clients(daemon, 10)
        daemon.signal(signal.SIGKILL, daemon.workers()[0])
        daemon.wait_metric("tidegate_worker_exits_total", 1)
        daemon.wait_metric("tidegate_worker_stage", 2, stage="ready")
        clients += await open_clients(daemon, 10)
        daemon.signal(signal.SIGTERM)
        await ends_of(clients)
        assert await stopped(daemon) == 0
        assert "Warning" not in daemon.log
        assert "Traceback" not in daemon.log


async def test_a_worker_without_its_supervisor_drains_and_ends() -> None:
    with Daemon(ECHO, "--drain", "0", workers=2) as daemon:
        clients = await open_clients(daemon, 10)
        daemon.signal(signal.SIGKILL)
        assert {code for code, _ in await ends_of(clients)} == {1001}
        wait_until(lambda: not daemon.titles(), "nobody is left")
