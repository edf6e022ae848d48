"""Single keys pressed at a terminal, without echo and without waiting for a line.

What must not live here: what a key does (its command), the editing of lines (connect.py).
"""

from __future__ import annotations

import asyncio
import os
import re
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

__all__ = ["Keyboard", "keys"]

# A key is a character, or what the terminal sends for a key that has none (ECMA-48 5.4, and SS3 of keypads).
_key = re.compile(r"\x1b[\[O][0-?]*[ -/]*[@-~]|.", re.DOTALL)
_NAMES = {
    **{"\x1b[A": "up", "\x1b[B": "down", "\x1b[H": "home", "\x1b[F": "end"},
    **{"\x1bOA": "up", "\x1bOB": "down", "\x1bOH": "home", "\x1bOF": "end"},
    **{"\x1b[1~": "home", "\x1b[4~": "end", "\x1b[5~": "page up", "\x1b[6~": "page down"},
}


def keys(text: str) -> Iterator[str]:
    """Yield the keys that make a terminal send `text`: characters, and the names of known keys that have none."""
    for found in _key.findall(text):
        name = _NAMES.get(found, found)
        if len(name) == 1 or name is not found:
            yield name


class Keyboard:
    """A context manager that reads single keys of a terminal in the event loop, without echo.

    Ctrl-C and Ctrl-Z still send their signals.

    Parameters:
        descriptor: the terminal's file descriptor.
        pressed: called with each key, see `keys`.
    """

    def __init__(self, descriptor: int, pressed: Callable[[str], object]) -> None:
        self._descriptor, self._pressed = descriptor, pressed
        self._before: list[Any]

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1024)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        for key in keys(data.decode(errors="ignore")):
            self._pressed(key)
