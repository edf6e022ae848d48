"""``tidegate upgrade``: replace the running program by the installed one.

What must not live here: how the daemon does it (supervisor/upgrade.py).
"""

from __future__ import annotations

from typing import Any

import click

from ..ipc.control_protocol import Upgrade
from .control import conduct, control_command

__all__ = ["command"]


def _upgrade(ctx: click.Context, /, **_: Any) -> int:
    """Replace the daemon's program by the installed tidegate and Python, in the same process.

    The process id and the addresses stay, and no client is refused. Done when the new program serves; if it does not
    start, the old one goes on serving, and the reason is printed.
    """
    return conduct(ctx, Upgrade())


command = control_command("upgrade", _upgrade)
