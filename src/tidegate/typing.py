"""Names for the types that appear in signatures of the public API.

Aliases and ``NewType`` only: no class with behaviour, no function, nothing that imports another module of the package.
"""

from __future__ import annotations

import http
import logging
import os
from collections.abc import Sequence
from typing import Any, NewType

__all__ = [
    "Data",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "StatusLike",
    "Subprotocol",
]

Data = str | bytes
"""A message: :class:`str` for a Text message, :class:`bytes` for a Binary message (RFC 6455, 5.6)."""

BytesLike = bytes | bytearray | memoryview
"""What can be sent in place of :class:`bytes`."""

DataLike = str | bytes | bytearray | memoryview
"""What can be sent as one message or one fragment."""

LoggerLike = logging.Logger | logging.LoggerAdapter[Any]
"""What can be given where a logger is expected."""

StatusLike = http.HTTPStatus | int
"""What can be given where an HTTP status is expected."""

Origin = NewType("Origin", str)
"""Value of an ``Origin`` header (RFC 6454)."""

Subprotocol = NewType("Subprotocol", str)
"""Name of a subprotocol, one item of ``Sec-WebSocket-Protocol`` (RFC 6455, 1.9)."""

ExtensionName = NewType("ExtensionName", str)
"""Name of an extension, as in ``Sec-WebSocket-Extensions`` (RFC 6455, 9.1)."""

ExtensionParameter = tuple[str, str | None]
"""Parameter of an extension: its name, and its value or :obj:`None`."""

# The names below appear in helpers for header values; they are not part of ``__all__`` in the documentation.

ExtensionHeader = tuple[ExtensionName, Sequence[ExtensionParameter]]
"""One extension with its parameters, one item of ``Sec-WebSocket-Extensions``."""

ConnectionOption = NewType("ConnectionOption", str)
"""One item of a ``Connection`` header (RFC 9110, 7.6.1)."""

UpgradeProtocol = NewType("UpgradeProtocol", str)
"""One item of an ``Upgrade`` header (RFC 9110, 7.8)."""

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""Path of a Unix socket."""
