"""The exceptions that frames, headers and HTTP messages raise.

They are apart from the other exceptions because some of those hold frames and messages. Programs find them all in
``exceptions``, which has the tree. What must not live here: exceptions that those modules do not raise.
"""

from __future__ import annotations

__all__ = [
    "HeadTooLong",
    "HeaderLineTooLong",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidProtocol",
    "ProtocolError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyHeaders",
    "UnexpectedBody",
    "WebSocketException",
]


class WebSocketException(Exception):
    """Base class of all exceptions of the package."""


class InvalidHandshake(WebSocketException):
    """Base class of what can go wrong in the opening handshake."""


class SecurityError(InvalidHandshake):
    """A limit or a rule that protects this side was broken."""


class RequestLineTooLong(SecurityError):
    """The request line exceeds the limit on the length of a line."""


class StatusLineTooLong(SecurityError):
    """The status line exceeds the limit on the length of a line."""


class HeaderLineTooLong(SecurityError):
    """A header exceeds the limit on the length of a line."""


class TooManyHeaders(SecurityError):
    """There are more headers than the limit."""


class HeadTooLong(SecurityError):
    """Request line and headers together exceed the limit on the size of the head."""


class InvalidMessage(InvalidHandshake):
    """The request or the response is not valid HTTP/1.1."""


class UnexpectedBody(InvalidMessage):
    """The request announces a body, which an opening handshake cannot have."""


class InvalidProtocol(InvalidHandshake):
    """The HTTP version of the request is not 1.1 (RFC 6455, 4.1); answered with 505.

    Attributes:
        protocol: what it is, as "HTTP/1.0".
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {self.protocol}"


class InvalidHeader(InvalidHandshake):
    """A header is missing, empty or wrong.

    Attributes:
        name: its name.
        value: its value; None if it is missing.
    """

    def __init__(self, name: str, value: str | None = None) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if self.value == "":
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {self.value}"


class InvalidHeaderValue(InvalidHeader):
    """A header follows its grammar, or is text that no header can hold, and its value cannot be accepted.

    ``name`` and ``value`` are the header's.
    """


class ProtocolError(WebSocketException):
    """A frame or a sequence of frames breaks the protocol (close code 1002)."""


for _name in __all__:  # in tracebacks and pickles, too, they are where programs find them
    globals()[_name].__module__ = "tidegate.exceptions"
