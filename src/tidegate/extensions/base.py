"""Interfaces of an extension and of the factories that negotiate it (RFC 6455, 9).

No code; the negotiation that calls them is in ``server``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..frames import Frame
from ..typing import ExtensionName, ExtensionParameter

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]


class Extension:
    """An extension in use on one connection: it sees each frame that comes in and each that goes out."""

    __slots__ = ()

    name: ExtensionName
    """Name under which it is negotiated."""

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Undo on a received frame what :meth:`encode` did to it.

        Args:
            frame: as received, unmasked.
            max_size: limit on the bytes of the result; None for no limit.

        Raises:
            PayloadTooBig: if the result would be larger than ``max_size``.
            ProtocolError: if the frame is not what the other side may send with this extension.
        """
        raise NotImplementedError

    def encode(self, frame: Frame) -> Frame:
        """Transform a frame before it is sent."""
        raise NotImplementedError


class ClientExtensionFactory:
    """Offers an extension from the side of the client."""

    name: ExtensionName
    """Name under which it is offered."""

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to send with the offer."""
        raise NotImplementedError

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> Extension:
        """Check the parameters with which the server accepted, and make the extension.

        Args:
            params: what the server answered.
            accepted_extensions: extensions accepted before this one.

        Raises:
            NegotiationError: if the parameters are not acceptable.
        """
        raise NotImplementedError


class ServerExtensionFactory:
    """Accepts an extension on the side of the server."""

    name: ExtensionName
    """Name under which it is accepted."""

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[list[ExtensionParameter], Extension]:
        """Check the parameters that the client offers, and make the extension.

        Args:
            params: what the client offers.
            accepted_extensions: extensions accepted before this one.

        Returns:
            The parameters to answer with, and the extension.

        Raises:
            NegotiationError: if the offer is not acceptable; the next one is tried.
        """
        raise NotImplementedError
