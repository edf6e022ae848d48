"""/status: the whole daemon as one JSON object."""

import os
import resource
import subprocess
import time

import msgspec

from tidegate import __version__
from tidegate._core.counters import FIELDS
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.status import AcceptQueue, Connections, status
from tidegate.metrics.catalog import CATALOG


def test_a_daemon_in_service(board: Scoreboard) -> None:
    board.ready = True
    row = board.row(0)
    for _ in range(2):
        row.accepted()
        row.handshake("ok", 0.001)
        row.opened()
    row.accepted()
    row.closing()
    row.accepted()
    row.http_opened()
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
        "connections": {"handshaking": 1, "open": 1, "closing": 1, "http": 1},
        "totals": {
            "connections_accepted": 4,
            "messages_received": 0,
            "messages_sent": 0,
            "received_bytes": 0,
            "sent_bytes": 0,
        },
        "reloads": {"success": 0, "failure": 0},
        "upgrades": {"success": 0, "failure": 0},
        "last_reload": None,
        "accept_queue": None,
        "bus": None,
    }
    assert [(slot["slot"], slot["spawns"], slot["exits"], slot["backoff"]) for slot in slots] == [
        (0, 1, {}, 0.0),
        (1, 1, {}, 0.0),
    ]
    (worker,) = slots[0]["workers"]
    assert (worker["pid"], worker["generation"], worker["stage"]) == (1000, 1, "ready")
    assert worker["connections"] == {"handshaking": 1, "open": 1, "closing": 1, "http": 1}
    assert 0 <= worker["heartbeat_age"] < 60
    assert slots[1]["workers"][0]["heartbeat_age"] is None


def test_no_state_of_connections_is_missing() -> None:
    states = Connections.__struct_fields__
    assert {f"connections_{state}" for state in states} == {
        name for name, field in FIELDS.items() if name.startswith("connections_") and field.kind == "gauge"
    }
    (metric,) = (metric for metric in CATALOG if metric.full_name == "tidegate_connections")
    assert isinstance(metric.source, dict)
    assert list(metric.source) == [(state,) for state in states]


def test_what_was_done_to_it(board: Scoreboard) -> None:
    board.reloaded(False, 1.0)
    board.upgraded(True)
    found = status(board.read(), time.time())
    assert (found.reloads, found.upgrades) == ({"success": 0, "failure": 1}, {"success": 1, "failure": 0})
    assert found.last_reload is not None
    assert found.last_reload.succeeded
    assert abs(time.time() - found.last_reload.at) < 60


def test_queues(board: Scoreboard) -> None:
    """A slot has the queue of its own sockets; the shared one is the daemon's; an unlimited one is left out."""
    board.accept_queue(0, 3, 4096)
    board.accept_queue(None, 0, 128)
    found = status(board.read(), time.time())
    assert found.slots[0].accept_queue == AcceptQueue(3, 4096)
    assert found.slots[1].accept_queue is None
    assert found.accept_queue == AcceptQueue(0, 128)


def test_what_the_system_tells_of_a_worker(board: Scoreboard) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdout.read(1)  # it has loaded what it needs
        board.spawn(0, process.pid)
        worker = status(board.read(), time.time()).slots[0].workers[0]
        assert worker.resident_memory_bytes
        assert worker.open_fds == len(os.listdir(f"/proc/{process.pid}/fd"))
        assert worker.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert worker.cpu_seconds is not None
    worker = status(board.read(), time.time()).slots[0].workers[0]
    assert (worker.cpu_seconds, worker.resident_memory_bytes, worker.open_fds, worker.max_fds) == (None,) * 4


def test_a_slot_that_backs_off(board: Scoreboard) -> None:
    board.retire(1, "boot_failed")
    board.backoff(1, time.monotonic() + 20)
    found = status(board.read(), time.time())
    assert found.state == "starting"
    assert 0 < found.slots[1].backoff <= 20
    assert found.slots[1].exits == {"boot_failed": 1}
    assert found.slots[1].workers == []
