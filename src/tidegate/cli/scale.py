"""``tidegate scale N``: more workers, or fewer.

What must not live here: how a slot comes and goes (supervisor).
"""

from __future__ import annotations

from typing import Any

import click

from ..config.types import SLOTS, count
from ..ipc.control_protocol import Scale
from . import Value
from .control import conduct, control_command

__all__ = ["command"]


def _scale(ctx: click.Context, /, *, workers: int, **_: Any) -> int:
    """Have WORKERS workers, until the next reload with another number in the settings, or the daemon's end.

    It is done when the new ones serve, or when the connections of those that are too many are closed, with 1001.
    """
    return conduct(ctx, Scale(workers))


command = control_command("scale", _scale, click.Argument(["workers"], type=Value(count(1, SLOTS))))
