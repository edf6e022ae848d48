"""``tidegate status``: show the daemon and its slots, as a table for people or as JSON for programs.

What must not live here: the contents of a status (admin/status.py), the connection to the daemon (control.py).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..admin.bus import BusStatus, HubStatus
from ..admin.status import Connections, SlotStatus, Status, WorkerStatus
from ..ipc import control_protocol
from ..ipc.exit_status import DONE, FAILED
from . import note
from .control import ControlClient, ControlError, control_command, path_of
from .humanize import duration, latency, rate, size

if TYPE_CHECKING:
    from rich.table import Table

    from ..admin.live import LiveWorker

__all__ = ["bus_line", "command", "hub_line", "is_silent", "stage"]

LATE = 5.0  # seconds without a heartbeat, which comes ten times a second (worker/main.py)


def _status(ctx: click.Context, /, *, json: bool, **_: Any) -> int:
    """Show the daemon's workers: stage, process, generation, age, connections, and how earlier workers ended.

    The exit status says whether the daemon answered, not whether it is ready: readiness is in the first line, and under
    `state` with --json.
    """
    try:
        with ControlClient(path_of(ctx), control_protocol.Status(), ctx.params["timeout"]) as client:
            answer = list(client.answers())[-1]
        if answer.done is False or answer.status is msgspec.UNSET:
            raise ControlError(FAILED, answer.text or "the daemon's answer has no status")
        if json:
            click.echo(msgspec.json.format(bytes(answer.status)))
        else:
            _show(msgspec.json.decode(answer.status, type=Status), answer.text)
    except ControlError as error:
        note(ctx, str(error))
        return error.status
    except msgspec.ValidationError:
        note(ctx, "the daemon has another version than this command: try --json")
        return FAILED
    return DONE


command = control_command(
    "status",
    _status,
    click.Option(["--json"], is_flag=True, help="Print the object of /status as JSON."),
    wait=False,
)


def _show(status: Status, doing: str) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # for grep
    console.print(_headline(status), markup=False, soft_wrap=True)
    if doing:
        console.print(doing, markup=False, soft_wrap=True)
    if status.bus is not None:
        console.print(f"bus {bus_line(status.bus)}", markup=False, soft_wrap=True)
        if status.bus.hub is not None:
            console.print(f"hub {hub_line(status.bus.hub)}", markup=False, soft_wrap=True)
    console.print(_table(status, time.time()))
    sys.stdout.flush()


def _headline(status: Status) -> str:
    connections = status.connections
    return (
        f"tidegate {status.version} (pid {status.pid}): {status.state}, up {duration(status.uptime)},"
        f" {status.workers_ready} of {status.workers_desired} workers ready,"
        f" {connections.open} connections open" + (f", {connections.http} http" if connections.http else "")
    )


def bus_line(bus: BusStatus) -> str:
    """Return what there is to say of a bus, in a line."""
    state = "up" if bus.up else f"down ({bus.reason})"
    told = f", {bus.told:,} gaps told" if bus.told else ""
    failures = f", {bus.publish_failures:,} publishes failed" if bus.publish_failures else ""
    return (
        f"{bus.url}: {state}, {bus.members:,} members in {bus.topics:,} channels,"
        f" {rate(bus.published_per_second)} publishes/s, lag p99 {latency(bus.lag_p99)},"
        f" {bus.repaired:,} gaps repaired{told}{failures}"
    )


def hub_line(hub: HubStatus) -> str:
    """Return what there is to say of a hub, in a line."""
    process = f"(pid {hub.pid}): up {duration(hub.uptime)}" if hub.pid else "is not there"
    evicted = f", {hub.evicted:,} lost for want of --bus-memory" if hub.evicted else ""
    return (
        f"{process}, {_plural(hub.restarts, 'restart')}, {_plural(hub.links, 'link')},"
        f" journal: {_plural(hub.journal_messages, 'message')}, {size(hub.journal_bytes)}{evicted}"
    )


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(status: Status, now: float) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("slot", "pid", "generation", "age", "connections"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("ended before", overflow="fold")
    for slot in status.slots:
        ends = ", ".join(f"{count} {reason}" for reason, count in slot.exits.items()) or "-"
        for worker in slot.workers:
            age = duration(max(0.0, now - worker.started_at))
            counts = _connections(worker.connections)
            table.add_row(str(slot.slot), str(worker.pid), str(worker.generation), age, counts, stage(worker), ends)
            ends = ""
        if not slot.workers:
            table.add_row(str(slot.slot), "-", "-", "-", "-", _vacancy(slot), ends)
    return table


def is_silent(worker: WorkerStatus | LiveWorker) -> bool:
    """Return whether a worker's event loop has not run for a while."""
    return worker.heartbeat_age is not None and worker.heartbeat_age > LATE


def stage(worker: WorkerStatus | LiveWorker) -> str:
    """Return a worker's stage, and how long its event loop has not run if that is long."""
    if worker.heartbeat_age is not None and is_silent(worker):
        return f"{worker.stage}, silent for {duration(worker.heartbeat_age)}"
    return worker.stage


def _vacancy(slot: SlotStatus) -> str:
    return f"next in {duration(slot.backoff)}" if slot.backoff else "no worker"


def _connections(connections: Connections) -> str:
    """Return the number of open connections, and the others if there are any."""
    others = ", ".join(f"{count} {state}" for state, count in connections.others().items())
    return f"{connections.open} ({others})" if others else str(connections.open)
