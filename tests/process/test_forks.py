"""What children have that an application forks: of the daemon nothing, whichever of its processes they come from.

What must not live here: the daemon's own forks (tests/supervisor).
"""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from tests.support.harness import APPLICATIONS, ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE

# What CPython itself ignores, and what it handles: SIGINT, and with faulthandler what native code crashes by.
IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}
HANDLED = {signal.SIGINT, signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}


def dispositions(pid: int) -> dict[str, set[int]]:
    """Which signals a process blocks, ignores and handles."""
    masks = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("SigBlk", "SigIgn", "SigCgt"):
            masks[name] = {number for number in range(1, 32) if int(value, 16) >> (number - 1) & 1}
    return masks


def runs(pid: int) -> bool:
    """Whether it has not ended; its parent may have reaped it or not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def settled(pid: int) -> psutil.Process:
    """The child, once it has no title of the daemon's, which comes last."""
    child = psutil.Process(pid)
    wait_until(lambda: not " ".join(child.cmdline()).startswith("tidegate"), f"child {child} has no title")
    return child


def check_signals(pid: int) -> None:
    """Signals do what they do in every Python program."""
    # A child of multiprocessing's fork server has that one's for a moment, which ignores SIGINT.
    wait_until(lambda: dispositions(settled(pid).pid)["SigIgn"] <= IGNORED, "signals that are not ignored")
    found = dispositions(settled(pid).pid)
    assert found["SigBlk"] == set()
    assert found["SigCgt"] <= HANDLED


def check_possessions(pid: int, *ports: int) -> None:
    """It has no socket of these ports, and none by whose name the daemon holds its addresses."""
    held = []
    for each in settled(pid).net_connections("all"):
        if isinstance(each.laddr, str):
            held += [each] if "tidegate" in each.laddr or "control.sock" in each.laddr else []
        elif each.laddr and each.laddr.port in ports:
            held.append(each)
    assert held == []


@pytest.mark.parametrize("how", ["os", "fork", "forkserver", "spawn", "program"])
async def test_of_a_worker(how: str) -> None:
    with Daemon(APPLICATIONS / "forks.py") as daemon:
        async with connect(daemon.uri) as other, connect(daemon.uri) as websocket:
            await websocket.send(f"fork {how}")
            pid = int(await websocket.recv())
            [worker] = wait_until(
                lambda: found if len(found := daemon.workers()) == 1 else [], "the child has no title"
            )
            check_signals(pid)
            for child in psutil.Process(worker).children(recursive=True):  # multiprocessing has helpers of its own
                check_possessions(child.pid, daemon.port)
            # It ends by itself, and its worker goes on.
            daemon.signal(signal.SIGTERM, pid)
            wait_until(lambda: not runs(pid), "the child ends")
            await other.send("still there")
            assert await other.recv() == "still there"
            for child in psutil.Process(worker).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # of the others' end
                    child.kill()
        assert daemon.stop() == 0


@pytest.mark.slow
async def test_clients_notice_the_end_of_a_worker_whose_child_lives_on_and_so_does_the_next_daemon() -> None:
    with Daemon(APPLICATIONS / "forks.py", "--pidfile", "pid") as daemon:
        async with connect(daemon.uri) as other, connect(daemon.uri) as websocket:
            await websocket.send("fork os")
            orphan = psutil.Process(int(await websocket.recv()))
            [worker] = wait_until(
                lambda: found if len(found := daemon.workers()) == 1 else [], "the child has no title"
            )
            daemon.signal(signal.SIGKILL, worker)
            with pytest.raises(ConnectionClosedError):
                await other.recv()
        wait_until(lambda: daemon.workers() not in ([], [worker]), "there is another worker")
        daemon.wait_ready()
        daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        assert daemon.process.wait(PATIENCE) == 0
        assert orphan.is_running()
        with Daemon(ECHO, "--bind", daemon.address, bind=False) as successor:
            async with connect(daemon.uri) as websocket:
                await websocket.send("served")
                assert await websocket.recv() == "served"
            assert successor.stop() == 0


async def test_one_that_returns_to_the_event_loop_is_ended_and_one_that_exits_has_its_status() -> None:
    with Daemon(APPLICATIONS / "forks.py") as daemon:
        async with connect(daemon.uri) as other, connect(daemon.uri) as websocket:
            await websocket.send("stray")
            assert await websocket.recv() == "1"
            await websocket.send("exit 7")
            assert await websocket.recv() == "7"
            await other.send("still there")
            assert await other.recv() == "still there"
        assert daemon.stop() == 0
        assert "has returned to the event loop" in daemon.log


@pytest.mark.slow
async def test_of_the_supervisor_and_of_the_admin_process() -> None:
    """A thread forks the latter's, which nobody does on purpose."""
    with Daemon(APPLICATIONS / "forks_when_imported.py", "--preload", "--control", "control.sock") as daemon:

        def strangers() -> list[psutil.Process]:
            return [each for each in daemon.processes() if not " ".join(each.cmdline()).startswith("tidegate: ")]

        assert wait_until(lambda: len(strangers()) == 2, "the supervisor and the admin process have a child each")
        parents = {each.ppid(): each.pid for each in strangers()}
        [of_admin] = [pid for parent, pid in parents.items() if parent != daemon.pid]
        assert daemon.titles()[psutil.Process(of_admin).ppid()] == "tidegate: admin"
        admin_port = int(daemon.admin.rpartition(":")[2])
        for pid in parents.values():
            check_signals(pid)
            check_possessions(pid, daemon.port, admin_port)
        daemon.signal(signal.SIGTERM, parents[daemon.pid])
        daemon.signal(signal.SIGTERM, of_admin)
        wait_until(lambda: not runs(of_admin), "it ends")
        assert daemon.get("/readyz")[0] == 200
        async with connect(daemon.uri) as websocket:
            await websocket.send("served")
            assert await websocket.recv() == "served"
        assert daemon.stop() == 0


def test_an_application_keeps_its_own_sockets_and_handlers() -> None:
    from websockets.sync.client import connect as connected

    with Daemon(APPLICATIONS / "own_sockets.py") as daemon, connected(daemon.uri) as websocket:
        port = int(websocket.recv())
        assert websocket.recv() == "heard"
        socket.create_connection(("127.0.0.1", port)).close()
        assert daemon.stop() == 0
