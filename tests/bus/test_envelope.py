"""Tests of tidegate.bus.envelope."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.bus import envelope
from tidegate.bus.envelope import (
    Command,
    Frame,
    InvalidEnvelope,
    Join,
    Leave,
    PresenceOf,
    Publish,
    Unknown,
    decode_command,
    decode_frame,
    encode_command,
    error_frame,
    event_frame,
    gap_frame,
    joined_frame,
    left_frame,
    message_frame,
    presence_frame,
    published_frame,
)
from tidegate.channels import Gap, Joined, Message, Position, PresenceEvent
from tidegate.exceptions import BusBusy, BusDown, BusError, InvalidChannel, MessageTooBig, TooManyChannels

AT = Position("Kd83aQ2f", 1041)

# Commands.


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (
            '{"join":{"chat:7":"Kd83aQ2f.1041","price:X":null},"id":1}',
            Join({"chat:7": "Kd83aQ2f.1041", "price:X": None}, 0, 1),
        ),
        ('{"join":{"chat:7":"whatever"},"last":50}', Join({"chat:7": "whatever"}, 50)),
        ('{"leave":["chat:7"]}', Leave(["chat:7"])),
        (
            '{"publish":"chat:7","data":{"a": [1]},"key":"c1-77","id":2}',
            Publish("chat:7", b'{"a": [1]}', True, "c1-77", 2),
        ),
        ('{"publish":"chat:7","data":"gr\\u00fcn"}', Publish("chat:7", "grün")),
        ('{"publish":"chat:7","data":null}', Publish("chat:7", b"null", True)),
        ('{"publish":"chat:7","data": "a" , "id":0}', Publish("chat:7", "a", id=0)),
        ('{"presence":"chat:7","id":3}', PresenceOf("chat:7", 3)),
        ('{"later":true,"id":4}', Unknown(4)),
        ('{"leave":["a"],"later":{"deep":[[]]}}', Leave(["a"])),
        ("{}", Unknown()),
    ],
)
def test_commands(text: str, command: Command) -> None:
    """What clients send, and what it means."""
    assert decode_command(text) == command


def test_a_binary_publication() -> None:
    head = b'{"publish":"chat:7","id":5}'
    assert decode_command(bytes([len(head)]) + head + b"\xff\x00") == Publish("chat:7", b"\xff\x00", id=5)
    head = b'{"publish":"' + b"a" * 200 + b'"}'
    assert decode_command(b"\xd6\x01" + head) == Publish("a" * 200, b"")


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ("", 1007, "not a command: it isn't a JSON object"),
        ("nonsense", 1007, "not a command: it isn't a JSON object"),
        ("[]", 1007, "not a command: Expected `object`, got `array`"),
        ('{"join":["a"]}', 1007, "not a command: Expected `object`, got `array` - at `$.join`"),
        ('{"join":{"a":5}}', 1007, "not a command: Expected `str | null`, got `int`"),
        ('{"leave":"a"}', 1007, "not a command: Expected `array`, got `str`"),
        ('{"publish":7,"data":1}', 1007, "not a command: Expected `str`, got `int`"),
        ('{"publish":"a"}', 1007, "publish has no data"),
        ('{"join":{},"id":"1"}', 1007, "not a command: Expected `int | null`, got `str`"),
        ('{"join":{},"id":-1}', 1007, "the id isn't a number from 0 to 2^53 - 1"),
        ('{"join":{},"id":9007199254740992}', 1007, "the id isn't a number from 0 to 2^53 - 1"),
        ('{"join":{},"id":1e999}', 1007, "not a command"),
        ('{"join":{},"leave":[]}', 1007, "the command has both join and leave"),
        ('{"join":{},"last":-1}', 1007, "last isn't a number from 0 to 1000"),
        ('{"join":{},"last":1001}', 1007, "last isn't a number from 0 to 1000"),
        ('{"publish":"a","data":"\\ud800"}', 1007, ""),
        ('{"publish":"\ud800","data":1}', 1007, "the command isn't Unicode text"),
        ("[" * 100_000, 1007, "not a command"),
        ('{"x":' * 100_000, 1007, "not a command"),
        ('{"publish":"a","data":' + "[" * 10_000 + "]" * 10_000 + "}", 1007, "not a command"),
        (b"", 1007, "the binary message is shorter than its command"),
        (b"\x05{}", 1007, "the binary message is shorter than its command"),
        (b"\xff\xff\xff\xff", 1007, "the binary message is shorter than its command"),
        (b"\xff\xff\x7f", 1008, "the command exceeds the limit of 65536 bytes"),
        (b"\x02\xff\xfe", 1007, "not a command"),
        (b"\x0c" + b'{"leave":[]}', 1007, "only publish has a binary form"),
        (b"\x18" + b'{"publish":"a","data":1}', 1007, "a binary publish has its data after the command"),
        (json.dumps({"join": dict.fromkeys(map(str, range(101)))}), 1008, "the command has more than 100 channels"),
        (json.dumps({"leave": ["a"] * 101}), 1008, "the command has more than 100 channels"),
        (json.dumps({"leave": ["a" * 70_000]}), 1008, "the command exceeds the limit of 65536 bytes"),
        (json.dumps({"publish": "a" * 70_000, "data": 1}), 1008, "the command exceeds the limit of 65536 bytes"),
        (json.dumps({"publish": "a", "data": "a" * 2**20}), 1008, "the data exceeds the limit of 1048576 bytes"),
        (b"\x0f" + b'{"publish":"a"}' + bytes(2**20 + 1), 1008, "the data exceeds the limit of 1048576 bytes"),
        (" " * 1_200_000, 1008, "the command exceeds the limit of 65536 bytes"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | bytes) else None,
)
def test_nonsense_has_a_close_code_and_a_reason(message: str | bytes, code: int, words: str) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        decode_command(message)
    assert caught.value.code == code
    assert str(caught.value).startswith(words)
    assert len(caught.value.reason.encode()) <= 123


NAMES = st.text(st.characters(codec="utf-8"), max_size=30)
IDS = st.none() | st.integers(0, 2**53 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
DATA = st.one_of(
    NAMES.map(lambda text: (text, False)),
    st.binary(max_size=50).map(lambda data: (data, False)),
    JSON.filter(lambda value: not isinstance(value, str)).map(lambda value: (json.dumps(value).encode(), True)),
)
COMMANDS = st.one_of(
    st.builds(Join, st.dictionaries(NAMES, st.none() | NAMES, max_size=5), st.integers(0, 1000), IDS),
    st.builds(Leave, st.lists(NAMES, max_size=5), IDS),
    st.builds(lambda name, data, key, id: Publish(name, *data, key, id), NAMES, DATA, st.none() | NAMES, IDS),
    st.builds(PresenceOf, NAMES, IDS),
    st.builds(Unknown, IDS),
)


@given(COMMANDS)
def test_a_command_survives_the_way(command: Command) -> None:
    assert decode_command(encode_command(command)) == command


def outcome(decode: Callable[[str | bytes], Any], message: str | bytes) -> Any:
    """What is decoded, or the close code; the reason fits a close frame."""
    try:
        return decode(message)
    except InvalidEnvelope as exc:
        return exc.code if len(exc.reason.encode()) <= 123 else exc


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_anything_is_a_command_or_has_a_close_code(message: str | bytes) -> None:
    found = outcome(decode_command, message)
    assert found in (1007, 1008) or isinstance(found, Command)


@given(COMMANDS, st.data())
def test_a_command_that_was_damaged_is_a_command_or_has_a_close_code(command: Command, data: st.DataObject) -> None:
    encoded = encode_command(command)
    text = isinstance(encoded, str)
    damaged = bytearray(encoded.encode() if isinstance(encoded, str) else encoded)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    found = outcome(decode_command, damaged.decode(errors="replace") if text else bytes(damaged))
    assert found in (1007, 1008) or isinstance(found, Command)


@settings(max_examples=20)
@given(st.sampled_from(['{"join":{"%d":null,', "[[", '{"a":[', '{"leave":["",', '"\\u0000', "1", '{"data":{"a":']))
def test_what_is_decoded_takes_memory_in_proportion(part: str) -> None:
    """Some times what was received, whatever it is made of."""
    message = part * (2**20 // len(part))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidEnvelope):
            decode_command(message)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(message)
    finally:
        tracemalloc.stop()


# Frames.


def frame(encoded: bytes) -> Any:
    return json.loads(encoded)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message("chat:7", b'{"a":  1}', True, AT, json=True), '{"c":"chat:7","o":1041,"d":{"a":  1}}'),
        (Message("chat:7", 'grün "x"'.encode(), True, AT), '{"c":"chat:7","o":1041,"d":"grün \\"x\\""}'),
        (Message("plain", b"a", True), '{"c":"plain","d":"a"}'),
        (Message('a"b', b"", True), '{"c":"a\\"b","d":""}'),
    ],
)
def test_texts(message: Message, expected: str) -> None:
    """A text is a JSON string, and JSON is embedded unchanged."""
    encoded, text = message_frame(message)
    assert (encoded.decode(), text) == (expected, True)


def test_the_whole_position() -> None:
    """Where messages are skipped, and with them the notice of another epoch."""
    encoded, _ = message_frame(Message("a", b"7", True, AT, json=True), whole=True)
    assert frame(encoded) == {"c": "a", "at": "Kd83aQ2f.1041", "d": 7}


def test_a_binary_message_follows_its_head() -> None:
    encoded, text = message_frame(Message("chat:7", b"\xff\x00", position=AT))
    head = b'{"c":"chat:7","o":1041}'
    assert (encoded, text) == (bytes([len(head)]) + head + b"\xff\x00", False)
    taken = decode_frame(encoded)
    assert (taken.c, taken.o, taken.d) == ("chat:7", 1041, b"\xff\x00")


def test_a_text_that_is_none_is_sent_all_the_same() -> None:
    """Only a publisher that breaks its promise: clients must still get valid UTF-8."""
    encoded, _ = message_frame(Message("a", b"\xff", True))
    assert frame(encoded) == {"c": "a", "d": "\ufffd"}


def test_joins() -> None:
    """Each channel has its answer, or its error."""
    answers: dict[str, Joined | BusError | str] = {
        "a": Joined("a", AT, "full", 3),
        "b": Joined("b", AT, "failed", 0, 1.0),
        "c": Joined("c", None, "new"),
        "d": "denied",
        "e": BusDown("connection refused by 10.0.0.1", 2.0),
    }
    assert frame(joined_frame(answers, 1)) == {
        "id": 1,
        "joined": {
            "a": {"at": "Kd83aQ2f.1041", "resumed": "full", "missed": 3},
            "b": {"at": "Kd83aQ2f.1041", "resumed": "failed", "retry": 1.0},
            "c": {"resumed": "new"},
            "d": {"error": "denied"},
            "e": {"error": "down", "retry": 2.0},
        },
    }


def test_gaps() -> None:
    """A hole has its ends where they are in one epoch, and always the place to go on from."""
    to = Position("Kd83aQ2f", 1050)
    assert frame(gap_frame(Gap("a", AT, to, "trimmed"))) == {
        "gap": "a",
        "from": 1042,
        "to": 1050,
        "at": "Kd83aQ2f.1050",
        "why": "trimmed",
    }
    assert frame(gap_frame(Gap("a", AT, Position("new", 0), "epoch"))) == {"gap": "a", "at": "new.0", "why": "epoch"}
    assert frame(gap_frame(Gap("a", None, None, "link"))) == {"gap": "a", "why": "link"}


def test_other_frames() -> None:
    assert frame(published_frame(2, AT)) == {"id": 2, "at": "Kd83aQ2f.1041"}
    assert frame(published_frame(2, None)) == {"id": 2}
    assert frame(left_frame("a", "denied")) == {"left": "a", "why": "denied"}
    came = PresenceEvent("a", "in", "u1", b'{"name": "Ada"}')
    assert frame(event_frame(came)) == {"in": "a", "m": "u1", "i": {"name": "Ada"}}
    assert frame(event_frame(PresenceEvent("a", "in", "u1"))) == {"in": "a", "m": "u1"}
    assert frame(event_frame(PresenceEvent("a", "out", "u1"))) == {"out": "a", "m": "u1"}
    assert frame(event_frame(PresenceEvent("a", "changed"))) == {"presence": "a"}
    assert frame(presence_frame(3, 2, {"u1": b"{}", "u2": b""})) == {
        "id": 3,
        "count": 2,
        "presence": {"u1": {}, "u2": None},
    }
    assert frame(presence_frame(3, 2, None)) == {"id": 3, "count": 2}


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        ("denied", {"error": "denied"}),
        (BusBusy("a", 5.0), {"error": "busy"}),
        (BusDown("secret host", 2.0), {"error": "down", "retry": 2.0}),
        (InvalidChannel("a", "bad"), {"error": "invalid channel"}),
        (MessageTooBig("a", 2, 1), {"error": "too big"}),
        (TooManyChannels(1, "a connection"), {"error": "too many channels"}),
        (BusError("anything"), {"error": "failed"}),
    ],
)
def test_errors(error: BusError | str, fields: dict[str, object]) -> None:
    """Clients get a word that they can compare, and nothing of how the engine is reached."""
    assert frame(error_frame(2, error)) == {"id": 2, **fields}


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_anything_is_a_frame_or_invalid(message: str | bytes) -> None:
    found = outcome(decode_frame, message)
    assert found in (1007, 1008) or isinstance(found, Frame)


def test_frames_are_taken_with_what_is_unknown_left_out() -> None:
    taken = decode_frame('{"gap":"a","from":1,"to":2,"at":"e.2","later":[1]}')
    assert (taken.gap, taken.from_, taken.to, taken.at, taken.c) == ("a", 1, 2, "e.2", None)
    assert decode_frame('{"in":"a","m":"u"}').in_ == "a"
    assert envelope.SUBPROTOCOL == "tidegate.v1"
