"""Arguments of serve() and connect(): completed when they are right; wrong ones raise at once."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import pytest

from tidegate.asyncio.deadlines import Deadlines
from tidegate.asyncio.options import Settings

DEFAULTS: dict[str, Any] = {
    "open_timeout": 10,
    "ping_interval": 20,
    "ping_timeout": 20,
    "close_timeout": 10,
    "max_size": 2**20,
    "max_queue": 16,
    "write_limit": 2**15,
}


def checked(**changes: Any) -> dict[str, Any]:
    return Settings.check(**(DEFAULTS | changes))


def test_defaults() -> None:
    """Defaults are those of the documentation, with both marks."""
    assert checked() == {
        "open_timeout": 10,
        "ping_interval": 20,
        "ping_timeout": 20,
        "close_timeout": 10,
        "max_size": (2**20, None),
        "max_queue": (16, 4),
        "write_limit": (2**15, 2**13),
        "broadcast_limit": 2**24,
    }


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
def test_timeouts(name: str) -> None:
    """Timeouts are numbers of seconds, not negative, or None."""
    assert checked(**{name: None})[name] is None
    assert checked(**{name: 0.5})[name] == 0.5
    assert checked(**{name: math.inf})[name] is None
    with pytest.raises(TypeError, match=f"{name} must be a number of seconds or None, not '20'"):
        checked(**{name: "20"})
    with pytest.raises(TypeError, match=name):
        checked(**{name: True})
    with pytest.raises(ValueError, match=f"{name} must not be negative: -1"):
        checked(**{name: -1})
    with pytest.raises(ValueError, match=name):
        checked(**{name: math.nan})


@pytest.mark.parametrize(
    ("given", "marks"),
    [
        (None, (None, None)),
        (16, (16, 4)),
        (0, (0, 0)),
        ((16, 8), (16, 8)),
        ((16, None), (16, 4)),
        ((None, 4), (16, 4)),
        ((None, None), (None, None)),
    ],
)
def test_marks_of_the_queue(given: Any, marks: Any) -> None:
    assert checked(max_queue=given)["max_queue"] == marks


def test_marks_that_cross() -> None:
    with pytest.raises(ValueError, match="high must be greater than or equal to low"):
        checked(max_queue=(1, 2))


@pytest.mark.parametrize("name", ["max_size", "max_queue", "write_limit"])
@pytest.mark.parametrize("value", ["1", 1.5, True, (1, 2, 3), ("1", None), [1, 2]])
def test_sizes_of_a_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        checked(**{name: value})


@pytest.mark.parametrize("name", ["max_size", "max_queue", "write_limit"])
def test_sizes_that_are_negative(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        checked(**{name: -1})


def test_the_write_buffer_has_a_limit() -> None:
    with pytest.raises(TypeError, match="write_limit"):
        checked(write_limit=None)
    assert checked(write_limit=(100, 10))["write_limit"] == (100, 10)


def test_the_bound_of_broadcasts() -> None:
    assert checked(broadcast_limit=None)["broadcast_limit"] is None
    assert checked(broadcast_limit=0)["broadcast_limit"] == 0
    for value in ((1, 2), "1", True):
        with pytest.raises(TypeError, match="broadcast_limit"):
            checked(broadcast_limit=value)
    with pytest.raises(ValueError, match="broadcast_limit"):
        checked(broadcast_limit=-1)


def test_sizes_of_messages_and_fragments() -> None:
    assert checked(max_size=None)["max_size"] == (None, None)
    assert checked(max_size=(100, 10))["max_size"] == (100, 10)


async def test_settings_of_one_connection() -> None:
    loop = asyncio.get_running_loop()
    settings = Settings(loop=loop, logger=logging.getLogger(), deadlines=Deadlines(loop), **checked())
    assert settings.overridden({}) == settings
    other = settings.overridden({"ping_interval": None, "max_queue": (8, 1)})
    assert (other.ping_interval, other.max_queue) == (None, (8, 1))
    assert (other.max_size, other.write_limit, other.deadlines) == (
        settings.max_size,
        settings.write_limit,
        settings.deadlines,
    )
    assert settings.ping_interval == 20
    with pytest.raises(TypeError, match="ping_interval"):
        settings.overridden({"ping_interval": "soon"})
