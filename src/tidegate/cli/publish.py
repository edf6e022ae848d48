"""``tidegate publish CHANNEL MESSAGE``: publish a message to a channel of a daemon, or of any bus, and print its place.

What must not live here: what publishing is (bus/bus.py), where a daemon's sockets are (ipc/control_protocol.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import click

from ..bus.connect import check_url
from ..bus.outside import connect, url_of
from ..bus.policies import check_key, check_name
from ..channels import MESSAGE_LIMIT
from ..config.types import APPLICATION, SECONDS, Kind
from ..exceptions import BusDown, BusError, InvalidChannel, MessageTooBig
from ..ipc.control_protocol import hub_path
from ..ipc.exit_status import DONE, FAILED, INTERRUPTED, NOT_RUNNING, TIMED_OUT
from . import CONTEXT, Command, Value, note
from .control import ControlError, control_option, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..channels import Channel, Position

__all__ = ["command"]

STATUSES = (
    "Exit status: 0 published; 1 failed; 2 a mistake on the command line; 5 no bus is there; 6 the bus has not said in"
    " time whether the message is stored, or 130 interrupted: it may be."
)


def _publish(
    ctx: click.Context,
    /,
    *,
    channel: str,
    message: str,
    binary: bool,
    json: bool,
    key: str | None,
    wait: float,
    bus: str | None,
    application: str | None,
    control: str | None,
) -> int:
    """Publish MESSAGE to all members of CHANNEL, on every worker; - reads it from standard input, as it is.

    Prints the position of the message, in a channel with history.
    """
    if binary and json:
        raise click.UsageError("--binary and --json are two kinds of messages: give one of them", ctx)
    if bus is not None and control is not None:
        raise click.UsageError("--bus and --control name two places: give one of them", ctx)
    try:
        check_name(channel)
        check_key(key)
        url = _url(ctx, bus, application)
        channels = _channels(ctx, application) if application is not None else None
        options: dict[str, Any] = {"key": key, "json": json}
        position = asyncio.run(_deliver(url, channels, channel, _content(ctx, message, binary), wait, options))
    except ControlError as error:
        note(ctx, str(error))
        return error.status
    except (InvalidChannel, MessageTooBig) as error:
        raise click.UsageError(str(error), ctx) from None
    except BusDown as error:
        note(ctx, str(error))
        return TIMED_OUT if error.uncertain else NOT_RUNNING
    except BusError as error:
        note(ctx, str(error))
        return FAILED
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from None
    except KeyboardInterrupt:
        note(ctx, "interrupted: the message may be published")
        return INTERRUPTED
    if position is not None:
        click.echo(str(position))
    return DONE


def _content(ctx: click.Context, message: str, binary: bool) -> str | bytes:
    """Return what to publish."""
    data = sys.stdin.buffer.read(MESSAGE_LIMIT + 1) if message == "-" else os.fsencode(message)
    if binary:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise click.UsageError("the message isn't text in UTF-8: give --binary", ctx) from None


def _channels(ctx: click.Context, application: str) -> Mapping[str, Channel] | None:
    """Return the policies of an application's channels."""
    from ..worker.loader import LoadError, load

    try:
        return load(application).channels
    except LoadError as error:
        raise ControlError(FAILED, str(error)) from None


# Where.


def _url(ctx: click.Context, given: str | None, application: str | None) -> str:
    """Return the URL of the bus; check, for a daemon's, that its hub listens."""
    if given is None:
        control = path_of(ctx)
        path = hub_path(control)
        _check(path, f"name the daemon's socket, with --control PATH or TIDEGATE_CONTROL, or --bus URL; {_SILENT}")
        return url_of(path)

    scheme, path = (parts := check_url(given)).scheme, parts.path
    if scheme == "memory":
        raise ValueError("memory:// is the bus of one process, which this command is not in")
    if scheme == "local":
        if not path:
            raise ValueError("local:// is the bus of a daemon: give --control PATH, or its path in the URL")
        _check(unquote(path), f"give the path of a daemon's socket, such as /run/tidegate/control.hub; {_SILENT}")
    elif application is None:
        raise ValueError(
            f"what is stored of channels on {scheme}:// is declared by their application: give --application"
            " MODULE:ATTRIBUTE as well"
        )
    return given


_SILENT: Final = "a daemon whose application declares no channels, or has them on another bus, does not listen"


def _check(path: str, advice: str) -> None:
    """Raise ControlError if no process listens on a path."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(path)
        except BlockingIOError:  # its queue is full
            pass
        except PermissionError:
            raise ControlError(FAILED, f"cannot connect to {path}: only the daemon's own user and root may") from None
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ControlError(NOT_RUNNING, f"no bus listens on {path} ({why}): {advice}") from None


# What happens on the event loop.


async def _deliver(
    url: str,
    channels: Mapping[str, Channel] | None,
    channel: str,
    message: str | bytes,
    wait: float,
    options: dict[str, Any],
) -> Position | None:
    """Connect, publish within so many seconds, and disconnect."""
    deadline = time.monotonic() + wait
    bus = await connect(url, channels, wait)
    try:
        return await bus.publish(channel, message, wait=max(1.0, deadline - time.monotonic()), **options)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await bus.close()


TEXT = Kind("TEXT", "a text, or - for standard input", str)
NAME = Kind("NAME", "the name of a channel", str)

command = Command(
    "publish",
    callback=click.pass_context(_publish),
    params=[
        click.Argument(["channel"], type=Value(NAME)),
        click.Argument(["message"], type=Value(TEXT)),
        click.Option(["--binary"], is_flag=True, help="Publish the bytes of the message, not a text."),
        click.Option(["--json"], is_flag=True, help="The message is JSON, which members are given as such."),
        click.Option(
            ["--key"],
            metavar="TEXT",
            help="Key by which publishing again within 5 minutes has no effect, and prints the same position.",
        ),
        click.Option(
            ["--wait"],
            type=Value(SECONDS),
            metavar=SECONDS.metavar,
            default="5",
            help="Time to wait for the bus.  [default: 5]",
        ),
        control_option(),
        click.Option(["--bus"], metavar="URL", help="Another bus than that of the daemon, as in a daemon's --bus."),
        click.Option(
            ["--application"],
            type=Value(APPLICATION),
            metavar=APPLICATION.metavar,
            help="Application that declares the channels, which says what is stored; for a --bus that is not local.",
        ),
    ],
    help=f"{_publish.__doc__}\n\n{STATUSES}",
    context_settings=CONTEXT,
)
