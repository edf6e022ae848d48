"""Commands with pipes, for tests in an event loop.

What must not live here: commands at a terminal (terminal.py), commands within this process (asked.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

LINE = 2**24  # bytes of a line of output, at most


@contextlib.asynccontextmanager
async def piped(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running command, which is killed if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        limit=LINE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
