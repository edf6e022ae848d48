"""The command `tidegate bench`: its options, which of them go together, and what it prints.

What must not live here: running anything (rounds.py).
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console

from ...config.types import DURATION, SECONDS, SIZE, Kind, count
from ...exceptions import InvalidURI
from ...ipc.exit_status import DONE, FAILED, INTERRUPTED
from ...uri import parse_uri
from ...version import version
from .. import CONTEXT, Command, Value, note
from ..connect import header
from .plan import Mode, Plan
from .processes import ProcessFailed
from .report import Live, compared, summary
from .results import Comparison, Round, median_round
from .rounds import Rounds

__all__ = ["command"]

CONNECTIONS = count(1, 1_000_000)
IN_FLIGHT = count(1, 10_000)
COUNT = count(1, 100_000_000)
PROCESSES = count(1, 256)
ROUNDS = count(1, 1000)
_F = TypeVar("_F", bound=Callable[..., Any])

SPARE = 64  # descriptors of a process that are no connections
LARGEST = 2**30  # bytes of a message
MEMORY = 2**32  # bytes that a process may have in flight, as far as that is for us to say


def _read_rate(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError
    return number


RATE = Kind("RATE", "a number above 0", _read_rate)


def _option(name: str, kind: Kind, default: Any, text: str, *, shown: str = "") -> Callable[[_F], _F]:
    written = None if default is None else kind.write(default)
    return click.option(
        name, type=Value(kind), default=written, metavar=kind.metavar, help=f"{text}  [default: {shown or written}]"
    )


@click.command("bench", cls=Command, context_settings=CONTEXT)
@click.argument("uri")
@_option("--connections", CONNECTIONS, 100, "Connections; with --handshakes, how many are opened at the same time.")
@_option("--in-flight", IN_FLIGHT, 1, "Messages of a connection that may wait for their answer.")
@_option("--size", SIZE, 64, "Bytes of a message.")
@click.option("--text/--binary", default=True, help="What messages are.  [default: text]")
@click.option("--compression", is_flag=True, help="Use permessage-deflate; each message is compressed once, ahead.")
@click.option("--raw", is_flag=True, help="Send frames without an opening handshake; the server sends back each byte.")
@_option(
    "--rate", RATE, None, "Messages a second in all, or rounds of --fan; latencies count from when each is due.",
    shown="as fast as they are answered",
)  # fmt: skip
@_option("--duration", DURATION, 10.0, "What is measured; with --handshakes, the longest that they may take.")
@_option("--ramp-up", SECONDS, 0.0, "Time over which the connections are opened.")
@_option("--warm-up", SECONDS, 1.0, "Load before what is measured.")
@_option("--processes", PROCESSES, 1, "Processes that make the load.")
@click.option("--idle", is_flag=True, help="Open the connections and hold them, without messages.")
@_option("--handshakes", COUNT, None, "Open and close so many connections.", shown="none")
@_option(
    "--fan", CONNECTIONS, None, "Send from one connection to so many others, by what the server does.", shown="none"
)
@click.option("--compare", metavar="URI", help="Another server, measured by turns with the first.  [default: none]")
@_option("--rounds", ROUNDS, None, "Rounds; shown is the middle one.", shown="1; 5 with --compare")
@click.option(
    "--metrics",
    metavar="URL",
    help="The server's page of metrics: shows its processor time per message and its memory per connection."
    "  [default: none]",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the results there; -: to standard output, alone.  [default: none]",
)
@_option("--timeout", DURATION, 10.0, "For an opening handshake, and for the last answers.")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", callback=header, help="Header to send. Repeatable."
)
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Subprotocol to offer. Repeatable.")
@click.option("--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Measure the WebSocket server at URI: messages a second, and how long each takes to be answered.

    By default the server is to echo: each message that comes is taken for the answer to the oldest that was sent on
    its connection. Load that is not limited by --rate waits for the server, and so its latencies are those of a server
    that is always as busy as it can be; with --rate they are what users of a server under that load see, stalls
    included. Ctrl-C ends it, and shows what there is.

    Exit status: 0 all connections worked; 1 some failed; 2 a mistake on the command line; 130 interrupted.
    """
    plans = _plans(ctx, given)
    _allow_files(ctx, plans[0], given["processes"])
    rounds = given["rounds"] or (5 if given["compare"] else 1)
    console = Console(highlight=False, soft_wrap=False, stderr=given["json_file"] == "-")
    live = Live(rounds, len(plans))
    run = Rounds(plans, rounds, given["processes"], given["metrics"], live.changed)
    try:
        with live.shown(console):
            asyncio.run(run.run())
    except ProcessFailed as error:
        note(ctx, str(error))
        return FAILED
    except KeyboardInterrupt:  # before anything was measured
        return INTERRUPTED
    if run.note:
        note(ctx, run.note)
    done = [(plan, found) for plan, found in zip(plans, run.results, strict=True) if found]
    comparison = _comparison(run.results)
    if given["json_file"] != "-":
        ascii_only = not console.encoding.lower().startswith("utf")
        for plan, found in done:
            console.print(summary(plan, median_round(found), ascii_only=ascii_only), "")
        if comparison is not None:
            console.print(compared(comparison), "")
    if given["json_file"]:
        _write(ctx, given["json_file"], done, comparison, interrupted=run.interrupted)
    if run.interrupted:
        return INTERRUPTED
    return FAILED if any(each.failed for _, found in done for each in found) else DONE


def _comparison(results: Sequence[Sequence[Round]]) -> Comparison | None:
    pairs = list(zip(*results, strict=False)) if len(results) == 2 else []
    return Comparison.of(pairs) if pairs else None


def _mode(ctx: click.Context, given: dict[str, Any]) -> Mode:
    modes: dict[str, Mode] = {"idle": "idle", "handshakes": "handshakes", "fan": "fan"}
    chosen = [name for name in modes if given[name]]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other", ctx)
    return modes[chosen[0]] if chosen else "echo"


# Mode -> the options that mean nothing in it.
USELESS: dict[Mode, tuple[str, ...]] = {
    "echo": (),
    "idle": ("in_flight", "size", "text", "rate", "warm_up"),
    "handshakes": ("in_flight", "size", "text", "rate", "warm_up", "ramp_up", "raw"),
    "fan": ("connections", "in_flight", "processes", "raw"),
}


def _plans(ctx: click.Context, given: dict[str, Any]) -> list[Plan]:
    """Check what was given, and make of it a plan for each server."""
    mode = _mode(ctx, given)
    for name in USELESS[mode]:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = "--text and --binary" if name == "text" else f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag} cannot be given with --{mode}", ctx)
    if given["raw"] and given["compression"]:
        raise click.UsageError("--raw and --compression exclude each other", ctx)
    if given["size"] > LARGEST:
        raise click.UsageError(f"--size must be up to {LARGEST} bytes", ctx)
    if given["connections"] * given["in_flight"] * given["size"] > MEMORY * given["processes"]:
        raise click.UsageError("--connections x --in-flight x --size must be up to 4 GiB for each of --processes", ctx)
    uris = [given["uri"], *([given["compare"]] if given["compare"] else [])]
    for uri in uris:
        try:
            parse_uri(uri)
        except InvalidURI as error:
            raise click.UsageError(str(error), ctx) from None
    if given["metrics"] and not given["metrics"].startswith(("http://", "https://")):
        raise click.UsageError(f"--metrics must be an http:// or https:// URL, not {given['metrics']!r}", ctx)
    return [
        Plan(
            uri=uri,
            mode=mode,
            connections=given["fan"] or given["connections"],
            in_flight=given["in_flight"],
            size=given["size"],
            text=given["text"],
            compression=given["compression"],
            raw=given["raw"],
            rate=given["rate"] or 0.0,
            duration=given["duration"],
            ramp_up=given["ramp_up"],
            warm_up=0.0 if mode == "idle" else given["warm_up"],
            handshakes=given["handshakes"] or 0,
            timeout=given["timeout"],
            headers=given["headers"],
            subprotocols=list(given["subprotocols"]),
            insecure=given["insecure"],
        )
        for uri in uris
    ]


def _allow_files(ctx: click.Context, plan: Plan, processes: int) -> None:
    """Let each process open its connections: raise the limit, or say that it is too low."""
    wanted = max(part.sockets for part in plan.split(processes)) + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted <= soft:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError):
        most = max(hard - SPARE, 0)
        raise click.UsageError(
            f"--{'fan' if plan.mode == 'fan' else 'connections'} must be up to {most} for each of --processes:"
            f" the system allows {hard} open files (ulimit -n)",
            ctx,
        ) from None


def _write(
    ctx: click.Context,
    path: str,
    done: Sequence[tuple[Plan, Sequence[Round]]],
    comparison: Comparison | None,
    *,
    interrupted: bool,
) -> None:
    """Write the results as JSON."""
    plan = done[0][0] if done else None
    found = {
        "tidegate": version,
        "python": ".".join(map(str, sys.version_info[:3])),
        "processors": os.cpu_count(),
        "plan": plan,
        "interrupted": interrupted,
        "rounds": [each for _, rounds in done for each in rounds],
        "comparison": comparison,
    }
    text = msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    if path == "-":
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    try:
        Path(path).write_bytes(text)
    except OSError as error:
        raise click.UsageError(f"--json {path}: {(error.strerror or str(error)).lower()}", ctx) from None
