"""The scenarios: importing this fills the table of all.

What must not live here: anything that knows which library it runs on.
"""

from __future__ import annotations

from types import ModuleType

from . import clients, closing, handshakes, hooks, messages, servers, timeouts

MODULES: tuple[ModuleType, ...] = (handshakes, hooks, messages, closing, clients, servers, timeouts)
