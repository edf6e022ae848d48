"""The settings as options of a command.

What must not live here: the grammar of each setting (tests/config/test_types.py), what `serve` makes of them.
"""

from __future__ import annotations

from typing import Any

import click
import pytest

from tidegate.cli import Command
from tidegate.cli.options import given, loader, parameters
from tidegate.config.schema import Config, settings


def run(*arguments: str, without: tuple[str, ...] = (), **decided: Any) -> tuple[dict[str, Any], Config]:
    """What a command is given, and its configuration."""

    @click.pass_context
    def callback(ctx: click.Context, **_: Any) -> tuple[dict[str, Any], Config]:
        return given(ctx), loader(ctx, **decided).load()

    command = Command("it", callback=callback, params=parameters(without=without))
    result: tuple[dict[str, Any], Config] = command.main(arguments, standalone_mode=False)
    return result


def test_every_setting_is_an_option_of_the_same_name() -> None:
    options = {parameter.name: parameter for parameter in parameters()}
    assert list(options) == [*settings(), "config"]
    for name, setting in settings().items():
        if not setting.positional:
            assert options[name].opts == [setting.flag]


def test_only_what_the_command_line_has_is_given() -> None:
    options, config = run("app:handler", "--origins", "none", "--no-preload", "--workers=3")
    assert options == {"application": "app:handler", "origins": ("none",), "preload": False, "workers": 3}
    assert config == Config(application="app:handler", origins=("none",), workers=3)


def test_what_a_command_decides_is_no_option() -> None:
    options, config = run("app:handler", without=("workers",), workers=2)
    assert options == {"application": "app:handler"}
    assert config.workers == 2
    with pytest.raises(click.UsageError, match="--workers"):
        run("app:handler", "--workers=3", without=("workers",), workers=2)


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(click.UsageError, match=r"^--admin-token '\.\.\.' is not allowed: give 16 or more letters"):
        run("app:handler", "--admin-token", "hunter2")


def test_a_mistake_knows_its_command() -> None:
    """Those of one option, and those of two that do not go together."""
    for arguments in (["--workers=many"], ["--drain=40"]):
        with pytest.raises(click.UsageError) as caught:
            run("app:handler", *arguments)
        assert caught.value.ctx is not None
        assert caught.value.ctx.command.name == "it"
