"""Tests of tidegate.version."""

from __future__ import annotations

import ast
import inspect
import re

from tidegate import version


def test_version_is_a_literal() -> None:
    """The build reads it without running it."""
    assignments = [node for node in ast.parse(inspect.getsource(version)).body if isinstance(node, ast.Assign)]
    assert {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assignments} == {
        "__all__": ["version"],
        "version": version.version,
    }


def test_version_has_the_usual_form() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc|\.dev)\d+)?", version.version)
