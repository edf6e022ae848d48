"""A process that watches an application's files, and reports changes to its parent; see auto_reload.py.

    folders     where the application's modules are: the current directory, and its package if that is elsewhere
    concerns    whether a path is a file of the application
    holds       whether a folder has such files
    stamps      what changes with a file
    main        watch, until the parent has closed its end of standard input, which is a socket

What must not live here: what is done about a change (auto_reload.py).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import socket
import sys
from collections.abc import Iterable, Sequence

import msgspec

from .auto_reload import FileChanges, Task

__all__ = ["concerns", "folders", "holds", "main", "stamps"]

LOOK = 500  # milliseconds between two looks at single files, and at the parent
QUIET = 100  # milliseconds without another change, until changes are reported: an editor, or git, makes many at once
LONGEST = 1600  # milliseconds until they are reported in any case

# Folders that hold no application's own code, besides those that are hidden.
OTHERS = frozenset({"__pycache__", "node_modules", "site-packages"})


def folders(application: str) -> list[str]:
    """Return the folders of an application's modules, without those inside another one."""
    try:
        here = os.getcwd()
    except OSError:  # it has been removed
        return []
    found = [here]
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        spec = importlib.util.find_spec(application.partition(":")[0].partition(".")[0])
    except (ImportError, ValueError):
        spec = None  # as it is broken now, it may be anywhere
    if spec is not None:
        package = map(os.path.abspath, spec.submodule_search_locations or ())
        found += [folder for folder in package if os.path.commonpath([here, folder]) != here]
    return found


def concerns(watched: Iterable[str], path: str) -> bool:
    """Return whether a path is a Python file in one of these folders, and not of another package."""
    if not path.endswith(".py"):
        return False
    for folder in watched:
        parts = os.path.relpath(path, folder).split(os.sep)
        if parts[0] != os.pardir:
            return not any(part in OTHERS or part.startswith(".") for part in parts)
    return False


def holds(watched: Iterable[str], path: str) -> bool:
    """Return whether a new folder holds such files: those made before it was watched have no event."""
    return any(concerns(watched, os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def stamps(files: Sequence[str]) -> list[tuple[int, int, int] | None]:
    """Return, for each file, values that change when it is written to or replaced; None if it is missing."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def main(task: Task, parent: socket.socket) -> None:
    """Report changes to the parent until it has gone."""

    from watchfiles import Change, watch

    watched = folders(task.application)
    before = stamps(task.files)
    known = False
    for changes in watch(
        *watched,
        watch_filter=lambda change, path: concerns(watched, path) or (change is Change.added and holds(watched, path)),
        debounce=LONGEST,
        step=QUIET,
        rust_timeout=LOOK,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    ):
        if not known:
            known = True
            _send(parent, FileChanges(watches=watched))
        if select.select([parent], [], [], 0)[0]:
            return
        paths = {path for _, path in changes}
        now = stamps(task.files)
        paths |= {file for file, old, new in zip(task.files, before, now, strict=True) if old != new}
        before = now
        if paths:
            _send(parent, FileChanges(changed=sorted(map(os.path.relpath, paths))))


def _send(parent: socket.socket, said: FileChanges) -> None:
    parent.sendall(msgspec.json.encode(said) + b"\n")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError), socket.socket(fileno=0) as _parent:
        main(msgspec.json.decode(sys.argv[1], type=Task), _parent)
