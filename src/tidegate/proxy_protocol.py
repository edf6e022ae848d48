"""The PROXY protocol, versions 1 and 2: a header before everything else, in which a proxy tells whose connection it is.

It is HAProxy's specification (proxy-protocol.txt). Bytes are fed in, the header comes out, and what came after it.

What must not live here: whom to believe (asyncio/admission.py), I/O.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

__all__ = ["BadHeader", "Header", "HeaderParser"]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PREFIX = b"PROXY "
_LONGEST_LINE = 107  # bytes of a version 1 header, with its line break (2.1)

MAX_SIZE = 4096
"""Bytes after the fixed part of a version 2 header: addresses take at most 216, and what follows them is skipped."""

_LOCAL, _PROXY = 0, 1
# Address family and protocol of version 2, as far as they are a stream: how source and destination are written.
_IPV4, _IPV6, _UNIX = 0x11, 0x21, 0x31
_ADDRESSES = {_IPV4: struct.Struct("!4s4sHH"), _IPV6: struct.Struct("!16s16sHH"), _UNIX: struct.Struct("!108s108s")}


class BadHeader(ValueError):
    """The data is no PROXY header; the text says why."""


class Header(NamedTuple):
    """The contents of a PROXY header.

    Attributes:
        source: address and port of the client; the path of a Unix socket, or None if there is no client: a check of
            the proxy's own, or one that it does not know.
    """

    source: tuple[str, int] | str | None


class HeaderParser:
    """Parses one header from pieces.

    Attributes:
        header: once it is complete.
        rest: bytes that came after it.
    """

    def __init__(self) -> None:
        self._data = b""
        self.header: Header | None = None
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; return whether the header is complete.

        Raises:
            BadHeader: that is none, and will be none whatever follows.
        """
        self._data += data
        version_2 = _SIGNATURE.startswith(self._data[:12])
        if version_2 and len(self._data) >= 12:
            self._binary()
        elif not version_2:
            self._line()
        return self.header is not None

    def _complete(self, source: tuple[str, int] | str | None, size: int) -> None:
        self.header = Header(source)
        self.rest, self._data = self._data[size:], b""

    # Version 1: a line of text (2.1).

    def _line(self) -> None:
        if not (self._data.startswith(_PREFIX) or _PREFIX.startswith(self._data)):
            raise BadHeader(f"it starts with {self._data[:16]!r}")
        end = self._data.find(b"\r\n", 0, _LONGEST_LINE)
        if end < 0:
            if len(self._data) >= _LONGEST_LINE:
                raise BadHeader(f"no line break within {_LONGEST_LINE} bytes")
            return
        words = self._data[len(_PREFIX) : end].decode("iso-8859-1").split(" ")
        self._complete(None if words[0] == "UNKNOWN" else _source(words), end + 2)

    # Version 2: binary (2.2).

    def _binary(self) -> None:
        if len(self._data) < 16:
            return
        version, family, size = struct.unpack_from("!BBH", self._data, 12)
        if version >> 4 != 2 or version & 15 not in (_LOCAL, _PROXY):
            raise BadHeader(f"unknown version and command 0x{version:02x}")
        if size > MAX_SIZE:
            raise BadHeader(f"{size} bytes of addresses, more than {MAX_SIZE}")
        if len(self._data) < 16 + size:
            return
        source = None
        if version & 15 == _PROXY and family != 0:  # 0 is unspecified
            source = _binary_source(family, self._data[16 : 16 + size])
        self._complete(source, 16 + size)


def _source(words: list[str]) -> tuple[str, int]:
    kinds = {"TCP4": IPv4Address, "TCP6": IPv6Address}
    if len(words) != 5 or words[0] not in kinds:
        raise BadHeader("expected TCP4 or TCP6 with two addresses and two ports, or UNKNOWN")
    kind = kinds[words[0]]
    try:
        source, _ = kind(words[1]), kind(words[2])
    except ValueError as error:
        raise BadHeader(str(error)) from None
    ports = [int(word) if word.isascii() and word.isdigit() and len(word) <= 5 else -1 for word in words[3:]]
    if not all(0 <= port <= 65535 for port in ports):
        raise BadHeader(f"ports {words[3]!r} and {words[4]!r}")
    return str(source), ports[0]


def _binary_source(family: int, data: bytes) -> tuple[str, int] | str:
    layout = _ADDRESSES.get(family)
    if layout is None:
        raise BadHeader(f"unknown family and protocol 0x{family:02x}: only streams are served")
    if len(data) < layout.size:
        raise BadHeader(f"{len(data)} bytes of addresses where {layout.size} are needed")
    fields = layout.unpack_from(data)
    if family == _UNIX:
        return bytes(fields[0]).rstrip(b"\0").decode("utf-8", "backslashreplace")
    return str(ip_address(fields[0])), fields[2]
