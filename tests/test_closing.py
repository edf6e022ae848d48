"""How a connection ends (RFC 6455 section 7): what was said, by whom first, and what is raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.closing import FAILURES, MAX_REASON, Closing, failure
from tidegate.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from tidegate.frames import Close

TOO_BIG, INVALID_UTF8, UNDECODABLE = 7, 8, 9


def test_nothing_was_said() -> None:
    closing = Closing()
    assert (closing.code, closing.reason, closing.initiator, closing.final_code) == (1006, "", "abort", 1006)
    exc = closing.exception()
    assert isinstance(exc, ConnectionClosedError)
    assert str(exc) == "no close frame received or sent"
    assert exc.__cause__ is None


def test_we_began() -> None:
    closing = Closing()
    assert closing.send(1001, "bye") == b"\x03\xe9bye"
    assert (closing.code, closing.initiator, closing.final_code) == (1006, "local", 1001)
    closing.receive(b"\x03\xe9bye")
    assert closing.rcvd_then_sent is False
    assert (closing.code, closing.reason, closing.initiator, closing.final_code) == (1001, "bye", "local", 1001)
    exc = closing.exception()
    assert isinstance(exc, ConnectionClosedOK)
    assert str(exc) == "sent 1001 (going away) bye; then received 1001 (going away) bye"


def test_they_began() -> None:
    closing = Closing()
    closing.receive(b"\x0f\xa0why")
    closing.echo()
    assert closing.rcvd_then_sent is True
    assert closing.initiator == "remote"
    assert closing.rcvd is closing.sent
    exc = closing.exception()
    assert isinstance(exc, ConnectionClosedError)
    assert str(exc) == "received 4000 (private use) why; then sent 4000 (private use) why"


def test_they_began_and_we_answered_otherwise() -> None:
    closing = Closing()
    closing.receive(b"\x03\xe8")
    closing.send(1002, "no")
    assert closing.rcvd_then_sent is True
    assert closing.final_code == 1000
    assert isinstance(closing.exception(), ConnectionClosedError)


def test_an_empty_close_frame_is_a_normal_end() -> None:
    closing = Closing()
    closing.receive(b"")
    closing.echo()
    assert closing.code == 1005
    assert isinstance(closing.exception(), ConnectionClosedOK)


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe7", b"\x03\xed", b"\x13\x88"])
def test_what_is_no_close_frame(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        Closing().receive(payload)


def test_a_reason_that_is_no_utf8() -> None:
    with pytest.raises(UnicodeDecodeError):
        Closing().receive(b"\x03\xe8\xff")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000])
def test_codes_that_may_not_be_sent(code: int) -> None:
    closing = Closing()
    with pytest.raises(ProtocolError, match="invalid status code"):
        closing.send(code, "")
    assert closing.sent is None


def test_a_reason_fills_a_control_frame_and_no_more() -> None:
    assert len(Closing().send(1000, "x" * MAX_REASON)) == 125
    closing = Closing()
    with pytest.raises(ProtocolError, match="control frame too long"):
        closing.send(1000, "x" * (MAX_REASON + 1))
    assert closing.sent is None


def test_the_first_to_be_blamed_counts() -> None:
    closing = Closing()
    closing.blame(None)
    first = OSError("first")
    closing.blame(first)
    closing.blame(OSError("second"))
    assert closing.exception().__cause__ is first


def test_each_exception_is_new() -> None:
    closing = Closing()
    assert closing.exception() is not closing.exception()


def test_failures_say_what_happened() -> None:
    said = [(int(code), failure(explain((2000, 1000, 0)))) for code, explain in FAILURES[:TOO_BIG]]
    assert said == [
        (1002, "reserved bits must be 0"),
        (1002, "invalid opcode"),
        (1002, "incorrect masking"),
        (1002, "control frame too long"),
        (1002, "fragmented control frame"),
        (1002, "expected a continuation frame"),
        (1002, "unexpected continuation frame"),
    ]


def test_too_big() -> None:
    code, explain = FAILURES[TOO_BIG]
    exc = explain((600, 400, 600))
    assert code == 1009
    assert isinstance(exc, PayloadTooBig)
    assert failure(exc) == "frame with 600 bytes after reading 600 bytes exceeds limit of 1000 bytes"
    assert failure(explain((None, 400, 0))) == "frame exceeds limit of 400 bytes"


def test_invalid_utf8() -> None:
    code, explain = FAILURES[INVALID_UTF8]
    assert code == 1007
    assert failure(explain(b"caf\xe9 au lait")) == "invalid continuation byte at position 3"


def test_undecodable() -> None:
    """A message that cannot be decompressed fails the connection with 1002."""
    code, explain = FAILURES[UNDECODABLE]
    cause = ValueError("zlib")
    exc = explain(cause)
    assert code == 1002
    assert failure(exc) == "decompression failed"
    assert exc.__cause__ is cause


@given(st.text(max_size=300))
def test_any_reason_is_cut_to_what_fits(text: str) -> None:
    exc = ProtocolError(text.encode(errors="ignore").decode())
    reason = failure(exc)
    assert str(exc).startswith(reason)
    Closing().send(1002, reason)
    assert len(str(exc).encode()) <= MAX_REASON or len(reason.encode()) > MAX_REASON - 4


def test_close_frames_are_values() -> None:
    closing = Closing()
    closing.send(1000, "")
    assert closing.sent == Close(1000, "")
