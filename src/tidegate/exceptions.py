"""Every exception of the package, in one tree.

* :exc:`WebSocketException`
    * :exc:`ConnectionClosed`
        * :exc:`ConnectionClosedOK`
        * :exc:`ConnectionClosedError`
    * :exc:`InvalidURI`
    * :exc:`InvalidProxy`
    * :exc:`InvalidHandshake`
        * :exc:`SecurityError`
            * :exc:`RequestLineTooLong`
            * :exc:`StatusLineTooLong`
            * :exc:`HeaderLineTooLong`
            * :exc:`TooManyHeaders`
            * :exc:`HeadTooLong`
        * :exc:`ProxyError`
            * :exc:`InvalidProxyMessage`
            * :exc:`InvalidProxyStatus`
        * :exc:`InvalidMessage`
            * :exc:`UnexpectedBody`
        * :exc:`InvalidMethod`
        * :exc:`InvalidProtocol`
        * :exc:`InvalidStatus`
        * :exc:`InvalidHeader`
            * :exc:`InvalidHeaderFormat`
            * :exc:`InvalidHeaderValue`
            * :exc:`InvalidOrigin`
            * :exc:`InvalidUpgrade`
        * :exc:`NegotiationError`
            * :exc:`DuplicateParameter`
            * :exc:`InvalidParameterName`
            * :exc:`InvalidParameterValue`
    * :exc:`ProtocolError`
    * :exc:`PayloadTooBig`
    * :exc:`TooManyFragments`
    * :exc:`InvalidState` (also :exc:`AssertionError`)
    * :exc:`ConcurrencyError` (also :exc:`RuntimeError`)
    * :exc:`BusError`
        * :exc:`BusBusy`
        * :exc:`BusDown`
        * :exc:`InvalidChannel` (also :exc:`ValueError`)
        * :exc:`MessageTooBig`
        * :exc:`TooManyChannels`
        * :exc:`TooManyMembers`

An exception carries fields and ``__str__`` makes the sentence, so that a handler never has to take a message apart.
Those that frames and messages raise are defined in ``_exceptions``, below what others hold. Nothing here decides what
an exception means on the wire: statuses are in ``server``, close codes in ``closing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._compat import OlderClosed, OlderStatus, lookup, warn
from ._exceptions import (
    HeaderLineTooLong,
    HeadTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProtocol,
    ProtocolError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
    UnexpectedBody,
    WebSocketException,
)

if TYPE_CHECKING:
    from .frames import Close
    from .http11 import Response

__all__ = [
    "BusBusy",
    "BusDown",
    "BusError",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeadTooLong",
    "HeaderLineTooLong",
    "InvalidChannel",
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
    "MessageTooBig",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyChannels",
    "TooManyFragments",
    "TooManyHeaders",
    "TooManyMembers",
    "UnexpectedBody",
    "WebSocketException",
]


# Connections that ended


class ConnectionClosed(WebSocketException, OlderClosed):
    """The connection is closed; raised by an attempt to use it.

    Attributes:
        rcvd: the close frame that was received, or None.
        sent: the close frame that was sent, or None.
        rcvd_then_sent: if both, whether the other side began the closing handshake; None otherwise.
    """

    def __init__(self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None) -> None:
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    def __str__(self) -> str:
        if self.rcvd is None:
            if self.sent is None:
                return "no close frame received or sent"
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"


class ConnectionClosedOK(ConnectionClosed):
    """The connection ended as it should: code 1000, 1001 or none was received and sent (RFC 6455, 7.4.1)."""


class ConnectionClosedError(ConnectionClosed):
    """The connection ended with another close code, or without a close frame (RFC 6455, 7.1.5)."""


# Addresses


class InvalidURI(WebSocketException):
    """A URI is not a valid WebSocket URI (RFC 6455, 3).

    Attributes:
        uri: as it was given.
        msg: what is wrong with it.
    """

    def __init__(self, uri: str, msg: str) -> None:
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.uri} isn't a valid URI: {self.msg}"


class InvalidProxy(WebSocketException):
    """The URL of a proxy is not valid.

    Attributes:
        proxy: as it was given.
        msg: what is wrong with it.
    """

    def __init__(self, proxy: str, msg: str) -> None:
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.proxy} isn't a valid proxy: {self.msg}"


# The opening handshake


class ProxyError(InvalidHandshake):
    """Connecting through a proxy failed."""


class InvalidProxyMessage(ProxyError):
    """The proxy did not answer with a valid message."""


class InvalidProxyStatus(ProxyError):
    """The proxy rejected the request for a tunnel.

    Attributes:
        response: what it answered.
    """

    def __init__(self, response: Response) -> None:
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


class InvalidMethod(InvalidHandshake):
    """The method of the request is not GET (RFC 6455, 4.1); answered with 405.

    Attributes:
        method: what it is.
    """

    def __init__(self, method: str) -> None:
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {self.method}"


class InvalidStatus(InvalidHandshake, OlderStatus):
    """The server rejected the connection.

    Attributes:
        response: what it answered.
    """

    def __init__(self, response: Response) -> None:
        self.response = response

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"


class InvalidHeaderFormat(InvalidHeader):
    """A header does not follow its grammar.

    ``value`` says what was expected, where, in which header.

    Args:
        name: name of the header.
        error: what was expected.
        header: its value.
        pos: index in ``header`` of the first mistake.
    """

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")


class InvalidOrigin(InvalidHeader):
    """The Origin header is not one that the server accepts (RFC 6455, 10.2); answered with 403.

    Args:
        origin: its value; None if it is missing.
    """

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)


class InvalidUpgrade(InvalidHeader):
    """The Upgrade or the Connection header does not ask for a WebSocket (RFC 6455, 4.2.1); answered with 426.

    ``name`` and ``value`` are the header's.
    """


class NegotiationError(InvalidHandshake):
    """The two sides cannot agree on a subprotocol or on an extension."""


class DuplicateParameter(NegotiationError):
    """A parameter of an extension appears twice.

    Attributes:
        name: its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {self.name}"


class InvalidParameterName(NegotiationError):
    """An extension does not know a parameter.

    Attributes:
        name: its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {self.name}"


class InvalidParameterValue(NegotiationError):
    """A parameter of an extension has a value that it cannot have.

    Attributes:
        name: its name.
        value: its value; None if it has none.
    """

    def __init__(self, name: str, value: str | None) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if self.value == "":
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {self.value}"


# Frames and calls


class PayloadTooBig(WebSocketException):
    """A frame or a message is larger than ``max_size`` (close code 1009).

    Attributes:
        size: bytes in the frame, or None if that is not known.
        max_size: limit on the bytes of the message.
        current_size: bytes of the message read before this frame, or None if it is the first.

    Raises:
        TypeError: without a size and a limit.
    """

    def __init__(self, size: int | str | None, max_size: int | None = None, current_size: int | None = None) -> None:
        self.message: str | None = None
        if isinstance(size, str):
            warn("PayloadTooBig(message)", "use PayloadTooBig(size, max_size)")
            self.message, size, max_size = size, None, 0
        elif max_size is None:
            raise TypeError("PayloadTooBig needs the size and the limit")
        self.size = size
        self.max_size = max_size
        self.current_size: int | None = None
        self.set_current_size(current_size)

    def set_current_size(self, current_size: int | None) -> None:
        """Tell how much of the message came before the frame; ``max_size`` was what remained after that.

        Args:
            current_size: bytes; None changes nothing.

        Raises:
            AssertionError: if it is known already.
        """
        if current_size is not None:
            if self.current_size is not None:
                raise AssertionError("the current size is already set")
            self.max_size += current_size
            self.current_size = current_size

    def __str__(self) -> str:
        if self.message is not None:
            return self.message
        size = "" if self.size is None else f" with {self.size} bytes"
        read = "" if self.current_size is None else f" after reading {self.current_size} bytes"
        return f"frame{size}{read} exceeds limit of {self.max_size} bytes"


class TooManyFragments(WebSocketException):
    """A message is made of more frames than the limit.

    Never raised here, where small fragments are joined as they come and `max_size` bounds them; it is there for
    programs that catch it.

    Attributes:
        max_fragments: the limit.
    """

    def __init__(self, max_fragments: int) -> None:
        self.max_fragments = max_fragments

    def __str__(self) -> str:
        return f"fragmented message exceeds limit of {self.max_fragments} frames"


class InvalidState(WebSocketException, AssertionError):
    """A call is not possible in the state of the connection."""


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two calls that exclude each other were made at the same time."""


# The bus


class BusError(WebSocketException):
    """A call on the bus failed, or is not possible here."""


class BusBusy(BusError):
    """The queue to the engine was full for as long as the call was ready to wait; nothing was published.

    Attributes:
        channel: where to.
        wait: seconds.
    """

    def __init__(self, channel: str, wait: float) -> None:
        self.channel = channel
        self.wait = wait

    def __str__(self) -> str:
        return f"{self.channel}: the queue to the bus was full for {self.wait:g} seconds"


class BusDown(BusError):
    """The engine of the bus is away, or did not answer in time.

    Attributes:
        reason: what happened.
        retry_after: seconds after which it makes sense to try again.
        uncertain: whether what was to be published may be all the same; trying again with the same key is safe.
    """

    def __init__(self, reason: str, retry_after: float = 1.0, uncertain: bool = False) -> None:
        self.reason = reason
        self.retry_after = retry_after
        self.uncertain = uncertain

    def __str__(self) -> str:
        known = "; what was published may or may not be stored" if self.uncertain else ""
        return f"the bus is down: {self.reason}{known}"


class InvalidChannel(BusError, ValueError):
    """The name of a channel is not one.

    Attributes:
        channel: as it was given.
        msg: what is wrong with it.
    """

    def __init__(self, channel: str, msg: str) -> None:
        self.channel = channel
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.channel[:64]!r} isn't the name of a channel: {self.msg}"


class MessageTooBig(BusError):
    """A message is larger than the bus takes.

    Attributes:
        channel: where to.
        size: bytes of the message.
        max_size: the limit, in bytes.
    """

    def __init__(self, channel: str, size: int, max_size: int) -> None:
        self.channel = channel
        self.size = size
        self.max_size = max_size

    def __str__(self) -> str:
        return f"{self.channel}: message of {self.size} bytes exceeds the bus's limit of {self.max_size} bytes"


class TooManyChannels(BusError):
    """More channels are joined than the limit.

    Attributes:
        limit: how many may be.
        scope: by whom, as "a connection".
    """

    def __init__(self, limit: int, scope: str) -> None:
        self.limit = limit
        self.scope = scope

    def __str__(self) -> str:
        return f"{self.scope} may join at most {self.limit} channels"


class TooManyMembers(BusError):
    """Who is in a channel is not listed, since there are too many.

    Attributes:
        channel: its name.
        count: connections that have joined it.
        limit: names that are listed.
    """

    def __init__(self, channel: str, count: int, limit: int) -> None:
        self.channel = channel
        self.count = count
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.channel} has more than the {self.limit} members that are listed: {self.count} connections"


if not TYPE_CHECKING:  # type checkers must report wrong names

    def __getattr__(name: str) -> Any:
        return lookup(__name__, name)
