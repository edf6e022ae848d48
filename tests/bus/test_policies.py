"""Tests of tidegate.bus.policies."""

from __future__ import annotations

import pytest

from tidegate.bus.policies import Policies, check_key, check_name, check_payload
from tidegate.channels import Channel
from tidegate.exceptions import InvalidChannel, MessageTooBig

CHAT, ROOM, REST = Channel(history=1), Channel(history=2), Channel(history=3)


def test_the_longest_prefix_wins() -> None:
    policies = Policies({"": REST, "chat:": CHAT, "chat:room:": ROOM})
    assert [policies.of(name) for name in ("chat:7", "chat:room:7", "chat", "x")] == [CHAT, ROOM, REST, REST]
    assert [policies.prefix_of(name) for name in ("chat:7", "chat:room:7", "x")] == ["chat:", "chat:room:", ""]


def test_without_a_declaration_nothing_is_stored() -> None:
    assert Policies().of("chat:7") == Channel()
    assert Policies({"a": CHAT}).of("b") == Channel()


def test_the_bus_own_channels_have_no_history_whatever_the_default_is() -> None:
    assert Policies({"": REST}).of("tg:x") == Channel()


def test_what_processes_are_told_is_not_lost_with_a_link() -> None:
    assert Policies().of("tg:control").history > 0


def test_a_declaration_is_checked() -> None:
    with pytest.raises(TypeError, match=r"channels\['a'\] must be a Channel, not 1"):
        Policies({"a": 1})  # type: ignore[dict-item]


def test_a_name_is_checked_at_the_door() -> None:
    check_name("chat:7")
    with pytest.raises(InvalidChannel, match="'' isn't the name of a channel: it is empty"):
        check_name("")
    with pytest.raises(TypeError, match="the name of a channel must be a str, not int"):
        check_name(7)  # type: ignore[arg-type]


def test_a_size_is_checked_at_the_door() -> None:
    check_payload("a", b"12345", 5)
    with pytest.raises(MessageTooBig, match="a: message of 6 bytes exceeds the bus's limit of 5 bytes"):
        check_payload("a", b"123456", 5)


def test_a_key_is_checked_at_the_door() -> None:
    check_key(None)
    check_key("ä" * 64)
    for key in ("", "ä" * 64 + "a"):
        with pytest.raises(ValueError, match="key must have 1 to 128 bytes in UTF-8"):
            check_key(key)
    with pytest.raises(TypeError, match="key must be a str or None, not int"):
        check_key(1)  # type: ignore[arg-type]
