"""Where State and Side were found in older programs. What must not live here: connections (tests/asyncio)."""

from __future__ import annotations

import pytest

import tidegate.connection
import tidegate.protocol


def test_older_import() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"tidegate\.connection\.State is deprecated: use tidegate\.protocol\.State"
    ):
        from tidegate.connection import State
    assert State is tidegate.protocol.State


def test_all_that_is_here_can_be_seen() -> None:
    assert {"Side", "State"} < set(dir(tidegate.connection))
    with pytest.raises(ImportError):
        from tidegate.connection import nothing  # noqa: F401
    with pytest.raises(AttributeError, match="the protocol is part of"):
        tidegate.connection.Connection  # noqa: B018
