"""Where servers were found in older programs. What must not live here: the server (tests/asyncio/test_server.py)."""

from __future__ import annotations

import pytest

import tidegate.asyncio.server
import tidegate.server


def test_older_import() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"tidegate\.server\.serve is deprecated: use tidegate\.asyncio\.server"
    ):
        from tidegate.server import serve
    assert serve is tidegate.asyncio.server.serve


def test_all_that_is_here_can_be_seen() -> None:
    assert {"serve", "unix_serve", "broadcast", "WebSocketServerProtocol"} < set(dir(tidegate.server))
    with pytest.raises(ImportError):
        from tidegate.server import nothing  # noqa: F401
