"""--admin-token with a real daemon: beyond loopback it must be there, and a reload changes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.harness import ECHO, Daemon, wait_until
from tests.patience import PATIENCE

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
    assert "--admin '0.0.0.0:0' is not allowed (others than this machine could see what the daemon does)" in done.stderr
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
