"""/live over real sockets: what a client is told at once, and then each second."""

from __future__ import annotations

import json
import os
import signal

from tests.admin.process import Admin
from tidegate import connect


async def test_all_that_is_remembered_and_then_what_is_new(admin: Admin) -> None:
    async with connect(f"ws://127.0.0.1:{admin.ports[0]}/live") as websocket:
        first = json.loads(await websocket.recv())
        assert [event["text"] for event in first["events"]][1:] == [
            "worker 0 started (pid 1000, generation 1)",
            "worker 1 started (pid 1001, generation 1)",
        ]
        admin.board.desired = 5
        for _ in range(4):
            row = admin.board.row(0)
            row.accepted()
        second = json.loads(await websocket.recv())
        assert second["time"] > first["time"]
        assert second["workers_desired"] == 5
        assert second["totals"]["connections_accepted"] == 4
        assert second["rates"]["connections_accepted"] > 0
        assert [event["text"] for event in second["events"]] == ["workers wanted: 5, not 2"]
        assert second["history"] == []
        async with connect(f"ws://127.0.0.1:{admin.ports[1]}/live") as later:
            again = json.loads(await later.recv())
            assert [point["time"] for point in again["history"]][-1] == first["time"] or again["time"] > second["time"]
            assert "workers wanted: 5, not 2" in [event["text"] for event in again["events"]]


async def test_who_listens_is_told_of_the_end(admin: Admin) -> None:
    async with connect(f"ws://127.0.0.1:{admin.ports[0]}/live") as websocket:
        await websocket.recv()
        os.kill(admin.pid, signal.SIGTERM)
        async for _ in websocket:
            pass
        assert websocket.close_code == 1001
    assert admin.wait() == 0


async def test_what_a_client_says_is_not_heard(admin: Admin) -> None:
    async with connect(f"ws://127.0.0.1:{admin.ports[0]}/live") as websocket:
        await websocket.send("x" * 100)
        await websocket.recv()
        await websocket.recv()


def test_without_a_handshake(admin: Admin) -> None:
    status, headers, _ = admin.get("/live")
    assert status == 426
    assert headers["Upgrade"] == "websocket"
