"""Texts from outside: what becomes of their characters and of their length, and which name was meant.

What must not live here: the messages in which they stand.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.text import escape, escape_controls, nearest, shorten


def test_escape() -> None:
    """Control characters, and those that change how a line is shown, are escaped."""
    assert escape("a b\u00e9\u4e2d") == "a b\u00e9\u4e2d"
    assert escape("\r\n\t\0\x7f\x9b\u2028\u202e\ud800\u00a0") == r"\r\n\t\x00\x7f\x9b\u2028\u202e\ud800\xa0"
    assert escape("a\n\tb", "\n\t") == "a\n\tb"


def test_escape_controls() -> None:
    """Only what a terminal obeys is escaped: joiners and spaces of other scripts are part of a message."""
    assert escape_controls("\x1b[2J\0\r\x7f\x9b") == r"\x1b[2J\x00\x0d\x7f\x9b"
    assert escape_controls("grüße\x85") == "grüße\\x85"
    assert escape_controls("a\n\tb\u00a0\u3000\u200d\u00e9") == "a\n\tb\u00a0\u3000\u200d\u00e9"


@given(st.text())
def test_nothing_escaped_reaches_a_terminal(text: str) -> None:
    assert escape(text).isprintable()
    assert not set(escape_controls(text)) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))


def test_shorten() -> None:
    """A long text keeps both ends, a short one all of it."""
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 4) == "ab [3 characters are left out] fg"
    short = shorten("first" + "x" * 10_000_000 + "last")
    assert (short[:5], short[-4:]) == ("first", "last")
    assert "[9983625 characters are left out]" in short


@pytest.mark.parametrize(("name", "expected"), [("relaod", "reload"), ("stop", "stop"), ("zebra", "")])
def test_nearest(name: str, expected: str) -> None:
    """The most similar name, and none where there is no similar one."""
    assert nearest(name, ["reload", "status", "stop"]) == expected
