"""Extensions of the protocol (RFC 6455, 9): what one must offer is in ``base``, one module for each that exists."""

from __future__ import annotations

from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]
