"""What `tidegate top` shows, at every size. What must not live here: real terminals and daemons (test_top.py)."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from tidegate.admin.events import Event
from tidegate.admin.live import Latency, Live, LiveWorker, Point, Pressure, Rates
from tidegate.admin.quantiles import Quantiles
from tidegate.admin.status import Connections, Totals
from tidegate.cli.dashboard import DaemonState, Dashboard

NOW = 1_800_000_000.0


def worker(slot: int, **given: Any) -> LiveWorker:
    about: dict[str, Any] = {"pid": 4_000_000 + slot, "stage": "ready", "generation": 1, "age": 100.0, "cpu": 0.25}
    about |= {"connections": 10, "rates": Rates(0.0, 120.0, 240.0), "rss": 40 * 2**20, "lag": 0.0002}
    return LiveWorker(slot=slot, **{**about, "heartbeat_age": 0.1, **given})


def point(at: float, connections: int = 5, messages: float = 10.0) -> Point:
    return Point(at, connections, Rates(0.0, messages, messages), {}, None, None)


def message(*workers: LiveWorker, at: float = NOW, **given: Any) -> Live:
    none = Quantiles()
    about: dict[str, Any] = {
        **{"version": "1.2.3", "python": "3.13.0", "state": "ready", "pid": 7, "started_at": at - 3700.5},
        **{"tick_age": 0.1, "workers_desired": 2, "workers_ready": 1, "connections": Connections(1, 1234, 0, 5)},
        "totals": Totals(5000, 0, 0, 0, 0),
        "rates": Rates(3.5, 12345.4, 20.0, 3 * 2**20, 512.0),
        "latency": Latency(Quantiles(0.00005, 0.0012, 0.34), none, none, Quantiles(0.001, 0.002, 2.5)),
        **{"closes": {"1000": 3, "1006": 12}, "closes_by": {}, "handshakes": {}, "rss": 3 * 2**30, "cpu": 1.25},
        **{"interval": 1.0, "workers": list(workers), "point": point(at)},
    }
    return Live(time=at, **{**about, **given})


def shown(dashboard: Dashboard, width: int = 100, height: int = 30, **console: Any) -> list[str]:
    """Its lines, without colours; what does not fit is there too."""
    file = io.StringIO()
    Console(file=file, width=width, height=height, highlight=False, **console).print(dashboard)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def squeezed(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def test_as_a_table() -> None:
    events = [Event(NOW + i, f"event {i}") for i in range(12)]
    lines = squeezed(shown(Dashboard(DaemonState(message(worker(0), worker(1), events=events)), fill=False), height=5))
    assert lines[:15] == [
        "tidegate 1.2.3 (pid 7): ready, up 1 h 1 min, 1 of 2 workers ready",
        "",
        "connections 1,234 open, 1 handshaking, 5 http latency p50 p90 p99",
        "accepted 3.5/s, 5,000 in all handler 50 us 1.2 ms 340 ms",
        "received 12,345 messages/s, 3.0 MiB/s event loop 1.0 ms 2.0 ms 2.5 s",
        "sent 20 messages/s, 512 B/s ping - - -",
        "closes 1006: 12, 1000: 3 handshake - - -",
        "processes 3.0 GiB memory, 125% cpu",
        "pressure none",
        "",
        "slot pid generation age connections in/s out/s memory cpu lag stage",
        "0 4000000 1 1 min 40 s 10 120 240 40 MiB 25% 200 us ready",
        "1 4000001 1 1 min 40 s 10 120 240 40 MiB 25% 200 us ready",
        "",
        f"{time.strftime('%H:%M:%S', time.localtime(NOW + 11))} event 11",
    ]
    assert [line.partition(" ")[2] for line in lines[14:]] == [f"event {i}" for i in range(11, 1, -1)]


def test_workers_that_are_not_as_they_should_be() -> None:
    state = DaemonState(
        message(
            worker(0, heartbeat_age=None),
            LiveWorker(1, None, "backoff"),
            worker(2, stage="draining", heartbeat_age=61.0),
        )
    )
    state.live.closes = {}
    lines = squeezed(shown(Dashboard(state, fill=False), width=120))
    assert "closes none" in lines[6]
    assert lines[11:] == [
        "0 4000000 1 1 min 40 s 10 120 240 40 MiB 25% 200 us ready",
        "1 - - - 0 0 0 - - - backoff",
        "2 4000002 1 1 min 40 s 10 120 240 40 MiB 25% 200 us draining, silent for 1 min 1 s",
    ]


def test_where_it_presses() -> None:
    pressure = Pressure(accept_queue_length=1200, send_queue_bytes=3 * 2**20, slow_consumers=4)
    lines = shown(Dashboard(DaemonState(message(pressure=pressure)), fill=False))
    assert lines[8] == "pressure     accept queue: 1,200, send queue: 3.0 MiB, slow consumers: 4"


def test_what_is_left_out_where_there_is_little_room() -> None:
    def columns(width: int) -> str:
        lines = shown(Dashboard(DaemonState(message(worker(0))), fill=False), width=width)
        return next(" ".join(line.split()) for line in lines if line.lstrip().startswith("slot"))

    assert columns(100) == "slot pid generation age connections in/s out/s memory cpu lag stage"
    assert columns(85) == "slot pid age connections in/s out/s memory cpu lag stage"
    assert columns(60) == "slot age connections in/s out/s cpu stage"
    assert columns(30) == "slot connections stage"


def test_a_screen_is_filled_at_every_size() -> None:
    events = [Event(NOW + i, f"event {i} " + "of many words " * 20) for i in range(20)]
    dashboard = Dashboard(DaemonState(message(*map(worker, range(40)), events=events)), fill=True)
    for width in (1, 20, 75, 76, 200):
        for height in (*range(1, 30, 2), 40, 80):
            lines = shown(dashboard, width, height)
            assert all(len(line) <= width for line in lines)
            if height >= 20:
                assert len(lines) == height, (width, height)


def test_scrolling() -> None:
    """Keys scroll the workers that do not fit, and never beyond the ends."""
    dashboard = Dashboard(DaemonState(message(*map(worker, range(40)), events=[Event(NOW, "begun")])), fill=True)

    def slots() -> list[int]:
        return [int(line.split()[0]) for line in shown(dashboard, 100, 24) if "MiB " in line and line[:4].strip()]

    count = len(slots())
    assert slots() == list(range(count))
    assert shown(dashboard, 100, 24)[-1] == f"q ends   up and down: workers 1 to {count} of 40 are shown"
    for keys, first in ((["down", "j"], 2), (["up"], 1), (["page down"], 1 + count), (["end"], 40 - count)):
        for key in keys:
            dashboard.press(key)
        assert slots() == list(range(first, first + count))
    dashboard.press("down")
    dashboard.press("x")
    assert slots()[-1] == 39
    dashboard.press("home")
    dashboard.press("up")
    assert slots()[0] == 0
    dashboard.press("end")
    dashboard.state.add(message(worker(0), worker(1), at=NOW + 1))  # of a daemon with fewer workers
    assert slots() == [0, 1]
    assert shown(dashboard, 100, 24)[-1] == "q ends"


def test_charts() -> None:
    """Charts have one column for each second, as many as fit, and none without a screen."""
    state = DaemonState(message(worker(0), history=[point(NOW - 2, 0, 0.0), point(NOW - 1, 10, 2000.0)]))
    lines = squeezed(shown(Dashboard(state, fill=True), 80, 30))
    assert "connections ▁█▅ up to 10" in lines
    assert "messages/s ▁█▁ up to 4,000" in lines
    for second in range(100):
        state.add(message(at=NOW + 1 + second))
    assert any("█" * 40 in line for line in shown(Dashboard(state, fill=True), 80, 30))
    assert not any("█" in line for line in shown(Dashboard(state, fill=False), 80, 30))


def test_a_new_connection_tells_again_what_is_known() -> None:
    state = DaemonState(message(history=[point(NOW - 1)], events=[Event(NOW - 9, "begun")]))
    state.add(message(at=NOW + 1, events=[Event(NOW, "more")]))
    state.add(
        message(at=NOW + 2, history=[point(NOW), point(NOW + 1)], events=[Event(NOW - 9, "begun"), Event(NOW, "more")])
    )
    assert [entry.time for entry in state.points] == [NOW - 1, NOW, NOW + 1, NOW + 2]
    assert [event.text for event in state.events] == ["begun", "more"]


def test_what_is_wrong_is_in_the_first_line() -> None:
    state = DaemonState(message())
    state.problem = "no daemon answers"
    assert shown(Dashboard(state, fill=True))[0] == "what is shown is 0 s old: no daemon answers"
    state.add(message(tick_age=12.0))
    assert shown(Dashboard(state, fill=True))[0] == "the supervisor (pid 7) is stuck since 12 s"
    state.add(message(state="down"))
    assert shown(Dashboard(state, fill=True))[0].startswith("tidegate 1.2.3 (pid 7): down, ")


@pytest.mark.parametrize("fill", [True, False])
def test_no_word_is_markup_nor_commands_the_terminal(fill: bool) -> None:
    state = DaemonState(message(events=[Event(NOW, "[bold]worker[/bold] \x1b[2J :smile:\nleft")]))
    assert any(
        line.endswith("  [bold]worker[/bold] \\x1b[2J :smile: left") for line in shown(Dashboard(state, fill=fill))
    )
