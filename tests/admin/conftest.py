"""A scoreboard of a daemon that starts, and an admin process that serves it.

What must not live here: anything but fixtures.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.admin.process import Admin, start
from tests.support.patience import PATIENCE
from tidegate._core.scoreboard import Scoreboard


@pytest.fixture
def board() -> Scoreboard:
    """Two workers wanted, one of them ready."""
    board = Scoreboard.create()
    board.desired = 2
    for slot in range(2):
        board.spawn(board.assign(slot, generation=1), 1000 + slot)
    board.stage(0, "ready")
    board.row(0).tick(time.monotonic(), 0.001)
    board.tick(time.monotonic())
    return board


@pytest.fixture
def admin(board: Scoreboard) -> Iterator[Admin]:
    admin = start(board, listeners=2)
    ours = admin.pipe
    ours.settimeout(PATIENCE)
    try:
        assert ours.recv(4096) == b'{"stage":"ready"}\n'
        yield admin
    finally:
        if admin.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(admin.pid, signal.SIGKILL)
            admin.wait()
        ours.close()
