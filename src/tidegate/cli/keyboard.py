"""The keys that are pressed at a terminal, one by one, while something is shown on it.

What must not live here: what they do (the command's), lines that are edited (connect.py).
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
    """The keys that make a terminal send `text`: characters, and the names of those that have none but that we know."""
    for found in _key.findall(text):
        name = _NAMES.get(found, found)
        if len(name) == 1 or name is not found:
            yield name


class Keyboard:
    """A terminal's keys, unseen and without waiting for the end of a line, as a context manager within an event loop.

    Ctrl-C and Ctrl-Z are no keys: they send their signals.

    Parameters:
        descriptor: of the terminal.
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
        with suppress(termios.error):  # there is no terminal any more
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
