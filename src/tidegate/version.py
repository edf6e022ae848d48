"""The version of the package, as a plain literal.

setuptools reads it without importing the package, so nothing may be imported or computed here.
"""

from __future__ import annotations

__all__ = ["version"]

version = "0.1.0"
