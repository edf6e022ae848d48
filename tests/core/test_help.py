"""What help() says of the native code: each class, method and function that Python calls has its docstring there.

What must not live here: docstrings of Python modules, and files that docstrings name (tests/test_charter.py).
"""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate._core.counters import Row
from tidegate._core.messages import MessageChannel
from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import Slot, Snapshot, Worker

FOLDER = Path(tidegate.__file__).parent / "_core"
STUBS = sorted(FOLDER.glob("*.pyi"))


def names(stub: Path) -> Iterator[str]:
    """The classes, functions and methods that a stub declares, but for those that Connection defines.

    A class whose name begins with an underscore is a type that only the stub has.
    """
    text = stub.read_text(encoding="utf-8").partition("    # Calls out")[0]
    owner = ""
    for line in text.splitlines():
        if found := re.match(r"class (\w+)", line):
            owner = f"{found[1]}."
            if not owner.startswith("_"):
                yield found[1]
        elif owner.startswith("_") and line.startswith(" "):
            continue
        elif (found := re.match(r"( *)(?:async )?def (\w+)", line)) and not found[2].startswith("__"):
            yield (owner if found[1] else "") + found[2]


def is_attribute(member: Any) -> bool:
    """Whether it is one that Cython makes of a declaration, which has no docstring of its own."""
    return inspect.isgetsetdescriptor(member) and not member.__doc__


DECLARED = sorted({(stub.stem, name) for stub in STUBS for name in names(stub)})


@pytest.mark.parametrize(("module", "name"), DECLARED)
def test_each_has_a_docstring_that_help_shows(module: str, name: str) -> None:
    found: Any = importlib.import_module(f"tidegate._core.{module}")
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    if is_attribute(found):
        return  # its class tells of it: see below
    text = inspect.getdoc(found)
    assert text
    assert text.split("\n\n")[0].endswith("."), text


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_stubs_have_types_and_no_docstrings(stub: Path) -> None:
    """The one home of a docstring is the code itself."""
    assert '"""' not in stub.read_text(encoding="utf-8")


@pytest.mark.parametrize("shown", [Row, Scoreboard, Snapshot, Slot, Worker, MessageChannel])
def test_help_tells_of_each_attribute(shown: type) -> None:
    """The docstring of its class names it."""
    for base in shown.__mro__[:-1]:
        for name, member in vars(base).items():
            if is_attribute(member) and not name.startswith("_"):
                assert re.search(rf"\b{name}\b", base.__doc__ or ""), f"help({base.__name__}) says nothing of {name}"
    assert (shown.__doc__ or "").splitlines()[0] in pydoc.render_doc(shown, renderer=pydoc.plaintext)


def test_signatures() -> None:
    """Also those of methods without a Python function behind them."""
    assert str(inspect.signature(Row.inc)) == "(self, /, counter, *names, by=1)"
    assert str(inspect.signature(Scoreboard.retire)) == "(self, /, row, reason=None, cpu_seconds=0.0)"
