"""Admission control of the admin process: crowds of idle clients, few descriptors, listeners, and probes among them.

What must not live here: that of workers (tests/asyncio/test_admission.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.process import Admin, start
from tests.support.patience import PATIENCE
from tidegate import InvalidStatus, connect
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.admission import CONNECTIONS
from tidegate.admin.feed import LISTENERS


@pytest.fixture
def poor(board: Scoreboard) -> Iterator[Admin]:
    """An admin process that may open 256 files."""
    admin = start(board, files=256)
    admin.pipe.settimeout(PATIENCE)
    admin.pipe.recv(4096)
    yield admin
    os.kill(admin.pid, signal.SIGKILL)
    admin.wait()
    admin.pipe.close()


def crowd(stack: contextlib.ExitStack, port: int, size: int, sends: bytes = b"") -> list[socket.socket]:
    """Clients that connect, perhaps say something, and then neither read nor leave."""
    there = []
    for _ in range(size):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
        with contextlib.suppress(ConnectionError):  # it has been cut already
            client.sendall(sends)
        there.append(client)
    return there


@pytest.mark.slow
@pytest.mark.parametrize("sends", [b"", b"GET /li", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_probes_are_answered_beside_a_crowd(admin: Admin, poor: Admin, sends: bytes) -> None:
    for asked, size in ((admin, CONNECTIONS * 3), (poor, 600)):
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                crowd(stack, asked.ports[0], size // 3, sends)
                asked.board.tick(time.monotonic())
                assert asked.get("/livez")[0] == 200
                assert asked.get("/readyz")[0] in (200, 503)
        assert len(os.listdir(f"/proc/{asked.pid}/fd")) < CONNECTIONS + 40


def test_the_oldest_makes_room(admin: Admin) -> None:
    with contextlib.ExitStack() as stack:
        oldest, *_ = crowd(stack, admin.ports[0], CONNECTIONS)
        assert admin.get("/livez")[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert oldest.recv(1) == b""


async def test_listeners_stay_and_are_bounded(admin: Admin) -> None:
    uri = f"ws://127.0.0.1:{admin.ports[0]}/live"
    async with contextlib.AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(connect(uri)) for _ in range(LISTENERS)]
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri)
        assert caught.value.response.status_code == 503
        crowd(stack.enter_context(contextlib.ExitStack()), admin.ports[0], CONNECTIONS * 2)
        for listener in listeners:
            await listener.recv()
            await listener.recv()  # a second one comes of itself
    async with connect(uri) as another:  # there is room again
        assert await another.recv()


@pytest.mark.slow
def test_who_says_nothing_has_seconds(admin: Admin) -> None:
    with socket.create_connection(("127.0.0.1", admin.ports[0]), 60) as idle:
        assert idle.recv(1) == b""
    assert Path(f"/proc/{admin.pid}").exists()
