"""Daemons that another user runs, or becomes, where interpreters and checkouts are closed to others.

What must not live here: test cases.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from tests.support.harness import ROOT, Daemon

# Puts what is below a closed directory, such as root's home, into an open one of that name, for this process alone.
OPEN = """
set -e
closed=$1 behind=$(mktemp -d); shift
mount --make-rprivate /
mount --bind "$closed" "$behind"
mount -t tmpfs -o mode=755 tmpfs "$closed"
while [ "$1" != -- ]; do mkdir -p "$closed/$1"; mount --bind "$behind/$1" "$closed/$1"; shift; done
shift
exec "$@"
"""


def opened(daemon: Daemon) -> Daemon:
    """The same, with an interpreter that nobody may read, also where that is in root's home."""
    needed = [sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), str(ROOT)]
    closed = [
        (parent, Path(path).relative_to(parent).parts[0])
        for path in needed
        for parent in reversed(Path(path).parents)
        if not parent.stat().st_mode & stat.S_IXOTH
    ]
    if closed:
        (folder,) = {parent for parent, _ in closed}  # of several, one inside the other, this would not do
        names = sorted({name for _, name in closed})
        daemon.command = ["unshare", "-m", "sh", "-c", OPEN, "sh", str(folder), *names, "--", *daemon.command]
    return daemon
