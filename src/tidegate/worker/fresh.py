"""Imports of the present source, whatever caches have.

    refresh    before an application is imported

An interpreter uses a module's cached bytecode if the source has the size and the time that were noted with it, in whole
seconds: two edits of the same size in one second look like one. And it remembers missing folders, and the content of
others, by their time.

What must not live here: what is imported (loader.py).
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)

__all__ = ["refresh"]

# Seconds after a source's last change within which its bytecode may be of an earlier one: those of the resolution, and
# as long as it may take to compile it.
DOUBTFUL = 2.0
TIMED = b"\0\0\0\0"  # the flags of bytecode that is valid by time and size, and not by a hash


class Loader(SourceFileLoader):
    """The interpreter's own, except that it ignores bytecode that was cached in the moment of an edit."""

    def get_data(self, path: str) -> bytes:
        """Return the content of a file of the module: its source, or its bytecode."""
        data = super().get_data(path)
        if path.endswith(tuple(BYTECODE_SUFFIXES)) and data[4:8] == TIMED:
            source, cached = os.stat(self.path).st_mtime, os.stat(path).st_mtime
            if cached < source + DOUBTFUL:
                raise FileNotFoundError(path)  # which makes the interpreter compile the source, and cache that
        return data


_hook = FileFinder.path_hook(
    (ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, SOURCE_SUFFIXES), (SourcelessFileLoader, BYTECODE_SUFFIXES)
)


def refresh() -> None:
    """Import modules from now on as they are on the disk now."""

    if _hook not in sys.path_hooks:
        sys.path_hooks.insert(0, _hook)
    sys.path_importer_cache.clear()
