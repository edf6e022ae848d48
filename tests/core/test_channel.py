"""The hot path without an event loop: bytes in, cut in whatever pieces, to the same messages and the same failures."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate._core.channel import Channel

from tests.core.recorder import MASK, Recorder, binary, control, cut, more, text
from tests.support.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from tidegate.closing import FAILURES
from tidegate.frames import CloseCode
from tidegate.protocol import Side, State

# Bytes to messages, however they are cut

CONVERSATION: list[tuple[bytes, Any]] = [
    (text("Hello"), "Hello"),
    (text(""), ""),
    (binary(b""), b""),
    (binary(b"\x00\xff" * 70), b"\x00\xff" * 70),
    (text("grüße, κόσμε, \U0001f30a"), "grüße, κόσμε, \U0001f30a"),
    (text("plain ", fin=False) + more(b"and plain"), "plain and plain"),
    (text("", fin=False) + more(b""), ""),
    (text("caf", fin=False) + more(b"\xc3", fin=False) + control(PING, b"!") + more(b"\xa9"), "café"),
    (binary(b"a" * 126, fin=False) + more(b"", fin=False) + more(b"b"), b"a" * 126 + b"b"),
    (text("x" * 200), "x" * 200),
    (control(PONG), None),
    (text("end"), "end"),
]
BYTES = b"".join(data for data, _ in CONVERSATION)
MESSAGES = [message for _, message in CONVERSATION if message is not None]


def received(chunks: list[bytes], **options: Any) -> list[Any]:
    channel = Recorder(**options)
    channel.feed(*chunks)
    assert not channel.failures
    assert channel.controls == [(PING, b"!"), (PONG, b"")]
    return channel.take_all()


def test_at_once() -> None:
    assert received([BYTES]) == MESSAGES


def test_byte_by_byte() -> None:
    assert received([BYTES[i : i + 1] for i in range(len(BYTES))], high=None, low=None) == MESSAGES


def test_cut_at_every_byte() -> None:
    for place in range(len(BYTES) + 1):
        assert received(cut(BYTES, place)) == MESSAGES


@given(st.lists(st.integers(0, len(BYTES)), max_size=20))
def test_cut_anywhere(places: list[int]) -> None:
    assert received(cut(BYTES, *sorted(places))) == MESSAGES


@given(
    st.lists(
        st.one_of(
            st.text(max_size=300),
            st.binary(max_size=300),
            st.lists(st.text(max_size=30), min_size=2, max_size=4).map(tuple),
            st.lists(st.binary(max_size=30), min_size=2, max_size=4),
        ),
        max_size=8,
    ),
    st.data(),
)
def test_any_conversation(messages: list[Any], data: st.DataObject) -> None:
    """Texts, bytes, and both in fragments that fall where they like, also inside a character."""
    wire = b""
    for message in messages:
        if isinstance(message, str | bytes):
            wire += text(message) if isinstance(message, str) else binary(message)
            continue
        parts = [part.encode() if isinstance(part, str) else part for part in message]
        whole = b"".join(parts)
        places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
        first, *rest = cut(whole, *places)
        wire += frame(first, TEXT if isinstance(message, tuple) else BINARY, mask=MASK, fin=not rest)
        for i, part in enumerate(rest, 1):
            wire += more(part, fin=i == len(rest))
    expected = [
        "".join(message) if isinstance(message, tuple) else b"".join(message) if isinstance(message, list) else message
        for message in messages
    ]
    places = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    channel = Recorder(high=None, low=None)
    channel.feed(*cut(wire, *places))
    assert channel.take_all() == expected
    assert not channel.heard


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_reads_of_any_buffer(kind: type) -> None:
    channel = Recorder()
    channel.feed(kind(BYTES))
    assert channel.take_all() == MESSAGES


def test_a_text_is_of_its_own() -> None:
    """What was received does not change when the transport uses its buffer again."""
    channel = Recorder()
    buffer = bytearray(text("Hello") + binary(b"Hello") + text("é"))
    channel.feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert channel.take_all() == ["Hello", b"Hello", "é"]


def test_a_client_receives_unmasked_frames() -> None:
    wire = frame(b"Hello", TEXT, mask=None) + frame("é".encode(), TEXT, mask=None) + frame(b"\xff", BINARY, mask=None)
    for places in itertools.combinations(range(len(wire) + 1), 2):
        channel = Recorder(client=True)
        channel.feed(*cut(wire, *places))
        assert channel.take_all() == ["Hello", "é", b"\xff"]


@pytest.mark.parametrize(
    ("message", "decode", "expected"),
    [
        ("é", None, "é"),
        ("é", True, "é"),
        ("é", False, b"\xc3\xa9"),
        ("ascii", False, b"ascii"),
        ("", False, b""),
        (b"\xff", None, b"\xff"),
        (b"\xff", False, b"\xff"),
        (b"\xc3\xa9", True, "é"),
        (b"ascii", True, "ascii"),
        (b"", True, ""),
    ],
)
@pytest.mark.parametrize("fragments", [False, True])
def test_decode(message: str | bytes, decode: bool | None, expected: str | bytes, fragments: bool) -> None:
    """recv(decode) returns str or bytes as asked, whatever the message is and whatever was asked before."""
    payload = message.encode() if isinstance(message, str) else message
    opcode = TEXT if isinstance(message, str) else BINARY
    wire = frame(payload, opcode, mask=MASK)
    if fragments:
        wire = frame(payload[:1], opcode, mask=MASK, fin=False) + more(payload[1:])
    channel = Recorder()
    for _ in range(3):  # the channel learns what its readers want, and it must not show
        channel.feed(wire)
        assert channel.take(decode) == expected
        assert type(channel.take_all()) is list
    channel.feed(wire)
    assert channel.take() == message


def test_bytes_that_are_no_text_are_handed_over() -> None:
    channel = Recorder()
    channel.feed(binary(b"\xff") + text("next"))
    assert channel.take(True) == "undecodable"
    ((_, exc),) = channel.heard
    assert isinstance(exc, UnicodeDecodeError)
    assert channel.take() == "next"


def test_logged_frames_go_through_python() -> None:
    channel = Recorder(slow=True)
    channel.feed(text("Hello") + binary(b"a", fin=False) + more(b"b"))
    assert channel.take_all() == ["Hello", b"ab"]
    assert channel.heard == [
        ("frame", TEXT, True, b"Hello"),
        ("frame", BINARY, False, b"a"),
        ("frame", CONT, True, b"b"),
    ]


def test_before_it_is_open_bytes_belong_to_the_handshake() -> None:
    channel = Recorder(state=State.CONNECTING)
    channel.feed(b"GET / HTTP/1.1\r\n", bytearray(b"\r\n"))
    assert channel.heard == [("handshake", b"GET / HTTP/1.1\r\n"), ("handshake", b"\r\n")]


def test_control_frames_between_and_within_messages() -> None:
    wire = control(PING, b"1") + text("a", fin=False) + control(PONG, b"x" * 125) + more(b"b") + control(PING)
    for place in range(len(wire) + 1):
        channel = Recorder()
        channel.feed(*cut(wire, place))
        assert channel.controls == [(PING, b"1"), (PONG, b"x" * 125), (PING, b"")]
        assert channel.take_all() == ["ab"]


def test_nothing_is_read_after_a_close_frame() -> None:
    channel = Recorder()
    channel.feed(text("before") + control(CLOSE, b"\x03\xe8") + text("after") + b"\xff\xff", text("after"))
    assert channel.controls == [(CLOSE, b"\x03\xe8")]
    assert channel.take_all() == ["before"]
    assert not channel.failures


# What breaks the protocol (RFC 6455 sections 5.2 to 5.5)

HEADS: dict[str, tuple[bytes, str]] = {
    "RSV1": (frame(b"a", rsv=4), "reserved bits must be 0"),
    "RSV2": (frame(b"a", rsv=2), "reserved bits must be 0"),
    "RSV3": (frame(b"a", rsv=1), "reserved bits must be 0"),
    "RSV of a control frame": (frame(b"", PING, rsv=4), "reserved bits must be 0"),
    "not masked": (frame(b"a", mask=None), "incorrect masking"),
    "long ping": (frame(b"x" * 126, PING), "control frame too long"),
    "very long close": (frame(b"x" * 65536, CLOSE), "control frame too long"),
    "fragmented ping": (frame(b"", PING, fin=False), "fragmented control frame"),
    "fragmented close": (frame(b"", CLOSE, fin=False), "fragmented control frame"),
    "continuation of nothing": (frame(b"a", CONT), "unexpected continuation frame"),
    "message in a message": (text("a", fin=False) + text("b"), "expected a continuation frame"),
    "continuation after the end": (text("a", fin=False) + more(b"b") + more(b"c"), "unexpected continuation frame"),
} | {f"opcode {opcode}": (frame(b"a", opcode), "invalid opcode") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)}


@pytest.mark.parametrize("name", HEADS)
def test_headers_that_break_the_protocol(name: str) -> None:
    wire, reason = HEADS[name]
    for place in range(min(len(wire), 200)):  # the longest payload has nothing new to say
        channel = Recorder()
        channel.feed(*cut(text("before") + wire, len(text("before")) + place))
        channel.turn()
        ((what, detail),) = channel.failures
        code, explain = FAILURES[what]
        assert code == CloseCode.PROTOCOL_ERROR
        assert str(explain(detail)) == reason
        channel.feed(text("after"), b"\xff" * 100)
        assert len(channel.failures) == 1
        assert "before" in channel.take_all()
        assert channel.take_all() == []


def test_a_bad_header_fails_before_its_payload() -> None:
    channel = Recorder()
    channel.feed(frame(b"x" * 65536, rsv=1)[:14])
    assert channel.failures


def test_a_client_refuses_masked_frames() -> None:
    channel = Recorder(client=True)
    channel.feed(text("a"))
    assert str(FAILURES[channel.failures[0][0]][1](None)) == "incorrect masking"


# UTF-8, as early as the bytes allow (RFC 6455 8.1)

ENDLESS = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"


@pytest.mark.parametrize(
    ("fragments", "good", "start"),
    [
        ([ENDLESS + b"\xf4\x90\x80\x80edited"], len(ENDLESS) + 1, 11),
        ([ENDLESS, b"\xf4\x90\x80\x80edited"], len(ENDLESS) + 1, 11),
        ([ENDLESS + b"\xf4", b"\x90", b"\x80\x80edited"], len(ENDLESS) + 1, 11),
        ([b"\xff"], 0, 0),
        ([b"a\x80"], 1, 1),
        ([b"caf\xc3", b"x"], 4, 3),
        ([b"\xed\xa0\x80"], 1, 0),
    ],
)
def test_broken_text_fails_at_its_first_wrong_byte(fragments: list[bytes], good: int, start: int) -> None:
    channel = Recorder()
    seen = 0
    for i, payload in enumerate(fragments):
        last = i == len(fragments) - 1
        wire = frame(payload, TEXT if i == 0 else CONT, mask=MASK, fin=last)
        head = len(wire) - len(payload)
        for place in range(len(wire)):
            assert bool(channel.failures) == (seen > good), f"after {seen} bytes of text"
            channel.feed(wire[place : place + 1])
            seen += place >= head
    ((what, detail),) = channel.failures
    code, explain = FAILURES[what]
    exc = explain(detail)
    assert code == CloseCode.INVALID_DATA
    assert isinstance(exc, UnicodeDecodeError)
    assert exc.start == start


@pytest.mark.parametrize("payload", [b"\xc3", b"caf\xc3", b"\xf0\x9f\x8c"])
def test_text_that_ends_inside_a_character(payload: bytes) -> None:
    for wire in (frame(payload, mask=MASK), frame(payload, fin=False, mask=MASK) + more(b"")):
        for place in range(len(wire)):
            channel = Recorder()
            channel.feed(*cut(wire, place))
            ((what, detail),) = channel.failures
            assert str(FAILURES[what][1](detail)).endswith("unexpected end of data")


@pytest.mark.parametrize(
    "before",
    [
        text("whole"),
        text("in ", fin=False) + more(b"fragments"),
        binary(b"\xff", fin=False) + more(b"\xff"),
        binary(b"\xff", fin=False) + more(b"\xff", fin=False) + more(b"\xff") + text("whole"),
    ],
)
def test_where_text_is_broken_does_not_depend_on_what_came_before(before: bytes) -> None:
    for wire in (frame(b"good \xff"), frame(b"go", fin=False) + frame(b"od \xff", CONT)):
        channel = Recorder()
        channel.feed(before + wire)
        ((what, detail),) = channel.failures
        exc = FAILURES[what][1](detail)
        assert isinstance(exc, UnicodeDecodeError)
        assert exc.start == 5


def test_binary_is_not_checked() -> None:
    channel = Recorder()
    channel.feed(binary(b"\xff\xfe") + binary(b"\xc3", fin=False) + more(b"x"))
    assert channel.take_all() == [b"\xff\xfe", b"\xc3x"]


def test_the_close_reason_is_not_checked_here() -> None:
    channel = Recorder()
    channel.feed(text("caf", fin=False) + control(PING, b"\xff") + more("é".encode()))
    assert channel.take_all() == ["café"]


# Numbers


def test_numbers_that_two_languages_share() -> None:
    """writer.pxd repeats what protocol.py and closing.py say."""
    assert list(State) == [0, 1, 2, 3]
    assert Side.SERVER == 0
    assert [code for code, _ in FAILURES] == [1002] * 7 + [1009, 1007, 1002]
    assert issubclass(Recorder, Channel)
