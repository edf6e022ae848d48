"""What applications count with prometheus_client: in all workers, over their deaths, beside the daemon's own."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from websockets.asyncio.client import connect

from tests.metrics import cases_application as cases
from tests.support import programs
from tests.support.harness import APPLICATIONS, Daemon, require, wait_until
from tests.support.patience import PATIENCE
from tidegate._core.scoreboard import Scoreboard
from tidegate.environment import MULTIPROC_DIR
from tidegate.metrics.application import ApplicationCollector
from tidegate.metrics.expose import expose, registry


def count(folder: Path, *arguments: str) -> None:
    environment = {"PATH": "/usr/bin", MULTIPROC_DIR: str(folder), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(programs.program(cases.count, *arguments), check=True, env=environment)


def text(users: ApplicationCollector) -> str:
    registry = CollectorRegistry()
    registry.register(users)
    return generate_latest(registry).decode()


def test_processes_are_added_up_and_files_are_used_again(tmp_path: Path) -> None:
    count(tmp_path, "supervisor", "0", "now")
    count(tmp_path, "supervisor", "1", "now")
    files = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
    assert files == {
        "counter_0.db",
        "counter_1.db",
        "counter_0",
        "counter_1",
        "gauge_livesum_0",
        "gauge_livesum_1",
        "gauge_livesum_0.db",
        "gauge_livesum_1.db",
    }
    assert "\nseen_total 24.0\n" in text(ApplicationCollector(str(tmp_path)))
    assert "\nnow 6.0\n" in text(ApplicationCollector(str(tmp_path)))
    count(tmp_path, "0", "0", "now")  # a successor
    assert "\nseen_total 36.0\n" in text(ApplicationCollector(str(tmp_path)))
    assert "\nnow 6.0\n" in text(ApplicationCollector(str(tmp_path)))


def test_a_name_of_ours_is_left_out_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    count(tmp_path, "0", "0", "tidegate_ready")
    users = ApplicationCollector(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert "tidegate_ready" not in text(users)
            assert "\nseen_total 12.0\n" in text(users)
    assert [record.getMessage() for record in caplog.records] == [
        "the application's metric tidegate_ready is left out: tidegate has one of this name"
    ]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process has counted."""
    folder = tmp_path_factory.mktemp("counted")
    count(folder, "0", "0", "now")
    return folder


def put_garbage(path: Path) -> None:
    path.write_bytes(b"\x60" + b"\0" * 7 + b"\5\0\0\0" + b"\xff" * 100)


def put_a_sparse_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


ODD: dict[str, Callable[[Path], object]] = {
    "garbage": put_garbage,
    "one byte": lambda path: path.write_bytes(b"x"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to what never ends": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("/no/such/file"),
    "a file without an end": put_a_sparse_file,
}


@pytest.mark.parametrize("name", ["counter_1.db", "gauge_livesum_1.db", "nonsense_1.db", ".db", "counter.db"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_leaves_out_itself_alone(
    tmp_path: Path, counted: Path, kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counter_0.db").write_bytes((counted / "counter_0.db").read_bytes())
    (tmp_path / "gauge_livesum_0.db").write_bytes((counted / "gauge_livesum_0.db").read_bytes())
    ODD[kind](tmp_path / name)
    users = ApplicationCollector(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert "\nnow 3.0\n" in text(users)
    assert len(caplog.records) <= 1


def test_both_formats_show_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    count(tmp_path, "0", "0", "now")
    both = registry(Scoreboard.create())
    for accept, parse in (("", parse_text), ("application/openmetrics-text", parse_openmetrics)):
        samples = {
            sample.name: sample.value
            for family in parse(expose(both, accept)[1].decode())
            for sample in family.samples
            if not sample.name.startswith("tidegate_")
        }
        assert samples == {"seen_total": 12, "now": 3}


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    assert text(ApplicationCollector(str(tmp_path))) == ""
    assert text(ApplicationCollector(str(tmp_path / "gone"))) == ""


def folder_of(daemon: Daemon) -> Path:
    """Where the daemon's processes count."""
    (worker, *_) = daemon.workers()
    for entry in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0"):
        assert not entry.startswith(MULTIPROC_DIR.encode())  # it is made later than the process's first program
    maps = Path(f"/proc/{worker}/maps").read_text().split()
    return next(Path(word).parent for word in maps if word.endswith(".db"))


@pytest.mark.parametrize("preload", [False, True])
async def test_a_daemon_shows_what_its_application_counts(preload: bool) -> None:
    with Daemon(APPLICATIONS / "counts.py", *(["--preload"] if preload else []), workers=2) as daemon:
        clients = [await connect(daemon.uri, proxy=None) for _ in range(20)]
        pids = set()
        for client in clients:
            await client.send("hello")
            await client.send(b"x" * 50)
            pids |= {await client.recv(), await client.recv()}
        assert {int(pid) for pid in pids} == set(daemon.workers()), "both workers should have been asked"
        metrics = daemon.metrics()
        assert metrics.total("chat_said_total", kind="text") == 20
        assert metrics.total("chat_said_total", kind="binary") == 20
        assert metrics.total("chat_length_count") == 40
        assert metrics.total("chat_length_bucket", le="10.0") == 20
        assert metrics.total("chat_length_sum") == 20 * 55
        assert list(metrics.select("chat_most")) == [({}, 7)]
        assert metrics.total("chat_here") == 20
        # Their clash with ours is told (in the log, once), and ours is right.
        assert metrics.total("tidegate_connections_accepted_total") == 20

        folder = folder_of(daemon)
        names = {path.name for path in folder.iterdir()}
        killed = daemon.workers()[0]
        daemon.signal(signal.SIGKILL, killed)

        def replaced() -> bool:
            now = daemon.metrics()
            assert now.total("chat_said_total") >= 40
            return killed not in daemon.workers() and now.total("tidegate_worker_stage", stage="ready") == 2

        await asyncio.to_thread(wait_until, replaced, "a successor")
        # Whoever was with the dead worker is not here any more; what was counted there was.
        await asyncio.to_thread(wait_until, lambda: 0 < daemon.metrics().total("chat_here") < 20, "fewer people")
        assert daemon.metrics().total("chat_said_total") == 40
        assert {path.name for path in folder.iterdir()} <= names
        for client in clients:
            client.transport.abort()
        await asyncio.to_thread(wait_until, lambda: daemon.metrics().total("chat_here") == 0, "nobody")
        assert daemon.stop() == 0
        assert daemon.log.count("metric tidegate_connections_accepted is left out") == 1
    assert not folder.exists()


async def test_counters_go_on_over_a_reload_and_an_upgrade_in_place() -> None:
    with Daemon(APPLICATIONS / "counts.py", "--settle", "0", workers=2) as daemon:
        folder = None
        for number, order in enumerate((signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP), start=1):
            async with connect(daemon.uri, proxy=None) as client:
                await client.send("hello")
                await client.recv()
            assert daemon.metrics().total("chat_said_total") == number
            assert folder in (None, folder_of(daemon))
            folder = folder_of(daemon)
            daemon.signal(order)
            await asyncio.to_thread(
                wait_until, lambda number=number: daemon.log.count("has ended") == number, "the new generation", 60
            )
            assert daemon.metrics().total("chat_said_total") == number
            assert daemon.metrics().total("chat_here") == 0
        assert folder is not None
        assert daemon.stop() == 0
    assert not folder.exists()


async def test_a_folder_that_is_removed_costs_what_was_counted_and_nothing_else() -> None:
    async def say(daemon: Daemon) -> None:
        async with connect(daemon.uri, proxy=None) as client:
            await client.send("hello")
            await client.recv()

    with Daemon(APPLICATIONS / "counts.py", "--settle", "0") as daemon:
        await say(daemon)
        removed, (killed,) = folder_of(daemon), daemon.workers()
        shutil.rmtree(removed)
        await asyncio.to_thread(wait_until, lambda: f"{removed} has been removed" in daemon.log, "the daemon's word")
        await say(daemon)  # by a worker whose file is gone
        daemon.signal(signal.SIGKILL, killed)
        await asyncio.to_thread(
            wait_until, lambda: killed not in daemon.workers() and daemon.get("/readyz")[0] == 200, "a successor", 30
        )
        await say(daemon)
        assert daemon.metrics().total("chat_said_total") == 1
        daemon.signal(signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: "generation 1 has ended" in daemon.log, "another generation")
        await say(daemon)
        assert daemon.metrics().total("chat_said_total") == 2
        assert daemon.log.count("has been removed") == 1
        folder = folder_of(daemon)
        assert daemon.stop() == 0
    assert not folder.exists()


async def test_a_system_that_is_read_only_all_over() -> None:
    """A check, a daemon, a reload and an upgrade: without a folder, and each says so once."""
    require(os.geteuid() == 0, "being root")
    places = "/tmp /var/tmp /usr/tmp /dev/shm"  # what is below them is read-only with them
    script = f"""
    for place in {places} "$1"; do
        [ -d "$place" ] && mount --bind "$place" "$place" && mount -o remount,ro,bind "$place"
    done
    shift; exec "$@"
    """
    told = "metrics of the application are not collected: no folder could be made for them"
    for command in ("check", "serve"):
        with Daemon(APPLICATIONS / "counts.py", "--settle", "0", command=command, wait=False) as daemon:
            daemon.close()
            words = [*daemon.command]
            daemon.command = ["unshare", "-m", "sh", "-c", script, "sh", "/", *words]
            daemon.start()
            if command == "check":
                assert daemon.wait(PATIENCE) == 0
                assert daemon.log.count(told) == 1
                continue
            daemon.wait_ready()
            for order in (signal.SIGHUP, signal.SIGUSR2):
                async with connect(daemon.uri, proxy=None) as client:
                    await client.send("hello")
                    await client.recv()
                count = daemon.log.count("has ended")
                daemon.signal(order)
                await asyncio.to_thread(
                    wait_until, lambda count=count: daemon.log.count("has ended") > count, "the new generation", 60
                )
            assert list(daemon.metrics().select("chat_said_total")) == []
            assert daemon.log.count("Traceback") == 0
            assert daemon.stop() == 0


async def test_the_hash_of_the_settings_changes_with_them() -> None:
    with Daemon(None, "--config", "settings.toml", "--settle", "0", wait=False, target="application:handler") as daemon:
        (daemon.directory / "application.py").write_text("async def handler(websocket): pass\n")
        settings = daemon.directory / "settings.toml"
        settings.write_text("ping_interval = 10\n")
        daemon.wait_ready()
        found = []
        for number, interval in enumerate((20, 10), start=2):
            ((labels, value),) = daemon.metrics().select("tidegate_config_hash_info")
            assert value == 1
            found.append(labels["hash"])
            settings.write_text(f"ping_interval = {interval}\n")
            daemon.signal(signal.SIGHUP)
            await asyncio.to_thread(daemon.wait_metric, "tidegate_worker_generation", number)
            before = found[-1]
            await asyncio.to_thread(
                wait_until,
                lambda before=before: (
                    not any(
                        labels["hash"] == before for labels, _ in daemon.metrics().select("tidegate_config_hash_info")
                    )
                ),
                "another hash",
            )
        ((labels, _),) = daemon.metrics().select("tidegate_config_hash_info")
        assert labels["hash"] == found[0] != found[1]


def test_without_an_admin_address_nothing_is_collected(tmp_path: Path) -> None:
    application = """
        import os
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
        async def handler(websocket): pass
    """
    with Daemon(application, admin=False, wait=False) as daemon:
        wait_until(lambda: "ready: 1 of 1" in daemon.log, "ready")
        assert daemon.stop() == 0
