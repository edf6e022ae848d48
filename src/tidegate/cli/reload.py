"""``tidegate reload``: a new generation of workers takes over, and no client is refused.

What must not live here: what a reload is (supervisor/operations.py).
"""

from __future__ import annotations

from typing import Any

import click

from ..ipc.control_protocol import Reload
from .control import conduct, control_command

__all__ = ["command"]


def _reload(ctx: click.Context, /, *, force: bool, **_: Any) -> int:
    """Hand over to new workers, with the settings and the application as they are now.

    It is done when the new workers serve and the old ones close their connections, one by one, with 1001. If a new
    worker does not start, or the settings are wrong, the old ones go on as if nothing had happened, and this says why.
    """
    return conduct(ctx, Reload(force))


command = control_command(
    "reload",
    _reload,
    click.Option(
        ["--force"],
        is_flag=True,
        help="Do not wait for what is under way, such as another reload: it is given up, and connections of workers"
        " that are draining are closed now.",
    ),
)
