"""``tidegate demo``: run the daemon with two workers and a demo page.

What must not live here: the page and its server (demo_application.py), the daemon (serve.py).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from ..ipc.control_protocol import socket_path
from . import CONTEXT, Command
from .options import loader, parameters
from .serve import run

__all__ = ["command"]

WORKERS = 2
FOLDER = "tidegate-demo-"
"""What the name of the control socket's folder begins with, if the demo has made it."""

LONGEST = 64
"""Bytes of the path of that folder's parent: of a socket's the system takes 107, on macOS 103."""


@click.pass_context
def _demo(ctx: click.Context, /, **_: Any) -> int:
    """Serve a page with a chat room and a counter, which all its visitors share.

    Two workers serve it. What is said and counted survives their reload, and the end of any of them. The options are
    those of `tidegate serve`; without --control there is a control socket in a new folder.

    Exit status: 0 stopped on request; others are those of `tidegate serve`.
    """
    decided: dict[str, Any] = {"application": "tidegate.cli.demo_application:app", "workers": WORKERS}
    sources = loader(ctx, **decided)
    config = sources.load()
    control = socket_path(config.control, os.environ)
    if config.control == "auto" and control is None:
        control = os.path.join(tempfile.mkdtemp(prefix=FOLDER, dir=_parent()), "control.sock")
        sources = loader(ctx, **decided, control=control)
        config = sources.load()
    if control is not None:
        # For the page, which tells visitors what to try; and for an upgrade in place, which has the same socket.
        os.environ["TIDEGATE_CONTROL"] = control = os.path.abspath(control)
    for address in config.bind:
        click.echo(f"page     http://{address}/")
    if config.admin is not None:
        click.echo(f"daemon   http://{config.admin}/")
        click.echo(f"metrics  http://{config.admin}/metrics")
    if control is not None:
        click.echo(f"control  {control}")
    click.echo("Ctrl-C stops it.")
    supervisor = os.getpid()
    try:
        return run(config, sources.load, sources.file)
    finally:
        if control is not None and os.getpid() == supervisor:
            _remove_folder(Path(control).parent)


def _parent() -> str:
    """Return where temporary folders are; /tmp if a socket in one there would have too long a path."""
    here = tempfile.gettempdir()
    return here if len(os.fsencode(here)) <= LONGEST else "/tmp"


def _remove_folder(folder: Path) -> None:
    """Remove the control socket's folder, if the demo has made it; with an upgrade that was another process's work."""
    if folder.name.startswith(FOLDER) and folder.parent == Path(_parent()):
        with contextlib.suppress(OSError):
            folder.rmdir()


command = Command(
    "demo",
    callback=_demo,
    params=parameters(without=("application", "workers")),
    help=_demo.__doc__,
    context_settings=CONTEXT,
)
