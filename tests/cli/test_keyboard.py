"""Keys at a real pseudo-terminal. What must not live here: what they do (test_top.py)."""

from __future__ import annotations

import asyncio
import os
import pty
import termios

import pytest

from tests.support.patience import PATIENCE
from tidegate.cli.keyboard import Keyboard, keys


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("qQ j", ["q", "Q", " ", "j"]),
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b[5~q\x1b[6~", ["page up", "q", "page down"]),
        ("\x1b[H\x1b[4~", ["home", "end"]),
        ("\x1b[1;5Dq", ["q"]),  # a key that we have no name for
        ("é\n", ["é", "\n"]),
    ],
)
def test_keys(text: str, found: list[str]) -> None:
    """Sequences of terminals become names of keys; unknown ones are dropped."""
    assert list(keys(text)) == found


async def test_keys_come_at_once_and_unseen() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    pressed: asyncio.Queue[str] = asyncio.Queue()
    with Keyboard(slave, pressed.put_nowait):
        os.write(master, b"q\x1b[B")
        async with asyncio.timeout(PATIENCE):
            assert [await pressed.get(), await pressed.get()] == ["q", "down"]
    assert termios.tcgetattr(slave) == before
    os.write(slave, b".")
    assert os.read(master, 100) == b"."  # and no echo of the keys before it
    os.close(master)
    os.close(slave)


async def test_the_terminal_goes_away() -> None:
    """It is not read again and again, and there is nothing to be restored."""
    master, slave = pty.openpty()
    with Keyboard(slave, print):
        os.close(master)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_reader(slave)
    os.close(slave)
