"""``tidegate demo``: the daemon with two workers and a page to look at.

What must not live here: the page and its server (demo_application.py), the daemon (serve.py).
"""

from __future__ import annotations

from typing import Any

import click

from ..config import Config
from ..kinds import ConfigError
from . import CONTEXT, Command
from .serve import given, parameters, run

__all__ = ["command"]

WORKERS = 2


@click.pass_context
def _demo(ctx: click.Context, /, **_: Any) -> int:
    """Serve a page that shows the server's time, pushed over a WebSocket, and echoes what is typed.

    Two workers serve it. The options are those of `tidegate serve`.
    """
    try:
        config = Config(application="tidegate.cli.demo_application:app", workers=WORKERS, **given(ctx))
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from None
    for address in config.bind:
        click.echo(f"page     http://{address}/")
    if config.admin is not None:
        click.echo(f"metrics  http://{config.admin}/metrics")
    click.echo("Ctrl-C stops it.")
    return run(config)


command = Command(
    "demo",
    callback=_demo,
    params=parameters(without=("application", "workers")),
    help=_demo.__doc__,
    context_settings=CONTEXT,
)
