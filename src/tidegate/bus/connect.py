"""The engine that a URL names: one table.

What must not live here: what an engine makes of the rest of its URL, beyond whether there may be one.
"""

from __future__ import annotations

import importlib
import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from .base import Broker
from .policies import Policies

__all__ = ["check_url", "connect"]


class _Engine(NamedTuple):
    """Where an engine is, and what its URLs are.

    Attributes:
        home: module and class.
        form: what a URL looks like, in words.
        rest: what may follow the scheme's `://`.
    """

    home: str
    form: str
    rest: re.Pattern[str]


ENGINES: Final = {
    "local": _Engine(
        "local LocalBroker", "local:// in a worker, or local:///PATH of a daemon's socket", re.compile(r"(/[^?#]+)?")
    ),
    "memory": _Engine("memory MemoryBroker", "memory:// or memory://NAME", re.compile(r"[\w.-]{0,64}", re.ASCII)),
}


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
        raise ValueError(f"{url[:64]!r} isn't the URL of a bus, such as {forms}")
    engine = ENGINES.get(scheme)
    if engine is None:
        raise ValueError(f"there is no bus {scheme[:64]}://, but {forms}")
    if engine.rest.fullmatch(rest) is None:
        raise ValueError(f"{scheme}:// is followed by what it cannot be: the URL must be {engine.form}")
    return urlsplit(url)


def connect(url: str, policies: Policies) -> Broker:
    """Return the broker of a URL, not yet started.

    Raises:
        TypeError, ValueError: it is not the URL of an engine.
    """
    engine = ENGINES[check_url(url).scheme]
    module, name = engine.home.split()
    broker: type[Broker] = getattr(importlib.import_module(f".{module}", __package__), name)
    return broker(url, policies)  # type: ignore[call-arg]
