"""``tidegate drain``: close all connections and keep the daemon.

What must not live here: how connections are closed (worker/drain.py).
"""

from __future__ import annotations

from typing import Any

import click

from ..ipc.control_protocol import Drain
from .control import conduct, control_command

__all__ = ["command"]


def _drain(ctx: click.Context, /, **_: Any) -> int:
    """Close every connection with 1001, one by one, and refuse new ones with 503, until `tidegate reload`.

    /readyz answers 503, so that load balancers send no more clients. Done when no connection is left.
    """
    return conduct(ctx, Drain())


command = control_command("drain", _drain)
