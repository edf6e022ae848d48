"""Every setting of the daemon, declared once.

    Config     the settings: a field each, with its type and its default
    Setting    what else is known of a field: how it is written, its help, its unit; its flag, environment name and
               file key follow from its name
    Kind       one way of writing values: text to value, value to text, and the words for what is allowed
    Address    what to listen on: Tcp, Unix or Fd

What must not live here: click, reading files or the environment (cli), sockets (supervisor), any use of a setting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "SLOTS",
    "Address",
    "Config",
    "ConfigError",
    "Fd",
    "Kind",
    "Setting",
    "Tcp",
    "Unix",
    "parse_address",
    "settings",
]

SLOTS = 256  # the most workers: as many slots as the scoreboard has


class ConfigError(ValueError):
    """A setting that cannot be: which one, what was given, and what is allowed.

    Attributes:
        option: the name under which it was given, such as ``--workers``.
        value: what was given.
        allowed: what may be given.
        reason: what is wrong with the value, where ``allowed`` alone does not say it.
    """

    def __init__(self, option: str, value: str, allowed: str, reason: str = "") -> None:
        super().__init__(option, value, allowed, reason)
        self.option, self.value, self.allowed, self.reason = option, value, allowed, reason

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.option} {self.value!r} is not allowed{reason}: give {self.allowed}"


# Addresses.


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port of a host name or address; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket, by its path in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Fd:
    """A listening socket that was handed over by whoever started us, by its file descriptor."""

    number: int

    def __str__(self) -> str:
        return f"fd://{self.number}"


Address: TypeAlias = Tcp | Unix | Fd


def parse_address(text: str) -> Address:
    """``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` or ``fd://N`` as an address; ValueError says what is wrong."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError("the path is missing" if not path else "a path has no null characters")
        return Unix(path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not (number.isascii() and number.isdigit()):
            raise ValueError("the file descriptor must be a whole number")
        return Fd(int(number))
    return _parse_tcp(text)


def _parse_tcp(text: str) -> Tcp:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("the port is missing" if not text.isdigit() else f"the host is missing, as in 0.0.0.0:{text}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError("brackets are for IPv6 addresses")
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes into brackets, as in [::1]:{port or 8765}")
    if not host or any(c in host for c in "[]/*@ \t"):
        raise ValueError("0.0.0.0 is every address of IPv4, [::] of IPv6" if host in ("", "*") else "that is no host")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("the port must be a whole number from 0 to 65535")
    return Tcp(host, int(port))


# Kinds: ways of writing a value.


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of writing values.

    Attributes:
        metavar: how help stands for it.
        allowed: what may be given, in words that follow "give".
        read: text to value; a ValueError's text, if any, says what is wrong.
        write: value to text, such that reading it gives the value.
    """

    metavar: str
    allowed: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str

    def or_else(self, word: str, value: object = None) -> Kind:
        """The same, or a word that stands for a value of its own."""
        return Kind(
            f"{self.metavar}|{word}",
            f"{self.allowed}, or {word}",
            lambda text: value if text.lower() == word else self.read(text),
            lambda given: word if given == value else self.write(given),
        )


def _count(low: int, high: int) -> Kind:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return Kind("N", f"a whole number from {low} to {high}", read)


_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)", re.ASCII)


def _number(text: str, units: dict[str, float] | dict[str, int]) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"the units are {', '.join(name for name in units if name)}")
    return float(number) * units[unit]


def _read_seconds(text: str) -> float:
    if (seconds := _number(text, _SECONDS)) > 366 * 86400:
        raise ValueError("that is more than a year")
    return seconds


def _read_positive_seconds(text: str) -> float:
    if not (seconds := _read_seconds(text)):
        raise ValueError("0 leaves no time")
    return seconds


def _read_size(text: str) -> int:
    size = _number(text, _BYTES)
    if size < 1 or not size.is_integer():
        raise ValueError("that is no whole number of bytes above 0")
    if size > 2**48:
        raise ValueError("that is more than any machine has")
    return int(size)


def _write_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def _pair(kind: Kind) -> Kind:
    """A high-water mark, or a high-water and a low-water mark."""

    def read(text: str) -> Any:
        high, comma, low = text.partition(",")
        if not comma:
            return kind.read(high)
        pair = kind.read(high.strip()), kind.read(low.strip())
        if pair[1] > pair[0]:
            raise ValueError("the low-water mark is above the high-water mark")
        return pair

    def write(value: Any) -> str:
        return ",".join(map(kind.write, value)) if isinstance(value, tuple) else kind.write(value)

    return Kind(f"{kind.metavar}[,LOW]", f"{kind.allowed}, or two of them as HIGH,LOW", read, write)


def _choice(*words: str) -> Kind:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Kind("|".join(words), " or ".join(words), read)


def _read_application(text: str) -> str:
    module, _, attribute = text.partition(":")
    if module.endswith(".py"):
        raise ValueError(f"a module has no .py at its end: {module.removesuffix('.py')}:{attribute or 'handler'}")
    if not all(name.isidentifier() for name in (*module.split("."), *attribute.split("."))):
        raise ValueError
    return text


def _read_header(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("a header is printable ASCII")
    return text


APPLICATION = Kind("MODULE:ATTRIBUTE", "MODULE:ATTRIBUTE, such as app:handler", _read_application)
ADDRESS = Kind("ADDRESS", "HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N", parse_address)
ADMIN = Kind("HOST:PORT", "HOST:PORT or [IPV6]:PORT", _parse_tcp).or_else("none")
WORKERS = _count(1, SLOTS).or_else("auto", "auto")
SECONDS = Kind("SECONDS", "seconds, such as 10, 0.5, 500ms or 2m", _read_seconds, "{:g}".format)
DURATION = replace(SECONDS, allowed="seconds above 0, such as 10, 0.5, 500ms or 2m", read=_read_positive_seconds)
SIZE = Kind("SIZE", "bytes, such as 65536, 64KiB or 1MiB", _read_size, _write_size)
FRAMES = _count(1, 1_000_000)


# Settings.


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting besides its type and default, which the field of `Config` has.

    Attributes:
        kind: how its value is written, and what is allowed.
        help: what it does, for somebody who reads ``--help``.
        many: whether it may be given several times.
        positional: whether it is an argument of the command and no option.
        served: whether it is a parameter of ``serve()`` of the same name.
        default_text: the default in words, where the value does not say it.
        name: the field's name; flag, environment name and file key follow from it.
        default: the field's default.
    """

    kind: Kind
    help: str
    many: bool = False
    positional: bool = False
    served: bool = False
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
            raise ConfigError(given_as or self.flag, text, self.kind.allowed, str(error)) from None

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
        Setting(ADDRESS, "Where clients connect: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N. Repeatable.", many=True),
    ] = (Tcp("127.0.0.1", 8765),)
    workers: Annotated[
        int | Literal["auto"], Setting(WORKERS, "Worker processes; auto is one for each usable processor.")
    ] = 1
    admin: Annotated[Tcp | None, Setting(ADMIN, "Where /metrics, /livez and /readyz are served over HTTP.")] = Tcp(
        "127.0.0.1", 9465
    )
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
    backlog: Annotated[
        int,
        Setting(_count(1, 1_000_000), "Connections that the system queues for each worker, at most."),
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
            _pair(FRAMES).or_else("none"),
            "Frames that wait for the handler before reading from the client pauses.",
            served=True,
        ),
    ] = 16
    write_limit: Annotated[
        int | tuple[int, int],
        Setting(_pair(SIZE), "Bytes that wait for a slow client before send() waits.", served=True),
    ] = 2**15
    broadcast_limit: Annotated[
        int | None,
        Setting(
            SIZE.or_else("none"), "Bytes of broadcasts that wait for a slow client before it is closed.", served=True
        ),
    ] = 2**24
    compression: Annotated[
        Literal["deflate"] | None,
        Setting(_choice("deflate").or_else("none"), "Compression offered to clients.", served=True),
    ] = "deflate"
    server_header: Annotated[
        str | UnsetType | None,
        Setting(
            Kind("TEXT", "printable ASCII", _read_header).or_else("none"),
            "Value of the Server header; none: no such header.",
            served=True,
            default_text="Python and tidegate with their versions",
        ),
    ] = UNSET
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(_choice("debug", "info", "warning", "error"), "Least level of what is logged to standard error."),
    ] = "info"

    def __post_init__(self) -> None:
        if self.drain is not None and self.drain >= self.graceful_timeout and self.drain > 0:
            setting, limit = settings()["drain"], settings()["graceful_timeout"]
            allowed = f"less than {limit.flag}, which is {limit.write(self.graceful_timeout)}"
            raise ConfigError(setting.flag, setting.write(self.drain), allowed)

    @property
    def drain_window(self) -> float:
        """`drain`, or its default: a third of `graceful_timeout`, so that clients and handlers have the rest."""
        return self.graceful_timeout / 3 if self.drain is None else self.drain

    def serve_options(self) -> dict[str, Any]:
        """The arguments of ``serve()`` that are settings, by name."""
        values = {name: getattr(self, name) for name, setting in settings().items() if setting.served}
        return {name: value for name, value in values.items() if value is not UNSET}


@cache
def settings() -> dict[str, Setting]:
    """Every setting by name, in the order of help."""
    return {
        field.name: replace(field.type.__metadata__[0], name=field.name, default=field.default)
        for field in msgspec.structs.fields(Config)
    }
