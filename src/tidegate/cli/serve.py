"""``tidegate serve MODULE:ATTRIBUTE``: the settings as options, and the processes put together.

    command       the options, made from the settings' own declarations
    parameters    the same options for other commands
    loader        what a command line, the environment and a file say together
    run           the daemon with what a loader gives, for other commands too

What must not live here: a setting (config/schema.py), reading them (config/sources.py), what the processes do
(supervisor, worker, admin).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from ..config.errors import ConfigError
from ..config.schema import Config, Setting, settings
from ..config.sources import CONFIG, Loader, Resolved, as_toml
from ..config.types import SLOTS, SWITCH
from . import CONTEXT, Command

__all__ = [
    "command",
    "given",
    "loader",
    "log_file",
    "parameters",
    "prepared",
    "resolve",
    "run",
    "usable_processors",
    "with_workers",
]


class _Value(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A setting's value on the command line."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.name
        self.allowed = setting.kind.allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.setting.read(value)
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None


def _parameter(setting: Setting) -> click.Parameter:
    """The click parameter of a setting; its default stays with the setting."""
    if setting.positional:
        # It may be in the file as well: whether it is missing is for the loader to say.
        return click.Argument([setting.name], type=_Value(setting), metavar=setting.kind.metavar, required=False)
    default = setting.default_text or setting.write(setting.default)
    if setting.kind is SWITCH:
        switch = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.Option([switch], default=None, help=f"{setting.help}  [default: {default}]")
    return click.Option(
        [setting.flag],
        type=_Value(setting),
        multiple=setting.many,
        metavar=setting.kind.metavar,
        help=f"{setting.help}  [default: {default}]",
    )


def parameters(*, without: Collection[str] = ()) -> list[click.Parameter]:
    """Every setting as an option of a command, but for those that the command decides by itself, and --config."""
    config = click.Option(
        ["--config"],
        metavar="PATH",
        help="TOML file with settings, called as here with _ for -: ping_interval = 10. The environment"
        f" (TIDEGATE_PING_INTERVAL=10) has precedence over it, and the command line over both.  [default: ${CONFIG}]",
    )
    return [*(_parameter(setting) for name, setting in settings().items() if name not in without), config]


def given(ctx: click.Context) -> dict[str, Any]:
    """The settings that the command line gives, by name."""
    return {
        name: tuple(value) if settings()[name].many else value
        for name, value in ctx.params.items()
        if name in settings() and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def loader(ctx: click.Context, **decided: Any) -> Loader:
    """The sources of this process's settings: some may be decided by the command itself."""
    return Loader({**given(ctx), **decided}, os.environ, ctx.params["config"])


def resolve(ctx: click.Context, sources: Loader) -> Resolved:
    """The configuration with which the process starts, or a mistake of whoever started it."""
    try:
        return sources.resolve()
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from None


@click.pass_context
def _serve(ctx: click.Context, /, *, print_config: bool, **_: Any) -> int:
    """Serve an application with supervised workers.

    MODULE is imported, the current directory being importable; ATTRIBUTE is an `async def handler(websocket)` in it, a
    `werkzeug.routing.Map` of such, or a `tidegate.App`.

    Times are in seconds, or with a unit: 500ms, 2m. Sizes are in bytes, or with a unit: 64KiB, 1MB.

    Exit status: 0 stopped as asked; 1 something unexpected, or no worker can run; 2 the configuration is wrong; 3 the
    application cannot be loaded; 4 an address cannot be bound, or --pidfile is that of a running daemon.
    """
    sources = loader(ctx)
    resolved = resolve(ctx, sources)
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
            help="Print every setting as such a file, with where its value comes from, and exit.",
        ),
    ],
    help=_serve.__doc__,
    context_settings=CONTEXT,
)


def run(config: Config, load: Callable[[], Config], file: str | None = None) -> int:
    """Be the daemon until it ends; the exit status. In a worker, which is forked from here, the worker's own.

    Parameters:
        config: the settings to start with.
        load: what a reload calls for the settings then; it raises ConfigError.
        file: the configuration file, if any.
    """
    # First of all, so that a signal is heeded however early it comes; what follows takes a moment to import.
    from ..supervisor.signals import Signals

    signals = Signals()
    signals.catch()

    from setproctitle import setproctitle

    from .. import logs
    from ..admin import main as admin
    from ..admin.status import status
    from ..ipc import handover_state
    from ..metrics.application import count_as
    from ..process.place import Place
    from ..supervisor import upgrade
    from ..supervisor.supervisor import Supervisor
    from ..supervisor.system.daemon import Service
    from ..worker import main as worker
    from ..worker.loader import load as preload

    def preload_counted(application: str) -> None:
        count_as("supervisor")
        preload(application)

    try:
        left = handover_state.read(os.environ)
        if left is not None:
            upgrade.check(config, left.estate)
    except handover_state.EstateError as error:
        raise click.UsageError(str(error)) from None
    if left is not None and left.task == "check":
        from . import check

        return check.start(with_workers(config), takes_over=True)
    setproctitle("tidegate: supervisor")
    place = Place(config.working_dir)
    prepared(config)
    with log_file(config) as path:
        logs.begin("supervisor", file=path, **config.log_options())
    service = Service(config, preload_counted, place)
    outcome = Supervisor(
        with_workers(config),
        signals,
        worker=worker.run,
        admin=admin.run,
        load=lambda: with_workers(load()),
        file=file,
        service=service,
        describe=status,
        estate=left and left.estate,
    ).run()
    return outcome if isinstance(outcome, int) else outcome()


def prepared(config: Config) -> None:
    """Do first of all what the settings want of the process; UsageError when the system does not allow it."""
    from ..supervisor import auto_reload
    from ..supervisor.system.daemon import prepare

    try:
        prepare(config)
        auto_reload.require(config)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def log_file(config: Config) -> Iterator[str]:
    """Give the path of the log, to be opened; UsageError when that cannot be done."""
    try:
        yield config.log_file
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        mistake = ConfigError(settings()["log_file"].flag, config.log_file, "a path that can be written", reason)
        raise click.UsageError(str(mistake)) from None


def with_workers(config: Config) -> Config:
    """The same with the number of workers decided."""
    if config.workers != "auto":
        return config
    return msgspec.structs.replace(config, workers=min(usable_processors(), SLOTS))


def usable_processors() -> int:
    """How many processors this process may use: its affinity, and the quotas of its control groups, rounded up."""
    from ..supervisor.system import cgroup

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, cgroup.processors() or processors))
