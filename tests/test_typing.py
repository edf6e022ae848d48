"""Tests of tidegate.typing: the aliases are what the documentation says, and can be used at run time."""

from __future__ import annotations

import http
import logging
from typing import get_args

import pytest

from tidegate import typing


def test_documented_names() -> None:
    documented = {"Data", "LoggerLike", "StatusLike", "Origin", "Subprotocol", "ExtensionName", "ExtensionParameter"}
    assert set(typing.__all__) == documented


@pytest.mark.parametrize(
    ("alias", "members"),
    [
        (typing.Data, (str, bytes)),
        (typing.BytesLike, (bytes, bytearray, memoryview)),
        (typing.DataLike, (str, bytes, bytearray, memoryview)),
        (typing.StatusLike, (http.HTTPStatus, int)),
    ],
)
def test_unions(alias: object, members: tuple[type, ...]) -> None:
    """Each alias is a union of these types."""
    assert get_args(alias) == members


def test_loggers() -> None:
    """A logger may be an adapter."""
    logger, adapter = get_args(typing.LoggerLike)
    assert logger is logging.Logger
    assert adapter.__origin__ is logging.LoggerAdapter


@pytest.mark.parametrize("name", ["Origin", "Subprotocol", "ExtensionName", "ConnectionOption", "UpgradeProtocol"])
def test_new_types_are_str(name: str) -> None:
    new_type = getattr(typing, name)
    assert new_type.__supertype__ is str
    assert new_type.__name__ == name
    assert new_type("x") == "x"
