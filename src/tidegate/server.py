"""Where servers were found in older programs: `from tidegate.server import serve`. Nothing is defined here.

Today they are in `tidegate.asyncio.server`, or simply in `tidegate`.
"""

from __future__ import annotations

from typing import Any

from ._compat import NAMES, lookup


def __getattr__(name: str) -> Any:
    return lookup(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES[__name__]})
