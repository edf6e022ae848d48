"""The engine that a URL names: one table.

    check_url    say what is wrong with a URL
    mask         show one
    missing      say what to install for one
    connect      make its broker

What must not live here: what an engine makes of the rest of its URL, beyond whether there may be one.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from ..exceptions import BusError
from ..redaction import MASK
from .base import Broker
from .policies import Policies

__all__ = ["check_url", "connect", "mask", "missing"]


class _Engine(NamedTuple):
    """Where an engine is, and what its URLs are.

    Attributes:
        home: module and class.
        form: what a URL looks like, in words.
        rest: what may follow the scheme's `://`.
        check: module and function that raises ValueError for what the pattern does not know, without a password.
        needs: packages that it imports, and that `tidegate[EXTRA]` installs.
        extra: the name of that.
    """

    home: str
    form: str
    rest: re.Pattern[str]
    check: str = ""
    needs: tuple[str, ...] = ()
    extra: str = ""


def _redis(form: str) -> _Engine:
    return _Engine(
        "redis RedisBroker", form, re.compile(r"[^\s]+"), "redis_url parse", needs=("redis", "hiredis"), extra="redis"
    )


def _nats(form: str) -> _Engine:
    return _Engine(
        "nats NatsBroker", form, re.compile(r"[^\s]+"), "nats_url parse", needs=("nats", "nkeys"), extra="nats"
    )


ENGINES: Final = {
    "local": _Engine(
        "local LocalBroker", "local:// in a worker, or local:///PATH of a daemon's socket", re.compile(r"(/[^?#]+)?")
    ),
    "memory": _Engine("memory MemoryBroker", "memory:// or memory://NAME", re.compile(r"[\w.-]{0,64}", re.ASCII)),
    "nats": _nats("nats://HOST:PORT/BUS"),
    "tls": _nats("tls://HOST:PORT/BUS, which is NATS with TLS"),
    "redis": _redis("redis://HOST:PORT"),
    "rediss": _redis("rediss://HOST:PORT with TLS"),
    "redis+sentinel": _redis("redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"),
}

_PASSWORD = re.compile(r"(password=)[^&]*", re.IGNORECASE)


def check_url(url: object) -> SplitResult:
    """Return the parts of a URL of an engine.

    Raises:
        TypeError: it is no str.
        ValueError: there is no such engine, or no such URL of it; the message has what there is, and no password.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a bus must be a str, not {type(url).__qualname__}")
    forms = ", ".join(engine.form for engine in ENGINES.values())
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"{mask(url)[:64]!r} isn't the URL of a bus, such as {forms}")
    engine = ENGINES.get(scheme)
    if engine is None:
        raise ValueError(f"there is no bus {scheme[:64]}://, but {forms}")
    if engine.rest.fullmatch(rest) is None:
        raise ValueError(f"{scheme}:// is followed by what it cannot be: the URL must be {engine.form}")
    if engine.check:
        module, function = engine.check.split()
        getattr(importlib.import_module(f".{module}", __package__), function)(url)
    return urlsplit(url)


def mask(url: str) -> str:
    """Return a URL as it may be shown: without user, password and secret options."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, host = rest.rpartition("@")
    return _PASSWORD.sub(rf"\1{MASK}", f"{scheme}{separator}{MASK if at else ''}{at}{host}")


def missing(url: str) -> str | None:
    """Return what to install for a URL of an engine, or None if nothing is missing."""
    engine = ENGINES[urlsplit(url).scheme]
    if all(importlib.util.find_spec(name) is not None for name in engine.needs):
        return None
    return f"pip install 'tidegate[{engine.extra}]'"


def connect(url: str, policies: Policies) -> Broker:
    """Return the broker of a URL, not yet started.

    Raises:
        TypeError, ValueError: it is not the URL of an engine.
        BusError: packages that it needs are not installed.
    """
    scheme = check_url(url).scheme
    engine = ENGINES[scheme]
    remedy = missing(url)
    if remedy is not None:
        raise BusError(f"{scheme}:// needs {' and '.join(engine.needs)}, which are not installed: {remedy}")
    module, name = engine.home.split()
    broker: type[Broker] = getattr(importlib.import_module(f".{module}", __package__), name)
    return broker(url, policies)  # type: ignore[call-arg]
