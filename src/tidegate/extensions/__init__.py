"""Extensions of the protocol (RFC 6455, 9).

    base                  what an extension offers
    permessage_deflate    compression (RFC 7692)

What must not live here: frames on the wire, connections.
"""

from __future__ import annotations

from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]
