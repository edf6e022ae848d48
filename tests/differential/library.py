"""The two libraries under comparison, behind the same names, and what is noted of either while a scenario runs.

What must not live here: scenarios, sockets, and which differences are accepted.
"""

from __future__ import annotations

import asyncio
import enum
import importlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.patience import PATIENCE

ADDED = {"X-Content-Type-Options"}
"""Headers that only tidegate's rejections have: what they quote is never to be taken for a page."""

VARYING = {"Date", "Server", "Content-Length", "Sec-WebSocket-Key", "User-Agent", "Host"}
"""Headers of which only the presence is compared."""

PORT = re.compile(r"127\.0\.0\.1:\d+")

HOMES = {
    "asyncio.server": "serve unix_serve broadcast basic_auth Server ServerConnection",
    "asyncio.client": "connect unix_connect ClientConnection",
    "asyncio.router": "route unix_route Router",
    "datastructures": "Headers",
    "extensions.permessage_deflate": "ClientPerMessageDeflateFactory ServerPerMessageDeflateFactory",
    "frames": "Close CloseCode Frame Opcode",
    "http11": "Request Response",
    "protocol": "State",
}


class Library:
    """One of the libraries: `lib.serve`, `lib.connect`, ..., and `lib.exceptions`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.exceptions = importlib.import_module(f"{name}.exceptions")
        for module, names in HOMES.items():
            home = importlib.import_module(f"{name}.{module}")
            for each in names.split():
                setattr(self, each, getattr(home, each))

    def __getattr__(self, name: str) -> Any:  # for type checkers
        raise AttributeError(name)


class Record(logging.Handler):
    """What was seen, as a list for each subject: tasks race, so the order is that within a subject.

    `record("subject", value, ...)` notes values in a form that both libraries can agree on.
    """

    def __init__(self, library: str) -> None:
        super().__init__(logging.INFO)
        self.library = library
        self.seen: dict[str, list[Any]] = {}

    def __call__(self, subject: str, *values: Any) -> None:
        self.seen.setdefault(subject, []).extend(plain(value) for value in values)

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info else None
        name = record.name.removeprefix(self.library)
        self("log", (name, record.levelname, None if exc is None else type(exc).__name__))


def plain(value: Any) -> Any:
    """A value of either library in common terms."""
    for kinds, convert in PLAIN:
        if isinstance(value, kinds):
            return convert(value)
    if hasattr(value, "raw_items"):
        return [(key, None if key in VARYING | {"Sec-WebSocket-Accept"} else text) for key, text in value.raw_items()]
    name = type(value).__name__
    return (name, value.code, value.reason) if name == "Close" else name


PLAIN: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: f"{type(value).__name__}.{value.name}"),
    (BaseExceptionGroup, lambda exc: (type(exc).__name__, str(exc), [plain(each) for each in exc.exceptions])),
    (BaseException, lambda exc: (type(exc).__name__, plain(str(exc)), plain(exc.__cause__))),
    (str, lambda text: PORT.sub("127.0.0.1:PORT", text)),
    (bytearray, bytes),
    ((bool, int, float, bytes, type(None)), lambda value: value),
    ((list, tuple), lambda values: [plain(each) for each in values]),
    (dict, lambda values: {key: plain(each) for key, each in values.items()}),
)

Scenario = Callable[[Any, Record], Awaitable[None]]


async def observe(lib: Library, scenario: Scenario) -> dict[str, list[Any]]:
    """What a scenario shows of a library, complaints of the event loop included."""
    record = Record(lib.name)
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: record("loop", context.get("exception") or context["message"])
    )
    logger = logging.getLogger(lib.name)
    level = logger.level
    logger.addHandler(record)
    logger.setLevel(logging.INFO)
    try:
        async with asyncio.timeout(PATIENCE):
            await scenario(lib, record)
    finally:
        logger.setLevel(level)
        logger.removeHandler(record)
    return record.seen


SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Decorator: run this on both libraries."""
    return add(function.__name__, function)


def add(name: str, function: Scenario) -> Scenario:
    """The same for scenarios that are made from a table."""
    assert name not in SCENARIOS, f"two scenarios are called {name}"
    SCENARIOS[name] = function
    return function
