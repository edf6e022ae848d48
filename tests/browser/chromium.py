"""Which Chromium the tests use, and how it is started.

What must not live here: fixtures (conftest.py), and what it shows (test_*.py).
"""

from __future__ import annotations

import os
import shutil

# No sandbox: it does not run as root. The others keep Chromium from looking for its maker's hosts on a closed network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PACKAGE = "Chromium (Debian's package `chromium`)"


def path() -> str | None:
    """TIDEGATE_CHROMIUM, or the Chromium on PATH, or None."""
    return os.environ.get("TIDEGATE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
