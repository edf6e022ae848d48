"""Every setting of the daemon, declared once.

    Config     the settings: a field each, with its type and its default
    Setting    what else is known of a field: how it is written, its help, its unit; its flag, environment name and
               file key follow from its name
    changed_fixed    what a new configuration has changed that a running daemon cannot

What must not live here: click, reading files or the environment (cli), how values are written (config/types.py), any
use of a setting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from .bind import Address, Tcp
from .errors import ConfigError
from .types import (
    ADDRESS,
    ADMIN,
    APPLICATION,
    CIPHERS,
    DURATION,
    FRAMES,
    HEADER,
    HOST,
    NETWORK,
    OPEN_FILES,
    ORIGIN,
    PATH,
    PROCESSORS,
    RATE,
    SECONDS,
    SECRET,
    SIZE,
    SWITCH,
    TIMEOUT,
    TOKEN,
    UMASK,
    USER,
    WORKERS,
    Kind,
    choice,
    count,
    pair,
)

__all__ = ["AdminAccess", "Config", "Setting", "changed_fixed", "settings"]


AdminAccess: TypeAlias = tuple[str | None, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting besides its type and default, which the field of `Config` has.

    Attributes:
        kind: how its value is written, and what is allowed.
        help: what it does, for somebody who reads ``--help``.
        many: whether it may be given several times.
        positional: whether it is an argument of the command and no option.
        served: whether it is a parameter of ``serve()`` of the same name.
        fixed: whether it stays as it was at the start: a reload that would change it is refused.
        secret: whether its value must not be shown.
        default_text: the default in words, where the value does not say it.
        name: the field's name; flag, environment name and file key follow from it.
        default: the field's default.
    """

    kind: Kind
    help: str
    many: bool = False
    positional: bool = False
    served: bool = False
    fixed: bool = False
    secret: bool = False
    default_text: str = ""
    name: str = ""
    default: Any = msgspec.NODEFAULT

    @property
    def flag(self) -> str:
        """``--ping-interval``; an argument's name in capitals."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        """``TIDEGATE_PING_INTERVAL``."""
        return f"TIDEGATE_{self.name.upper()}"

    @property
    def key(self) -> str:
        """The key in a configuration file: ``ping_interval``."""
        return self.name

    def read(self, text: str, *, given_as: str = "") -> Any:
        """The value that a text stands for; ConfigError names the option, the text and what is allowed."""
        try:
            return self.kind.read(text)
        except ValueError as error:
            shown = "..." if self.secret else text
            raise ConfigError(given_as or self.flag, shown, self.kind.allowed, str(error)) from None

    def write(self, value: Any) -> str:
        """The text for a value."""
        return " ".join(map(self.kind.write, value)) if self.many else self.kind.write(value)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's settings. Durations are in seconds, sizes in bytes; the defaults are those of the command."""

    application: Annotated[
        str,
        Setting(
            APPLICATION,
            "An `async def handler(websocket)`, a `werkzeug.routing.Map` of such, or a `tidegate.App`. The current"
            " directory is importable.",
            positional=True,
        ),
    ]
    bind: Annotated[
        tuple[Address, ...],
        Setting(
            ADDRESS,
            "Where clients connect: HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N, or systemd for the sockets of a .socket"
            " unit (systemd:NAME for those of one name). Repeatable.",
            many=True,
            fixed=True,
        ),
    ] = (Tcp("127.0.0.1", 8765),)
    workers: Annotated[
        int | Literal["auto"], Setting(WORKERS, "Worker processes; auto is one for each usable processor.")
    ] = 1
    admin: Annotated[
        Tcp | None,
        Setting(
            ADMIN,
            "Where /metrics, /status, /livez, /readyz and a page with all of it are served over HTTP. Beyond loopback"
            " it needs --admin-token.",
            fixed=True,
        ),
    ] = Tcp("127.0.0.1", 9465)
    admin_token: Annotated[
        str | None,
        Setting(
            TOKEN.or_else("none"),
            "What whoever asks the admin address must have, as in `Authorization: Bearer TOKEN`; /livez and /readyz"
            " are open. Everybody can read a command line: give it in the environment or a file.",
            secret=True,
        ),
    ] = None
    admin_hosts: Annotated[
        tuple[str, ...],
        Setting(
            HOST,
            "Names by which the admin address may be asked without a token, behind a reverse proxy say, besides"
            " localhost, addresses and the name in --admin. Others are refused: their pages could be anybody's."
            " Repeatable.",
            many=True,
            default_text="no others",
        ),
    ] = ()
    control: Annotated[
        str | None,
        Setting(
            PATH.or_else("none").or_else("auto", "auto"),
            "Unix socket through which `tidegate status`, reload, scale, drain, stop and upgrade reach the daemon, for"
            " its own user and root alone; auto is $RUNTIME_DIRECTORY/control.sock where that is set (as systemd does),"
            " else none.",
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
        float, Setting(SECONDS, "Time from the order to stop until what is left is cut. Longer than --drain.")
    ] = 30.0
    boot_timeout: Annotated[float, Setting(DURATION, "Time that a new worker has until it must be ready.")] = 60.0
    worker_timeout: Annotated[
        float | None,
        Setting(
            TIMEOUT.or_else("none"),
            "Time without a turn of its event loop after which a worker is replaced; after half of it the log has its"
            " stacks. none: never.",
        ),
    ] = 30.0
    max_lifetime: Annotated[
        float | None,
        Setting(
            DURATION.or_else("none"),
            "Time after which a worker is recycled, give or take a tenth: it drains when its successor serves, and no"
            " other one meanwhile.",
        ),
    ] = None
    max_connections_served: Annotated[
        int | None,
        Setting(
            count(1, 1_000_000_000).or_else("none"),
            "Connections after which a worker is recycled, give or take a tenth.",
        ),
    ] = None
    max_rss: Annotated[
        int | None,
        Setting(
            SIZE.or_else("none"),
            "Memory that a worker takes, as the system counts it, for which it is recycled, give or take a tenth.",
        ),
    ] = None
    reload: Annotated[
        Literal["generation", "rolling"],
        Setting(
            choice("generation", "rolling"),
            "How a reload replaces workers: all at once, beside each other; or one by one, which takes less memory.",
        ),
    ] = "generation"
    reload_on_change: Annotated[
        bool,
        Setting(
            SWITCH,
            "For development: whether a reload follows each change of the application's files, which are those named"
            " *.py in the current directory and its package, and of the --config file. Old workers then do not drain."
            " Needs tidegate[reload].",
            fixed=True,
        ),
    ] = False
    settle: Annotated[
        float,
        Setting(SECONDS, "Time that new workers of a reload must live before the old ones drain; half of it serving."),
    ] = 1.0
    backlog: Annotated[
        int,
        Setting(count(1, 1_000_000), "Connections that the system queues for each worker, at most."),
    ] = 4096
    open_timeout: Annotated[
        float | None, Setting(DURATION.or_else("none"), "Time for an opening handshake.", served=True)
    ] = 10.0
    ping_interval: Annotated[
        float | None, Setting(DURATION.or_else("none"), "Time between keepalive pings; none: no pings.", served=True)
    ] = 20.0
    ping_timeout: Annotated[
        float | None,
        Setting(DURATION.or_else("none"), "Time for the answer to a ping until the connection is closed.", served=True),
    ] = 20.0
    close_timeout: Annotated[
        float | None, Setting(DURATION.or_else("none"), "Time for the answer to a close frame.", served=True)
    ] = 10.0
    max_size: Annotated[int | None, Setting(SIZE.or_else("none"), "Largest incoming message.", served=True)] = 2**20
    max_queue: Annotated[
        int | tuple[int, int] | None,
        Setting(
            pair(FRAMES).or_else("none"),
            "Frames that wait for the handler before reading from the client pauses.",
            served=True,
        ),
    ] = 16
    write_limit: Annotated[
        int | tuple[int, int],
        Setting(pair(SIZE), "Bytes that wait for a slow client before send() waits.", served=True),
    ] = 2**15
    broadcast_limit: Annotated[
        int | None,
        Setting(
            SIZE.or_else("none"), "Bytes of broadcasts that wait for a slow client before it is closed.", served=True
        ),
    ] = 2**24
    compression: Annotated[
        Literal["deflate"] | None,
        Setting(choice("deflate").or_else("none"), "Compression offered to clients.", served=True),
    ] = "deflate"
    server_header: Annotated[
        str | UnsetType | None,
        Setting(
            HEADER.or_else("none"),
            "Value of the Server header; none: no such header.",
            served=True,
            default_text="Python and tidegate with their versions",
        ),
    ] = UNSET
    origins: Annotated[
        tuple[str, ...],
        Setting(
            ORIGIN,
            "Where web pages that connect may be from: values of the Origin header, `*` for labels of the name; none"
            " lets in clients that are no browsers. Others get 403. Repeatable.",
            many=True,
            default_text="anywhere",
        ),
    ] = ()
    max_connections: Annotated[
        int | None,
        Setting(
            count(1, 10_000_000).or_else("none"),
            "Connections at a time, over all workers; more get 503. Each worker also stops short of its limit of open"
            " files.",
            default_text="what the limits of open files allow",
        ),
    ] = None
    max_connections_per_address: Annotated[
        int | None,
        Setting(
            count(1, 1_000_000).or_else("none"),
            "Connections at a time of one client address (IPv6: of one /64); more get 429. Each worker enforces its"
            " share, with room for an uneven spread.",
        ),
    ] = None
    handshake_rate: Annotated[
        float | tuple[float, int] | None,
        Setting(
            RATE.or_else("none"),
            "Handshakes a second of one client address (IPv6: of one /64), and how many at once after a rest; more get"
            " 429. Each worker enforces its share.",
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting(
            NETWORK,
            "Networks of proxies that are believed when they tell a client's address; unix: whoever connects by a Unix"
            " socket. Repeatable.",
            many=True,
            default_text="nobody",
        ),
    ] = ()
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"] | None,
        Setting(
            choice("x-forwarded-for", "forwarded").or_else("none"),
            "The header in which trusted proxies tell the client's address: only this one, for clients can send the"
            " other.",
        ),
    ] = "x-forwarded-for"
    proxy_protocol: Annotated[
        bool,
        Setting(
            SWITCH,
            "Whether trusted proxies, and everybody on a Unix socket, begin each connection with a PROXY header"
            " (version 1 or 2).",
        ),
    ] = False
    certfile: Annotated[
        str | None,
        Setting(PATH.or_else("none"), "Certificate, in PEM, with those that lead to its root: serve wss:// with TLS."),
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
            "Password of the key. Everybody can read a command line: give it in the environment or a file.",
            secret=True,
        ),
    ] = None
    ca_certs: Annotated[
        str | None,
        Setting(PATH.or_else("none"), "Certificates, in PEM, of the authorities that clients' certificates are from."),
    ] = None
    client_certs: Annotated[
        Literal["optional", "required"] | None,
        Setting(choice("optional", "required").or_else("none"), "Whether clients present a certificate."),
    ] = None
    tls_min_version: Annotated[
        Literal["1.2", "1.3"], Setting(choice("1.2", "1.3"), "The oldest version of TLS that is spoken.")
    ] = "1.2"
    ciphers: Annotated[
        str | None,
        Setting(CIPHERS.or_else("none"), "Ciphers of TLS 1.2, in order of preference.", default_text="Python's choice"),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(choice("debug", "info", "warning", "error"), "Least level of what is logged."),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Setting(choice("text", "json"), "Lines of the log for people, or JSON for machines.")
    ] = "text"
    log_file: Annotated[
        str,
        Setting(
            PATH.or_else("-", "-"),
            "File that the log is appended to, opened anew on SIGUSR1; -: standard error.",
            fixed=True,
        ),
    ] = "-"
    access_log: Annotated[bool, Setting(SWITCH, "Whether each handshake and each close is logged.")] = False
    pidfile: Annotated[
        str | None,
        Setting(PATH.or_else("none"), "File with the process id of the daemon, for as long as it runs.", fixed=True),
    ] = None
    user: Annotated[
        str | None,
        Setting(
            USER.or_else("none"),
            "Whom the daemon becomes, for good, after it has bound its addresses as root; with its groups, unless"
            " --group is given too. Unix sockets belong to it.",
            fixed=True,
        ),
    ] = None
    group: Annotated[
        str | None,
        Setting(USER.or_else("none"), "The group that the daemon becomes one of, with --user or alone.", fixed=True),
    ] = None
    umask: Annotated[
        int | None,
        Setting(
            UMASK.or_else("none"),
            "Permissions that new files do not get, Unix sockets among them: with 007 user and group may connect.",
            default_text="as whoever starts the daemon has it",
            fixed=True,
        ),
    ] = None
    working_dir: Annotated[
        str | None,
        Setting(
            PATH.or_else("none"),
            "Directory to change to first: it is importable, and other paths are relative to it.",
            default_text="the current one",
            fixed=True,
        ),
    ] = None
    cpu_affinity: Annotated[
        tuple[int, ...] | Literal["auto"] | None,
        Setting(
            PROCESSORS.or_else("auto", "auto").or_else("none"),
            "Processors that the workers stay on, one for each in turn; auto is every usable one.",
        ),
    ] = None
    preload: Annotated[
        bool,
        Setting(
            SWITCH,
            "Whether the application is imported before the workers are forked, which then share its memory. A reload"
            " takes no new code then, but an upgrade does.",
            fixed=True,
        ),
    ] = False
    open_files: Annotated[
        int | None,
        Setting(OPEN_FILES, "Limit of open files of each process; max is as many as the system allows.", fixed=True),
    ] = None

    def __post_init__(self) -> None:
        if self.drain is not None and self.drain >= self.graceful_timeout and self.drain > 0:
            setting, limit = settings()["drain"], settings()["graceful_timeout"]
            allowed = f"less than {limit.flag}, which is {limit.write(self.graceful_timeout)}"
            raise ConfigError(setting.flag, setting.write(self.drain), allowed)
        if self.reload_on_change and self.preload:
            setting, other = settings()["reload_on_change"], settings()["preload"]
            reason = f"with {other.flag} a reload takes no new code"
            raise ConfigError(setting.flag, "true", reason=reason, remedy=f"leave out {other.flag}")
        if self.admin is not None and not self.admin.loopback and self.admin_token is None:
            setting, needed = settings()["admin"], settings()["admin_token"]
            reason = "others than this machine could see what the daemon does"
            raise ConfigError(setting.flag, setting.write(self.admin), f"{needed.flag} as well", reason)
        self._check_entrance()

    def _check_entrance(self) -> None:
        """What proxies and TLS need besides what was given."""
        needs = [
            ("keyfile", "certfile", self.keyfile is not None and self.certfile is None),
            ("ca_certs", "certfile", self.ca_certs is not None and self.certfile is None),
            ("client_certs", "certfile", self.client_certs is not None and self.certfile is None),
            ("client_certs", "ca_certs", self.client_certs is not None and self.ca_certs is None),
            ("proxy_protocol", "trusted_proxies", self.proxy_protocol and self._needs_trust()),
        ]
        for name, other, missing in needs:
            if missing:
                setting, needed = settings()[name], settings()[other]
                raise ConfigError(setting.flag, setting.write(getattr(self, name)), f"{needed.flag} as well")

    def _needs_trust(self) -> bool:
        """Whether nobody could begin with a PROXY header: peers on Unix sockets may, others must be trusted."""
        return not self.trusted_proxies and any(isinstance(address, Tcp) for address in self.bind)

    @property
    def drain_window(self) -> float:
        """`drain`, or its default: a third of `graceful_timeout`, so that clients and handlers have the rest."""
        return self.graceful_timeout / 3 if self.drain is None else self.drain

    @property
    def admin_access(self) -> AdminAccess:
        """Who may ask the admin address: the token, and names by which it may be asked without one."""
        own = () if self.admin is None else (self.admin.host.lower(),)
        return self.admin_token, frozenset((*own, *self.admin_hosts))

    def log_options(self) -> dict[str, Any]:
        """The arguments of ``logs.begin()`` and ``logs.become()`` that are settings, and may change."""
        return {"level": self.log_level, "format": self.log_format, "access": self.access_log}

    def serve_options(self) -> dict[str, Any]:
        """The arguments of ``serve()`` that are settings, by name."""
        values = {name: getattr(self, name) for name, setting in settings().items() if setting.served}
        if self.origins:
            values["origins"] = [_origin(text) for text in self.origins]
        return {name: value for name, value in values.items() if value is not UNSET}


def _origin(text: str) -> str | re.Pattern[str] | None:
    """What ``serve(origins=...)`` takes for one of `origins`."""
    if text == "none":
        return None
    return re.compile(re.escape(text).replace(r"\*", r"[a-z0-9_.-]+")) if "*" in text else text


@cache
def settings() -> dict[str, Setting]:
    """Every setting by name, in the order of help."""
    return {
        field.name: replace(field.type.__metadata__[0], name=field.name, default=field.default)
        for field in msgspec.structs.fields(Config)
    }


def changed_fixed(old: Config, new: Config) -> list[Setting]:
    """The settings that differ although they are fixed: because of them `new` needs a new daemon."""
    return [
        setting for name, setting in settings().items() if setting.fixed and getattr(old, name) != getattr(new, name)
    ]
