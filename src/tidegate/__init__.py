"""A production WebSocket server for Python: supervised uvloop workers, the websockets API, metrics.

Every public name can be imported from here. Each is looked up on first use, in the table below, so that importing the
package costs nothing: no event loop, no parser, no command line. Nothing is defined here.
"""

from __future__ import annotations

import importlib
from typing import Any

from .version import version

__version__ = version

# Module -> names; the only place that knows where a name of the public surface lives.
_HOMES = {
    "app": ("App",),
    "asyncio.server": ("Server", "ServerConnection", "broadcast", "serve", "unix_serve"),
    "datastructures": ("Headers", "HeadersLike", "MultipleValuesError"),
    "exceptions": (
        "ConcurrencyError",
        "ConnectionClosed",
        "ConnectionClosedError",
        "ConnectionClosedOK",
        "DuplicateParameter",
        "HeaderLineTooLong",
        "InvalidHandshake",
        "InvalidHeader",
        "InvalidHeaderFormat",
        "InvalidHeaderValue",
        "InvalidMessage",
        "InvalidMethod",
        "InvalidOrigin",
        "InvalidParameterName",
        "InvalidParameterValue",
        "InvalidProtocol",
        "InvalidProxy",
        "InvalidProxyMessage",
        "InvalidProxyStatus",
        "InvalidState",
        "InvalidStatus",
        "InvalidURI",
        "InvalidUpgrade",
        "NegotiationError",
        "PayloadTooBig",
        "ProtocolError",
        "ProxyError",
        "RequestLineTooLong",
        "SecurityError",
        "StatusLineTooLong",
        "TooManyFragments",
        "TooManyHeaders",
        "WebSocketException",
    ),
    "frames": ("Close", "CloseCode", "Frame", "Opcode"),
    "http11": ("Request", "Response"),
    "protocol": ("Side", "State"),
    "typing": (
        "Data",
        "ExtensionName",
        "ExtensionParameter",
        "LoggerLike",
        "Origin",
        "StatusLike",
        "Subprotocol",
    ),
}

_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    try:
        module = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
