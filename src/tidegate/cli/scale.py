"""``tidegate scale N``: change the number of workers.

What must not live here: how slots are added and removed (supervisor/operations.py).
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
    """Change the number of workers to WORKERS, until a reload finds another --workers or the daemon ends.

    Done when the new workers serve, or when the connections of the surplus ones are closed, with 1001.
    """
    return conduct(ctx, Scale(workers))


command = control_command("scale", _scale, click.Argument(["workers"], type=Value(count(1, SLOTS))))
