"""Tests of tidegate.bus.connect."""

from __future__ import annotations

import sys

import pytest

from tidegate.bus.connect import connect, mask, missing
from tidegate.bus.memory import MemoryBroker
from tidegate.bus.policies import Policies
from tidegate.exceptions import BusError


@pytest.mark.parametrize("url", ["memory://", "memory://tests", "memory://a.b-c_1"])
def test_a_url_names_an_engine(url: str) -> None:
    assert isinstance(connect(url, Policies()), MemoryBroker)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "",
            "'' isn't the URL of a bus, such as local:// in a worker, or local:///PATH of a daemon's socket, memory://",
        ),
        ("memory", "'memory' isn't the URL of a bus"),
        ("memory:", "'memory:' isn't the URL of a bus"),
        ("kafka://user:secret@host", "there is no bus kafka://, but local:// in a worker"),
        ("memory://a/b", "memory:// is followed by what it cannot be: the URL must be memory:// or memory://NAME"),
        ("memory://user:secret@host", "memory:// is followed by what it cannot be"),
        ("memory://" + "a" * 65, "memory:// is followed by what it cannot be"),
    ],
)
def test_what_is_no_url_names_what_is_right(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        connect(url, Policies())
    assert "secret" not in str(caught.value)


def test_what_is_no_text() -> None:
    with pytest.raises(TypeError, match="the URL of a bus must be a str, not bytes"):
        connect(b"memory://", Policies())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://host:1/2?bus=a", "redis://host:1/2?bus=a"),
        ("redis://ada:secret@host", "redis://***@host"),
        ("redis://:se/cr@et@host", "redis://***@host"),
        ("redis+sentinel://:secret@a,b/it?sentinel_password=secret&ssl=yes", None),
        ("ada:secret@host", "***@host"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str | None) -> None:
    assert mask(url) == (shown or "redis+sentinel://***@a,b/it?sentinel_password=***&ssl=yes")


def test_what_an_engine_needs_and_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("redis://host") is None
    monkeypatch.setitem(sys.modules, "hiredis", None)
    assert missing("memory://") is None
    words = r"rediss:// needs redis and hiredis, which are not installed: pip install 'tidegate\[redis\]'"
    with pytest.raises(BusError, match=words):
        connect("rediss://:secret@host", Policies())
