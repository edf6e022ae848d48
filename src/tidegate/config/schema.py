"""Every setting of the daemon, declared once.

    Config           the settings: a field each, with its type, its default, and its `Setting`
    changed_fixed    the settings that a reload cannot change, and a new configuration has changed

What must not live here: click, reading files or the environment (cli), how values are written (config/types.py), any
use of a setting.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from .. import defaults
from ..channels import TOPICS_LIMIT, ChannelLimits
from .bind import Address, Tcp
from .consistency import check
from .setting import Setting
from .types import (
    ADDRESS,
    ADMIN,
    APPLICATION,
    BUS,
    CIPHERS,
    COMMANDS,
    DURATION,
    FRAMES,
    HEADER,
    HOST,
    JOURNAL,
    MESSAGE,
    NETWORK,
    OPEN_FILES,
    ORIGIN,
    PATH,
    PROCESSORS,
    RATE,
    ROOT_PATH,
    SECONDS,
    SECRET,
    SIZE,
    SWITCH,
    TIMEOUT,
    TOKEN,
    UMASK,
    USER,
    WORKERS,
    choice,
    count,
    pair,
    pattern_of_origin,
)

__all__ = ["AdminAccess", "Config", "Setting", "changed_fixed", "settings"]


class AdminAccess(NamedTuple):
    """Who may ask the admin address.

    Attributes:
        token: what a request must have; None: it needs none.
        hosts: host names by which a request may come that has none.
        publish_token: what a request to publish must have; None: none is answered.
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    publish_token: str | None = None


_CHANNELS = ChannelLimits()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's settings. Durations are in seconds, sizes in bytes; the defaults are those of the command."""

    application: Annotated[
        str,
        Setting(
            APPLICATION,
            "Application to serve: an `async def handler(websocket)`, a `werkzeug.routing.Map` of handlers, a"
            " `tidegate.App`, or an ASGI application; with () at the end, a function that makes it. The current"
            " directory is importable.",
            positional=True,
        ),
    ]
    bind: Annotated[
        tuple[Address, ...],
        Setting(
            ADDRESS,
            "Address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N, or systemd for the sockets of a"
            " .socket unit (systemd:NAME for those with that FileDescriptorName). Repeatable.",
            many=True,
            fixed=True,
        ),
    ] = (Tcp("127.0.0.1", 8765),)
    workers: Annotated[
        int | Literal["auto"], Setting(WORKERS, "Number of worker processes; auto is one for each usable processor.")
    ] = 1
    admin: Annotated[
        Tcp | None,
        Setting(
            ADMIN,
            "Address of the admin HTTP server: /metrics, /status, /livez, /readyz and a dashboard. Other than on"
            " loopback, it requires --admin-token.",
            fixed=True,
        ),
    ] = Tcp("127.0.0.1", 9465)
    admin_token: Annotated[
        str | None,
        Setting(
            TOKEN.or_else("none"),
            "Bearer token that requests to the admin address must send, as in `Authorization: Bearer TOKEN`;"
            " /livez and /readyz are exempt. Set it in the environment or a file: other users of the machine can"
            " read command lines.",
            secret=True,
        ),
    ] = None
    admin_hosts: Annotated[
        tuple[str, ...],
        Setting(
            HOST,
            "Host name that requests to the admin address may use without a token, such as the public name of a"
            " reverse proxy, besides localhost, IP addresses and the name in --admin. Other names are refused, as"
            " protection against DNS rebinding. Repeatable.",
            many=True,
            default_text="no others",
        ),
    ] = ()
    publish_token: Annotated[
        str | None,
        Setting(
            TOKEN.or_else("none"),
            "Bearer token of `POST /publish` on the admin address, which publishes messages to channels; none: there is"
            " no such path. Set it in the environment or a file: other users of the machine can read command lines.",
            secret=True,
        ),
    ] = None
    control: Annotated[
        str | None,
        Setting(
            PATH.or_else("none").or_else("auto", "auto"),
            "Unix socket through which `tidegate status`, reload, scale, drain, stop and upgrade reach the"
            " daemon; only root and the daemon's user may connect. auto is $RUNTIME_DIRECTORY/control.sock where"
            " that variable is set (systemd sets it), else none.",
            fixed=True,
        ),
    ] = "auto"
    drain: Annotated[
        float | None,
        Setting(
            SECONDS,
            "Time over which a stopping worker spreads the closing of its connections; 0 closes all at once.",
            default_text="a third of --graceful-timeout",
        ),
    ] = None
    graceful_timeout: Annotated[
        float,
        Setting(
            SECONDS,
            "Time from the start of a stop until the remaining connections are aborted. Must be longer than --drain.",
        ),
    ] = 30.0
    boot_timeout: Annotated[float, Setting(DURATION, "Time within which a new worker must become ready.")] = 60.0
    worker_timeout: Annotated[
        float | None,
        Setting(
            TIMEOUT.or_else("none"),
            "Time without a heartbeat of its event loop after which a worker is replaced; after half of it, its"
            " stacks are logged. none: never.",
        ),
    ] = 30.0
    max_lifetime: Annotated[
        float | None,
        Setting(
            DURATION.or_else("none"),
            "Age at which a worker is recycled, varied by up to a tenth: once its successor serves, it drains."
            " Workers are recycled one at a time.",
        ),
    ] = None
    max_connections_served: Annotated[
        int | None,
        Setting(
            count(1, 1_000_000_000).or_else("none"),
            "Number of connections after which a worker is recycled, varied by up to a tenth.",
        ),
    ] = None
    max_rss: Annotated[
        int | None,
        Setting(
            SIZE.or_else("none"),
            "Resident memory at which a worker is recycled, varied by up to a tenth.",
        ),
    ] = None
    reload: Annotated[
        Literal["generation", "rolling"],
        Setting(
            choice("generation", "rolling"),
            "How a reload replaces workers: generation starts all new workers beside the old ones; rolling"
            " replaces them one by one, which takes less memory.",
        ),
    ] = "generation"
    reload_on_change: Annotated[
        bool,
        Setting(
            SWITCH,
            "For development: reload when a file of the application changes (*.py in the current directory and in"
            " the application's package) or the --config file does. Old workers then stop without draining."
            " Requires tidegate[reload].",
            fixed=True,
        ),
    ] = False
    settle: Annotated[
        float,
        Setting(
            SECONDS,
            "Time that the new workers of a reload must run before the old ones drain; for half of it they must"
            " be serving.",
        ),
    ] = 1.0
    backlog: Annotated[
        int,
        Setting(count(1, 1_000_000), "Maximum length of the queue of connections not accepted yet, for each worker."),
    ] = 4096
    open_timeout: Annotated[
        float | None, Setting(DURATION.or_else("none"), "Timeout of the opening handshake.", served=True)
    ] = defaults.OPEN_TIMEOUT
    ping_interval: Annotated[
        float | None,
        Setting(DURATION.or_else("none"), "Interval between keepalive pings; none: no pings.", served=True),
    ] = defaults.PING_INTERVAL
    ping_timeout: Annotated[
        float | None,
        Setting(
            DURATION.or_else("none"),
            "Timeout of the answer to a keepalive ping, after which the connection is closed.",
            served=True,
        ),
    ] = defaults.PING_TIMEOUT
    close_timeout: Annotated[
        float | None, Setting(DURATION.or_else("none"), "Timeout of the closing handshake.", served=True)
    ] = defaults.CLOSE_TIMEOUT
    max_size: Annotated[
        int | None, Setting(SIZE.or_else("none"), "Maximum size of an incoming message.", served=True)
    ] = defaults.MAX_SIZE
    max_queue: Annotated[
        int | tuple[int, int] | None,
        Setting(
            pair(FRAMES).or_else("none"),
            "Incoming frames buffered for the handler, at which reading from the client pauses.",
            served=True,
        ),
    ] = defaults.MAX_QUEUE
    write_limit: Annotated[
        int | tuple[int, int],
        Setting(pair(SIZE), "Outgoing bytes buffered for a slow client, at which send() waits.", served=True),
    ] = defaults.WRITE_LIMIT
    broadcast_limit: Annotated[
        int | None,
        Setting(
            SIZE.or_else("none"),
            "Bytes of broadcasts buffered for a slow client, at which its connection is closed.",
            served=True,
        ),
    ] = defaults.BROADCAST_LIMIT
    compression: Annotated[
        Literal["deflate"] | None,
        Setting(choice("deflate").or_else("none"), "Compression that the server negotiates.", served=True),
    ] = defaults.COMPRESSION
    server_header: Annotated[
        str | UnsetType | None,
        Setting(
            HEADER.or_else("none"),
            "Value of the Server header; none: no such header.",
            served=True,
            default_text="Python and tidegate with their versions",
        ),
    ] = UNSET
    root_path: Annotated[
        str, Setting(ROOT_PATH, "Path at which a proxy mounts an ASGI application.", default_text="none")
    ] = ""
    keep_alive: Annotated[
        float, Setting(SECONDS, "Time for the next HTTP request to an ASGI application, on a connection that is kept.")
    ] = 5.0
    origins: Annotated[
        tuple[str, ...],
        Setting(
            ORIGIN,
            "Origin that web pages may connect from: a value of the Origin header, with `*` for labels of the"
            " name; none admits requests without the header, as other clients than browsers send them. Other"
            " origins get 403. Repeatable.",
            many=True,
            default_text="anywhere",
        ),
    ] = ()
    max_connections: Annotated[
        int | None,
        Setting(
            count(1, 10_000_000).or_else("none"),
            "Maximum number of concurrent connections, over all workers; above it, clients get 503. Each worker"
            " also keeps a reserve below its limit of open files.",
            default_text="what the limits of open files allow",
        ),
    ] = None
    max_connections_per_address: Annotated[
        int | None,
        Setting(
            count(1, 1_000_000).or_else("none"),
            "Maximum number of concurrent connections of one client address (IPv6: of one /64); above it, clients"
            " get 429. Each worker enforces its share, with room for an uneven spread.",
        ),
    ] = None
    handshake_rate: Annotated[
        float | tuple[float, int] | None,
        Setting(
            RATE.or_else("none"),
            "Handshakes per second of one client address (IPv6: of one /64), and the size of a burst; above it,"
            " clients get 429. Each worker enforces its share.",
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting(
            NETWORK,
            "Network of reverse proxies whose statement of the client's address is trusted; unix: every peer on a"
            " Unix socket. Repeatable.",
            many=True,
            default_text="no proxies",
        ),
    ] = ()
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"] | None,
        Setting(
            choice("x-forwarded-for", "forwarded").or_else("none"),
            "Header in which trusted proxies give the client's address. No other header is read, because clients"
            " could forge it.",
        ),
    ] = "x-forwarded-for"
    proxy_protocol: Annotated[
        bool,
        Setting(
            SWITCH,
            "Require a PROXY protocol header (version 1 or 2) at the start of each connection from a trusted"
            " proxy or on a Unix socket.",
        ),
    ] = False
    certfile: Annotated[
        str | None,
        Setting(
            PATH.or_else("none"), "Certificate chain in PEM, the server's certificate first: serve wss:// over TLS."
        ),
    ] = None
    keyfile: Annotated[
        str | None,
        Setting(
            PATH.or_else("none"),
            "Private key of the certificate, in PEM. --user must be able to read it.",
            default_text="in --certfile",
        ),
    ] = None
    keyfile_password: Annotated[
        str | None,
        Setting(
            SECRET.or_else("none"),
            "Password of the private key. Set it in the environment or a file: other users of the machine can"
            " read command lines.",
            secret=True,
        ),
    ] = None
    ca_certs: Annotated[
        str | None,
        Setting(
            PATH.or_else("none"),
            "Certificates of the authorities that client certificates are verified against, in PEM.",
        ),
    ] = None
    client_certs: Annotated[
        Literal["optional", "required"] | None,
        Setting(
            choice("optional", "required").or_else("none"),
            "Whether clients may (optional) or must (required) present a certificate; none: they are not asked"
            " for one.",
        ),
    ] = None
    tls_min_version: Annotated[Literal["1.2", "1.3"], Setting(choice("1.2", "1.3"), "Minimum version of TLS.")] = "1.2"
    ciphers: Annotated[
        str | None,
        Setting(CIPHERS.or_else("none"), "Ciphers of TLS 1.2, in order of preference.", default_text="Python's choice"),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(choice("debug", "info", "warning", "error"), "Minimum level of the records that are logged."),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Setting(choice("text", "json"), "Format of the log: text for people, or JSON, one object a line."),
    ] = "text"
    log_file: Annotated[
        str,
        Setting(
            PATH.or_else("-", "-"),
            "File to append the log to, reopened on SIGUSR1; -: standard error.",
            fixed=True,
        ),
    ] = "-"
    access_log: Annotated[bool, Setting(SWITCH, "Log each handshake and each close.")] = False
    pidfile: Annotated[
        str | None,
        Setting(PATH.or_else("none"), "File that holds the process id of the daemon while it runs.", fixed=True),
    ] = None
    user: Annotated[
        str | None,
        Setting(
            USER.or_else("none"),
            "User to switch to after the addresses are bound, which requires root; its groups are taken as well,"
            " unless --group is given. Unix sockets belong to this user.",
            fixed=True,
        ),
    ] = None
    group: Annotated[
        str | None,
        Setting(USER.or_else("none"), "Group to switch to, with --user or alone.", fixed=True),
    ] = None
    umask: Annotated[
        int | None,
        Setting(
            UMASK.or_else("none"),
            "Permissions that new files are denied, Unix sockets included: with 007, user and group may connect.",
            default_text="inherited from the parent process",
            fixed=True,
        ),
    ] = None
    working_dir: Annotated[
        str | None,
        Setting(
            PATH.or_else("none"),
            "Directory to change to at the start: modules are imported from it, and other paths are relative to it.",
            default_text="the current one",
            fixed=True,
        ),
    ] = None
    cpu_affinity: Annotated[
        tuple[int, ...] | Literal["auto"] | None,
        Setting(
            PROCESSORS.or_else("auto", "auto").or_else("none"),
            "Processors that workers are pinned to, one each, in turn; auto is every usable one.",
        ),
    ] = None
    preload: Annotated[
        bool,
        Setting(
            SWITCH,
            "Import the application before the workers are forked, so that they share its memory. New code then"
            " takes an upgrade; a reload does not load it.",
            fixed=True,
        ),
    ] = False
    open_files: Annotated[
        int | None,
        Setting(
            OPEN_FILES, "Limit of open files of each process; max is the highest that the system allows.", fixed=True
        ),
    ] = None
    bus: Annotated[
        str,
        Setting(
            BUS,
            "What carries messages of channels between workers: local:// is a process of the daemon, the hub, which"
            " keeps the history of channels in memory that outlives it, or in the file local:///PATH; with memory://"
            " each worker has channels of its own. It starts if the application declares channels. Redis and NATS"
            " carry them between machines, too; set a URL with a password in the environment or a file.",
            fixed=True,
            secret=True,
        ),
    ] = "local://"
    bus_required: Annotated[
        bool | None,
        Setting(
            SWITCH,
            "Fail /readyz when a worker has been without bus for 5 s; everything else is served meanwhile.",
            default_text="false for local:// and memory://, else true",
        ),
    ] = None
    bus_memory: Annotated[
        int,
        Setting(
            JOURNAL,
            "Size of the history of all channels on local://; the oldest messages are overwritten. Memory is used as"
            " it fills.",
            fixed=True,
        ),
    ] = 64 * 1024 * 1024
    bus_message_limit: Annotated[
        int,
        Setting(
            MESSAGE,
            "Maximum size of a message that is published to a channel; larger ones are refused. --bus-memory must be"
            " 32 times as large.",
            fixed=True,
        ),
    ] = _CHANNELS.message
    bus_member_limit: Annotated[
        int,
        Setting(
            SIZE,
            "Bytes of messages of channels buffered for a slow client, at which its connection is closed with 1013, to"
            " come back and resume; where only the latest message counts, older ones are left out before.",
        ),
    ] = _CHANNELS.member
    max_channels: Annotated[
        int,
        Setting(
            count(1, TOPICS_LIMIT),
            "Maximum number of channels that the connections of a worker have joined; above it, joins fail.",
        ),
    ] = _CHANNELS.per_process
    max_channels_per_connection: Annotated[
        int,
        Setting(
            count(1, 100_000), "Maximum number of channels that one connection has joined; above it, its joins fail."
        ),
    ] = _CHANNELS.per_connection
    channel_command_rate: Annotated[
        float | tuple[float, int],
        Setting(
            COMMANDS,
            "Commands per second of one client of `tidegate.channel_handler()`, and the size of a burst; above it, the"
            " next one is read later.",
        ),
    ] = _CHANNELS.commands

    def __post_init__(self) -> None:
        check(self, settings())

    @property
    def drain_window(self) -> float:
        """Return `drain`, or its default: a third of `graceful_timeout`; clients and handlers have the rest."""
        return self.graceful_timeout / 3 if self.drain is None else self.drain

    @property
    def admin_access(self) -> AdminAccess:
        """Return who may ask the admin address."""
        own = () if self.admin is None else (self.admin.host.lower(),)
        return AdminAccess(self.admin_token, frozenset((*own, *self.admin_hosts)), self.publish_token)

    @property
    def channel_limits(self) -> ChannelLimits:
        """Return the limits of channels."""
        rate = self.channel_command_rate
        return ChannelLimits(
            message=self.bus_message_limit,
            member=self.bus_member_limit,
            per_connection=self.max_channels_per_connection,
            per_process=self.max_channels,
            commands=rate if isinstance(rate, tuple) else (rate, max(1, math.ceil(rate))),
        )

    @property
    def needs_bus(self) -> bool:
        """Return `bus_required`, or its default: only an engine that is not the daemon's own may be away for long."""
        return not self.bus.startswith(("local:", "memory:")) if self.bus_required is None else self.bus_required

    def log_options(self) -> dict[str, Any]:
        """Return the arguments of ``logs.begin()`` and ``logs.set_role()`` that a reload may change."""
        return {"level": self.log_level, "format": self.log_format, "access": self.access_log}

    def serve_options(self) -> dict[str, Any]:
        """Return the arguments of ``serve()`` that are settings, by name."""
        values = {name: getattr(self, name) for name, setting in settings().items() if setting.served}
        if self.origins:
            values["origins"] = [pattern_of_origin(text) for text in self.origins]
        return {name: value for name, value in values.items() if value is not UNSET}


@cache
def settings() -> dict[str, Setting]:
    """Return every setting by name, in the order of help."""
    return {
        field.name: replace(field.type.__metadata__[0], name=field.name, default=field.default)
        for field in msgspec.structs.fields(Config)
    }


def changed_fixed(old: Config, new: Config) -> list[Setting]:
    """Return the fixed settings that differ: they need an upgrade or a restart."""
    return [
        setting for name, setting in settings().items() if setting.fixed and getattr(old, name) != getattr(new, name)
    ]
