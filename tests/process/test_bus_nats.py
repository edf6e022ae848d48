"""One room over several daemons that share a NATS server, whatever becomes of the server.

What must not live here: one daemon and its hub (test_bus.py), what the engine promises (tests/bus/).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.machines import check_all_is_there, check_gaps_are_told, restarts, two_daemons
from tests.process.test_bus import ROOM, reload
from tests.support.harness import Daemon
from tests.support.nats_server import nats_server
from tests.support.patience import PATIENCE

SECRET = "s3cr3t-of-nats"


@pytest.mark.slow
async def test_daemons_share_a_room_through_restarts_of_a_server_with_its_folder(tmp_path: Path) -> None:
    user = f'authorization {{ user: u, password: "{SECRET}" }}'
    with (
        nats_server(tmp_path / "nats", [user]) as server,
        two_daemons(server.url.replace("//", f"//u:{SECRET}@"), ROOM) as both,
    ):
        ends = restarts(server, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
        await check_all_is_there(both, 6, [*ends, lambda: reload(both[1])])
        for daemon in both:
            assert "tidegate: hub" not in daemon.titles().values()
            assert SECRET not in str(daemon.titles())
            assert daemon.stop() == 0
            assert "the bus is down: " in daemon.log
            assert SECRET not in daemon.log


@pytest.mark.slow
async def test_a_server_without_its_folder_is_told_as_a_gap(tmp_path: Path) -> None:
    with nats_server(tmp_path / "nats") as server, two_daemons(f"{server.url}/room", ROOM) as both:
        await check_gaps_are_told(both, 4, [server.forget] * 2)


@pytest.mark.slow
def test_a_daemon_says_what_is_wrong_with_its_bus(tmp_path: Path) -> None:
    with nats_server(
        tmp_path / "nats", [f'authorization {{ user: u, password: "{SECRET}" }}'], jetstream=False
    ) as server:
        for who, words in ((f"u:{SECRET}@", "need JetStream"), (f"u:{SECRET}2@", "does not let this user in")):
            url = server.url.replace("//", f"//{who}")
            with Daemon(ROOM, target="application:app", env={"TIDEGATE_BUS": url}, wait=False) as daemon:
                assert daemon.process is not None
                assert daemon.process.wait(PATIENCE) != 0
                assert words in daemon.log
                assert SECRET not in daemon.log
    wrong = [sys.executable, "-m", "tidegate", "serve", "--bus", "nats://a/b/c", "tidegate.cli.demo_application:app"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode != 0
    assert "the bus must have a name of 1 to 32 letters, digits and '-', not 'b/c'" in done.stderr
