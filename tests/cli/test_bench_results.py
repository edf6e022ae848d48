"""What comes out of a benchmark: reports added up, plans divided, how it is shown.

What must not live here: real servers (test_bench.py).
"""

from __future__ import annotations

import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from tidegate._core.histogram import Histogram
from tidegate.cli.bench.payload import make_payload, text_of
from tidegate.cli.bench.plan import Plan
from tidegate.cli.bench.processes import Processes
from tidegate.cli.bench.report import Live, compared, rows, summary
from tidegate.cli.bench.results import Comparison, Report, Round, ServerCost, median_round
from tidegate.extensions.permessage_deflate import PerMessageDeflate

PLAN = Plan(uri="ws://h/", connections=10)


def text(shown: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def of(*milliseconds: int) -> Histogram:
    histogram = Histogram()
    for number in milliseconds:
        histogram.record(number * 10**6)
    return histogram


@given(st.integers(1, 1000), st.integers(1, 40), st.integers(1, 5000))
def test_plans_are_divided(connections: int, processes: int, handshakes: int) -> None:
    plan = Plan(uri="ws://h/", connections=connections, rate=100.0)
    parts = plan.split(processes)
    assert len(parts) == min(processes, connections)
    assert sum(part.connections for part in parts) == connections
    assert sum(part.rate for part in parts) == pytest.approx(100)
    storm = Plan(uri="ws://h/", mode="handshakes", connections=connections, handshakes=handshakes).split(processes)
    assert sum(part.handshakes for part in storm) == handshakes
    assert all(part.handshakes and part.connections for part in storm)


def test_a_fan_is_not_divided() -> None:
    plan = Plan(uri="ws://h/", mode="fan", connections=10)
    assert plan.split(4) == [plan]
    assert plan.sockets == 11


def test_reports_are_added_up() -> None:
    reports = [
        Report(stage="final", opened=3, answered=10, seconds=2.0, processor_seconds=1.0, errors={"a": 1},
               handshakes=of(1, 2).dump()),
        Report(stage="final", opened=4, answered=20, seconds=2.0, processor_seconds=1.9, errors={"a": 2, "b": 1},
               unanswered=3),
    ]  # fmt: skip
    found = Round.of("ws://h/", reports, of(1, 2, 3))
    assert (found.connections, found.messages, found.rate, found.failed) == (7, 30, 15.0, 4)
    assert found.errors == {"a": 3, "b": 1}
    assert found.client_cpu == pytest.approx(0.95)
    assert found.latency is not None
    assert found.latency.p50 == pytest.approx(0.002, rel=1 / 256)
    assert found.handshake is not None
    assert found.handshake.count == 2
    assert Round.of("ws://h/", [], Histogram()).latency is None


def test_comparing_takes_the_median_of_ratios() -> None:
    def found(uri: str, rate: int, *times: int) -> Round:
        each = Round.of(uri, [Report(stage="final", answered=rate, seconds=1.0)], of(*times))
        return each

    pairs = [
        (found("a", 10, 1), found("b", 20, 2)),
        (found("a", 9, 3), found("b", 9, 3)),
        (found("a", 1), found("b", 0)),
    ]
    comparison = Comparison.of(pairs)
    assert (comparison.uri, comparison.over, comparison.rate) == ("a", "b", 0.75)
    assert comparison.p50 == pytest.approx(0.75, rel=0.01)
    assert "x 0.75" in text(compared(comparison))
    assert "-" in text(compared(Comparison(uri="a", over="b")))
    assert median_round([found("a", 3), found("a", 1), found("a", 2)]).messages == 2


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_text(size: int) -> None:
    """The message has the size that was asked for, and is always the same one."""
    assert len(text_of(size)) == size
    assert text_of(size) == text_of(size)
    assert text_of(size).isascii()


def test_payloads() -> None:
    """A payload is one whole masked frame."""
    frame = make_payload(5, 3, text=False, extensions=[]).frame
    key, data = frame[2:6], frame[6:]
    assert frame[:2] == b"\x82\x85"
    assert bytes(byte ^ key[i % 4] for i, byte in enumerate(data)) == text_of(5)


def test_payloads_are_compressed() -> None:
    frame = make_payload(100, 1, text=True, extensions=[PerMessageDeflate(False, False, 15, 12)]).frame
    assert frame[0] == 0xC1
    key, data = frame[2:6], frame[6:]
    compressed = bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
    engine = zlib.decompressobj(wbits=-12)
    for _ in range(2):  # with context takeover
        assert engine.decompress(compressed + b"\x00\x00\xff\xff") == text_of(100)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=100))
def test_a_plot_leaves_nothing_out(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    buckets = [(highest / 1e9, count) for _, highest, count in histogram.buckets()]
    found = rows(buckets)
    assert sum(count for _, count in found) == len(values)
    assert len(found) <= 15
    assert [bound for bound, _ in found] == sorted({bound for bound, _ in found})


def test_no_plot_of_nothing() -> None:
    assert rows([]) == []


def test_summary() -> None:
    """The summary shows every figure of a round."""
    reports = [
        Report(stage="final", opened=9, answered=100, seconds=2.0, processor_seconds=2.0, bytes_received=4096,
               unanswered=2, unexpected=1, errors={"closed by the server with 1011": 1}, handshakes=of(3).dump())
    ]  # fmt: skip
    found = Round.of("ws://h/", reports, of(*range(1, 101)))
    found.server = ServerCost(cpu_seconds=0.001, cpu_per_message=0.00001, memory_per_connection=2048)
    lines = [" ".join(line.split()) for line in text(summary(PLAN, found, ascii_only=False)).splitlines()]
    for expected in (
        "ws://h/",
        "50 messages/s: 100 in 2 s",
        "2.0 KiB received/s",
        "9 of 10 connections",
        "3.0 ms to open one (p50; p99 3.0 ms)",
        "10.00 us of the server's processors per message",
        "2.0 KiB of the server's memory per connection",
        "2 unanswered at the end; the latencies have the time until then",
        "1 messages that nothing was sent for",
        "100% of a processor for the load: more --processes may measure more",
        "1 closed by the server with 1011",
        "min p50 p90 p99 p99.9 max",
        "1.0 ms 50 ms 90 ms 99 ms 100 ms 100 ms",
    ):
        assert expected in lines
    assert any("█" in line for line in lines)
    assert "█" not in text(summary(PLAN, found, ascii_only=True))


def test_errors_do_not_command_the_terminal() -> None:
    found = Round.of("ws://h/", [Report(stage="final", errors={"handshake: \x1b[2J": 1})], Histogram())
    assert "\x1b[2J" not in text(summary(PLAN, found, ascii_only=False))


async def test_live() -> None:
    """The live view shows the stage of the round that runs."""
    live = Live(3, 1)
    assert text(live) == "starting ...\n"
    processes = Processes(PLAN, 1, lambda _: None)
    processes.latest = [Report(stage="opening", opened=4, errors={"x": 1})]
    live.changed(processes, 1)
    shown = text(live)
    assert "ws://h/  echo  round 2 of 3" in shown
    assert "opening connections: 4 of 10" in shown
    assert "1 errors" in shown
    processes.latest = [Report(stage="ready", opened=10)]
    assert "warming up" in text(live)
    processes.latest = [Report(stage="measuring", open=10, opened=10, seconds=2.0)]
    assert "2 of 10 s, 10 connections" in text(live)
