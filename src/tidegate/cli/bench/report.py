"""What people see of a benchmark: while it runs, and at the end.

    Live       of a terminal, redrawn
    summary    of a round: throughput, latencies and how they are distributed, errors
    compared   of two servers

What must not live here: what the numbers are made of (results.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from ..._core.histogram import Histogram
from ...text import escape
from ..humanize import bars, duration, latency, rate, size
from .plan import Mode, Plan
from .processes import Processes
from .results import Comparison, Latency, Round

__all__ = ["Live", "compared", "summary"]

ROWS = 14  # of a plot at most
WIDTH = 40  # of its longest bar
POINTS = 60  # of the rate in the live view
INTERVAL = 0.25  # seconds that a point of it is of
REDRAW = 0.1  # seconds
BUSY = 0.9  # of a processor: above that, the load itself may be what is measured

ONE: dict[Mode, str] = {"echo": "message", "fan": "delivery", "handshakes": "handshake", "idle": "message"}
UNITS: dict[Mode, str] = {"echo": "messages", "fan": "deliveries", "handshakes": "handshakes", "idle": "messages"}
TIMED: dict[Mode, str] = {"echo": "message", "fan": "round", "handshakes": "handshake", "idle": "message"}


class Live:
    """A renderable: the round that runs.

    Parameters:
        rounds: how many there are.
        plans: how many servers.
    """

    def __init__(self, rounds: int, plans: int) -> None:
        self._rounds, self._plans = rounds, plans
        self._processes: Processes | None = None
        self._number = 0
        self._points: deque[float] = deque(maxlen=POINTS)
        self._last = (0.0, 0)
        self._recent: tuple[str, ...] = ()
        self._screen: Screen | None = None
        self._drawn = 0.0

    @contextmanager
    def shown(self, console: Console) -> Iterator[None]:
        """Show it, if there is a terminal, until the end of the block; then it is gone."""
        if not console.is_terminal:
            yield
            return
        with Screen(self, console=console, auto_refresh=False, transient=True) as self._screen:
            yield

    def changed(self, processes: Processes, number: int) -> None:
        """Take note of new reports."""
        if processes is not self._processes:
            self._processes, self._number, self._last = processes, number, (time.monotonic(), 0)
            self._points.clear()
            self._recent = ()
        now, answered = time.monotonic(), sum(report.answered for report in processes.latest)
        if now - self._last[0] >= INTERVAL and answered:
            self._points.append((answered - self._last[1]) / (now - self._last[0]))
            self._last = (now, answered)
            if processes.recent.count:
                self._recent = tuple(latency(processes.recent.quantile(q) / 1e9) for q in (0.5, 0.99))
                processes.recent = Histogram()
        if self._screen is not None and now - self._drawn >= REDRAW:
            self._drawn = now
            self._screen.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self._processes is None:
            yield Text("starting ...")
            return
        plan, latest = self._processes.plan, self._processes.latest
        ascii_only = not str(options.encoding).lower().startswith("utf")
        measured = max(report.seconds for report in latest)
        head = f"{escape(plan.uri)}  {plan.mode}"
        if self._rounds > 1 or self._plans > 1:
            head += f"  round {self._number + 1} of {self._rounds}"
        yield Text(head, style="bold")
        opened = sum(report.opened for report in latest)
        wanted = plan.handshakes if plan.mode == "handshakes" else plan.sockets
        if latest[0].stage in ("starting", "opening"):
            yield Text(f"opening connections: {opened:,} of {wanted:,}")
        elif measured <= 0 and plan.mode != "handshakes":
            yield Text("warming up")
        elif plan.mode == "handshakes":
            yield Text(f"{opened:,} of {wanted:,} handshakes")
        else:
            yield Text(f"{measured:.0f} of {duration(plan.duration)}, {sum(r.open for r in latest):,} connections")
        if self._points:
            chart = bars(list(self._points), ascii_only=ascii_only)
            yield Text(f"{rate(self._points[-1]):>12} {UNITS[plan.mode]}/s  ").append(chart, style="cyan")
        if self._recent:
            yield Text(f"{'p50':>12} {self._recent[0]}   p99 {self._recent[1]}")
        if failed := sum(sum(report.errors.values()) for report in latest):
            yield Text(f"{failed:>12,} errors", style="red")


def summary(plan: Plan, result: Round, *, ascii_only: bool) -> RenderableType:
    """Show a round."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    for value, what, style in facts(plan, result):
        table.add_row(Text(value, style=style or "bold"), Text(what, style=style))
    parts: list[RenderableType] = [Text(escape(result.uri), style="bold"), table]
    if result.latency is not None:
        parts += [Text(), quantiles(f"latency of a {TIMED[plan.mode]}", result.latency), Text()]
        parts.append(plot(result.histogram, ascii_only=ascii_only))
    return Group(*parts)


def facts(plan: Plan, result: Round) -> Iterator[tuple[str, str, str]]:
    """What there is to say of a round: a number, of what it is, and a style."""
    unit = UNITS[plan.mode]
    if plan.mode != "idle":
        yield rate(result.rate), f"{unit}/s: {result.messages:,} in {result.seconds:.3g} s", ""
    if result.bytes_received and result.seconds:
        yield size(result.bytes_received / result.seconds), "received/s", ""
    yield f"{result.connections:,}", f"of {plan.handshakes or plan.sockets:,} connections", ""
    if result.handshake is not None and plan.mode != "handshakes":
        yield latency(result.handshake.p50), f"to open one (p50; p99 {latency(result.handshake.p99)})", ""
    yield from of_the_server(plan, result)
    if result.unanswered:
        yield f"{result.unanswered:,}", "unanswered at the end; the latencies have the time until then", "yellow"
    if result.unexpected:
        yield f"{result.unexpected:,}", "messages that nothing was sent for", "yellow"
    if result.client_cpu > BUSY:
        yield f"{result.client_cpu:.0%}", "of a processor for the load: more --processes may measure more", "yellow"
    for kind, count in sorted(result.errors.items(), key=lambda item: -item[1]):
        yield f"{count:,}", escape(kind), "red"


def of_the_server(plan: Plan, result: Round) -> Iterator[tuple[str, str, str]]:
    """What the server said of itself."""
    if result.server is None:
        return
    if result.server.cpu_per_message is not None:
        cpu = latency_of_cpu(result.server.cpu_per_message)
        yield cpu, f"of the server's processors per {ONE[plan.mode]}", ""
    if result.server.memory_per_connection is not None:
        yield size(result.server.memory_per_connection), "of the server's memory per connection", ""


def latency_of_cpu(seconds: float) -> str:
    """Processor time of a message: 3.42 us."""
    return f"{seconds * 1e6:.2f} us" if seconds < 1e-3 else latency(seconds)


def quantiles(title: str, found: Latency) -> RenderableType:
    """Show the quantiles in a row."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = ("min", "p50", "p90", "p99", "p99_9", "max")
    for name in names:
        table.add_column(name.replace("_", "."), justify="right")
    table.add_row(*(latency(getattr(found, name)) for name in names))
    return table


def rows(histogram: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Gather buckets in few: (upper bound, count), the bounds as far from each other in proportion, none left out."""
    if not histogram:
        return []
    low, high = max(histogram[0][0], 1e-9), max(histogram[-1][0], 1e-9)
    step = max((high / low) ** (1 / ROWS), 1.05)
    found: list[tuple[float, int]] = []
    bound = low
    counts = list(histogram)
    place = 0
    while place < len(counts):
        bound = min(bound * step, high)
        number = 0
        while place < len(counts) and (counts[place][0] <= bound or bound >= high):
            number += counts[place][1]
            place += 1
        found.append((bound, number))
    return found


def plot(histogram: Sequence[tuple[float, int]], *, ascii_only: bool) -> RenderableType:
    """Show a distribution as bars: how many took up to how long, and which share is up to there."""
    found = rows(histogram)
    most = max((count for _, count in found), default=0)
    total = sum(count for _, count in found)
    table = Table.grid(padding=(0, 1))
    for justify in ("right", "left", "right"):
        table.add_column(justify=justify)
    seen = 0
    for bound, count in found:
        seen += count
        length = round(count / most * WIDTH) or (1 if count else 0)
        bar = ("#" if ascii_only else "█") * length
        share = "100 %" if seen == total else f"{seen / total * 100:.6g} %"
        table.add_row(latency(bound), Text(bar.ljust(WIDTH), style="cyan"), share)
    return table


def compared(found: Comparison) -> RenderableType:
    """Show how two servers compare."""
    table = Table(title=f"{escape(found.uri)} over {escape(found.over)}", title_justify="left", box=None)
    for name in ("rate", "p50", "p99"):
        table.add_column(name, justify="right")
    table.add_row(*("-" if value is None else f"x {value:.2f}" for value in (found.rate, found.p50, found.p99)))
    return table
