"""Which functions of the package are entered: Python's by their frames, native ones where Python calls them.

    with Rooms() as rooms: ...              in this thread
    python -m tests.support.rooms FILE FUNCTIONS serve ...
                                            in the processes of a daemon, in each from the first call of one of
                                            FUNCTIONS (separated by commas) on: a line of FILE is a file and a function

What must not live here: which functions are to be entered (tests/test_architecture.py).
"""

from __future__ import annotations

import inspect
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.harness import ROOT

SOURCE = str(ROOT / "src" / "tidegate") + os.sep


class Rooms:
    """The functions, each as its file's path in the package and its name, in the order of their first calls.

    Parameters:
        on_new: called with each.
    """

    def __init__(self, on_new: Callable[[str, str], object] = lambda room, name: None) -> None:
        self.functions: dict[tuple[str, str], None] = {}
        self._on_new = on_new

    def __enter__(self) -> Rooms:
        sys.setprofile(self.see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    @property
    def entered(self) -> list[str]:
        """The files, in the order in which they are entered first."""
        return list(dict.fromkeys(room for room, _ in self.functions))

    def see(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note where a call leads to."""
        if event == "call":
            code = frame.f_code
            if code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(SOURCE):  # no module, no class
                self._note(code.co_filename.removeprefix(SOURCE), code.co_name)
        elif event == "c_call":
            for kind in type(getattr(argument, "__self__", None)).__mro__:
                if argument.__name__ in vars(kind):
                    if kind.__module__.startswith("tidegate._core."):
                        self._note(native(kind), argument.__name__)
                    return

    def _note(self, room: str, name: str) -> None:
        if (room, name) not in self.functions:
            self.functions[room, name] = None
            self._on_new(room, name)


def native(kind: type) -> str:
    """The file of a native class."""
    return kind.__module__.removeprefix("tidegate.").replace(".", os.sep) + ".pyx"


def watch(path: Path, first: list[str]) -> None:
    """Write what this process, and those forked from it, enter."""
    output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    rooms = Rooms(lambda room, name: os.write(output, f"{room} {name}\n".encode()))

    def wait(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_qualname in first and code.co_filename.startswith(SOURCE):
            sys.setprofile(rooms.see)
            rooms.see(frame, event, argument)

    sys.setprofile(wait)


if __name__ == "__main__":
    _, where, functions, *sys.argv[1:] = sys.argv
    watch(Path(where), functions.split(","))
    runpy.run_module("tidegate", run_name="__main__", alter_sys=True)
