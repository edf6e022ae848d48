"""The text of `tidegate top`: the messages of /live laid out for a terminal of any size, or for none.

    DaemonState    the state of a daemon, from all messages so far
    Dashboard      its layout; renderable by rich

What must not live here: how a number is computed (admin/live.py), connections, keys and signals (top.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..admin.events import Event
from ..admin.health import LIVE_SECONDS
from ..admin.live import EVENTS, HISTORY, Live, LiveWorker, Point
from ..admin.quantiles import Quantiles
from ..metrics.derived import BACKOFF
from ..text import escape
from .humanize import bars, duration, latency, rate, size
from .status import bus_line, hub_line, is_silent, stage

__all__ = ["DaemonState", "Dashboard"]

SIDE_BY_SIDE: Final = 76  # columns: what there must be for numbers and latencies beside each other
EVENTS_OF_A_TABLE: Final = 10  # those that are shown where there is no screen to fill
LEAST_EVENTS: Final = 3  # that are left room for beside however many workers
LEAST: Final = 7  # lines for workers and events, for which numbers make room


@dataclass
class DaemonState:
    """The state of a daemon, from the messages of all connections to it.

    Attributes:
        live: the newest message.
        points: one for each second of the last minutes.
        events: the latest ones, in order of time.
        problem: why there are no new messages; empty while there are.
        at: when the newest message arrived, by time.monotonic().
    """

    live: Live
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=HISTORY))
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS))
    problem: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        self.add(self.live)

    def add(self, live: Live) -> None:
        """Add a message. The first one of a connection may repeat points and events that are known."""
        self.live, self.problem, self.at = live, "", time.monotonic()
        for point in (*live.history, live.point):
            if not self.points or point.time > self.points[-1].time:
                self.points.append(point)
        known = set(self.events)
        self.events.extend(event for event in live.events if event not in known)


class _Column(NamedTuple):
    """A column of the table of workers. Columns with a higher `drop` are left out first on a narrow terminal."""

    name: str
    drop: int
    of: Callable[[LiveWorker], str]
    left: bool = False


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


_COLUMNS: Final = (
    _Column("slot", 0, lambda worker: str(worker.slot)),
    _Column("pid", 4, lambda worker: _number(worker.pid)),
    _Column("generation", 7, lambda worker: _number(worker.generation)),
    _Column("age", 3, lambda worker: "-" if worker.age is None else duration(worker.age)),
    _Column("connections", 0, lambda worker: f"{worker.connections:,}"),
    _Column("in/s", 1, lambda worker: rate(worker.rates.messages_received)),
    _Column("out/s", 1, lambda worker: rate(worker.rates.messages_sent)),
    _Column("memory", 5, lambda worker: size(worker.rss)),
    _Column("cpu", 2, lambda worker: "-" if worker.cpu is None else f"{worker.cpu:.0%}"),
    _Column("lag", 6, lambda worker: latency(worker.lag)),
    _Column("stage", 0, lambda worker: stage(worker), left=True),
)

_STAGE_STYLES: Final = {"ready": "green", "starting": "cyan", "draining": "yellow", BACKOFF: "red"}
_STATE_STYLES: Final = {"ready": "bold green", "starting": "bold cyan", "draining": "bold yellow", "down": "bold red"}
_EVENT_STYLES: Final = {"warning": "yellow"}


class Dashboard:
    """A renderable of rich's.

    Parameters:
        state: the daemon's state.
        fill: whether to fill a screen with what fits; else all workers are shown, without charts.

    Attributes:
        first: index of the first worker shown, where not all of them fit.
    """

    def __init__(self, state: DaemonState, *, fill: bool) -> None:
        self.state, self.fill = state, fill
        self.first = 0
        self._fitting = 0

    def press(self, key: str) -> None:
        """Scroll the workers."""
        last = len(self.state.live.workers)
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._fitting, "page down": self._fitting}
        moves |= {"home": -last, "end": last}
        self.first += moves.get(key, 0)
        self._keep(self._fitting)

    def _keep(self, fitting: int) -> None:
        """Keep the scroll position within the workers."""
        self._fitting = fitting
        self.first = max(0, min(self.first, len(self.state.live.workers) - fitting))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        live, width = self.state.live, options.max_width
        yield from self._head()
        if not self.fill:
            yield from (Text(), _numbers(live, width), Text(), _workers(live.workers, width))
            yield from _events(list(self.state.events)[: -EVENTS_OF_A_TABLE - 1 : -1])
            return
        left = options.max_height - 1
        for numbers in (_numbers(live, width), Group(_facts(live), _pressure(live), *_bus(live))):
            height = 1 + len(console.render_lines(numbers, options))
            if left - height >= LEAST:
                left -= height
                yield from (Text(), numbers)
                break
        charts = list(_charts(self.state, width, options.ascii_only))
        if left - len(charts) >= LEAST + LEAST_EVENTS:
            left -= len(charts)
            yield from charts
        yield from self._rest(left, width)

    def _head(self) -> Iterator[Text]:
        live = self.state.live
        if self.state.problem:
            ago = duration(time.monotonic() - self.state.at)
            yield _line((f"what is shown is {ago} old: {self.state.problem}", "bold red"))
            return
        if live.tick_age >= LIVE_SECONDS:
            yield _line((f"the supervisor (pid {live.pid}) is stuck since {duration(live.tick_age)}", "bold red"))
            return
        yield _line(
            f"tidegate {live.version} (pid {live.pid}): ",
            (live.state, _STATE_STYLES.get(live.state, "")),
            f", up {duration(max(0.0, live.time - live.started_at))},"
            f" {live.workers_ready} of {live.workers_desired} workers ready",
        )

    def _rest(self, left: int, width: int) -> Iterator[RenderableType]:
        """Yield workers and events in so many lines; the last line lists the keys."""
        workers, events = self.state.live.workers, list(self.state.events)[::-1]
        room = left - 1 - 1 - 1  # a blank line, the names of the columns, the keys
        least = LEAST_EVENTS if room > 3 * LEAST_EVENTS else 1 if room > LEAST_EVENTS else 0
        for_events = min(len(events), least) and min(len(events), least) + 1
        fitting = max(0, min(len(workers), room - for_events))
        self._keep(fitting)
        if fitting:
            yield Text()
            yield _workers(workers[self.first : self.first + fitting], width)
            room -= fitting
        else:
            room += 2
        latest = list(_events(events[: max(0, room - 1)]))
        yield from latest
        room -= len(latest)
        yield from (Text() for _ in range(room))
        keys = "q ends"
        if 0 < fitting < len(workers):
            keys += f"   up and down: workers {self.first + 1} to {self.first + fitting} of {len(workers)} are shown"
        yield _line((keys, "dim"))


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _numbers(live: Live, width: int) -> RenderableType:
    """Yield lines of connections, rates, latencies and pressure."""
    if width < SIDE_BY_SIDE:
        return Group(_facts(live), _pressure(live), *_bus(live), _latencies(live))
    both = Table.grid(padding=(0, 3))
    both.add_row(_facts(live), _latencies(live))
    return Group(both, _pressure(live), *_bus(live))


def _bus(live: Live) -> Iterator[Text]:
    """Yield lines of the bus and the hub, if there are any."""
    bus = live.bus
    if bus is not None:
        yield _line(("bus          ", "dim"), (bus_line(bus), "" if bus.up else "bold red"))
        if bus.hub is not None:
            yield _line(("hub          ", "dim"), (hub_line(bus.hub), "" if bus.hub.pid else "bold red"))


def _pressure(live: Live) -> Text:
    """Return the pressure counters that are not zero, by the names of their metrics."""
    found = []
    for name, value in msgspec.structs.asdict(live.pressure).items():
        if value:
            words = name.removesuffix("_length").removesuffix("_bytes").replace("_", " ")
            found.append(f"{words}: {size(value) if name.endswith('_bytes') else f'{value:,}'}")
    return _line(("pressure     ", "dim"), (", ".join(found) or "none", "yellow" if found else ""))


def _facts(live: Live) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column(no_wrap=True, overflow="ellipsis")
    of = live.connections
    states = (f"{of.open:,} open", *(f"{count:,} {state}" for state, count in of.others().items()))
    facts.add_row("connections", ", ".join(states))
    facts.add_row("accepted", f"{rate(live.rates.connections_accepted)}/s, {live.totals.connections_accepted:,} in all")
    for name, messages, payload in (
        ("received", live.rates.messages_received, live.rates.received_bytes),
        ("sent", live.rates.messages_sent, live.rates.sent_bytes),
    ):
        facts.add_row(name, f"{rate(messages)} messages/s, {size(payload)}/s")
    closes = sorted(live.closes.items(), key=lambda item: -item[1])
    facts.add_row("closes", ", ".join(f"{code}: {count:,}" for code, count in closes) or "none")
    busy = "-" if live.cpu is None else f"{live.cpu:.0%}"
    facts.add_row("processes", f"{size(live.rss)} memory, {busy} cpu")
    return facts


def _latencies(live: Live) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("latency", style="dim", no_wrap=True)
    for name in Quantiles.__struct_fields__:
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    for name, of in (
        ("handler", live.latency.handler),
        ("event loop", live.latency.event_loop),
        ("ping", live.latency.ping),
        ("handshake", live.latency.handshake),
    ):
        table.add_row(name, *(latency(getattr(of, quantile)) for quantile in Quantiles.__struct_fields__))
    return table


def _charts(state: DaemonState, width: int, ascii_only: bool) -> Iterator[Text]:
    """Yield charts of the last minutes, one column a second, as wide as there is room."""
    room = max(0, width - 26)
    yield Text()
    for name, of in (
        ("connections", lambda point: float(point.connections)),
        ("messages/s", lambda point: point.rates.messages_received + point.rates.messages_sent),
    ):
        values = [of(point) for point in state.points][-room:] if room else []
        row = bars(values, ascii_only=ascii_only).rjust(room)
        yield _line((f"{name:11}  ", "dim"), (row, "cyan"), (f"  up to {rate(max(values, default=0.0))}", "dim"))


def _workers(workers: list[LiveWorker], width: int) -> Table:
    """Return a table with the columns that fit."""
    columns = list(_COLUMNS)
    cells = {column.name: [column.of(worker) for worker in workers] for column in columns}
    widths = {name: max(len(name), *map(len, of), 0) for name, of in cells.items()}
    while sum(widths[column.name] + 2 for column in columns) - 2 > width:
        least = max(columns, key=lambda column: column.drop)
        if not least.drop:
            break
        columns.remove(least)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.name, justify="left" if column.left else "right", no_wrap=True)
    for number, worker in enumerate(workers):
        style = "red" if is_silent(worker) else _STAGE_STYLES.get(worker.stage, "")
        table.add_row(*(Text(cells[c.name][number], style=style if c.name == "stage" else "") for c in columns))
    return table


def _events(events: list[Event]) -> Iterator[Text]:
    """Yield events, the latest first, below a blank line."""
    if events:
        yield Text()
    yield from map(_event, events)


def _event(event: Event) -> Text:
    at = time.strftime("%H:%M:%S", time.localtime(event.time))
    return _line((f"{at}  ", "dim"), (escape(" ".join(event.text.split())), _EVENT_STYLES.get(event.level, "")))
