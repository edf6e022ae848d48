"""What a program may import from the documented library, it may import from this one under the same module's name.

What must not live here: signatures, and what the names do.
"""

from __future__ import annotations

import importlib

import pytest

from tidegate._compat import GONE

MODULES = (
    "asyncio.client asyncio.connection asyncio.router asyncio.server cli datastructures exceptions extensions"
    " extensions.base extensions.permessage_deflate frames headers http11 protocol proxy typing uri version"
)

# Name -> why it is not there.
MISSING = {
    **GONE,
    "SEND_EOF": "a signal of a protocol without I/O to its driver, which native code needs none of",
    "commit": "of its build",
    "tag": "of its build",
}


@pytest.mark.parametrize("module", ["", *MODULES.split()])
def test_names(module: str) -> None:
    """Every public name of a module of websockets is here, but for those listed as missing."""
    theirs = importlib.import_module(f"websockets.{module}".rstrip("."))
    ours = importlib.import_module(f"tidegate.{module}".rstrip("."))
    names = getattr(theirs, "__all__", ["version"])
    assert [name for name in names if name not in MISSING and not hasattr(ours, name)] == []
