"""Headers of ASGI events."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.asyncio.asgi_headers import checked, header_lines, http_head, subprotocol_line


def test_lines_keep_their_order() -> None:
    assert header_lines([(b"B", b"1"), (b"a", b""), (b"b", b"\xff")]) == b"b: 1\r\na: \r\nb: \xff\r\n"
    assert subprotocol_line(None) == subprotocol_line("") == b""
    assert subprotocol_line("chat") == b"Sec-WebSocket-Protocol: chat\r\n"


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b":status", b"\xc3\xa9", b"a\r\n"])
def test_names_that_are_none(name: bytes) -> None:
    with pytest.raises(ValueError, match="not a name of a header"):
        checked([(name, b"")])


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"\n", b"\0", b"\x7f"])
def test_values_that_are_none(value: bytes) -> None:
    with pytest.raises(ValueError, match="not a value of the header a"):
        checked([(b"a", value)])


@pytest.mark.parametrize("pair", [("a", b""), (b"a", ""), (b"a", None)])
def test_types_that_are_wrong(pair: Any) -> None:
    with pytest.raises(TypeError, match="must be bytes"):
        checked([pair])


def test_the_head_of_a_response() -> None:
    defaults = [(b"date", b"then"), (b"server", b"s")]
    head, reason = http_head(403, [(b"connection", b"keep-alive"), (b"date", b"now"), (b"a", b"b")], 3, defaults)
    assert reason == "Forbidden"
    assert head == (
        b"HTTP/1.1 403 Forbidden\r\nserver: s\r\ndate: now\r\na: b\r\ncontent-length: 3\r\nconnection: close\r\n\r\n"
    )
    head, reason = http_head(599, [(b"content-length", b"3"), (b"server", b"t")], None, defaults)
    assert (reason, head.count(b"content-length"), head.lower().count(b"server:")) == ("", 1, 1)
    assert b"content-length" not in http_head(204, [], 0, [])[0]
