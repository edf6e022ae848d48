"""Tests of tidegate.frames."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate import frames
from tidegate.exceptions import ProtocolError
from tidegate.frames import EXTERNAL_CLOSE_CODES, OK_CLOSE_CODES, Close, CloseCode, Frame, Opcode


def test_opcodes_have_short_names() -> None:
    for opcode in Opcode:
        assert getattr(frames, opcode.name) is opcode


def test_opcodes() -> None:
    """Opcodes have the names and numbers of RFC 6455."""
    assert [(opcode.name, opcode.value) for opcode in Opcode] == [
        ("CONT", 0),
        ("TEXT", 1),
        ("BINARY", 2),
        ("CLOSE", 8),
        ("PING", 9),
        ("PONG", 10),
    ]


def test_close_codes() -> None:
    assert set(CloseCode) == {1000, 1001, 1002, 1003, *range(1005, 1016)}
    assert {*CloseCode} - {1005, 1006, 1015} == EXTERNAL_CLOSE_CODES
    assert {1000, 1001, 1005} == OK_CLOSE_CODES
    assert set(frames.CLOSE_CODE_EXPLANATIONS) == set(CloseCode)


# Close


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000, ""), "1000 (OK)"),
        (Close(CloseCode.GOING_AWAY, "bye"), "1001 (going away) bye"),
        (Close(1012, "restarting"), "1012 (service restart) restarting"),
        (Close(1006, ""), "1006 (abnormal closure [internal])"),
        (Close(3000, ""), "3000 (registered)"),
        (Close(3999, "x"), "3999 (registered) x"),
        (Close(4000, ""), "4000 (private use)"),
        (Close(4999, ""), "4999 (private use)"),
        (Close(1004, ""), "1004 (unknown)"),
        (Close(2999, ""), "2999 (unknown)"),
        (Close(5000, ""), "5000 (unknown)"),
    ],
)
def test_close_str(close: Close, text: str) -> None:
    assert str(close) == text


def test_close_is_a_value() -> None:
    close = Close(1000, "bye")
    assert close == Close(CloseCode.NORMAL_CLOSURE, "bye")
    assert close != Close(1000, "")
    assert repr(close) == "Close(code=1000, reason='bye')"
    assert pickle.loads(pickle.dumps(close)) == close
    close.reason = "other"
    assert close.reason == "other"
    with pytest.raises(TypeError):
        hash(close)


@given(st.sampled_from(sorted(EXTERNAL_CLOSE_CODES)) | st.integers(3000, 4999), st.text(max_size=40))
def test_close_survives_the_wire(code: int, reason: str) -> None:
    close = Close(code, reason)
    data = close.serialize()
    assert data == code.to_bytes(2, "big") + reason.encode()
    for form in (data, bytearray(data), memoryview(data)):
        assert Close.parse(form) == close


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_close_codes_that_cannot_be_sent(code: int) -> None:
    with pytest.raises(ProtocolError, match="invalid status code"):
        Close(code, "").serialize()
    with pytest.raises(ProtocolError, match="invalid status code"):
        Close.parse(code.to_bytes(2, "big"))


def test_close_parse() -> None:
    assert Close.parse(b"") == Close(CloseCode.NO_STATUS_RCVD, "")
    with pytest.raises(ProtocolError, match="close frame too short"):
        Close.parse(b"\x03")
    with pytest.raises(UnicodeDecodeError):
        Close.parse(b"\x03\xe8\xff")


# Frame


def test_frame_is_a_value() -> None:
    frame = Frame(Opcode.TEXT, b"a")
    assert frame == Frame(Opcode.TEXT, b"a", True, False, False, False)
    assert frame != Frame(Opcode.TEXT, b"a", fin=False)
    assert pickle.loads(pickle.dumps(frame)) == frame


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame(Opcode.TEXT, b"hello"), "TEXT 'hello' [5 bytes]"),
        (Frame(Opcode.TEXT, b"h", fin=False), "TEXT 'h' [1 byte, continued]"),
        (Frame(Opcode.TEXT, b""), "TEXT '' [0 bytes]"),
        (Frame(Opcode.TEXT, "é".encode()), "TEXT 'é' [2 bytes]"),
        (Frame(Opcode.TEXT, b"a\nb'"), 'TEXT "a\\nb\'" [4 bytes]'),
        (Frame(Opcode.TEXT, "é".encode()[:1], fin=False), "TEXT '\ufffd' [1 byte, continued]"),
        (Frame(Opcode.TEXT, b"\xff\xff"), "TEXT ff ff [binary, 2 bytes]"),
        (Frame(Opcode.TEXT, b"a" * 200), f"TEXT '{'a' * 47}...{'a' * 23}' [200 bytes]"),
        (Frame(Opcode.CONT, b"abc"), "CONT 'abc' [text, 3 bytes]"),
        (Frame(Opcode.CONT, b"\xff\x00"), "CONT ff 00 [binary, 2 bytes]"),
        (Frame(Opcode.BINARY, b"abc"), "BINARY 'abc' [text, 3 bytes]"),
        (Frame(Opcode.CONT, "é".encode()[1:]), "CONT '\ufffd' [text, 1 byte]"),
        (Frame(Opcode.CONT, "é".encode()[:1]), "CONT c3 [binary, 1 byte]"),
        (Frame(Opcode.TEXT, "é".encode()[1:], fin=False), "TEXT a9 [binary, 1 byte, continued]"),
        (Frame(Opcode.TEXT, b"\x1b[0m"), "TEXT 1b 5b 30 6d [binary, 4 bytes]"),
        (Frame(Opcode.BINARY, memoryview(b"\x00\xff")), "BINARY 00 ff [2 bytes]"),
        (
            Frame(Opcode.BINARY, bytes(range(128, 228))),
            f"BINARY {bytes(range(128, 144)).hex(' ')} ... {bytes(range(220, 228)).hex(' ')} [100 bytes]",
        ),
        (Frame(Opcode.CLOSE, b"\x03\xe8bye"), "CLOSE 1000 (OK) bye [5 bytes]"),
        (Frame(Opcode.CLOSE, b""), "CLOSE '' [0 bytes]"),
        (Frame(Opcode.CLOSE, b"\x01"), "CLOSE 01 [binary, 1 byte]"),
        (Frame(Opcode.CLOSE, b"\x03\xe8\xff"), "CLOSE 03 e8 ff [binary, 3 bytes]"),
        (Frame(Opcode.PING, b"ping"), "PING 'ping' [text, 4 bytes]"),
        (Frame(Opcode.PING, "é".encode()), "PING c3 a9 [binary, 2 bytes]"),
        (Frame(Opcode.PONG, b"\xff\xfe"), "PONG ff fe [binary, 2 bytes]"),
    ],
)
def test_frame_str(frame: Frame, text: str) -> None:
    assert str(frame) == text


@given(st.sampled_from(Opcode), st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.booleans())
def test_frame_str_is_short_and_one_line(opcode: Opcode, data: bytes, fin: bool) -> None:
    text = str(Frame(opcode, data, fin))
    assert text.startswith(opcode.name)
    if opcode is not Opcode.CLOSE:
        assert len(text) <= len("BINARY ") + frames.MAX_LOG_SIZE + len(" [binary, 300 bytes, continued]")
        assert "\n" not in text


def test_frame_check() -> None:
    Frame(Opcode.TEXT, b"a" * 200, fin=False).check()
    Frame(Opcode.PING, b"a" * 125).check()
    with pytest.raises(ProtocolError, match="too long"):
        Frame(Opcode.PING, b"a" * 126).check()
    with pytest.raises(ProtocolError, match="fragmented"):
        Frame(Opcode.CLOSE, b"", fin=False).check()
    for bit in ("rsv1", "rsv2", "rsv3"):
        with pytest.raises(ProtocolError, match="reserved bits"):
            Frame(Opcode.TEXT, b"", **{bit: True}).check()
