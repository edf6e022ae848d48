"""``tidegate reload``: replace the workers by a new generation, without refusing a client.

What must not live here: what a reload is (supervisor/operations.py).
"""

from __future__ import annotations

from typing import Any

import click

from ..ipc.control_protocol import Reload
from .control import conduct, control_command

__all__ = ["command"]


def _reload(ctx: click.Context, /, *, force: bool, **_: Any) -> int:
    """Replace the workers by new ones, with the current settings and application.

    Done when the new workers serve and the old ones drain: they close their connections one by one, with 1001. If the
    settings are wrong or a new worker does not start, the old ones go on serving, and the reason is printed.
    """
    return conduct(ctx, Reload(force))


command = control_command(
    "reload",
    _reload,
    click.Option(
        ["--force"],
        is_flag=True,
        help="Cancel the operation under way, such as another reload, and close the connections of draining workers"
        " at once.",
    ),
)
