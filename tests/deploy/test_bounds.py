"""The table of bounds in the operating guide: each row is what the code's constants and the settings' defaults say.

What must not live here: whether the code keeps them (the tests of each part, tests/process/test_limits.py,
tests/benchmarks).
"""

from __future__ import annotations

import re

import pytest

from tests.support.harness import ROOT
from tidegate import headers, http11, proxy_protocol
from tidegate._core import turns
from tidegate.admin import admission as admin_admission
from tidegate.admin import feed, publish
from tidegate.admin import main as admin
from tidegate.asyncio import admission, channel_handler, enveloped, server_connection
from tidegate.bus import base, envelope, local, memory, order, redis, subscription, tail, topic, watch
from tidegate.client import MAX_REDIRECTS
from tidegate.config.schema import settings
from tidegate.config.types import SIZE, SLOTS
from tidegate.hub import main as hub
from tidegate.ipc import control_protocol
from tidegate.ipc.pipe import Pipe
from tidegate.limits import KEPT
from tidegate.logs import formatters, writers
from tidegate.metrics import application
from tidegate.supervisor import control

TEXT = (ROOT / "deploy" / "guides" / "operating.md").read_text(encoding="utf-8")


def setting(name: str) -> str:
    """A setting with its default: `--max-size` (1MiB)."""
    found = settings()[name]
    return f"`{found.flag}` ({found.write(found.default)})"


def only(name: str) -> str:
    """A setting that has no default."""
    assert settings()[name].default is None
    return f"`{settings()[name].flag}`"


def size(number: int) -> str:
    return SIZE.write(number)


RESERVE = "a sixteenth of `--open-files`, at least 32"
BODY = size(http11.MAX_BODY_SIZE)

# Row -> its bound, and whether that is on by default.
BOUNDS: dict[str, tuple[str, bool]] = {
    # Before a connection is open.
    "connections not accepted yet": (f"{setting('backlog')} of each worker, and `net.core.somaxconn`", True),
    "connections of the daemon": (only("max_connections"), False),
    "connections of a worker": (f"its open files less {RESERVE}", True),
    "connections of an address": (only("max_connections_per_address"), False),
    "handshakes of an address": (only("handshake_rate"), False),
    "addresses that are remembered without a connection": (f"{KEPT:,}, with `--handshake-rate` alone", True),
    "time of a handshake, TLS, PROXY header and hooks included": (setting("open_timeout"), True),
    "PROXY header": (size(proxy_protocol.MAX_SIZE), True),
    "head of a request": (
        f"{size(http11.MAX_HEAD_SIZE)}, {http11.MAX_NUM_HEADERS} headers, {size(http11.MAX_LINE_LENGTH)} a line",
        True,
    ),
    "items of a list in a header": (f"{headers.MAX_LIST_ITEMS}", True),
    "bytes that come before the answer of a hook": (size(server_connection.EARLY_DATA), True),
    "hooks of clients that have left": ("cancelled, and counted as connections until they end", True),
    "refused connections": (
        f"{server_connection.REJECT_WITHIN:g} s for the request, "
        f"{server_connection.LINGER:g} s until the client closes",
        True,
    ),
    # An open connection.
    "a message, whole or in fragments, after inflating": (setting("max_size"), True),
    "frames that wait for the handler": (f"{setting('max_queue')}, each of `--max-size`, at every moment", True),
    "small fragments of one message": ("joined as they come: `--max-size` bounds them, not their number", True),
    "work for one connection in a turn of the event loop": (
        f"{turns.seconds() * 1000:g} ms and {size(turns.BYTES)} of input",
        True,
    ),
    "work for a task that sends or receives and never waits": (f"{turns.seconds() * 1000:g} ms", True),
    "bytes that wait for a client: `send()`": (
        f"{setting('write_limit')}, and a message of each task that sends",
        True,
    ),
    "bytes that wait for a client: `broadcast()`": (setting("broadcast_limit"), True),
    "a message that is published to a channel": (setting("bus_message_limit"), True),
    "bytes that wait for a member of channels": (setting("bus_member_limit"), True),
    "channels of a connection": (setting("max_channels_per_connection"), True),
    "channels of a worker": (setting("max_channels"), True),
    "a command of the subprotocol `tidegate.v1`": (
        f"{size(envelope.COMMAND_BYTES)} without data, `--bus-message-limit` of data,"
        f" {envelope.COMMAND_CHANNELS} channels",
        True,
    ),
    "commands of a connection": (setting("channel_command_rate"), True),
    "time of a hook of `channel_handler()`": (f"{channel_handler.HOOK_TIMEOUT:g} s", True),
    "frames that members share": (f"{enveloped.CACHED_FRAMES}, {size(enveloped.CACHED_BYTES)}", True),
    "messages on the way from a worker to the bus": (size(local.QUEUE_BYTES), True),
    "messages on the way from the hub to a worker": (
        f"{size(16 * 2**20)} of each worker",
        True,
    ),  # tests/core/test_switch.py
    "messages that are held while others before them are read again": (
        f"{order.HELD_MESSAGES}, {size(order.HELD_BYTES)} of each channel",
        True,
    ),
    "last messages of a channel, for those who come back": (
        f"{tail.TAIL_MESSAGES}, {size(tail.TAIL_BYTES)} of each channel",
        True,
    ),
    "messages that a client is given when it comes back": (
        f"{base.SLICE_MESSAGES}, {size(base.SLICE_BYTES)}, or one message of any size",
        True,
    ),
    "messages that wait for a task in `subscribe()`": (
        f"{subscription.QUEUE_MESSAGES}, {size(subscription.QUEUE_BYTES)}",
        True,
    ),
    "silence of a Redis server, with a message of the worker's own after half of it": (
        f"{2 * watch.SILENCE:g} s",
        True,
    ),
    "messages that come while a worker connects to Redis again": (
        f"{redis.EARLY}, {size(redis.EARLY_BYTES)}",
        True,
    ),
    "joins while the hub restarts": (f"{topic.PATIENCE:g} s", True),
    "processes other than workers at the hub": (f"{hub.OUTSIDE}", True),
    "pongs that a client does not read": ("the last one", True),
    "silence of a client": (f"{setting('ping_interval')} and {setting('ping_timeout')}", True),
    "time of a closing handshake": (setting("close_timeout"), True),
    # The daemon's own.
    "workers": (f"{SLOTS}", True),
    "time without a turn of a worker's event loop": (setting("worker_timeout"), True),
    "lines of the log that cannot be written yet": (
        f"{size(writers.Threaded.LIMIT)} of a worker, {size(writers.Patient.LIMIT)} of the supervisor",
        True,
    ),
    "a line of the log": (size(formatters._LONGEST_LINE), True),
    "a report to the supervisor": (f"{size(Pipe.LONGEST)} a line", True),
    "control socket": (
        f"{control.CLIENTS} clients, {size(control_protocol.LONGEST)} a request, {size(control.UNSENT)} of answers,"
        f" {control.SILENCE:g} s of silence",
        True,
    ),
    "admin address": (
        f"{admin_admission.CONNECTIONS} connections, {admin_admission.BACKLOG} in the queue, "
        f"{admin.OPEN_TIMEOUT:g} s for a request",
        True,
    ),
    "requests to /publish": (
        f"{publish.AT_ONCE} at once, {size(publish.BODY)} and {publish.BATCH} messages each,"
        f" {publish.BODY_SECONDS:g} s for the body and {publish.BUS_SECONDS:g} s for the bus",
        True,
    ),
    "connections to /live": (f"{feed.LISTENERS}, {size(feed.LIMIT)} each", True),
    "a file of the application's metrics": (size(application.LARGEST), True),
    # A client made with connect().
    "a response to `connect()`": (
        f"{size(http11.MAX_HEAD_SIZE)} of head, {BODY} of body, {http11.MAX_INTERIM_RESPONSES} interim responses,"
        f" {MAX_REDIRECTS} redirects",
        True,
    ),
}


def rows() -> dict[str, tuple[str, str, str]]:
    section = re.search(r"^## Bounds\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
    assert section is not None
    found = [line.strip("|").split("|") for line in section[1].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in found[2:]]
    assert [cell.strip() for cell in found[0]] == ["queue or buffer", "bound", "by default", "above it"]
    table = {name: (bound, default, above) for name, bound, default, above in cells}
    assert len(table) == len(cells), "a row is there twice"
    return table


def test_every_queue_has_a_row() -> None:
    assert list(rows()) == list(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_row(name: str) -> None:
    """Each row of the guide's table of bounds says the bound that the code has."""
    bound, default, above = rows()[name]
    expected, on = BOUNDS[name]
    assert bound == expected
    assert default == ("yes" if on else "no")
    assert above


def test_the_queue_to_an_engine_is_the_same_for_each() -> None:
    assert memory.QUEUE_BYTES == local.QUEUE_BYTES == redis.QUEUE_BYTES


def test_the_reserve_of_descriptors() -> None:
    """As the row of a worker's connections says."""
    assert [limit - admission.descriptors(limit)[0] for limit in (256, 512, 1024, 65536)] == [32, 32, 64, 4096]


@pytest.mark.parametrize(
    "name",
    [name for name in settings() if name.startswith("max_") or name.endswith(("_limit", "_timeout"))],
)
def test_every_setting_that_bounds_something_is_named(name: str) -> None:
    recycling = {"max_lifetime", "max_connections_served", "max_rss"}  # which bound a worker's life
    ends = {"graceful_timeout", "boot_timeout"}
    if name not in recycling | ends:
        table = " ".join(bound for bound, _, _ in rows().values())
        assert f"`{settings()[name].flag}`" in table
