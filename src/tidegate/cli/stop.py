"""``tidegate stop``: stop the daemon, and wait until it has ended.

What must not live here: how a daemon stops (supervisor/supervisor.py, worker/drain.py).
"""

from __future__ import annotations

from typing import Any, Literal

import click

from ..ipc.control_protocol import Stop
from .control import conduct, control_command

__all__ = ["command"]


def _stop(ctx: click.Context, /, *, now: bool, cut: bool, **_: Any) -> int:
    """Stop the daemon: close its connections with 1001, one by one over its --drain seconds, as SIGTERM does.

    Done when the daemon's process has ended, with status 0. A second stop may be more urgent than the first.
    """
    if now and cut:
        raise click.UsageError("--now and --cut exclude each other: give one of them", ctx)
    how: Literal["drain", "close", "cut"] = "cut" if cut else "close" if now else "drain"
    return conduct(ctx, Stop(how), gone=True)


command = control_command(
    "stop",
    _stop,
    click.Option(["--now"], is_flag=True, help="Close every connection with 1001 at once."),
    click.Option(["--cut"], is_flag=True, help="Abort every connection, as SIGQUIT does."),
)
