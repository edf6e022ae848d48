"""Tests of tidegate.channels."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.channels import (
    Channel,
    ChannelLimits,
    Gap,
    Identity,
    Joined,
    Message,
    Position,
    PresenceEvent,
    check_channels,
    name_fault,
)

EPOCHS = st.text("ABCabc012-_", min_size=1, max_size=32)
OFFSETS = st.integers(0, 2**63 - 1)


@given(EPOCHS, OFFSETS)
def test_a_position_survives_its_token(epoch: str, offset: int) -> None:
    position = Position(epoch, offset)
    assert Position.parse(str(position)) == position


def test_the_token_of_a_position() -> None:
    assert str(Position("Kd83aQ2f", 1041)) == "Kd83aQ2f.1041"
    assert Position.parse("Kd83aQ2f.0") == ("Kd83aQ2f", 0)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "a",
            "a.",
            ".1",
            "a.b.1",
            "a.01",
            "a.-1",
            "a.+1",
            "a. 1",
            "a.1\n",
            " a.1",
            "ä.1",
            "a.\u0661",
            "a.1.2",
        ),
        *("a.1.2", "a" * 33 + ".1", f"a.{2**63}", "a." + "9" * 5000, "a\0.1", "\ud800.1"),
    ],
)
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match=r"isn't a position, such as 'Kd83aQ2f\.1041'") as caught:
        Position.parse(text)
    assert len(str(caught.value)) < 500


@given(st.text())
def test_any_text_is_a_position_or_a_value_error(text: str) -> None:
    try:
        position = Position.parse(text)
    except ValueError:
        return
    assert str(position) == text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"history": "5"}, TypeError, "history must be a number of messages, not '5'"),
        ({"history": True}, TypeError, "history must be a number of messages, not True"),
        ({"history": -1}, ValueError, "history must be 0 to 1048576 messages, not -1"),
        ({"history": 2**20 + 1}, ValueError, "history must be 0 to 1048576 messages"),
        ({"history_bytes": 0}, ValueError, "history_bytes must be at least 1, not 0"),
        ({"history_bytes": 1.5}, TypeError, "history_bytes must be a number of bytes, not 1.5"),
        ({"keep": 0}, ValueError, "keep must be more than 0 and at most 2147483648 seconds, not 0"),
        ({"keep": math.nan}, ValueError, "keep must be more than 0"),
        ({"keep": math.inf}, ValueError, "keep must be more than 0"),
        ({"keep": "600"}, TypeError, "keep must be a number of seconds, not '600'"),
        ({"history": 1, "recover": "last"}, ValueError, "recover must be 'all' or 'latest', not 'last'"),
        ({"recover": "latest"}, ValueError, "recover='latest' needs history=1 or more"),
        ({"presence": 1}, TypeError, "presence must be a bool, not 1"),
        ({"presence_grace": None}, TypeError, "presence_grace must be a number of seconds, not None"),
        ({"presence_grace": -1}, ValueError, "presence_grace must be 0 to 3600 seconds, not -1"),
    ],
)
def test_a_policy_names_what_is_wrong(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Channel(**options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"message": 0}, ValueError, "message must be 1 to 2097152, not 0"),
        ({"message": 2**21 + 1}, ValueError, "message must be 1 to 2097152, not 2097153"),
        ({"member": 1.5}, TypeError, "member must be a whole number, not 1.5"),
        ({"per_connection": True}, TypeError, "per_connection must be a whole number, not True"),
        ({"per_process": 1_000_001}, ValueError, "per_process must be 1 to 1000000, not 1000001"),
        ({"commands": 20}, ValueError, "commands must be a rate and a number, such as (20.0, 100), not 20"),
        ({"commands": (0, 100)}, ValueError, "commands must be a rate and a number, such as (20.0, 100), not (0, 100)"),
    ],
)
def test_limits_name_what_is_wrong(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        ChannelLimits(**options)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("member", "info", "error", "words"),
    [
        (7, None, TypeError, "member must be a str, not int"),
        (None, "x", TypeError, "member must be a str, not NoneType"),
        ("", None, ValueError, "member must have 1 to 128 bytes in UTF-8, not 0"),
        ("ü" * 65, None, ValueError, "member must have 1 to 128 bytes in UTF-8, not 130"),
        ("a\n", None, ValueError, r"member must have no control characters, as 'a\\n' has"),
        ("\ud800", None, ValueError, "member must be Unicode text"),
        ("ada", object(), TypeError, "info of 'ada' must be what JSON can say: "),
        ("ada", "x" * 1023, ValueError, "info of 'ada' must be at most 1024 bytes of JSON, not 1025"),
    ],
)
def test_an_identity_names_what_is_wrong(member: Any, info: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Identity(member, info)


def test_an_identity_at_its_limits() -> None:
    assert Identity("ü" * 64, "x" * 1022).payload == b'"%s"' % (b"x" * 1022)
    assert Identity("ada").payload == b"null"


def test_a_notice_has_what_is_known_of_who_came() -> None:
    assert PresenceEvent("c", "in", "ada", b'{"a":1}').info == {"a": 1}
    assert PresenceEvent("c", "out", "ada").info is None


def test_a_policy_stores_nothing_unless_it_says_so() -> None:
    assert (Channel().history, Channel().recover) == (0, "all")


@pytest.mark.parametrize("name", ["chat:7", "a", "ä" * 127, "a b", "tg", "日本"])
def test_names(name: str) -> None:
    """What may be a channel's name."""
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "it is empty"),
        ("ä" * 128, "it has 256 bytes, and 255 are the limit"),
        (" a", "it begins or ends with a space"),
        ("a\u00a0", "it begins or ends with a space"),
        ("a\tb", "it has control characters"),
        ("a\x85b", "it has control characters"),
        ("a\0b", "it has control characters"),
        ("tg:x", "'tg:' is reserved"),
        ("\ud800", "it isn't Unicode text"),
    ],
)
def test_what_is_no_name(name: str, fault: str) -> None:
    assert name_fault(name) == fault


@pytest.mark.parametrize(
    ("channels", "error", "words"),
    [
        ([], TypeError, "channels must be a dict of prefixes and Channels, not list"),
        ({1: Channel()}, TypeError, "channels must have prefixes of names as keys, not 1"),
        ({"chat:": 200}, TypeError, r"channels\['chat:'\] must be a Channel, not 200"),
        ({"tg:": Channel()}, ValueError, "channels: 'tg:' is no prefix of a name: 'tg:' is reserved"),
        ({" ": Channel()}, ValueError, "channels: ' ' is no prefix of a name: it is empty"),
    ],
)
def test_a_declaration_names_what_is_wrong(channels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_channels(channels)


def test_a_declaration_has_a_default_and_prefixes() -> None:
    check_channels({"": Channel(history=1), "room ": Channel(), "chat:": Channel(history=5)})


def test_a_message_gives_its_data_by_its_kind() -> None:
    assert Message("a", "grün".encode(), text=True).data == "grün"
    assert Message("a", b"\xff").data == b"\xff"
    assert Message("a", b"").gap is None


def test_a_gap_is_told_apart_from_a_message() -> None:
    gap = Gap("a", Position("e", 1), Position("e", 5), "trimmed")
    assert gap.gap is gap


def test_an_answer_to_a_join_says_what_comes() -> None:
    assert Joined("a", Position("e", 1), "new") == ("a", ("e", 1), "new", 0, None)
