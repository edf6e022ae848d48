"""Tests of tidegate.extensions.base."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tidegate import extensions
from tidegate.extensions import base
from tidegate.extensions.base import ClientExtensionFactory, Extension, ServerExtensionFactory
from tidegate.frames import Frame, Opcode

FRAME = Frame(Opcode.TEXT, b"")


@pytest.mark.parametrize(
    "call",
    [
        lambda: Extension().decode(FRAME),
        lambda: Extension().decode(FRAME, max_size=1),
        lambda: Extension().encode(FRAME),
        lambda: ClientExtensionFactory().get_request_params(),
        lambda: ClientExtensionFactory().process_response_params([], []),
        lambda: ServerExtensionFactory().process_request_params([], []),
    ],
)
def test_methods_are_for_subclasses(call: Callable[[], object]) -> None:
    with pytest.raises(NotImplementedError):
        call()


def test_names() -> None:
    """The package exports the names of its base module."""
    assert extensions.__all__ == base.__all__
    for name in base.__all__:
        assert getattr(extensions, name) is getattr(base, name)
