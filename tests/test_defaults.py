"""Defaults that several have: the documentation's values, and the same wherever they are declared.

What must not live here: what they do.
"""

from __future__ import annotations

import inspect

from tidegate import defaults
from tidegate.asyncio.client import connect
from tidegate.asyncio.server import serve
from tidegate.config.schema import settings


def test_values() -> None:
    """Those of the documentation, and 16 MiB of broadcasts."""
    assert {name: getattr(defaults, name) for name in defaults.__all__} == {
        "BROADCAST_LIMIT": 16 * 1024 * 1024,
        "CLOSE_TIMEOUT": 10,
        "COMPRESSION": "deflate",
        "MAX_QUEUE": 16,
        "MAX_SIZE": 1024 * 1024,
        "OPEN_TIMEOUT": 10,
        "PING_INTERVAL": 20,
        "PING_TIMEOUT": 20,
        "WRITE_LIMIT": 32 * 1024,
    }


def test_server_client_and_daemon_have_the_same() -> None:
    server, client = inspect.signature(serve).parameters, inspect.signature(connect).parameters
    for constant in defaults.__all__:
        name, value = constant.lower(), getattr(defaults, constant)
        assert server[name].default == settings()[name].default == value
        if name in client:
            assert client[name].default == value
