"""permessage-deflate: its negotiation, and what it does to frames (RFC 7692).

What must not live here: compressing and decompressing (``_core.deflate``), how a connection uses it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .._core.deflate import Deflate, TooLong, ZlibError
from ..exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from ..frames import CTRL_OPCODES, Frame, Opcode
from ..typing import ExtensionName, ExtensionParameter
from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = [
    "ClientPerMessageDeflateFactory",
    "PerMessageDeflate",
    "ServerPerMessageDeflateFactory",
    "enable_client_permessage_deflate",
    "enable_server_permessage_deflate",
]

MAX_BITS = 15
"""Bits of the window where nothing was agreed: 32 KiB (RFC 7692, 7.1.2)."""

DECOMPRESSED_BITS = range(8, 16)
"""Bits of a window that we can decompress."""

COMPRESSED_BITS = range(9, 16)
"""Bits of a window that we can compress with: zlib has no raw stream with a window of 8 bits."""

DEFAULT_BITS = 12
"""Bits of a server's windows by default: few messages are longer than 4 KiB, and to compress with that costs 16 KiB,
where 15 bits would cost 128."""

DEFAULT_SETTINGS = {"memLevel": 5}
"""Settings of compressors by default: 16 KiB of hash table and pending output, where zlib would take 128."""

_NAME = ExtensionName("permessage-deflate")


class PerMessageDeflate(Extension):
    """Compression of the messages of one connection; "remote" is what is received, "local" what is sent.

    Attributes:
        deflate: the native compressor and decompressor.

    Args:
        remote_no_context_takeover: whether the other side compresses each message by itself.
        local_no_context_takeover: whether this side does.
        remote_max_window_bits: bits of the other side's window, from 8 to 15.
        local_max_window_bits: bits of this side's window, from 9 to 15.
        compress_settings: more keyword arguments of :func:`zlib.compressobj`, ``wbits`` excluded.

    Raises:
        ValueError: if the bits are out of range, or ``compress_settings`` include them.
    """

    __slots__ = ("deflate",)

    name = _NAME

    def __init__(
        self,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        _check_bits("remote_max_window_bits", remote_max_window_bits, DECOMPRESSED_BITS)
        _check_bits("local_max_window_bits", local_max_window_bits, COMPRESSED_BITS)
        if compress_settings and "wbits" in compress_settings:
            raise ValueError("compress_settings must not include wbits, set local_max_window_bits instead")
        self.deflate = Deflate(
            remote_no_context_takeover,
            local_no_context_takeover,
            remote_max_window_bits,
            local_max_window_bits,
            compress_settings,
        )

    @property
    def remote_no_context_takeover(self) -> bool:
        """Whether the other side compresses each message by itself."""
        return self.deflate.remote_no_context_takeover

    @property
    def local_no_context_takeover(self) -> bool:
        """Whether this side compresses each message by itself."""
        return self.deflate.local_no_context_takeover

    @property
    def remote_max_window_bits(self) -> int:
        """Bits of the other side's window."""
        return self.deflate.remote_max_window_bits

    @property
    def local_max_window_bits(self) -> int:
        """Bits of this side's window."""
        return self.deflate.local_max_window_bits

    @property
    def compress_settings(self) -> dict[str, Any]:
        """More keyword arguments of this side's compressor."""
        return self.deflate.compress_settings

    def _parameters(self) -> tuple[bool, bool, int, int]:
        deflate = self.deflate
        return (
            deflate.remote_no_context_takeover,
            deflate.local_no_context_takeover,
            deflate.remote_max_window_bits,
            deflate.local_max_window_bits,
        )

    def __repr__(self) -> str:
        return (
            "PerMessageDeflate("
            "remote_no_context_takeover={}, "
            "local_no_context_takeover={}, "
            "remote_max_window_bits={}, "
            "local_max_window_bits={})"
        ).format(*self._parameters())

    def __eq__(self, other: object) -> bool:
        """Compare the parameters that were agreed on, whatever was compressed since."""
        if not isinstance(other, PerMessageDeflate):
            return NotImplemented
        return self._parameters() == other._parameters() and self.compress_settings == other.compress_settings

    def __hash__(self) -> int:
        return hash(self._parameters())

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decompress a received frame, if it is of a compressed message (RFC 7692, 7.2.2).

        Args:
            frame: as received, unmasked.
            max_size: limit on the bytes of the result; None for no limit. What would be beyond is not made.

        Raises:
            PayloadTooBig: if the result would be larger than ``max_size``.
            ProtocolError: if it cannot be decompressed, or continues a message and has the bit that starts one.
        """
        if frame.opcode in CTRL_OPCODES:
            return frame
        compressed = self.deflate.in_message if frame.opcode is Opcode.CONT else frame.rsv1
        if not compressed:
            return frame
        if frame.opcode is Opcode.CONT and frame.rsv1:
            raise ProtocolError("RSV1 bit set in continuation frame")
        try:
            data = self.deflate.decompress(frame.data, frame.fin, -1 if max_size is None else max_size)
        except TooLong:
            assert max_size is not None
            raise PayloadTooBig(None, max_size) from None
        except ZlibError as exc:
            raise ProtocolError("decompression failed") from exc
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """Compress a frame that will be sent, unless it is a control frame (RFC 7692, 7.2.1)."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        data = self.deflate.compress(frame.data, frame.fin)
        # RFC 7692, 6: the first frame of a compressed message has RSV1 set, and no other has.
        return Frame(frame.opcode, data, frame.fin, frame.opcode is not Opcode.CONT, frame.rsv2, frame.rsv3)


# Parameters: RFC 7692, 7.1


class _Parameters(NamedTuple):
    """One offer, or the answer to it, in the order in which it is written.

    ``client_max_window_bits`` is True where an offer names it without a value, which says that it may be answered.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | Literal[True] | None = None

    def write(self) -> list[ExtensionParameter]:
        return [
            (name, None if value is True else str(value))
            for name, value in zip(self._fields, self, strict=True)
            if value is not None and value is not False
        ]


_BITS = {str(bits): bits for bits in DECOMPRESSED_BITS}
_FLAG: dict[str | None, Literal[True]] = {None: True}

# Name -> the values that it may have, and what they mean; a missing value is None.
_IN_ANSWER: dict[str, dict[Any, Any]] = {
    "server_no_context_takeover": _FLAG,
    "client_no_context_takeover": _FLAG,
    "server_max_window_bits": _BITS,
    "client_max_window_bits": _BITS,
}
_IN_OFFER = _IN_ANSWER | {"client_max_window_bits": _BITS | _FLAG}


def _read(params: Sequence[ExtensionParameter], allowed: dict[str, dict[Any, Any]]) -> _Parameters:
    """Read parameters.

    Raises:
        InvalidParameterName, DuplicateParameter, InvalidParameterValue: at the first that is wrong.
    """
    found: dict[str, Any] = {}
    for name, value in params:
        if name not in allowed:
            raise InvalidParameterName(name)
        if name in found:
            raise DuplicateParameter(name)
        if value not in allowed[name]:
            raise InvalidParameterValue(name, value)
        found[name] = allowed[name][value]
    return _Parameters(**found)


def _smaller(one: int | None, other: int | None) -> int | None:
    """Return the smaller of two limits, of which there may be one or none."""
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def _check_bits(name: str, bits: int, allowed: range) -> None:
    if isinstance(bits, bool) or bits not in allowed:
        raise ValueError(f"{name} must be between {allowed[0]} and {allowed[-1]}")


def _check_settings(compress_settings: dict[str, Any] | None, instead: str) -> None:
    """Check that compressors can be made when they are needed.

    Raises:
        ValueError, TypeError: with the complaint of zlib.
    """
    if compress_settings:
        if "wbits" in compress_settings:
            raise ValueError(f"compress_settings must not include wbits, set {instead} instead")
        zlib.compressobj(wbits=-COMPRESSED_BITS[0], **compress_settings)


def _check_first(accepted_extensions: Sequence[Extension], verb: str) -> None:
    """Check that permessage-deflate is not accepted already: a message is compressed once."""
    if any(extension.name == _NAME for extension in accepted_extensions):
        raise NegotiationError(f"{verb} duplicate {_NAME}")


# Client


class ClientPerMessageDeflateFactory(ClientExtensionFactory):
    """Offers permessage-deflate (RFC 7692, 7.1).

    Args:
        server_no_context_takeover: require the server to compress each message by itself.
        client_no_context_takeover: compress each message by itself.
        server_max_window_bits: require of the server a window of at most so many bits, from 8 to 15; None for no limit.
        client_max_window_bits: compress with a window of so many bits, from 9 to 15; True to let the server choose;
            None to use 15 and not let it.
        compress_settings: more keyword arguments of :func:`zlib.compressobj`, ``wbits`` excluded.

    Raises:
        ValueError, TypeError: if they are out of range, or zlib does not know the settings.
    """

    name = _NAME

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = True,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        if server_max_window_bits is not None:
            _check_bits("server_max_window_bits", server_max_window_bits, DECOMPRESSED_BITS)
        if client_max_window_bits is not None and client_max_window_bits is not True:
            _check_bits("client_max_window_bits", client_max_window_bits, COMPRESSED_BITS)
        _check_settings(compress_settings, "client_max_window_bits")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer."""
        return _Parameters(
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.server_max_window_bits,
            self.client_max_window_bits,
        ).write()

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> PerMessageDeflate:
        """Check the server's answer, and make the extension.

        Args:
            params: what the server answered.
            accepted_extensions: extensions accepted before this one.

        Raises:
            NegotiationError: if it is no answer to the offer.
        """
        _check_first(accepted_extensions, "received")
        answer = _read(params, _IN_ANSWER)
        return PerMessageDeflate(
            self._server_takeover(answer.server_no_context_takeover),
            self.client_no_context_takeover or answer.client_no_context_takeover,
            self._server_bits(answer.server_max_window_bits) or MAX_BITS,
            self._client_bits(answer.client_max_window_bits) or MAX_BITS,
            self.compress_settings,
        )

    def _server_takeover(self, answer: bool) -> bool:
        """Check that the server confirms what the client requires (RFC 7692, 7.1.1.1)."""
        if self.server_no_context_takeover and not answer:
            raise NegotiationError("expected server_no_context_takeover")
        return answer

    def _server_bits(self, answer: int | None) -> int | None:
        """Check the server's window, likewise (RFC 7692, 7.1.2.1)."""
        if self.server_max_window_bits is not None:
            if answer is None:
                raise NegotiationError("expected server_max_window_bits")
            if answer > self.server_max_window_bits:
                raise NegotiationError("unsupported server_max_window_bits")
        return answer

    def _client_bits(self, answer: int | None) -> int | None:
        """Return the client's window, no larger than was offered, if it was (RFC 7692, 7.1.2.2)."""
        offered = self.client_max_window_bits
        if offered is None and answer is not None:
            raise NegotiationError("unexpected client_max_window_bits")
        if offered is not None and offered is not True and answer is not None and answer > offered:
            raise NegotiationError("unsupported client_max_window_bits")
        if answer is not None and answer not in COMPRESSED_BITS:
            raise NegotiationError(f"unsupported client_max_window_bits = {answer}, use {COMPRESSED_BITS[0]}")
        return answer if offered is True else _smaller(answer, offered)


def enable_client_permessage_deflate(
    extensions: Sequence[ClientExtensionFactory] | None,
) -> Sequence[ClientExtensionFactory]:
    """Return the extensions with permessage-deflate, offered with default settings, unless it is among them."""
    extensions = extensions or []
    if any(factory.name == _NAME for factory in extensions):
        return extensions
    return [*extensions, ClientPerMessageDeflateFactory(compress_settings=DEFAULT_SETTINGS)]


# Server


class ServerPerMessageDeflateFactory(ServerExtensionFactory):
    """Accepts permessage-deflate (RFC 7692, 7.1).

    Args:
        server_no_context_takeover: compress each message by itself.
        client_no_context_takeover: require the client to.
        server_max_window_bits: compress with a window of at most so many bits, from 9 to 15; None for 15.
        client_max_window_bits: require of the client a window of at most so many bits, from 8 to 15, if it supports
            that; None for no limit.
        compress_settings: more keyword arguments of :func:`zlib.compressobj`, ``wbits`` excluded.
        require_client_max_window_bits: decline an offer of a client that does not support ``client_max_window_bits``.

    Raises:
        ValueError, TypeError: if they are out of range or contradict each other, or zlib does not know the settings.
    """

    name = _NAME

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: dict[str, Any] | None = None,
        require_client_max_window_bits: bool = False,
    ) -> None:
        if server_max_window_bits is not None:
            _check_bits("server_max_window_bits", server_max_window_bits, COMPRESSED_BITS)
        if client_max_window_bits is not None:
            _check_bits("client_max_window_bits", client_max_window_bits, DECOMPRESSED_BITS)
        elif require_client_max_window_bits:
            raise ValueError("require_client_max_window_bits needs client_max_window_bits, which isn't configured")
        _check_settings(compress_settings, "server_max_window_bits")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings
        self.require_client_max_window_bits = require_client_max_window_bits

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Check one offer of the client's, and make the answer and the extension.

        Of each parameter the stricter of the offer and of what is configured is answered.

        Args:
            params: what the client offers.
            accepted_extensions: extensions accepted before this one.

        Returns:
            The parameters to answer with, and the extension.

        Raises:
            NegotiationError: if the offer is not acceptable; the client's next one is tried.
        """
        _check_first(accepted_extensions, "skipped")
        offer = _read(params, _IN_OFFER)
        answer = _Parameters(
            self.server_no_context_takeover or offer.server_no_context_takeover,
            self.client_no_context_takeover or offer.client_no_context_takeover,
            self._server_bits(offer.server_max_window_bits),
            self._client_bits(offer.client_max_window_bits),
        )
        extension = PerMessageDeflate(
            answer.client_no_context_takeover,
            answer.server_no_context_takeover,
            answer.client_max_window_bits or MAX_BITS,
            answer.server_max_window_bits or MAX_BITS,
            self.compress_settings,
        )
        return answer.write(), extension

    def _server_bits(self, offer: int | None) -> int | None:
        """Return the server's window, no larger than the client requires (RFC 7692, 7.1.2.1)."""
        bits = _smaller(offer, self.server_max_window_bits)
        if bits is not None and bits not in COMPRESSED_BITS:
            raise NegotiationError(f"unsupported server_max_window_bits = {bits}, use {COMPRESSED_BITS[0]}")
        return bits

    def _client_bits(self, offer: int | Literal[True] | None) -> int | None:
        """Return the client's window, if the client offers to limit it (RFC 7692, 7.1.2.2)."""
        if offer is None:
            if self.require_client_max_window_bits:
                raise NegotiationError("required client_max_window_bits")
            return None
        return self.client_max_window_bits if offer is True else _smaller(offer, self.client_max_window_bits)


def enable_server_permessage_deflate(
    extensions: Sequence[ServerExtensionFactory] | None,
) -> Sequence[ServerExtensionFactory]:
    """Return the extensions with permessage-deflate, accepted with default settings, unless it is among them."""
    extensions = extensions or []
    if any(factory.name == _NAME for factory in extensions):
        return extensions
    return [
        *extensions,
        ServerPerMessageDeflateFactory(
            server_max_window_bits=DEFAULT_BITS,
            client_max_window_bits=DEFAULT_BITS,
            compress_settings=DEFAULT_SETTINGS,
        ),
    ]
