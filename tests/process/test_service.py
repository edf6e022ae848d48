"""The daemon under a service manager that the test plays, as another user, in a directory, on a processor of its own.

What must not live here: systemd's own opinion of the units (tests/deploy).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import resource
import signal
import socket
import stat
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect, unix_connect

from tests.process.users import opened
from tests.support.harness import ECHO, Daemon, require, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tests.support.systemd import NotifySocket, activate

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that another user may enter and write to."""
    with tempfile.TemporaryDirectory(prefix="tidegate-test-") as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.mark.slow
async def test_what_a_manager_hears_from_the_start_to_the_end(manager: NotifySocket) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
    source = """
        import os

        async def handler(websocket):
            await websocket.send(os.environ.get("NOTIFY_SOCKET", "") + os.environ.get("WATCHDOG_USEC", ""))
            async for message in websocket:
                await websocket.send(message)
    """
    with Daemon(source, workers=2, env=environment) as daemon:
        manager.wait("READY")
        first = manager.hear()
        assert first[0][1] == {"EXTEND_TIMEOUT_USEC": "65000000", "STATUS": "starting"}
        assert [message for _, message in first if "READY" in message] == [
            {"READY": "1", "STATUS": "2 of 2 workers ready"}
        ]

        async with connect(daemon.uri, proxy=None) as client:
            assert await client.recv() == "", "the application could speak for the daemon"
            manager.wait("STATUS", "2 of 2 workers ready, 1 connections".__eq__)
            victim = daemon.workers()[0]
            manager.forget()
            daemon.signal(signal.SIGKILL, victim)
            wait_until(lambda: victim not in daemon.workers(), "its end")
            manager.wait("WATCHDOG")
        manager.wait("STATUS", "2 of 2 workers ready, 0 connections".__eq__)
        assert manager.values("READY") == []

        manager.forget()
        assert await asyncio.to_thread(daemon.stop) == 0
        stopping = next(message for _, message in manager.hear() if "STOPPING" in message)
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 30_000_000
        assert stopping["STATUS"].startswith("stopping: SIGTERM")
        assert {pid for pid, _ in manager.messages} == {daemon.pid}, "others than the supervisor have spoken"


def test_ready_is_told_when_all_are_ready(manager: NotifySocket) -> None:
    """And not when the first is, or when the daemon is up."""
    source = """
        import os, time

        try:
            os.mkdir("first")
        except FileExistsError:
            while not os.path.exists("go"):
                time.sleep(0.01)

        async def handler(websocket): ...
    """
    with Daemon(source, workers=2, env={"NOTIFY_SOCKET": manager.address}, wait=False) as daemon:
        manager.wait("STATUS", lambda text: text.startswith("1 of 2 workers ready"))
        assert manager.values("READY") == []
        (daemon.directory / "go").touch()
        manager.wait("READY")
        assert daemon.stop() == 0


def test_a_daemon_that_cannot_begin_says_why(manager: NotifySocket) -> None:
    with Daemon("import nothing_like_it", wait=False, env={"NOTIFY_SOCKET": manager.address}) as daemon:
        assert daemon.wait() == 3
    assert manager.values("READY") == []
    assert manager.values("STOPPING") == ["1"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        options = ("--bind", address)
        with Daemon(ECHO, *options, bind=False, wait=False, env={"NOTIFY_SOCKET": manager.address}) as daemon:
            assert daemon.wait() == 4
    assert manager.values("STATUS")[-1] == f"{address} could not be bound: address already in use"


def test_a_reload_is_told_from_its_begin_to_its_end(manager: NotifySocket) -> None:
    with Daemon(ECHO, env={"NOTIFY_SOCKET": manager.address}) as daemon:
        manager.wait("READY")
        manager.forget()
        before = time.monotonic_ns() // 1000
        daemon.signal(signal.SIGHUP)
        assert int(manager.wait("MONOTONIC_USEC")) >= before
        manager.wait("READY")
        names = [next(iter(message)) for _, message in manager.hear() if "STATUS" not in next(iter(message))]
        assert names == ["RELOADING", "READY"]

        (daemon.directory / "application.py").write_text("import nothing_like_it")
        manager.forget()
        daemon.signal(signal.SIGHUP)
        manager.wait("READY")
        assert [message for _, message in manager.hear() if "READY" in message] == [
            {"READY": "1", "STATUS": "the last reload failed: 1 of 1 workers ready"}
        ]
        assert daemon.stop() == 0


def test_a_watchdog_of_another_process_is_not_ours(manager: NotifySocket) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}
    with Daemon(ECHO, env=environment) as daemon:
        with RawClient(daemon.port) as client:
            client.open()
            manager.wait("STATUS", lambda text: text.endswith("1 connections"))
        manager.wait("STATUS", lambda text: text.endswith("0 connections"))
        assert daemon.stop() == 0
    assert manager.values("WATCHDOG") == []


# Sockets that were opened before.


async def said(port: int) -> str:
    async with connect(f"ws://127.0.0.1:{port}/", proxy=None, open_timeout=PATIENCE) as client:
        return str(await client.recv())


async def test_socket_activation(tmp_path: Path) -> None:
    """Clients come before the daemon is up, and while there is none; the sockets are still there afterwards."""
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        second.listen()
        port = first.getsockname()[1]
        for _ in range(2):
            early = asyncio.create_task(said(port))
            await asyncio.sleep(0)
            process = activate(tmp_path, [first, second], "", "--bind", "systemd", "--workers", "2")
            try:
                assert await early == "none", "an application could take them for its own"
                async with unix_connect(str(path)) as client:
                    assert await client.recv() == "none"
            finally:
                process.terminate()
                assert await asyncio.to_thread(process.wait, 20) == 0, (tmp_path / "log").read_text()
        assert path.exists(), "a file of systemd's was removed"
    log = (tmp_path / "log").read_text()
    assert f"listening on fd://3 (127.0.0.1:{port})" in log
    assert f"listening on fd://4 (unix:{path})" in log


async def test_sockets_by_their_names(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        process = activate(tmp_path, sockets, "web:other:web", "--bind", "systemd:web")
        try:
            for sock in (sockets[0], sockets[2]):
                assert await said(sock.getsockname()[1]) == "none"
        finally:
            process.terminate()
            assert await asyncio.to_thread(process.wait, 20) == 0
        assert "fd://4" not in (tmp_path / "log").read_text()

        wrong = activate(tmp_path, sockets, "web:other:web", "--bind", "systemd:wbe")
        assert await asyncio.to_thread(wrong.wait, 20) == 4
        assert (
            "systemd:wbe could not be bound: systemd has passed no socket of that name, but web, other"
            in (tmp_path / "log").read_text()
        )


def test_sockets_that_are_not_there(tmp_path: Path) -> None:
    with Daemon(ECHO, "--bind", "systemd", bind=False, wait=False) as daemon:
        assert daemon.wait() == 4
        assert "systemd could not be bound: systemd has passed no socket: LISTEN_FDS is not set" in daemon.log
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    with Daemon(ECHO, "--bind", "systemd", bind=False, wait=False, env=environment) as daemon:
        assert daemon.wait() == 4
        assert "are for process 1" in daemon.log


def test_a_connection_is_no_listening_socket(tmp_path: Path) -> None:
    """With Accept=yes systemd starts a program for each connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        process = activate(tmp_path, [client], "", "--bind", "systemd")
        assert process.wait(PATIENCE) == 4
    assert "its unit needs Accept=no" in (tmp_path / "log").read_text()


# Where, as whom, within which limits.


def capabilities(pid: int) -> set[str]:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split()[1] for line in status if line.startswith(("CapPrm", "CapEff", "CapAmb"))}


async def test_root_is_left_for_good_once_all_is_bound(place: Path, manager: NotifySocket) -> None:
    require(os.geteuid() == 0, "being root")
    path, pidfile, log = place / "socket", place / "pid", place / "log"
    source = """
        import json, os

        async def handler(websocket):
            await websocket.send(json.dumps([*os.getresuid(), *os.getresgid(), os.getgroups(), os.environ["HOME"]]))
            async for message in websocket:
                await websocket.send(message)
    """
    options = ("--user", "nobody", "--umask", "007", "--bind", f"unix:{path}", "--bind", "127.0.0.1:0")
    options += ("--pidfile", str(pidfile), "--log-file", str(log), "--working-dir", str(place))
    (place / "application.py").write_text("import json\n" + source.replace("\n        ", "\n"))
    environment = {"NOTIFY_SOCKET": manager.address}
    with opened(Daemon(None, *options, bind=False, workers=2, env=environment)) as daemon:
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        for process in daemon.processes():
            assert set(process.uids()) == {uid}, daemon.titles()
            assert set(process.gids()) == {gid}
            assert capabilities(process.pid) == {"0" * 16}
        async with unix_connect(str(path)) as client:
            assert await client.recv() == str([uid] * 3 + [gid] * 3 + [[gid]])[:-1] + f', "{NOBODY.pw_dir}"]'
        file = path.stat()
        assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (uid, gid, 0o770)
        assert pidfile.read_text() == f"{daemon.pid}\n"
        manager.wait("READY")

        # What it has made it may renew.
        log.rename(place / "log.1")
        daemon.signal(signal.SIGUSR1)
        wait_until(log.exists, "a new log")
        assert log.stat().st_uid == uid
        victim = daemon.workers()[0]
        daemon.signal(signal.SIGKILL, victim)
        wait_until(lambda: victim not in daemon.workers() and len(daemon.workers()) == 2, "a successor")
        assert daemon.stop() == 0
    assert not path.exists()
    assert not pidfile.exists()


def test_a_link_in_a_folder_of_the_user_is_not_followed(place: Path) -> None:
    """Whoever was the daemon's user once could have put it there."""
    require(os.geteuid() == 0, "being root")
    folder, secret = place / "logs", place / "secret"
    folder.mkdir()
    secret.write_text("root's")
    secret.chmod(0o600)
    (folder / "tidegate.log").symlink_to(secret)
    for path in (folder, folder / "tidegate.log"):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    with Daemon(ECHO, "--user", "nobody", "--log-file", str(folder / "tidegate.log"), wait=False) as daemon:
        assert daemon.wait() == 2
        assert f"--log-file '{folder}/tidegate.log' is not allowed" in daemon.log
        assert "a symbolic link that others could have made is not followed" in daemon.log
    assert secret.stat().st_uid == 0
    assert secret.read_text() == "root's"


def test_a_log_that_is_somebody_elses_is_not_given_away(place: Path) -> None:
    require(os.geteuid() == 0, "being root")
    log = place / "tidegate.log"
    log.touch()
    os.chown(log, 12345, 12345)
    (place / "application.py").write_text(textwrap.dedent(ECHO))
    options = ("--user", "nobody", "--log-file", str(log), "--working-dir", str(place))
    with opened(Daemon(None, *options)) as daemon:
        assert "running as nobody" in log.read_text()
        assert daemon.stop() == 0
    assert log.stat().st_uid == 12345


def test_nothing_is_left_open_for_programs_that_are_started(place: Path) -> None:
    """Each descriptor beyond the standard streams is closed when another program is executed."""
    options = ("--bind", f"unix:{place}/web", "--control", f"{place}/control", "--log-file", f"{place}/log")
    with Daemon(ECHO, *options, "--pidfile", f"{place}/pid", workers=2) as daemon:
        victim = daemon.workers()[0]
        daemon.signal(signal.SIGKILL, victim)  # for a while its slot is another's
        seen = 0
        with RawClient(daemon.port).open():
            for process in daemon.processes():
                infos = Path(f"/proc/{process.pid}/fdinfo")
                for info in infos.iterdir() if process.pid != victim else ():
                    try:
                        flags = int(info.read_text().splitlines()[1].split()[1], 8)
                        target = os.readlink(f"/proc/{process.pid}/fd/{info.name}")
                    except FileNotFoundError:  # it has been closed meanwhile
                        continue
                    assert int(info.name) <= 2 or flags & os.O_CLOEXEC, (daemon.titles()[process.pid], target)
                    seen += int(info.name) > 2
        assert seen >= 10  # of the supervisor, the admin process and a worker


async def test_a_port_that_only_root_may_bind(place: Path) -> None:
    require(os.geteuid() == 0, "being root")
    port = next(port for port in range(1023, 600, -1) if is_free(port))
    (place / "application.py").write_text("async def handler(websocket):\n    await websocket.send('hello')\n")
    options = ("--user", "nobody", "--bind", f"127.0.0.1:{port}", "--working-dir", str(place))
    with opened(Daemon(None, *options, bind=False, workers=2)) as daemon:
        for _ in range(10):
            assert await said(port) == "hello"
        # A slot that is new needs a socket more, and root is gone.
        daemon.signal(signal.SIGTTIN)
        wait_until(lambda: "could not be bound: Permission denied" in daemon.log, "a refusal")
        assert await said(port) == "hello"
        assert daemon.stop() == 0


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def test_more_slots_once_root_is_left(place: Path) -> None:
    require(os.geteuid() == 0, "being root")
    (place / "application.py").write_text(textwrap.dedent(ECHO))
    with opened(Daemon(None, "--user", "nobody", "--working-dir", str(place))) as daemon:
        daemon.signal(signal.SIGTTIN)
        wait_until(lambda: len(daemon.workers()) == 2, "a second worker")
        daemon.wait_metric("tidegate_worker_stage", 2, stage="ready")
        async with connect(daemon.uri, proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert daemon.stop() == 0


def test_an_interpreter_that_is_closed_to_the_user_is_a_mistake(place: Path) -> None:
    require(os.geteuid() == 0, "being root")
    daemon = opened(Daemon(ECHO, "--user", "nobody", "--working-dir", str(place), wait=False))
    if "unshare" not in daemon.command:
        pytest.skip("on this machine the interpreter is open to everybody")
    daemon.command = daemon.command[daemon.command.index("--") + 1 :]
    with daemon:
        assert daemon.wait() == 2
        assert "nobody (uid" in daemon.log
        assert "may not read " in daemon.log


def test_who_is_nobody_is_a_mistake() -> None:
    with Daemon(ECHO, "--user", "no_such_user", wait=False) as daemon:
        assert daemon.wait() == 2
        assert "--user 'no_such_user' is not allowed (there is no such user)" in daemon.log


def test_the_pid_file_of_a_living_daemon_is_refused(place: Path) -> None:
    path = place / "pid"
    with Daemon(ECHO, "--pidfile", str(path), workers=2) as daemon:
        assert path.read_text() == f"{daemon.pid}\n"
        with Daemon(ECHO, "--pidfile", str(path), wait=False) as second:
            assert second.wait() == 4
            assert f"process {daemon.pid}, is running" in second.log
        victim = daemon.workers()[0]
        daemon.signal(signal.SIGTERM, victim)
        wait_until(lambda: victim not in daemon.workers(), "its end")
        assert path.read_text() == f"{daemon.pid}\n"
        daemon.signal(signal.SIGKILL)
        wait_until(lambda: not daemon.titles(), "all ended")
    assert path.exists()
    with Daemon(ECHO, "--pidfile", str(path)) as daemon:
        assert path.read_text() == f"{daemon.pid}\n"
        assert daemon.stop() == 0
    assert not path.exists()


def test_a_pid_file_is_not_written_where_the_address_is_taken(place: Path) -> None:
    path = place / "pid"
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        options = ("--bind", address, "--pidfile", str(path))
        with Daemon(ECHO, *options, bind=False, wait=False) as daemon:
            assert daemon.wait() == 4
    assert not path.exists()


async def test_the_working_directory_is_importable_and_paths_are_relative_to_it(place: Path) -> None:
    (place / "elsewhere.py").write_text("from application import handler\n")
    (place / "application.py").write_text("async def handler(websocket):\n    await websocket.send('elsewhere')\n")
    options = ("--working-dir", str(place), "--bind", "unix:socket", "--pidfile", "pid")
    with Daemon(None, *options, target="elsewhere:handler", bind=False) as daemon:
        async with unix_connect(str(place / "socket")) as client:
            assert await client.recv() == "elsewhere"
        assert (place / "pid").exists()
        assert daemon.stop() == 0
    with Daemon(ECHO, "--working-dir", str(place / "nowhere"), wait=False) as daemon:
        assert daemon.wait() == 2
        assert "--working-dir" in daemon.log
        assert "no such file or directory" in daemon.log


def test_each_worker_on_a_processor_of_its_own() -> None:
    usable = sorted(os.sched_getaffinity(0))
    with Daemon(ECHO, "--cpu-affinity", "auto", workers=len(usable) + 1) as daemon:
        pinned = [psutil.Process(pid).cpu_affinity() for pid in daemon.workers()]
        assert pinned == [[processor] for processor in (*usable, usable[0])]
        assert psutil.Process(daemon.pid).cpu_affinity() == usable
        assert daemon.stop() == 0
    with Daemon(ECHO, "--cpu-affinity", "9999", wait=False) as daemon:
        assert daemon.wait() == 2
        assert "9999 is not usable here" in daemon.log


def test_the_limit_of_open_files() -> None:
    with Daemon(ECHO, "--open-files", "512") as daemon:
        for pid in (daemon.pid, *daemon.workers()):
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 512
        assert daemon.stop() == 0


# Preloading.


async def test_a_preloaded_application_is_imported_once(place: Path) -> None:
    source = f"""
        import os

        with open({str(place / "imports")!r}, "a") as file:
            print(os.getpid(), file=file)

        async def handler(websocket):
            await websocket.send(str(os.getpid()))
    """
    with Daemon(source, "--preload", workers=2) as daemon:
        async with connect(daemon.uri, proxy=None) as client:
            assert int(await client.recv()) in daemon.workers()
        assert (place / "imports").read_text() == f"{daemon.pid}\n"
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "an upgrade loads new code" in daemon.log, "a warning")
        assert daemon.stop() == 0


def test_a_preloaded_application_that_is_broken() -> None:
    with Daemon("import nothing_like_it", "--preload", wait=False) as daemon:
        assert daemon.wait() == 3
        assert "No module named 'nothing_like_it'" in daemon.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_while_the_application_is_preloaded(number: signal.Signals, place: Path) -> None:
    source = f"import time\nopen({str(place / 'begun')!r}, 'w').close()\ntime.sleep(1000)"
    path = place / "socket"
    options = ("--preload", "--bind", f"unix:{path}", "--pidfile", str(place / "pid"))
    with Daemon(source, *options, bind=False, wait=False) as daemon:
        wait_until((place / "begun").exists, "the import")
        assert daemon.stop(number) == 0
    assert not path.exists()
    assert not (place / "pid").exists()


def test_a_preloaded_application_that_starts_threads_is_warned() -> None:
    source = """
        import threading, time

        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

        async def handler(websocket): ...
    """
    with Daemon(source, "--preload") as daemon:
        assert "has started 1 threads" in daemon.log
        assert daemon.stop() == 0
