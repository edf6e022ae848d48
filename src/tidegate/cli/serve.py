"""``tidegate serve MODULE:ATTRIBUTE``: the processes of the daemon put together.

    command              the settings as options
    run                  the daemon with given settings, for other commands too
    usable_processors    the number that `--workers auto` stands for, to be asked for without a daemon

What must not live here: a setting (config/schema.py), its option (options.py), whether it can be met here
(config/prerequisites.py), what the processes do (supervisor, worker, admin).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from ..config.prerequisites import usable_processors
from ..config.schema import Config
from ..config.sources import as_toml
from . import CONTEXT, Command
from .options import loader, parameters

__all__ = ["command", "run", "usable_processors"]


@click.pass_context
def _serve(ctx: click.Context, /, *, print_config: bool, **_: Any) -> int:
    """Serve an application with supervised workers.

    MODULE is imported from the current directory or from where Python looks for modules; ATTRIBUTE is an `async def
    handler(websocket)` in it, a `werkzeug.routing.Map` of handlers, or a `tidegate.App`.

    Times are in seconds, or with a unit: 500ms, 2m. Sizes are in bytes, or with a unit: 64KiB, 1MB.

    Exit status: 0 stopped on request; 1 unexpected failure, or no worker can run; 2 the configuration is wrong; 3 the
    application cannot be loaded; 4 an address cannot be bound, or --pidfile belongs to a running daemon.
    """
    sources = loader(ctx)
    resolved = sources.resolve()
    if print_config:
        # A path need not be text in any encoding.
        click.echo(as_toml(resolved).encode("utf-8", "backslashreplace"), nl=False)
        return 0
    return run(resolved.config, sources.load, sources.file)


command = Command(
    "serve",
    callback=_serve,
    params=[
        *parameters(),
        click.Option(
            ["--print-config"],
            is_flag=True,
            help="Print every setting as a --config file, with the source of each value, and exit.",
        ),
    ],
    help=_serve.__doc__,
    context_settings=CONTEXT,
)


def run(config: Config, load: Callable[[], Config], file: str | None = None) -> int:
    """Run the daemon and return its exit status; in a worker, which is forked from here, return the worker's.

    Parameters:
        config: the settings to start with.
        load: called by a reload; returns the settings as they are then, or raises ConfigError.
        file: the configuration file, if any.
    """
    # First of all, so that an early signal is handled: what follows takes a moment to import.
    from ..supervisor.signals import Signals

    signals = Signals()
    signals.catch()

    from setproctitle import setproctitle

    from .. import logs
    from ..admin import main as admin
    from ..admin.status import status
    from ..config import prerequisites
    from ..hub import main as hub
    from ..ipc import handover_state
    from ..metrics.application import count_as
    from ..process.working_directory import WorkingDirectory
    from ..supervisor import upgrade
    from ..supervisor.supervisor import Supervisor
    from ..supervisor.system.daemon import Service
    from ..worker import main as worker
    from ..worker.loader import load as preload

    def preload_counted(application: str) -> None:
        count_as("supervisor")
        preload(application)

    try:
        handover = handover_state.read(os.environ)
        if handover is not None:
            upgrade.check(config, handover.state)
    except handover_state.HandoverError as error:
        raise click.UsageError(str(error)) from None
    if handover is not None and handover.task == "check":
        from . import check

        return check.start(config, takes_over=True)
    setproctitle("tidegate: supervisor")
    directory = WorkingDirectory(config.working_dir)
    identity = prerequisites.prepare(config)
    with prerequisites.log_file(config) as path:
        logs.begin("supervisor", file=path, **config.log_options())
    outcome = Supervisor(
        prerequisites.decide(config),
        signals,
        worker=worker.run,
        admin=admin.run,
        hub=hub.run,
        load=lambda: prerequisites.decide(load()),
        file=file,
        service=Service(config, preload_counted, directory, identity),
        describe=status,
        handover=handover and handover.state,
    ).run()
    return outcome if isinstance(outcome, int) else outcome()
