"""Variables of the environment that are no settings of the daemon: names that several rooms use, and numbers.

    MULTIPROC_DIR        the folder in which processes of the application count
    runtime_directory    the folder that the service manager has made for the daemon
    number               a number from a variable, or its default

What must not live here: the daemon's settings (config/sources.py has those of the environment).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, TypeVar

__all__ = ["MULTIPROC_DIR", "number", "runtime_directory"]

MULTIPROC_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the folder."""

_Number = TypeVar("_Number", int, float)


def runtime_directory(environment: Mapping[str, str] = os.environ) -> str:
    """Return the first folder of RUNTIME_DIRECTORY, where systemd lists them like PATH's; empty if there is none."""
    return environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]


def number(name: str, default: _Number, *, positive: bool = False) -> _Number:
    """Read a number from the environment: an integer if the default is one, and never a negative one.

    Raises:
        ValueError: it is no such number; the text names the variable, and what it must be.
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    kind = type(default)
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not 0 <= value < float("inf") or (positive and not value):
        noun = "integer" if kind is int else "number"
        wanted = f"a positive {noun}" if positive else f"a{'n' if kind is int else ''} {noun} that is not negative"
        raise ValueError(f"environment variable {name} must be {wanted}, got {text!r}")
    return value
