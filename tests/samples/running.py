"""Runs the programs of this folder as their users would: as programs, of which only the import is changed.

What must not live here: test cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from tests.support.patience import PATIENCE, complaints

PROGRAMS = Path(__file__).parent / "programs"
_import = re.compile(r"^(import|from) websockets\b", re.MULTILINE)


def source_of(program: str, library: str) -> str:
    """The source of a program, for another library than the one that it names."""
    source = (PROGRAMS / f"{program}.py").read_text(encoding="utf-8")
    if library == "websockets":
        return source
    changed = _import.sub(rf"\1 {library}", source).replace(f"import {library}\n", f"import {library} as websockets\n")
    assert changed != source
    return changed


class Program:
    """A program that runs; `output` and `errors` are known at its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.errors = ""

    async def end(self, given: str | None = None) -> int | None:
        """Give it its input, if there is any, and wait for its end; return the status."""
        async with asyncio.timeout(PATIENCE):
            output, errors = await self.process.communicate(None if given is None else given.encode())
        self.output += output.decode()
        self.errors += complaints(errors.decode())
        return self.process.returncode

    async def stop(self) -> int | None:
        """Stop it by SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.end()


async def start(program: str, *arguments: str, library: str = "tidegate", folder: Path) -> Program:
    """Start a program. Every warning is an error of today's, and is shown of the older."""
    file = folder / f"{program}.py"
    file.write_text(source_of(program, library), encoding="utf-8")
    warnings = "always" if program.startswith("older") or library == "websockets" else "error"
    command = [sys.executable, "-X", "dev", "-W", warnings, str(file), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    return Program(process)


@contextlib.asynccontextmanager
async def running(
    program: str, address: int | str, *arguments: str, library: str = "tidegate", folder: Path
) -> AsyncIterator[Program]:
    """Run a server, from when it listens on its port, or at its path, until the block ends."""
    found = await start(program, str(address), *arguments, library=library, folder=folder)
    try:
        async with asyncio.timeout(PATIENCE):
            while not _listens(found.process.pid, address):
                assert found.process.returncode is None, (await found.process.communicate())[1].decode()
                await asyncio.sleep(0.02)
        yield found
    finally:
        if found.process.returncode is None:
            await found.stop()


ACCEPTS = 0x10000
"""The flag of a Unix socket that listens, in /proc/net/unix; one that is bound does not yet."""


def _listens(pid: int, address: int | str) -> bool:
    """Whether a process listens, without a word to it, which it might complain of."""
    if isinstance(address, str):
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return any(row[-1] == address and int(row[3], 16) & ACCEPTS for row in rows)
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == address
        for connection in psutil.Process(pid).net_connections("tcp")
    )
