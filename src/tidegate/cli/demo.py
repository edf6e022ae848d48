"""``tidegate demo``: run the daemon with two workers and a demo page.

What must not live here: the page and its server (demo_application.py), the daemon (serve.py).
"""

from __future__ import annotations

from typing import Any

import click

from . import CONTEXT, Command
from .options import loader, parameters
from .serve import run

__all__ = ["command"]

WORKERS = 2


@click.pass_context
def _demo(ctx: click.Context, /, **_: Any) -> int:
    """Serve a page that shows the server's time, pushed over a WebSocket, and echoes what the visitor types.

    Two workers serve it. The options are those of `tidegate serve`.

    Exit status: 0 stopped on request; others are those of `tidegate serve`.
    """
    sources = loader(ctx, application="tidegate.cli.demo_application:app", workers=WORKERS)
    config = sources.load()
    for address in config.bind:
        click.echo(f"page     http://{address}/")
    if config.admin is not None:
        click.echo(f"daemon   http://{config.admin}/")
        click.echo(f"metrics  http://{config.admin}/metrics")
    click.echo("Ctrl-C stops it.")
    return run(config, sources.load, sources.file)


command = Command(
    "demo",
    callback=_demo,
    params=parameters(without=("application", "workers")),
    help=_demo.__doc__,
    context_settings=CONTEXT,
)
