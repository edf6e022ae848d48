"""The settings as options of a command.

    parameters    every setting as an option, and --config
    given         the settings that the command line gives
    loader        the command line, the environment and the file of a command together

What must not live here: a setting (config/schema.py), reading the sources (config/sources.py), a command.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import click
from click.core import ParameterSource

from ..config.schema import Setting, settings
from ..config.sources import CONFIG, Loader
from ..config.types import SWITCH
from . import Value

__all__ = ["given", "loader", "parameters"]


def _parameter(setting: Setting) -> click.Parameter:
    """Return the click parameter of a setting; its default stays with the setting."""
    value, metavar = Value(setting.kind, secret=setting.secret), setting.kind.metavar
    if setting.positional:
        # The file or the environment may have it: the loader reports that it is missing.
        return click.Argument([setting.name], type=value, metavar=metavar, required=False)
    text = f"{setting.help}  [default: {setting.default_text or setting.write(setting.default)}]"
    if setting.kind is SWITCH:
        switch = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.Option([switch], default=None, help=text)
    return click.Option([setting.flag], type=value, multiple=setting.many, metavar=metavar, help=text)


def parameters(*, without: Collection[str] = ()) -> list[click.Parameter]:
    """Return every setting as an option, except those that the command decides by itself, and --config."""
    config = click.Option(
        ["--config"],
        metavar="PATH",
        help="TOML file with settings, named as here with _ for -: ping_interval = 10. The environment"
        f" (TIDEGATE_PING_INTERVAL=10) has precedence over it, and the command line over both.  [default: ${CONFIG}]",
    )
    return [*(_parameter(setting) for name, setting in settings().items() if name not in without), config]


def given(ctx: click.Context) -> dict[str, Any]:
    """Return the settings that the command line gives, by name."""
    return {
        name: tuple(value) if settings()[name].many else value
        for name, value in ctx.params.items()
        if name in settings() and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def loader(ctx: click.Context, **decided: Any) -> Loader:
    """Return the sources of a command's settings; `decided` are those that the command decides by itself."""
    return Loader({**given(ctx), **decided}, os.environ, ctx.params["config"])
