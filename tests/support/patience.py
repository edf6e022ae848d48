"""How long a test waits, in one place: what must happen has PATIENCE seconds, on a machine five times slower too.

TIDEGATE_TEST_SLOWNESS=10 makes every limit ten times as long, for an emulator, say, or a machine that is slower still.
What must not live here: waiting itself (tests/support/harness.py).
"""

from __future__ import annotations

import os
import re

SLOWNESS = float(os.environ.get("TIDEGATE_TEST_SLOWNESS", "1"))

# Seconds for one thing that must happen. It costs nothing where it happens, so it is never too long.
PATIENCE = 60.0 * SLOWNESS

# Seconds for a whole program that does real work: a build, an installation, a suite of others.
LONG = 1800.0 * SLOWNESS

_slow = re.compile(r"^Executing <.*> took \d+\.\d+ seconds\n", re.MULTILINE)


def complaints(errors: str) -> str:
    """Standard error, but for what asyncio's debug mode says of a machine that is slow: no mistake of a program."""
    return _slow.sub("", errors)
