"""Tests of tidegate.headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.exceptions import InvalidHeaderFormat, InvalidHeaderValue
from tidegate.headers import (
    MAX_LIST_ITEMS,
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    build_www_authenticate_basic,
    parse_authorization_basic,
    parse_connection,
    parse_extension,
    parse_lines,
    parse_subprotocol,
    parse_upgrade,
    validate_host,
    validate_subprotocols,
)

TOKEN = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("host", "port", "secure", "short", "long"),
    [
        ("localhost", 80, False, "localhost", "localhost:80"),
        ("localhost", 443, True, "localhost", "localhost:443"),
        ("localhost", 80, True, "localhost:80", "localhost:80"),
        ("localhost", 443, False, "localhost:443", "localhost:443"),
        ("127.0.0.1", 8080, False, "127.0.0.1:8080", "127.0.0.1:8080"),
        ("::1", 80, False, "[::1]", "[::1]:80"),
        ("::1", 8443, True, "[::1]:8443", "[::1]:8443"),
        ("[::1]", 80, False, "[::1]", "[::1]:80"),
        ("fe80::1%eth0", 80, False, "[fe80::1]", "[fe80::1]:80"),
    ],
)
def test_build_host(host: str, port: int, secure: bool, short: str, long: str) -> None:
    assert build_host(host, port, secure) == short
    assert build_host(host, port, secure, always_include_port=True) == long


@pytest.mark.parametrize(
    "value",
    [
        *("localhost", "example.com", "EXAMPLE.com.", "xn--bcher-kva.example", "under_score", "a%20b", "a,b;c=d"),
        *("127.0.0.1", "127.0.0.1:8765", "example.com:65535", "example.com:0", "example.com:"),
        *("[::1]", "[::1]:443", "[2001:db8::1]:", "[::ffff:192.0.2.1]", "[fe80::1%25eth0]", "[fe80::1%eth0]:80"),
    ],
)
def test_hosts(value: str) -> None:
    """Hosts that RFC 3986 allows are valid."""
    validate_host(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "a b", "a\tb", ":80", "a:b", "a:80:80", "a:65536", "a:999999", "a:-1", "a:+1", "a:\u0661"),
        *("::1", "[::1", "::1]", "[]", "[::1]a", "[1.2.3.4]", "[::1::2]", "[12345::]", "[v1.x]", "[::1]:x"),
        *("a/b", "a?b", "a#b", "user@a", "http://a", "a\\b", "<a>", "a%2", "a%zz", "bücher.example", "a,  b", "a\n"),
    ],
)
def test_what_is_no_host(value: str) -> None:
    with pytest.raises(InvalidHeaderValue) as raised:
        validate_host(value)
    assert raised.value.name == "Host"


@pytest.mark.parametrize("parse", [parse_connection, parse_upgrade, parse_extension, parse_subprotocol])
def test_lists_are_bounded(parse: Callable[[str], Any]) -> None:
    assert len(parse(", ".join(["a"] * MAX_LIST_ITEMS))) == MAX_LIST_ITEMS
    for header in (", ".join(["a"] * (MAX_LIST_ITEMS + 1)), "a" + "," * MAX_LIST_ITEMS, "a" + ";b" * MAX_LIST_ITEMS):
        with pytest.raises(InvalidHeaderFormat, match=f"header: more than {MAX_LIST_ITEMS} items at 0 in a") as raised:
            parse(header)
        assert len(str(raised.value)) < 200


def test_lines_are_parsed_and_bounded_together() -> None:
    assert parse_lines(parse_connection, [], "Connection") == []
    assert parse_lines(parse_connection, ["a, b", "", "c"], "Connection") == ["a", "b", "c"]
    assert len(parse_lines(parse_connection, ["a"] * MAX_LIST_ITEMS, "Connection")) == MAX_LIST_ITEMS
    for lines in (["a"] * (MAX_LIST_ITEMS + 1), ["a" + ",a" * (MAX_LIST_ITEMS // 2)] * 2):
        with pytest.raises(InvalidHeaderFormat, match=f"more than {MAX_LIST_ITEMS} items"):
            parse_lines(parse_connection, lines, "Connection")


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("Upgrade", ["Upgrade"]),
        ("keep-alive, Upgrade", ["keep-alive", "Upgrade"]),
        ("keep-alive\t,\tUpgrade ", ["keep-alive", "Upgrade"]),
        (",, a,  , b,,", ["a", "b"]),
        ("", []),
        (", ,", []),
    ],
)
def test_parse_connection(header: str, parsed: list[str]) -> None:
    assert parse_connection(header) == parsed


@pytest.mark.parametrize(
    ("header", "parsed"),
    [("websocket", ["websocket"]), ("h2c, websocket/13", ["h2c", "websocket/13"]), ("", [])],
)
def test_parse_upgrade(header: str, parsed: list[str]) -> None:
    assert parse_upgrade(header) == parsed


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("foo", [("foo", [])]),
        ("foo, bar", [("foo", []), ("bar", [])]),
        ("foo; a; b=1, bar;c = 2", [("foo", [("a", None), ("b", "1")]), ("bar", [("c", "2")])]),
        ('foo; a="1"; b="\\2"', [("foo", [("a", "1"), ("b", "2")])]),
        ("foo; a=1; a=2", [("foo", [("a", "1"), ("a", "2")])]),
        (",foo,,", [("foo", [])]),
        ("", []),
    ],
)
def test_parse_extension(header: str, parsed: list[Any]) -> None:
    assert parse_extension(header) == parsed


@pytest.mark.parametrize(("header", "parsed"), [("foo", ["foo"]), ("foo,bar", ["foo", "bar"]), ("", [])])
def test_parse_subprotocol(header: str, parsed: list[str]) -> None:
    assert parse_subprotocol(header) == parsed


@pytest.mark.parametrize(
    ("parse", "header", "error", "pos"),
    [
        (parse_connection, " a", "expected token", 0),
        (parse_connection, "a b", "expected comma", 2),
        (parse_connection, "a;b", "expected comma", 1),
        (parse_connection, "a, é", "expected token", 3),
        (parse_upgrade, "/13", "expected protocol", 0),
        (parse_upgrade, "h2c/1/2", "expected comma", 5),
        (parse_upgrade, "websocket/", "expected comma", 9),
        (parse_extension, "foo;", "expected token", 4),
        (parse_extension, "foo;;a", "expected token", 4),
        (parse_extension, "foo; a=", "expected token", 7),
        (parse_extension, "foo; =1", "expected token", 5),
        (parse_extension, "foo; a=1 2", "expected comma", 9),
        (parse_extension, 'foo; a="', "expected quoted string", 7),
        (parse_extension, 'foo; a="1', "expected quoted string", 7),
        (parse_extension, 'foo; a="é"', "expected quoted string", 7),
        (parse_extension, 'foo; a="1 2"', "invalid quoted header content", 7),
        (parse_extension, 'foo; a=""', "invalid quoted header content", 7),
        (parse_extension, 'foo; a="1"2', "expected comma", 10),
        (parse_subprotocol, "a/b", "expected comma", 1),
        (parse_authorization_basic, "", "expected token", 0),
        (parse_authorization_basic, "Basic", "expected space after scheme", 5),
        (parse_authorization_basic, "Basic ", "expected token68", 6),
        (parse_authorization_basic, "Basic  YTpi", "expected token68", 6),
        (parse_authorization_basic, "Basic YTpi YTpi", "trailing data", 10),
    ],
)
def test_format(parse: Callable[[str], Any], header: str, error: str, pos: int) -> None:
    """A header of the wrong format is an error that says what was expected, and where."""
    with pytest.raises(InvalidHeaderFormat) as raised:
        parse(header)
    assert raised.value.args[1:] == (error, header, pos)


def test_format_names_the_header() -> None:
    for parse, name in (
        (parse_connection, "Connection"),
        (parse_upgrade, "Upgrade"),
        (parse_extension, "Sec-WebSocket-Extensions"),
        (parse_subprotocol, "Sec-WebSocket-Protocol"),
        (parse_authorization_basic, "Authorization"),
    ):
        with pytest.raises(InvalidHeaderFormat, match=f"^invalid {name} header: expected "):
            parse("=")


@given(st.text('ab,; \t="\\/é', max_size=20))
def test_any_text_is_parsed_or_refused(header: str) -> None:
    for parse in (parse_connection, parse_upgrade, parse_extension, parse_subprotocol, parse_authorization_basic):
        try:
            assert parse(header) or not header.strip(", \t")
        except (InvalidHeaderFormat, InvalidHeaderValue):
            pass


def test_long_headers_take_linear_time() -> None:
    with pytest.raises(InvalidHeaderFormat):
        parse_connection("a" + "," * 1_000_000)
    with pytest.raises(InvalidHeaderFormat):
        parse_extension('a; b="' + "\\\\" * 1_000_000)


@given(st.lists(st.tuples(TOKEN, st.lists(st.tuples(TOKEN, st.none() | TOKEN), max_size=3)), min_size=1, max_size=3))
def test_extensions_survive_the_wire(extensions: list[Any]) -> None:
    assert parse_extension(build_extension(extensions)) == extensions


@given(st.lists(TOKEN, min_size=1, max_size=4))
def test_subprotocols_survive_the_wire(subprotocols: list[Any]) -> None:
    validate_subprotocols(subprotocols)
    assert parse_subprotocol(build_subprotocol(subprotocols)) == subprotocols


def test_build() -> None:
    """Extensions and subprotocols are put together into a header's value."""
    assert build_extension([]) == ""
    assert build_extension([("a", [("b", None), ("c", "1")]), ("d", [])]) == "a; b; c=1, d"  # type: ignore[list-item]
    assert build_subprotocol(["a", "b"]) == "a, b"  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("subprotocols", "error"),
    [
        ("chat", TypeError("subprotocols must be a list, not a str")),
        (b"chat", TypeError("subprotocols must be a list, not a bytes")),
        (5, TypeError("subprotocols must be a list")),
        ({"chat"}, TypeError("subprotocols must be a list")),
        ([b"chat"], TypeError("subprotocols must be a list of str, not of bytes")),
        (["a b"], ValueError("invalid subprotocol: a b")),
        (["a", ""], ValueError("invalid subprotocol: ")),
        (["é"], ValueError("invalid subprotocol: é")),
    ],
)
def test_validate_subprotocols(subprotocols: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        validate_subprotocols(subprotocols)
    assert str(raised.value) == str(error)
    validate_subprotocols(("a", "b"))  # type: ignore[arg-type]


def test_build_www_authenticate_basic() -> None:
    assert build_www_authenticate_basic("") == 'Basic realm="", charset="UTF-8"'
    assert build_www_authenticate_basic('a "b" \\') == 'Basic realm="a \\"b\\" \\\\", charset="UTF-8"'
    for realm in ("a\r\nb", "\x00", "€"):
        with pytest.raises(ValueError, match="realm"):
            build_www_authenticate_basic(realm)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("Digest YTpi", "unsupported scheme: Digest"),
        ("Bearer", "unsupported scheme: Bearer"),
        ("Basic YTp", "expected base64-encoded credentials"),
        ("Basic -._~", "expected username:password credentials"),
        ("Basic YWI=", "expected username:password credentials"),
    ],
)
def test_authorization_value(header: str, error: str) -> None:
    with pytest.raises(InvalidHeaderValue) as raised:
        parse_authorization_basic(header)
    assert str(raised.value) == f"invalid Authorization header: {error}"


@given(st.text(max_size=8).filter(lambda name: ":" not in name), st.text(max_size=8))
def test_credentials_survive_the_wire(username: str, password: str) -> None:
    header = build_authorization_basic(username, password)
    assert parse_authorization_basic(header) == (username, password)
    assert parse_authorization_basic(header.replace("Basic", "bASIC")) == (username, password)


def test_credentials_that_are_not_utf8_are_no_reason_to_fail() -> None:
    assert parse_authorization_basic("Basic /zo=") == ("\udcff", "")


def test_username_with_colon() -> None:
    with pytest.raises(ValueError, match="colon"):
        build_authorization_basic("a:b", "c")
