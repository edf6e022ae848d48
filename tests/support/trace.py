"""Which functions of the package are entered: Python's by their frames, native ones where Python calls them.

    with Trace() as trace: ...              in this thread
    python -m tests.support.trace FILE FUNCTIONS serve ...
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
CORE = "tidegate._core."


class Trace:
    """The functions that are called, each as its file's path in the package and its name, in the order of first calls.

    Parameters:
        on_new: called with each.
    """

    def __init__(self, on_new: Callable[[str, str], object] = lambda file, name: None) -> None:
        self.functions: dict[tuple[str, str], None] = {}
        self._on_new = on_new

    def __enter__(self) -> Trace:
        sys.setprofile(self.see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    @property
    def files(self) -> list[str]:
        """The files, in the order in which they are entered first."""
        return list(dict.fromkeys(file for file, _ in self.functions))

    def see(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note where a call leads to."""
        if event == "call":
            code = frame.f_code
            if code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(SOURCE):  # no module, no class
                self._note(code.co_filename.removeprefix(SOURCE), code.co_name)
        elif event == "c_call":
            if module_of(argument).startswith(CORE) and argument.__self__ is None:  # no method
                self._note(file_of(argument.__module__), argument.__name__)
                return
            for kind in type(getattr(argument, "__self__", None)).__mro__:
                if argument.__name__ in vars(kind):
                    if kind.__module__.startswith(CORE):
                        self._note(native(kind), argument.__name__)
                    return

    def _note(self, file: str, name: str) -> None:
        if (file, name) not in self.functions:
            self.functions[file, name] = None
            self._on_new(file, name)


def native(kind: type) -> str:
    """The file of a native class."""
    return file_of(kind.__module__)


def module_of(function: Any) -> str:
    return getattr(function, "__module__", None) or ""


def file_of(module: str) -> str:
    """The file of a native module."""
    return module.removeprefix("tidegate.").replace(".", os.sep) + ".pyx"


def watch(path: Path, first: list[str]) -> None:
    """Write what this process, and those forked from it, enter."""
    output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    trace = Trace(lambda file, name: os.write(output, f"{file} {name}\n".encode()))

    def wait(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_qualname in first and code.co_filename.startswith(SOURCE):
            sys.setprofile(trace.see)
            trace.see(frame, event, argument)

    sys.setprofile(wait)


if __name__ == "__main__":
    _, where, functions, *sys.argv[1:] = sys.argv
    watch(Path(where), functions.split(","))
    runpy.run_module("tidegate", run_name="__main__", alter_sys=True)
