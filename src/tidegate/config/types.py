"""Kinds of values: how a setting's value is parsed from text and written as text, and the words for what is allowed.

    Kind    one kind; the kinds of all settings follow it

What must not live here: which settings there are (config/schema.py), addresses to listen on (config/bind.py), click,
files, the environment, sockets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._core.scoreboard import SLOTS
from .bind import FORMS, parse_address, parse_tcp
from .errors import ConfigError

__all__ = [
    "ADDRESS",
    "ADMIN",
    "APPLICATION",
    "BUS",
    "CIPHERS",
    "COMMANDS",
    "DURATION",
    "FRAMES",
    "HEADER",
    "HOST",
    "JOURNAL",
    "MESSAGE",
    "NETWORK",
    "OPEN_FILES",
    "ORIGIN",
    "PATH",
    "PROCESSORS",
    "RATE",
    "ROOT_PATH",
    "SECONDS",
    "SECRET",
    "SIZE",
    "SLOTS",
    "SWITCH",
    "TIMEOUT",
    "TOKEN",
    "UMASK",
    "USER",
    "WORKERS",
    "Kind",
    "choice",
    "count",
    "pair",
    "pattern_of_origin",
    "write_number",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    Attributes:
        metavar: the placeholder in help.
        allowed: what may be given, in words that follow "give".
        read: from text to value; a ValueError's text, if any, says what is wrong.
        write: from value to text, the inverse of `read`.
        bare: the types that a configuration file may have without quotes.
        mask: from a secret value to what may be shown of it; nothing may without it.
    """

    metavar: str
    allowed: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    bare: tuple[type, ...] = ()
    mask: Callable[[Any], str] | None = None

    def parse(self, text: str, option: str, *, secret: bool = False) -> Any:
        """Return the value that a text stands for.

        Parameters:
            option: the name under which it was given.
            secret: whether an error must not show the text.

        Raises:
            ConfigError: the text is not allowed.
        """
        try:
            return self.read(text)
        except ValueError as error:
            raise ConfigError(option, "..." if secret else text, self.allowed, str(error)) from None

    def or_else(self, word: str, value: object = None) -> Kind:
        """Return the same kind with a word that stands for one more value."""
        return Kind(
            f"{self.metavar}|{word}",
            f"{self.allowed}, or {word}",
            lambda text: value if text.lower() == word else self.read(text),
            lambda given: word if given == value else self.write(given),
            self.bare,
        )


def count(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return Kind("N", f"a whole number from {low} to {high}", read, bare=(int,))


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
        raise ValueError("it must be a year at most")
    return seconds


def _read_positive_seconds(text: str) -> float:
    if not (seconds := _read_seconds(text)):
        raise ValueError("it must be above 0")
    return seconds


def _read_timeout(text: str) -> float:
    if (seconds := _read_seconds(text)) < 1:
        raise ValueError("a busy process may be silent for less than a second")
    return seconds


def write_number(number: float) -> str:
    """Write a number without an exponent, and without decimals if it is whole."""
    text = repr(float(number)).removesuffix(".0")
    if "e" not in text:
        return text
    from decimal import Decimal  # for very small numbers only

    return format(Decimal(text), "f")


def _read_size(text: str) -> int:
    size = _number(text, _BYTES)
    if size < 1 or not size.is_integer():
        raise ValueError("it must be a whole number of bytes above 0")
    if size > 2**48:
        raise ValueError("no machine has so much memory")
    return int(size)


def _read_journal(text: str) -> int:
    size = _read_size(text)
    if not 2**25 <= size <= 2**34:  # in less, messages of 1 MiB have no room
        raise ValueError
    return size


def _read_message(text: str) -> int:
    from ..channels import MESSAGE_LIMIT  # with msgspec

    size = _read_size(text)
    if not 2**10 <= size <= MESSAGE_LIMIT:
        raise ValueError
    return size


def _write_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def pair(kind: Kind) -> Kind:
    """Return the kind of a high-water mark, alone or with a low-water mark."""

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

    bare = (*kind.bare, list)
    return Kind(f"{kind.metavar}[,LOW]", f"{kind.allowed}, or two of them as HIGH,LOW", read, write, bare)


def choice(*words: str) -> Kind:
    """Return the kind of one of `words`, in upper or lower case."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Kind("|".join(words), " or ".join(words), read)


# A host name, of letters, digits, hyphens and, by use, underscores; others are written in Punycode.
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"

_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _read_switch(text: str) -> bool:
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError from None


def _read_application(text: str) -> str:
    module, _, attribute = text.partition(":")
    if module.endswith(".py"):
        raise ValueError(f"a module has no .py at its end: {module.removesuffix('.py')}:{attribute or 'handler'}")
    if not all(name.isidentifier() for name in (*module.split("."), *attribute.removesuffix("()").split("."))):
        raise ValueError
    return text


def _read_bus(text: str) -> str:
    from ..bus.connect import check_url  # with the engines' own checks, and only if it is set

    check_url(text)
    return text


def _mask_bus(url: str) -> str:
    from ..bus.connect import mask

    return mask(url)


def _read_root_path(text: str) -> str:
    if text and not re.fullmatch(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)+/?", text):
        raise ValueError
    return text.removesuffix("/")


def _read_header(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("it has other characters")
    return text


def _read_token(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]{16,}=*", text):  # RFC 6750 2.1
        raise ValueError
    return text


def _read_network(text: str) -> str:
    from ..networks import parse_network  # with ipaddress, which most configurations do not need

    return parse_network(text)


def _read_host(text: str) -> str:
    if ":" in text or "/" in text:
        raise ValueError("a name has no scheme, port or path; IP addresses are allowed anyway")
    if not re.fullmatch(_NAME, text, re.ASCII) or len(text) > 253:
        raise ValueError
    return text.lower()


def _read_origin(text: str) -> str:
    """Return the origin as browsers serialize it (RFC 6454 6.1), to be compared with the Origin header."""
    lower = text.lower()
    if lower in ("none", "null"):
        return lower
    match = re.fullmatch(
        rf"([a-z][a-z0-9+.-]*)://((?:\*\.)?{_NAME}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?", lower, re.ASCII
    )
    if match is None:
        raise ValueError("an origin ends after the host or the port, without a slash" if "://" in text else "")
    if match[3] is not None and int(match[3]) == {"http": 80, "https": 443}.get(match[1]):
        raise ValueError(f"browsers leave out the port {match[3]} of {match[1]}")
    return lower


def _read_rate(text: str) -> float | tuple[float, int]:
    rate, comma, burst = text.partition(",")
    if not (0 < (number := _number(rate.strip(), {"": 1.0})) <= 1_000_000):
        raise ValueError("a rate is above 0, and at most 1000000")
    return (number, _BURST.read(burst.strip())) if comma else number


def _write_rate(rate: float | tuple[float, int]) -> str:
    return f"{write_number(rate[0])},{rate[1]}" if isinstance(rate, tuple) else write_number(rate)


def _read_path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("a path has no null characters" if text else "the path is empty")
    return text


def _read_user(text: str) -> str:
    if not text or not text.isprintable() or any(c in text for c in ":/ ,") or text.startswith(("-", "+")):
        raise ValueError
    return text


def _read_umask(text: str) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text, re.ASCII) or int(text, 8) > 0o777:
        raise ValueError
    return int(text, 8)


def _read_processors(text: str) -> tuple[int, ...]:
    """Parse ``0,2,4-7``, keeping the order."""
    processors: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        if match is None:
            raise ValueError
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part.strip()} goes backwards")
        processors += range(first, last + 1)
    return tuple(dict.fromkeys(processors))


def _write_processors(processors: tuple[int, ...]) -> str:
    return ",".join(map(str, processors))


APPLICATION = Kind("MODULE:ATTRIBUTE", "MODULE:ATTRIBUTE, such as app:handler", _read_application)
ADDRESS = Kind("ADDRESS", FORMS, parse_address)
ADMIN = Kind("HOST:PORT", "HOST:PORT or [IPV6]:PORT", parse_tcp).or_else("none")
WORKERS = count(1, SLOTS).or_else("auto", "auto")
SWITCH = Kind("true|false", "true or false", _read_switch, lambda on: str(on).lower(), bare=(bool,))
SECONDS = Kind("SECONDS", "seconds, such as 10, 0.5, 500ms or 2m", _read_seconds, write_number, bare=(int, float))
DURATION = replace(SECONDS, allowed="seconds above 0, such as 10, 0.5, 500ms or 2m", read=_read_positive_seconds)
TIMEOUT = replace(SECONDS, allowed="seconds from 1 up, such as 30, 2.5 or 2m", read=_read_timeout)
BUS = Kind(
    "URL",
    "local://, local:///PATH of a file that keeps the history, memory://, redis://HOST:PORT, rediss://HOST:PORT,"
    " redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, nats://HOST:PORT/BUS or tls://HOST:PORT/BUS",
    _read_bus,
    mask=_mask_bus,
)
SIZE = Kind("SIZE", "bytes, such as 65536, 64KiB or 1MiB", _read_size, _write_size, bare=(int,))
MESSAGE = replace(SIZE, allowed="bytes, from 1KiB to 2MiB", read=_read_message)
JOURNAL = replace(SIZE, allowed="bytes, from 32MiB to 16GiB", read=_read_journal)
FRAMES = count(1, 1_000_000)
HEADER = Kind("TEXT", "printable ASCII", _read_header)
HOST = Kind("NAME", "a host name, such as status.example.com", _read_host)
ORIGIN = Kind(
    "ORIGIN",
    "an origin such as https://example.com or https://*.example.com, or none for requests without one",
    _read_origin,
)
NETWORK = Kind("NETWORK", "a network such as 10.0.0.0/8 or 2001:db8::/32, an address, or unix", _read_network)
_BURST = count(1, 1_000_000)
RATE = Kind(
    "RATE[,BURST]", "handshakes a second, such as 10, 0.5 or 10,50", _read_rate, _write_rate, (int, float, list)
)
COMMANDS = replace(RATE, allowed="commands a second, such as 20 or 0.5, or 20,100 with the size of a burst")
CIPHERS = Kind("LIST", "ciphers as OpenSSL names them, such as ECDHE+AESGCM:ECDHE+CHACHA20", _read_header)
ROOT_PATH = Kind("PATH", "a path of a URL, such as /api", _read_root_path)
SECRET = Kind("TEXT", "a text", str)
TOKEN = Kind("TOKEN", "16 or more letters, digits and -._~+/", _read_token)
PATH = Kind("PATH", "a path", _read_path)
USER = Kind("NAME", "a name or a number", _read_user, bare=(int,))
# In a configuration file it needs quotes: TOML has no 0027, and 27 would be ambiguous.
UMASK = Kind("OCTAL", "an octal number from 000 to 777", _read_umask, "{:03o}".format)
PROCESSORS = Kind("LIST", "processors, such as 0,2,4-7", _read_processors, _write_processors)
OPEN_FILES = count(256, 2**30).or_else("max")


def pattern_of_origin(text: str) -> str | re.Pattern[str] | None:
    """Return the argument of ``serve(origins=...)`` for a value of `ORIGIN`."""
    if text == "none":
        return None
    return re.compile(re.escape(text).replace(r"\*", r"[a-z0-9_.-]+")) if "*" in text else text
