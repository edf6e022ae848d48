"""A process at a real pseudo-terminal, and the screen that somebody in front of it would see.

What must not live here: test cases.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Self

import pyte

from tests.support.patience import PATIENCE


class _Screen(pyte.Screen):
    """Answers what a program asks its terminal, such as where the cursor is."""

    def __init__(self, columns: int, lines: int, descriptor: int) -> None:
        super().__init__(columns, lines)
        self._descriptor = descriptor

    def write_process_input(self, data: str) -> None:
        os.write(self._descriptor, data.encode())


class Terminal:
    """`async with Terminal("connect", uri) as terminal`: the command line, at a terminal of 80 columns."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self._arguments = arguments
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen = _Screen(columns, lines, self._master)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Event()
        self.raw = b""
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._master, self._read)
        # A size in the environment would be believed, whatever that of the window is.
        size = {"COLUMNS", "LINES"}
        environment = {name: value for name, value in os.environ.items() if name not in size}
        environment |= {"TERM": "xterm", "LANG": "C.UTF-8"}
        self.before = termios.tcgetattr(self._slave)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tidegate", *self._arguments),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)

    def _read(self) -> None:
        data = os.read(self._master, 65536)
        self.raw += data
        self._stream.feed(data)
        self._changed.set()

    @property
    def shown(self) -> list[str]:
        """The lines of the screen, as far as there is something on it."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def cursor(self) -> tuple[int, int]:
        """Line and column of the cursor."""
        return self._screen.cursor.y, self._screen.cursor.x

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size, which the process is told."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def until(self, condition: Callable[[list[str]], Any]) -> list[str]:
        """Wait until the screen shows something; return its lines."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(self.shown):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the screen shows {self.shown}") from None
        return self.shown

    async def ended(self) -> int:
        """Wait for the end of the process; return its status."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    def is_as_before(self) -> bool:
        """Whether the terminal's modes (echo, line editing) are those from before the process."""
        return termios.tcgetattr(self._slave) == self.before
