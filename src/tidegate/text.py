"""Texts from outside in messages of ours: made safe for a terminal and a log, shortened; and the nearest right name.

    escape             every character that cannot be printed is written out
    escape_controls    only those that a terminal obeys
    shorten            both ends of a text that is too long
    nearest            the name that was probably meant

What must not live here: secrets (redaction.py), what a message says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["escape", "escape_controls", "nearest", "shorten"]

LONGEST = 2**14
"""Characters of one text in a line of a log."""

# ECMA-48: C0 but tab and line feed, DEL, C1.
_control = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escape(text: str, keep: str = "") -> str:
    """Write out every character that cannot be printed, except those in `keep`, as Python does: ``\\x1b``.

    These are all of Unicode's control, format, private and unassigned characters, lone surrogates, and every space but
    the one: they move the cursor, or look like others.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def escape_controls(text: str) -> str:
    """Write out the characters by which a text would move the cursor or command the terminal; leave all other text.

    For messages that people write to each other, whose spaces, joiners and marks of direction are part of the text.
    """
    return _control.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def shorten(text: str, most: int = LONGEST) -> str:
    """Return the text, or both ends of one with more than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [{len(text) - 2 * half} characters are left out] {text[-half:]}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the name of `names` that `name` is most like; empty if it is like none."""
    from difflib import get_close_matches  # for mistakes only

    return next(iter(get_close_matches(name, list(names), n=1)), "")
