"""Tests of the root of the package: its table of public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import tidegate
from tidegate.version import version


def test_each_name_can_be_imported() -> None:
    for name in tidegate.__all__:
        value = getattr(tidegate, name)
        assert value is getattr(importlib.import_module(f"tidegate.{tidegate._HOME[name]}"), name)
        assert name in vars(tidegate)
    assert set(tidegate.__all__) <= set(dir(tidegate))


def test_type_checkers_see_the_same_table() -> None:
    tree = ast.parse(inspect.getsource(tidegate))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        if node.level == 0:
            continue
        for alias in node.names:
            assert alias.name == alias.asname
            seen[alias.name] = node.module
    assert seen == tidegate._HOME


def test_documented_names() -> None:
    """What the reference lists at the top level and exists so far."""
    assert {"serve", "unix_serve", "Server", "ServerConnection", "broadcast", "State", "Side"} < set(tidegate.__all__)
    assert {"Headers", "Request", "Response", "Close", "CloseCode", "Frame", "Opcode", "Data"} < set(tidegate.__all__)
    from tidegate import exceptions

    own = {"HeadTooLong", "UnexpectedBody"}
    assert set(exceptions.__all__) - own < set(tidegate.__all__)


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="module 'tidegate' has no attribute 'nothing'"):
        tidegate.nothing  # noqa: B018
    with pytest.raises(ImportError):
        from tidegate import nothing  # noqa: F401


def test_version() -> None:
    """The version is found under both names."""
    assert tidegate.__version__ == version
    assert tidegate.version.version == version


def test_import_is_lazy() -> None:
    code = (
        "import sys, tidegate;"
        "heavy = {'asyncio', 'uvloop', 'werkzeug', 'click', 'prometheus_client', 'httptools', 'msgspec'};"
        "print(*heavy & {*sys.modules});"
        "print(*sorted(name for name in sys.modules if name.startswith('tidegate')))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, own = process.stdout.splitlines()
    assert heavy == ""
    assert own.split() == ["tidegate", "tidegate.version"]
