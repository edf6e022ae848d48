"""Functions as programs: each runs in a process of its own, which imports its module and calls it.

    program(function, "argument")     the command; the function's arguments are strings
    run(function, "argument")         the program, run to its end

So what a test has another process do is code like any other: formatted, checked, with a name. A module of such
functions should import neither pytest nor a test module, which takes longer than most of them. What must not live
here: such functions; programs that are not of tests.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def program(function: Callable[..., Any], *arguments: str, python: Sequence[str] = ()) -> list[str]:
    """The command that calls a function of a module; `python` has options of the interpreter."""
    assert "<" not in function.__qualname__, f"{function.__qualname__} is within a function: nobody can import it"
    return [sys.executable, *python, "-m", __name__, function.__module__, function.__qualname__, *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables, with what it can import on the path, and more."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **(more or {})}


def run(
    function: Callable[..., Any],
    *arguments: str,
    python: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Call a function in a process of its own, and wait for its end; `options` are those of subprocess.run()."""
    return subprocess.run(
        program(function, *arguments, python=python),
        env=environment(env),
        timeout=timeout,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def main(module: str, name: str, *arguments: Any) -> Any:
    """Call the function; what it returns is the exit status, as sys.exit() takes it."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found(*arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
