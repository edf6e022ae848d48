"""Programs whose libraries import `websockets`, on tidegate: ``python -m tidegate.as_websockets PROGRAM``.

    install    have `import websockets` give tidegate, from now on; for the first line of a program
    main       run a program so

The modules of that name are ours, one by one, so that exceptions which a library catches are the ones that are raised
here. What tidegate does not have cannot be imported, even where the library itself is installed: classes of both in one
program would not know each other. What must not live here: older forms of the API (_compat.py).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import os
import runpy
import sys
import types
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["RELEASE", "install", "main"]

NAME: Final = "websockets"

RELEASE: Final = "17.4"
"""The release of `websockets` whose API this is: `websockets.__version__`, for libraries that look at it."""

SAME: Final = (
    *("asyncio", "asyncio.client", "asyncio.connection", "asyncio.router", "asyncio.server", "client", "connection"),
    *("datastructures", "exceptions", "extensions", "extensions.base", "extensions.permessage_deflate", "frames"),
    *("headers", "http11", "protocol", "proxy", "server", "typing", "uri"),
)
"""Modules that are ours under their own names."""

MODULES: Final = {name: name for name in SAME} | {
    "legacy": "",
    "legacy.client": "client",
    "legacy.exceptions": "exceptions",
    "legacy.protocol": "protocol",
    "legacy.server": "server",
}
"""Modules of `websockets`, and ours for each. Older names are found in ours, too, with a warning."""

WHY_NOT: Final = {"sync": ": its connections are for threads", "trio": ": it needs asyncio"}


class _Root(types.ModuleType):
    """`websockets` itself: all names of `tidegate`, with another version."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("tidegate"), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module("tidegate"))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds no module of `websockets`: those that there are have been imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        top, _, rest = name.partition(".")
        if top == NAME:
            why = WHY_NOT.get(rest.partition(".")[0], "")
            raise ModuleNotFoundError(f"tidegate, which is imported as {NAME}, has no {name}{why}", name=name)


def install() -> None:
    """Have `import websockets` give tidegate from now on; to do it again does nothing.

    Raises:
        RuntimeError: `websockets` has been imported already, and would go on being used where it was.
    """
    present = sys.modules.get(NAME)
    if isinstance(present, _Root):
        return
    if present is not None:
        raise RuntimeError(f"{NAME} is imported already: call tidegate.as_websockets.install() before that")
    root = _Root(NAME, "The API of `websockets`, by tidegate.")
    root.__path__ = []
    root.__all__ = importlib.import_module("tidegate").__all__  # type: ignore[attr-defined]
    version = types.ModuleType(f"{NAME}.version")
    root.__version__ = version.version = RELEASE  # type: ignore[attr-defined]
    sys.modules[NAME] = root
    _add(root, "version", version)
    for name, ours in MODULES.items():
        _add(root, name, importlib.import_module(f"tidegate.{ours}" if ours else "tidegate"))
    sys.meta_path.insert(0, _Finder())


def _add(root: types.ModuleType, name: str, module: types.ModuleType) -> None:
    sys.modules[f"{NAME}.{name}"] = module
    if "." not in name:
        setattr(root, name, module)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a program: a file, or a module with -m; its arguments follow.

    Args:
        arguments: of the command line; those of the process by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tidegate.as_websockets", description=f"Run a program for which `import {NAME}` gives tidegate."
    )
    parser.add_argument("-m", action="store_true", dest="module", help="PROGRAM is a module, not a file")
    parser.add_argument("program", metavar="PROGRAM")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    install()
    sys.argv = [options.program, *options.arguments]
    if options.module:
        runpy.run_module(options.program, run_name="__main__", alter_sys=True)
        return
    if not os.path.isfile(options.program):
        parser.error(f"there is no file {options.program}; name a module with -m")
    sys.path[0] = os.path.dirname(os.path.abspath(options.program))
    runpy.run_path(options.program, run_name="__main__")


if __name__ == "__main__":
    # What programs import later is this module under its own name.
    importlib.import_module("tidegate.as_websockets").main()
