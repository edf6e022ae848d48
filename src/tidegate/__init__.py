"""A production WebSocket server for Python: supervised uvloop workers, the websockets API, metrics.

Every public name can be imported from here. Each is looked up on first use, in the table below, so that importing the
package costs nothing: no event loop, no parser, no command line. Nothing is defined here.
"""

from __future__ import annotations

import importlib

from .version import version as _version

__version__ = _version

TYPE_CHECKING = False  # what type checkers take for true; importing it from typing would double the time of the import
if TYPE_CHECKING:
    # The same table for type checkers, which do not run __getattr__; a test compares the two.
    from typing import Any

    from .app import App as App
    from .asyncio.channel_handler import channel_handler as channel_handler
    from .asyncio.channel_handler import javascript as javascript
    from .asyncio.channels import close_members as close_members
    from .asyncio.channels import history as history
    from .asyncio.channels import leave_members as leave_members
    from .asyncio.channels import members as members
    from .asyncio.channels import presence as presence
    from .asyncio.channels import publish as publish
    from .asyncio.channels import subscribe as subscribe
    from .asyncio.client import ClientConnection as ClientConnection
    from .asyncio.client import connect as connect
    from .asyncio.client import unix_connect as unix_connect
    from .asyncio.router import Router as Router
    from .asyncio.router import route as route
    from .asyncio.router import unix_route as unix_route
    from .asyncio.server import Server as Server
    from .asyncio.server import ServerConnection as ServerConnection
    from .asyncio.server import basic_auth as basic_auth
    from .asyncio.server import broadcast as broadcast
    from .asyncio.server import serve as serve
    from .asyncio.server import unix_serve as unix_serve
    from .bus.bus import Bus as Bus
    from .channels import Channel as Channel
    from .channels import ChannelLimits as ChannelLimits
    from .channels import Gap as Gap
    from .channels import Identity as Identity
    from .channels import Joined as Joined
    from .channels import Message as Message
    from .channels import Position as Position
    from .channels import PresenceEvent as PresenceEvent
    from .datastructures import Headers as Headers
    from .datastructures import HeadersLike as HeadersLike
    from .datastructures import MultipleValuesError as MultipleValuesError
    from .exceptions import BusBusy as BusBusy
    from .exceptions import BusDown as BusDown
    from .exceptions import BusError as BusError
    from .exceptions import ConcurrencyError as ConcurrencyError
    from .exceptions import ConnectionClosed as ConnectionClosed
    from .exceptions import ConnectionClosedError as ConnectionClosedError
    from .exceptions import ConnectionClosedOK as ConnectionClosedOK
    from .exceptions import DuplicateParameter as DuplicateParameter
    from .exceptions import HeaderLineTooLong as HeaderLineTooLong
    from .exceptions import InvalidChannel as InvalidChannel
    from .exceptions import InvalidHandshake as InvalidHandshake
    from .exceptions import InvalidHeader as InvalidHeader
    from .exceptions import InvalidHeaderFormat as InvalidHeaderFormat
    from .exceptions import InvalidHeaderValue as InvalidHeaderValue
    from .exceptions import InvalidMessage as InvalidMessage
    from .exceptions import InvalidMethod as InvalidMethod
    from .exceptions import InvalidOrigin as InvalidOrigin
    from .exceptions import InvalidParameterName as InvalidParameterName
    from .exceptions import InvalidParameterValue as InvalidParameterValue
    from .exceptions import InvalidProtocol as InvalidProtocol
    from .exceptions import InvalidProxy as InvalidProxy
    from .exceptions import InvalidProxyMessage as InvalidProxyMessage
    from .exceptions import InvalidProxyStatus as InvalidProxyStatus
    from .exceptions import InvalidState as InvalidState
    from .exceptions import InvalidStatus as InvalidStatus
    from .exceptions import InvalidUpgrade as InvalidUpgrade
    from .exceptions import InvalidURI as InvalidURI
    from .exceptions import MessageTooBig as MessageTooBig
    from .exceptions import NegotiationError as NegotiationError
    from .exceptions import PayloadTooBig as PayloadTooBig
    from .exceptions import ProtocolError as ProtocolError
    from .exceptions import ProxyError as ProxyError
    from .exceptions import RequestLineTooLong as RequestLineTooLong
    from .exceptions import SecurityError as SecurityError
    from .exceptions import StatusLineTooLong as StatusLineTooLong
    from .exceptions import TooManyChannels as TooManyChannels
    from .exceptions import TooManyFragments as TooManyFragments
    from .exceptions import TooManyHeaders as TooManyHeaders
    from .exceptions import TooManyMembers as TooManyMembers
    from .exceptions import WebSocketException as WebSocketException
    from .frames import Close as Close
    from .frames import CloseCode as CloseCode
    from .frames import Frame as Frame
    from .frames import Opcode as Opcode
    from .http11 import Request as Request
    from .http11 import Response as Response
    from .protocol import Side as Side
    from .protocol import State as State
    from .typing import Data as Data
    from .typing import ExtensionName as ExtensionName
    from .typing import ExtensionParameter as ExtensionParameter
    from .typing import LoggerLike as LoggerLike
    from .typing import Origin as Origin
    from .typing import StatusLike as StatusLike
    from .typing import Subprotocol as Subprotocol

# Module -> names; the only place that knows where a name of the public surface lives.
_HOMES = {
    "app": "App",
    "asyncio.channel_handler": "channel_handler javascript",
    "asyncio.channels": "close_members history leave_members members presence publish subscribe",
    "asyncio.client": "ClientConnection connect unix_connect",
    "asyncio.router": "Router route unix_route",
    "asyncio.server": "Server ServerConnection basic_auth broadcast serve unix_serve",
    "bus.bus": "Bus",
    "channels": "Channel ChannelLimits Gap Identity Joined Message Position PresenceEvent",
    "datastructures": "Headers HeadersLike MultipleValuesError",
    "exceptions": (
        "BusBusy BusDown BusError ConcurrencyError ConnectionClosed ConnectionClosedError ConnectionClosedOK"
        " DuplicateParameter HeaderLineTooLong InvalidChannel InvalidHandshake InvalidHeader InvalidHeaderFormat"
        " InvalidHeaderValue InvalidMessage InvalidMethod InvalidOrigin InvalidParameterName InvalidParameterValue"
        " InvalidProtocol InvalidProxy InvalidProxyMessage InvalidProxyStatus InvalidState InvalidStatus"
        " InvalidURI InvalidUpgrade MessageTooBig NegotiationError PayloadTooBig ProtocolError ProxyError"
        " RequestLineTooLong SecurityError StatusLineTooLong TooManyChannels TooManyFragments TooManyHeaders"
        " TooManyMembers WebSocketException"
    ),
    "frames": "Close CloseCode Frame Opcode",
    "http11": "Request Response",
    "protocol": "Side State",
    "typing": "Data ExtensionName ExtensionParameter LoggerLike Origin StatusLike Subprotocol",
}

_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{__name__}._compat").lookup(__name__, name)
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
