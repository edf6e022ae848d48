"""`tidegate status`: the table and the JSON of a status.

What must not live here: what all such commands have in common (test_control.py), where a status comes from
(tests/admin/test_status.py), a real daemon's (tests/process/test_control.py).
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.cli.asked import Asked, run, words

CONNECTIONS = {"handshaking": 0, "open": 0, "closing": 0}


def worker(**given: Any) -> dict[str, Any]:
    about = {"pid": 11, "generation": 1, "stage": "ready", "started_at": time.time() - 100, "heartbeat_age": 0.2}
    return {**about, "connections": CONNECTIONS, **given}


def slot(number: int, *workers: dict[str, Any], backoff: float = 0.0, **exits: int) -> dict[str, Any]:
    return {"slot": number, "spawns": 1, "exits": exits, "backoff": backoff, "workers": list(workers)}


def status(*slots: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"version": "1.2.3", "python": "3.13.0", "uvloop": "0.23", "state": "ready", "pid": 7, "started_at": 1.0},
        **{"uptime": 3700.5, "tick_age": 0.1, "workers_desired": 3, "workers_ready": 2},
        "connections": {"handshaking": 1, "open": 17, "closing": 2, "http": 4},
        "totals": dict.fromkeys(
            ("connections_accepted", "messages_received", "messages_sent", "received_bytes", "sent_bytes"), 0
        ),
        "slots": list(slots),
    }


def table(capsys: pytest.CaptureFixture[str], *slots: dict[str, Any], text: str = "") -> list[str]:
    with Asked({"done": True, "text": text, "status": status(*slots)}) as asked:
        assert run("status", "--control", asked.path) == 0
    assert asked.requests == [{"command": "status"}]
    out, err = words(capsys)
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    busy = {"handshaking": 1, "open": 9, "closing": 2, "http": 4}
    lines = table(
        capsys,
        slot(0, worker(connections=busy), worker(pid=12, generation=2, stage="starting", started_at=time.time() - 3)),
        slot(1, worker(pid=13, heartbeat_age=61.0), crash=2, reload=1),
        slot(2, backoff=12.5),
        slot(3, stopped=1),
    )
    assert lines[0] == "tidegate 1.2.3 (pid 7): ready, up 1 h 1 min, 2 of 3 workers ready, 17 connections open, 4 http"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "slot pid generation age connections stage ended before",
        "0 11 1 1 min 40 s 9 (1 handshaking, 2 closing, 4 http) ready -",
        "0 12 2 3 s 0 starting",
        "1 13 1 1 min 40 s 0 ready, silent for 1 min 1 s 2 crash, 1 reload",
        "2 - - - - next in 12 s -",
        "3 - - - - no worker 1 stopped",
    ]


def test_what_is_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys, slot(0, worker()), text="scale 4 is under way")[1] == "scale 4 is under way"


def test_no_word_of_a_status_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys, text="[bold]scale[/bold] is under way")[1] == "[bold]scale[/bold] is under way"


def test_many_slots_in_a_pipe_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    exits = {"crash": 100000, "signal": 100000, "hung": 100000, "boot_failed": 100000, "oom_suspect": 100000}
    lines = table(capsys, *(slot(number, worker(pid=4_000_000 + number), **exits) for number in range(256)))
    assert len(lines) == 258
    assert all("100000 oom_suspect" in line for line in lines[2:])


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the object is printed as the daemon sent it, with fields that this version does not know."""
    told = {**status(slot(0, worker())), "more": [1.5]}  # of a later version
    with Asked({"done": True, "status": told}) as asked:
        assert run("status", "--json", "--control", asked.path) == 0
    out, err = words(capsys)
    assert err == ""
    assert json.loads(out) == told
    assert out.startswith('{\n  "version": "1.2.3",\n')


def test_a_status_of_another_version(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked({"done": True, "status": {"version": "0.0.1"}}) as asked:
        assert run("status", "--control", asked.path) == 1
    assert words(capsys)[1] == "tidegate status: the daemon has another version than this command: try --json\n"


@pytest.mark.parametrize(
    ("answer", "said"), [({"done": False, "text": "not you"}, "not you"), ({"done": True}, "answer has no status")]
)
def test_no_status(answer: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(answer) as asked:
        assert run("status", "--control", asked.path) == 1
    assert said in words(capsys)[1]
