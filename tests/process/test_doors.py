"""The doors to a daemon's bus from outside: its socket, `tidegate publish`, POST /publish; and who is patient with it.

What must not live here: what happens to members meanwhile (test_bus.py), the doors alone (tests/cli, tests/admin).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.harness import APPLICATIONS, Daemon, wait_until
from tidegate.bus.bus import Bus

ROOM = APPLICATIONS / "room.py"


@pytest.mark.slow
async def test_the_socket_of_the_hub_is_made_again_if_somebody_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "control.hub"
    with Daemon(ROOM, "--control", str(tmp_path / "control.sock"), target="application:app") as daemon:
        async with Bus(f"local://{path}") as before:
            path.unlink()
            await asyncio.to_thread(wait_until, path.exists, "the file")
            assert path.stat().st_mode & 0o777 == 0o600
            assert f"{path}, the socket of the hub, had been removed: it has been made again" in daemon.log
            async with Bus(f"local://{path}") as after:
                first = await before.publish("h:1", "a")
                second = await after.publish("h:1", "b")
                assert first is not None
                assert second == (first.epoch, first.offset + 1)
        assert await asyncio.to_thread(daemon.stop) == 0
        assert not path.exists()
