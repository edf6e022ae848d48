"""Tests of tidegate.bus.base: the little that engines share."""

from __future__ import annotations

import pytest

from tidegate.bus.base import Broker, new_epoch
from tidegate.channels import Message, Position


def test_epochs_are_new_and_fit_a_position() -> None:
    epochs = {new_epoch() for _ in range(100)}
    assert len(epochs) == 100
    for epoch in epochs:
        assert Position.parse(f"{epoch}.1").epoch == epoch


@pytest.mark.parametrize(
    ("offset", "previous", "follows"),
    [(6, None, True), (7, None, False), (5, None, False), (9, 5, True), (9, 6, False), (6, 4, False)],
)
def test_follows(offset: int, previous: int | None, follows: bool) -> None:
    """A message follows a place by its number, or by the number before it where the engine says that."""
    message = Message("a", b"", position=Position("e", offset), previous=previous)
    assert Broker.follows(None, Position("e", 5), message) is follows  # type: ignore[arg-type]
