"""``tidegate``: one command, whose subcommands are modules of this folder, imported when they are used.

    options             the settings as options of a command
    serve               run the daemon
    check               check that a configuration and its application start
    status              show workers and connections once
    top                 show them live
    dashboard           the text that `top` shows
    reload              replace the workers
    scale               change the number of workers
    drain               close all connections and keep the daemon
    stop                stop the daemon
    upgrade             replace the program in place
    publish             publish a message to a channel
    control             the client's end of the control socket, for the commands above
    demo                serve a demo page
    demo_application    the application of the demo
    connect             an interactive WebSocket client
    bench               generate load and measure a server
    humanize            numbers as people read them
    keyboard            single keys from a terminal
    reference           pages of the guides that are generated from declarations

A mistake on the command line is reported in one line, which names what was given and what is allowed, with status 2.

What must not live here: what a subcommand does.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from ..config.errors import ConfigError
from ..config.types import Kind
from ..ipc.exit_status import FAILED, USAGE
from ..process import streams
from ..text import escape
from ..version import version

__all__ = ["CONTEXT", "Command", "Value", "main", "note"]

# Name -> its line in the help. Each is a module of this folder with a click command called `command`.
COMMANDS = {
    "serve": "Serve an application with supervised workers.",
    "check": "Check a configuration, and that the application starts.",
    "status": "Show a daemon's workers and connections.",
    "top": "Watch a daemon's workers and connections.",
    "reload": "Replace the workers by new ones.",
    "scale": "Change the number of workers.",
    "drain": "Close every connection and refuse new ones, until a reload.",
    "stop": "Stop a daemon.",
    "upgrade": "Replace a daemon's program by the installed one, in place.",
    "publish": "Publish a message to a channel of a daemon.",
    "demo": "Serve a demo page.",
    "connect": "Talk to a WebSocket server.",
    "bench": "Measure a WebSocket server.",
}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}  # of every command


class Commands(click.Group):
    """The subcommands of the table above."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # `tidegate URI`, perhaps with options of `connect`.
        if args and args[0] not in COMMANDS and any(arg.startswith(("ws://", "wss://")) for arg in args):
            args = ["connect", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class Command(click.Command):
    """A subcommand whose errors have its context, which names it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _mistakes(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _mistakes(ctx):
            return super().invoke(ctx)


@contextlib.contextmanager
def _mistakes(ctx: click.Context) -> Iterator[None]:
    """Turn errors of settings into usage errors of this command."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from None
    except click.UsageError as error:
        error.ctx = error.ctx or ctx
        raise


class Value(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A parameter's value that is written like a setting's.

    Parameters:
        kind: how it is written.
        secret: whether errors must not show it.
    """

    def __init__(self, kind: Kind, *, secret: bool = False) -> None:
        self.name, self.allowed = kind.metavar, kind.allowed
        self._kind, self._secret = kind, secret

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._kind.parse(value, self.name if param is None else _named(param), secret=self._secret)


def note(ctx: click.Context, text: str, *, err: bool = True) -> None:
    """Print a line of a command's own; the text may come from a daemon, and is made safe for a terminal."""
    click.echo(f"{ctx.command_path}: {escape(text, keep=_LINES)}", err=err)


_LINES = "\n\t"


@click.group(cls=Commands, no_args_is_help=False, context_settings=CONTEXT)
@click.version_option(version, message="%(prog)s %(version)s")
def tidegate() -> None:
    """A production WebSocket server for Python."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line, and exit with its status.

    Args:
        argv: arguments, without the program's name; by default those of the process.
    """
    streams.fill()
    try:
        status = tidegate.main(argv, prog_name="tidegate", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "tidegate"
        print(f"{where}: {_line(error)}", file=sys.stderr)
        sys.exit(USAGE)
    except click.ClickException as error:
        print(f"tidegate: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(FAILED)
    sys.exit(status)


def _line(error: click.UsageError) -> str:
    """Return the error in one line."""
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{_named(error.param)} is missing{_allowed(error.param)}"
    if isinstance(error, click.BadOptionUsage) and error.ctx is not None:
        for parameter in error.ctx.command.params:
            if error.option_name in parameter.opts:
                return f"{error.option_name} needs a value{_allowed(parameter)}"
    return " ".join(error.format_message().split())


def _named(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else (parameter.name or "").upper()


def _allowed(parameter: click.Parameter) -> str:
    """Return the words for what a parameter's type allows, if it has some."""
    allowed = getattr(parameter.type, "allowed", "")
    return f": give {allowed}" if allowed else ""
