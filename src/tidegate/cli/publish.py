"""``tidegate publish CHANNEL MESSAGE``: publish a message to a channel of a daemon, or of any bus, and print its place.

What must not live here: what publishing is (bus/bus.py), where a daemon's sockets are (ipc/control_protocol.py).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

import click
import msgspec

from ..bus.connect import check_url
from ..bus.declaration import read
from ..bus.outside import connect, disconnect, knows_channels, url_of
from ..bus.policies import check_key, check_name
from ..channels import MESSAGE_LIMIT
from ..config.types import APPLICATION, SECONDS, Kind
from ..exceptions import BusDown, BusError, InvalidChannel, MessageTooBig
from ..ipc import control_protocol
from ..ipc.exit_status import DONE, FAILED, INTERRUPTED, NOT_RUNNING, TIMED_OUT
from . import CONTEXT, Command, Value, note
from .control import ControlClient, ControlError, control_option, path_of

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
        place = _place(ctx, bus, application)
        options: dict[str, Any] = {"key": key, "json": json}
        position = asyncio.run(_deliver(place, channel, _content(ctx, message, binary), wait, options))
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


def _channels(application: str) -> Mapping[str, Channel] | None:
    """Return the policies of an application's channels."""
    from ..worker.loader import LoadError, load

    try:
        return load(application).channels
    except LoadError as error:
        raise ControlError(FAILED, str(error)) from None


# Where.


class _Place(NamedTuple):
    """A bus.

    Attributes:
        url: where it is.
        channels: what its application declares, unless its engine knows that.
        message_limit: bytes of a message.
    """

    url: str
    channels: Mapping[str, Channel] | None = None
    message_limit: int = MESSAGE_LIMIT


def _place(ctx: click.Context, url: str | None, application: str | None) -> _Place:
    """Return the bus that the options name."""
    place = _place_of_daemon(path_of(ctx)) if url is None else _place_of_url(url, application is not None)
    return place if application is None else place._replace(channels=_channels(application))


def _place_of_daemon(control: str) -> _Place:
    """Return the bus of a daemon: of its hub, if that listens, else as its supervisor says."""
    path = control_protocol.hub_path(control)
    try:
        _check(path, "name the daemon's socket, with --control PATH or TIDEGATE_CONTROL, or --bus URL")
    except ControlError as error:
        absent = error
    else:
        return _Place(url_of(path))

    try:
        client = ControlClient(control, control_protocol.Bus())
    except ControlError:
        raise absent from None
    with client:
        (*_, answer) = client.answers()
    if answer.bus is msgspec.UNSET:
        raise ControlError(FAILED, answer.text)
    url, said = answer.bus.url, answer.bus.declares
    if url.startswith("memory:"):
        raise ControlError(FAILED, f"the daemon has --bus {url}: each of its workers has channels of its own")
    if said is msgspec.UNSET:
        raise BusDown("no worker has said yet which channels there are; try again")
    try:
        declared = read(said)
    except BusError as error:
        raise BusDown(str(error)) from None
    if knows_channels(url):
        raise absent
    return _Place(url, declared.channels, declared.message_limit)


def _place_of_url(given: str, has_application: bool) -> _Place:
    """Return the bus of a URL; check, for a daemon's, that its hub listens."""
    scheme, path = (parts := check_url(given)).scheme, parts.path
    if scheme == "memory":
        raise ValueError("memory:// is the bus of one process, which this command is not in")
    if scheme == "local":
        if not path:
            raise ValueError("local:// is the bus of a daemon: give --control PATH, or its path in the URL")
        _check(unquote(path), f"give the path of a daemon's socket, such as /run/tidegate/control.hub; {_SILENT}")
    elif not has_application:
        raise ValueError(
            f"what is stored of channels on {scheme}:// is declared by their application: give --application"
            " MODULE:ATTRIBUTE as well, or --control PATH of a daemon that has it in place of --bus"
        )
    return _Place(given)


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
    place: _Place, channel: str, message: str | bytes, wait: float, options: dict[str, Any]
) -> Position | None:
    """Connect, publish within so many seconds, and disconnect."""
    deadline = time.monotonic() + wait
    bus = await connect(place.url, place.channels, wait, place.message_limit)
    try:
        return await bus.publish(channel, message, wait=max(1.0, deadline - time.monotonic()), **options)
    finally:
        await disconnect(bus)


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
        click.Option(["--bus"], metavar="URL", help="The bus, as in a daemon's --bus, where there is no daemon."),
        click.Option(
            ["--application"],
            type=Value(APPLICATION),
            metavar=APPLICATION.metavar,
            help="Application that declares the channels, hence what is stored; for a --bus that is not local.",
        ),
    ],
    help=f"{_publish.__doc__}\n\n{STATUSES}",
    context_settings=CONTEXT,
)
