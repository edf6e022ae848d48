"""Settings of the connections of one server or client: checked once, shared by all of them.

    Settings         limits and timeouts, of either side
    ServerSettings   and what else the connections of a server share: handler, hooks, registry
    ProcessPolicy    what a process adds for its servers

What must not live here: anything that differs from one connection to the next.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, Self

from .. import defaults
from .deadlines import Deadlines

if TYPE_CHECKING:
    from ..server import HandshakeOptions
    from ..typing import LoggerLike
    from .admission import Admission, ClientRecord
    from .registry import ConnectionRegistry

__all__ = ["ProcessPolicy", "ServerSettings", "Settings", "check_functions"]

Marks = tuple[int | None, int | None]


@dataclasses.dataclass(slots=True)
class Settings:
    """Limits and timeouts, in bytes, frames and seconds; None is no limit."""

    loop: asyncio.AbstractEventLoop
    logger: LoggerLike
    deadlines: Deadlines
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    max_size: Marks  # message, fragment
    max_queue: Marks  # high, low
    write_limit: Marks  # high, low
    broadcast_limit: int | None

    @classmethod
    def check(
        cls,
        *,
        open_timeout: float | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        close_timeout: float | None,
        max_size: Any,
        max_queue: Any,
        write_limit: Any,
        broadcast_limit: Any = defaults.BROADCAST_LIMIT,
    ) -> dict[str, Any]:
        """Check and complete the arguments of serve() and connect(), before there is a loop.

        Raises:
            TypeError: for an argument of a wrong type.
            ValueError: for one that is out of range.
        """
        timeouts = {
            "open_timeout": open_timeout,
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
        }
        for name, seconds in timeouts.items():
            if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
                raise TypeError(f"{name} must be a number of seconds or None, not {seconds!r}")
            if seconds is not None and not seconds >= 0:
                raise ValueError(f"{name} must not be negative: {seconds!r}")
            if seconds == math.inf:
                timeouts[name] = None
        high, low = _pair("write_limit", write_limit)
        if high is None:
            raise TypeError("write_limit must be an int or a (high, low) tuple, not None")
        return timeouts | {
            "max_size": _pair("max_size", max_size),
            "max_queue": _marks(*_pair("max_queue", max_queue)),
            "write_limit": _marks(high, low),
            "broadcast_limit": _size("broadcast_limit", broadcast_limit),
        }

    def overridden(self, limits: dict[str, Any]) -> Self:
        """Return the settings of one connection that has other limits.

        Raises:
            TypeError, ValueError: as check().
        """
        now = {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
        for shared in ("loop", "logger", "deadlines"):
            del now[shared]
        return dataclasses.replace(self, **self.check(**(now | limits)))


class Http(Protocol):
    """What takes over connections whose first request opens no WebSocket (http_service.py)."""

    def take_over(
        self,
        settings: ServerSettings,
        server: Any,
        transport: asyncio.Transport,
        record: ClientRecord | None,
        data: bytes,
    ) -> None:
        """Serve a transport from its first request on, of which `data` has come."""


@dataclasses.dataclass(slots=True)
class ProcessPolicy:
    """Policy of a process for its servers. A process of the daemon passes it to `serve()` as `policy`.

    Attributes:
        admission: limits connections; None lets all in.
        failures: exceptions of handlers and hooks that end their connection, and nothing else.
        event_level: of log lines for the begin and the end of connections and servers.
    """

    admission: Admission | None = None
    failures: type[BaseException] = Exception
    event_level: int = logging.INFO


@dataclasses.dataclass(slots=True)
class ServerSettings(Settings):
    """Settings of the connections of one server.

    Attributes:
        handler, process_request, process_response, server_header: as for `serve()`.
        handshake: what the opening handshake accepts.
        http: takes over connections whose first request opens no WebSocket; None rejects them.
        policy: of the process.
        registry: the server's connections.
        start: runs a coroutine that handles a connection as a task of the server.
    """

    handler: Callable[[Any], Awaitable[None]]
    handshake: HandshakeOptions
    process_request: Callable[[Any, Any], Any] | None
    process_response: Callable[[Any, Any, Any], Any] | None
    server_header: str | None
    policy: ProcessPolicy
    registry: ConnectionRegistry[Any]
    start: Callable[[Coroutine[Any, Any, None]], None]
    http: Http | None = None
    plain: bool = dataclasses.field(init=False)  # a plain request needs neither a look at it nor a choice
    last_lines: bytes = dataclasses.field(init=False)  # of a response 101

    def __post_init__(self) -> None:
        hooks = self.process_request or self.process_response
        options = self.handshake
        self.plain = not (hooks or options.origins is not None or options.subprotocols or options.select_subprotocol)
        self.last_lines = b"\r\n" if self.server_header is None else f"Server: {self.server_header}\r\n\r\n".encode()


def check_functions(**functions: Any) -> None:
    """Check that these are callable, or None.

    Raises:
        TypeError: for one that is neither.
    """
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function, not {function!r}")


def _size(name: str, value: Any) -> int | None:
    if isinstance(value, tuple):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    return _pair(name, value)[0]


def _pair(name: str, value: Any) -> Marks:
    pair = value if isinstance(value, tuple) else (value, None)
    if len(pair) != 2 or not all(item is None or (isinstance(item, int) and item is not True) for item in pair):
        raise TypeError(f"{name} must be an int, None, or a tuple of two of them, not {value!r}")
    if any(item is not None and item < 0 for item in pair):
        raise ValueError(f"{name} must not be negative: {value!r}")
    if any(item is not None and item >= 2**63 for item in pair):
        raise ValueError(f"{name} must be less than 2**63, or None for no limit: {value!r}")
    return pair[0], pair[1]


def _marks(high: int | None, low: int | None) -> Marks:
    """Complete high-water and low-water marks: each follows from the other."""
    if high is not None and low is None:
        low = high // 4
    if high is None and low is not None:
        high = low * 4
    if high is not None and low is not None and high < low:
        raise ValueError("high must be greater than or equal to low")
    return high, low
