"""``tidegate upgrade``: the program as it is installed now takes the place of the one that runs.

What must not live here: how that is done (supervisor).
"""

from __future__ import annotations

from typing import Any

import click

from ..ipc.control_protocol import Upgrade
from .control import conduct, control_command

__all__ = ["command"]


def _upgrade(ctx: click.Context, /, **_: Any) -> int:
    """Start the program anew in the daemon's own process, with the tidegate and the Python that are installed now.

    Process id and addresses stay, and no client is refused. It is done when the new program serves; if it does not
    start, the old one goes on, and this says why.
    """
    return conduct(ctx, Upgrade())


command = control_command("upgrade", _upgrade)
