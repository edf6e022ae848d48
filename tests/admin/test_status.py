"""/status: the whole daemon as one JSON object."""

import os
import time

import msgspec

from tidegate import __version__
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.status import status


def test_a_daemon_in_service(board: Scoreboard) -> None:
    board.ready = True
    row = board.row(0)
    for _ in range(2):
        row.accepted()
        row.handshake("ok", 0.001)
        row.opened()
    row.accepted()
    row.closing()
    found = msgspec.json.decode(msgspec.json.encode(status(board.read(), board.started_at + 5)))

    slots = found.pop("slots")
    assert 0 <= found.pop("tick_age") < 60
    assert found.pop("python") == ".".join(map(str, __import__("sys").version_info[:3]))
    assert found.pop("uvloop")
    assert found == {
        "version": __version__,
        "state": "ready",
        "pid": os.getpid(),
        "started_at": board.started_at,
        "uptime": 5.0,
        "workers_desired": 2,
        "workers_ready": 1,
        "connections": {"handshaking": 1, "open": 1, "closing": 1},
        "totals": {
            "connections_accepted": 3,
            "messages_received": 0,
            "messages_sent": 0,
            "received_bytes": 0,
            "sent_bytes": 0,
        },
    }
    assert [(slot["slot"], slot["spawns"], slot["exits"], slot["backoff"]) for slot in slots] == [
        (0, 1, {}, 0.0),
        (1, 1, {}, 0.0),
    ]
    (worker,) = slots[0]["workers"]
    assert (worker["pid"], worker["generation"], worker["stage"]) == (1000, 1, "ready")
    assert worker["connections"] == {"handshaking": 1, "open": 1, "closing": 1}
    assert 0 <= worker["heartbeat_age"] < 60
    assert slots[1]["workers"][0]["heartbeat_age"] is None


def test_a_slot_that_backs_off(board: Scoreboard) -> None:
    board.retire(1, "boot_failed")
    board.backoff(1, time.monotonic() + 20)
    found = status(board.read(), time.time())
    assert found.state == "starting"
    assert 0 < found.slots[1].backoff <= 20
    assert found.slots[1].exits == {"boot_failed": 1}
    assert found.slots[1].workers == []
