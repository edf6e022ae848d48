"""``tidegate serve MODULE:ATTRIBUTE``: the settings as options, and the processes put together.

    command     the options, made from the settings' own declarations
    run         the daemon with given settings, for other commands too

What must not live here: a setting (config.py), what the processes do (supervisor, worker, admin).
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from ..config import Config, Setting, settings
from ..kinds import SLOTS, SWITCH, ConfigError
from . import CONTEXT, Command

__all__ = ["command", "given", "parameters", "run", "usable_processors"]


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
        return click.Argument([setting.name], type=_Value(setting), metavar=setting.kind.metavar)
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
    """Every setting as an option of a command, but for those that the command decides by itself."""
    return [_parameter(setting) for name, setting in settings().items() if name not in without]


def given(ctx: click.Context) -> dict[str, Any]:
    """The settings that the command line gives, by name: what it does not give has its default."""
    return {
        name: tuple(value) if settings()[name].many else value
        for name, value in ctx.params.items()
        if name in settings() and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


@click.pass_context
def _serve(ctx: click.Context, /, **_: Any) -> int:
    """Serve an application with supervised workers.

    MODULE is imported, the current directory being importable; ATTRIBUTE is an `async def handler(websocket)` in it, a
    `werkzeug.routing.Map` of such, or a `tidegate.App`.

    Times are in seconds, or with a unit: 500ms, 2m. Sizes are in bytes, or with a unit: 64KiB, 1MB.
    """
    try:
        config = Config(**given(ctx))
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from None
    return run(config)


command = Command(
    "serve",
    callback=_serve,
    params=parameters(),
    help=_serve.__doc__,
    context_settings=CONTEXT,
)


def run(config: Config) -> int:
    """Be the daemon until it ends; the exit status. In a worker, which is forked from here, the worker's own."""
    # First of all, so that a signal is heeded however early it comes; what follows takes a moment to import.
    from ..supervisor.signals import Signals

    signals = Signals()
    signals.catch()

    from setproctitle import setproctitle

    from .. import logs
    from ..admin import main as admin
    from ..supervisor.supervisor import Supervisor
    from ..worker import main as worker

    setproctitle("tidegate: supervisor")
    try:
        logs.begin("supervisor", file=config.log_file, **config.log_options())
    except OSError as error:
        mistake = ConfigError(settings()["log_file"].flag, config.log_file, "a path that can be written", str(error))
        raise click.UsageError(str(mistake)) from None
    _raise_descriptor_limit()
    if config.workers == "auto":
        config = msgspec.structs.replace(config, workers=min(usable_processors(), SLOTS))
    outcome = Supervisor(config, signals, worker=worker.run, admin=admin.run).run()
    return outcome if isinstance(outcome, int) else outcome()


def usable_processors() -> int:
    """How many processors this process may use: its affinity, and its control group's quota, rounded up."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            processors = min(processors, math.ceil(int(quota) / int(period)))
    return max(1, processors)


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: the usual limit, 1,024, is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
