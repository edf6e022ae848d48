"""A process whose standard error nobody reads, for test_stream.py.

What must not live here: tests.
"""

from __future__ import annotations

import sys

from tidegate.logs.stream import Output


def fill() -> None:
    """Write until there is no room, print how much went there, and wait for the end of the input."""
    output = Output()
    written = 0
    while more := output.write(b"x" * 1000):
        written += more
    assert output.fileno() != 2
    assert not output.wait(0)
    print(written)
    sys.stdout.flush()
    sys.stdin.read()
