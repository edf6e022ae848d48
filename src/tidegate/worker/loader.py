"""The application, from ``MODULE:ATTRIBUTE``: an `App`, or what becomes one.

That is a handler, a map of handlers, or an ASGI application. With parentheses
behind it the attribute is a function that makes the application.

New users meet these errors first, so each names the module, the attribute, what was found there and what would be
right.

What must not live here: the checks of a handler (app.py), serving.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from ..app import App, is_asgi, is_map
from ..process import streams
from ..text import nearest, shorten
from .fresh import refresh

__all__ = ["LoadError", "load", "trace_of"]


class LoadError(Exception):
    """An application that could not be loaded.

    Attributes:
        target: ``MODULE:ATTRIBUTE``.
        problem: what was wrong, and what would be right; a traceback, if any, on lines of its own.
    """

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(target, problem)
        self.target, self.problem = target, problem

    def __str__(self) -> str:
        return f"the application {self.target} could not be loaded: {self.problem}"


def load(target: str) -> App:
    """Import the module, with the current directory importable, and make an App of its attribute.

    Raises:
        LoadError: there is no such module or attribute, importing the module raised, or it is not an application.
    """
    module_name, _, attribute = target.partition(":")
    with contextlib.suppress(OSError):  # the current directory has been removed: there may be other places
        if (directory := os.getcwd()) not in sys.path:
            sys.path.insert(0, directory)
    refresh()
    pid = os.getpid()
    try:
        found = _attribute(target, _import(target, module_name), attribute.removesuffix("()"))
        if attribute.endswith("()"):
            found = _made(target, attribute, found)
        app = found if isinstance(found, App) else App(found)
        if app.asgi is not None and importlib.util.find_spec("uvicorn") is None:
            raise LoadError(target, "an ASGI application needs uvicorn for HTTP: pip install 'tidegate[asgi]'")
        return app
    except TypeError as error:
        raise LoadError(target, f"{attribute} is not an application: {error}") from None
    except LoadError:
        raise
    except BaseException as error:  # an object may raise at any access
        if os.getpid() != pid:
            raise
        raise LoadError(target, f"{attribute} is not an application\n{trace_of(error)}") from None


def _import(target: str, name: str) -> ModuleType:
    pid = os.getpid()
    try:
        module = importlib.import_module(name)
    except BaseException as error:  # SystemExit too: it must be reported
        if os.getpid() != pid:
            raise  # in a child that the module has forked
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise LoadError(target, _no_module(error.name)) from None
        raise LoadError(target, _failure(name, error)) from None
    if os.getpid() != pid:
        streams.flush()
        os._exit(0)  # a child that the module has forked has come to the end of the module
    return module


def _made(target: str, attribute: str, factory: Any) -> Any:
    """Call a function that makes the application."""
    if not callable(factory):
        raise LoadError(target, f"{attribute.removesuffix('()')} cannot be called: leave the parentheses out")
    pid = os.getpid()
    try:
        made = factory()
    except BaseException as error:  # SystemExit too: it must be reported
        if os.getpid() != pid:
            raise
        raise LoadError(target, f"calling {attribute} failed\n{trace_of(error)}") from None
    if inspect.iscoroutine(made):
        made.close()
        raise LoadError(target, f"{attribute} must return the application, and is a coroutine function")
    return made


def _no_module(name: str) -> str:
    """Return what is wrong when a module does not exist."""
    parent, _, last = name.rpartition(".")
    if parent:
        return f"the package {parent} has no module {last}"
    try:
        directory = os.getcwd()
    except OSError:
        return f"there is no module {name} where Python looks for modules, and {_gone()} has been removed"
    modules = {path.stem for path in Path(directory).glob("*.py")}
    modules |= {path.parent.name for path in Path(directory).glob("*/__init__.py")}
    return f"there is no module {name} in {directory} or where Python looks for modules{_hint(last, modules)}"


def _gone() -> str:
    """Return the name of a current directory that has been removed."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    return "the current directory"


def _hint(name: str, names: set[str]) -> str:
    near = nearest(name, names)
    return f"; did you mean {near}?" if near else ""


def _failure(name: str, error: BaseException) -> str:
    hint = ""
    if isinstance(error, SystemExit):
        hint = ": it ended the process; what runs a program belongs under `if __name__ == '__main__':`"
    return f"importing {name} failed{hint}\n{trace_of(error)}"


# Code that calls the application's own; its lines of a traceback do not help.
_OURS = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen importlib", contextlib.__file__)


def trace_of(error: BaseException) -> str:
    """Return the traceback of an application's error, from its own first line on; of a very long one both ends."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return shorten("".join(traceback.format_exception(type(error), error, trace)).rstrip())


def _attribute(target: str, module: ModuleType, path: str) -> Any:
    found: Any = module
    where = f"the module {module.__name__}"
    for name in path.split("."):
        if not hasattr(found, name):
            raise LoadError(target, f"{where} has no attribute {name}{_candidates(found, name)}")
        found = getattr(found, name)
        where = f"the {type(found).__qualname__} {name}"
    return found


def _candidates(where: Any, name: str) -> str:
    """Return what may have been meant: a similar name, or what looks like an application."""
    names = {key for key in vars(where) if not key.startswith("_")} if hasattr(where, "__dict__") else set()
    if hint := _hint(name, names):
        return hint
    module = getattr(where, "__name__", None)
    handlers = [key for key in sorted(names) if _may_be_meant(vars(where)[key], module)]
    if handlers:
        return f"; it has {', '.join(handlers)}"
    return "; it should have an `async def handler(websocket)`, a `tidegate.App` or an ASGI application"


def _may_be_meant(value: Any, module: str | None) -> bool:
    """Return whether a value looks like an application; a handler must be of this module."""

    if isinstance(value, App) or is_map(value):
        return True
    if is_asgi(value) and not inspect.isfunction(value):
        return True
    if not callable(value) or getattr(value, "__module__", None) != module:
        return False
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)
