"""--admin-token with a real daemon: beyond loopback it must be there, and a reload changes it."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_beyond_loopback_without_one_the_start_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "serve", "application:handler", "--admin", "0.0.0.0:0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "--admin '0.0.0.0:0' is not allowed (other machines could read the daemon's state)" in done.stderr
    assert "give --admin-token as well" in done.stderr


def test_a_reload_changes_it(tmp_path: Path) -> None:
    settings = tmp_path / "tidegate.toml"
    settings.write_text(f'admin_token = "{OLD}"\n', encoding="utf-8")
    with Daemon(ECHO, "--config", str(settings)) as daemon:
        assert daemon.get("/metrics")[0] == 401
        assert daemon.get("/metrics", bearer(OLD))[0] == 200
        settings.write_text(f'admin_token = "{NEW}"\n', encoding="utf-8")
        assert daemon.get("/status", bearer(NEW))[0] == 401
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.get("/status", bearer(NEW))[0] == 200, "the new token is the one")
        wait_until(lambda: daemon.get("/status", bearer(OLD))[0] == 401, "the old one is none")
        assert daemon.get("/readyz")[0] == 200
        assert OLD not in daemon.log
        assert NEW not in daemon.log


@pytest.mark.slow
def test_it_is_not_handed_to_what_an_application_starts() -> None:
    """Neither after the start nor after a reload and an upgrade, which know it all the same."""
    application = """
        import os, subprocess, sys

        show = "import os; print([name for name in os.environ if name.startswith('TIDEGATE_')])"

        async def handler(websocket):
            child = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True)
            await websocket.send(child.stdout.strip())
    """
    environment = {"TIDEGATE_ADMIN_TOKEN": OLD, "TIDEGATE_PING_INTERVAL": "7"}

    ours = {name for name in os.environ if name.startswith("TIDEGATE_")}  # of who runs the tests

    def told(daemon: Daemon) -> set[str]:
        with RawClient(daemon.port).open() as client:
            _, payload = client.frame()
            return set(ast.literal_eval(payload.decode())) - ours

    with Daemon(application, env=environment) as daemon:
        for number in (None, signal.SIGHUP, signal.SIGUSR2):
            before = set(daemon.workers())
            if number is not None:
                daemon.signal(number)
                wait_until(lambda before=before: not before & set(daemon.workers()), "other workers")  # type: ignore[misc]
                wait_until(lambda: daemon.get("/readyz")[0] == 200, "it serves")
            assert told(daemon) == {"TIDEGATE_PING_INTERVAL"}
            assert daemon.get("/status")[0] == 401
            assert daemon.get("/status", bearer(OLD))[0] == 200
