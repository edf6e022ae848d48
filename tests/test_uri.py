"""Tests of tidegate.uri."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.exceptions import InvalidURI
from tidegate.uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "parsed", "resource_name", "user_info"),
    [
        ("ws://localhost/", WebSocketURI(False, "localhost", 80, "/", ""), "/", None),
        ("wss://localhost/", WebSocketURI(True, "localhost", 443, "/", ""), "/", None),
        ("ws://localhost", WebSocketURI(False, "localhost", 80, "", ""), "/", None),
        ("ws://localhost?q", WebSocketURI(False, "localhost", 80, "", "q"), "/?q", None),
        ("ws://localhost/a/b?c=d&e", WebSocketURI(False, "localhost", 80, "/a/b", "c=d&e"), "/a/b?c=d&e", None),
        ("ws://localhost/?", WebSocketURI(False, "localhost", 80, "/", ""), "/", None),
        ("ws://localhost/;a?b", WebSocketURI(False, "localhost", 80, "/;a", "b"), "/;a?b", None),
        ("WSS://LocalHost:8443/A", WebSocketURI(True, "localhost", 8443, "/A", ""), "/A", None),
        ("ws://[::1]:81/", WebSocketURI(False, "::1", 81, "/", ""), "/", None),
        ("ws://h:/", WebSocketURI(False, "h", 80, "/", ""), "/", None),
        ("ws://u:p@h/", WebSocketURI(False, "h", 80, "/", "", "u", "p"), "/", ("u", "p")),
        ("ws://u:@h/", WebSocketURI(False, "h", 80, "/", "", "u", ""), "/", ("u", "")),
        ("ws://u%3A:p%40@h/", WebSocketURI(False, "h", 80, "/", "", "u:", "p@"), "/", ("u:", "p@")),
        (
            "ws://münchen.de/ü?ü",
            WebSocketURI(False, "xn--mnchen-3ya.de", 80, "/%C3%BC", "%C3%BC"),
            "/%C3%BC?%C3%BC",
            None,
        ),
        ("ws://faß.example/", WebSocketURI(False, "xn--fa-hia.example", 80, "/", ""), "/", None),
        ("ws://☃.example", WebSocketURI(False, "xn--n3h.example", 80, "", ""), "/", None),
        ("ws://日本。jp", WebSocketURI(False, "xn--wgv71a.jp", 80, "", ""), "/", None),
        ("ws://BÜCHER.example", WebSocketURI(False, "xn--bcher-kva.example", 80, "", ""), "/", None),
        ("ws://b%C3%BCcher.example", WebSocketURI(False, "xn--bcher-kva.example", 80, "", ""), "/", None),
        ("ws://क्\u200dष.example", WebSocketURI(False, "xn--11b2ezcw70k.example", 80, "", ""), "/", None),
        ("ws://a_b.example.", WebSocketURI(False, "a_b.example.", 80, "", ""), "/", None),
        ("ws://[fe80::1%25eth0]/", WebSocketURI(False, "fe80::1%eth0", 80, "/", ""), "/", None),
        ("ws://h/%20é", WebSocketURI(False, "h", 80, "/%20%C3%A9", ""), "/%20%C3%A9", None),
    ],
)
def test_parse(uri: str, parsed: WebSocketURI, resource_name: str, user_info: tuple[str, str] | None) -> None:
    """A URI is parsed into its parts, resource name and credentials."""
    assert parse_uri(uri) == parsed
    assert parsed.resource_name == resource_name
    assert parsed.user_info == user_info


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://localhost/", "scheme isn't ws or wss"),
        ("localhost", "scheme isn't ws or wss"),
        ("", "scheme isn't ws or wss"),
        ("ws:///path", "hostname isn't provided"),
        ("ws:localhost", "hostname isn't provided"),
        ("ws://localhost/#fragment", "fragment identifier is meaningless"),
        ("ws://user@localhost/", "username provided without password"),
        ("ws://localhost:99999/", "Port out of range"),
        ("ws://localhost:port/", "Port could not be cast"),
        ("ws://[::1/", "Invalid IPv6 URL"),
        ("ws://u%ff:p@h/", "codec can't decode"),
        ("ws://é" + "a" * 70 + "/", "hostname isn't valid"),
        ("ws://" + "a" * 64 + "/", "hostname isn't valid"),
        ("ws://a..b/", "hostname isn't valid"),
        ("ws://a b/", "hostname isn't valid"),
        ("ws://a%00b/", "hostname isn't valid"),
        ("ws://a%2Fb/", "hostname isn't valid"),
        ("ws://a\\b/", "hostname isn't valid"),
        ("ws://a%ff/", "codec can't decode"),
        ("ws://\u0301a/", "illegal combining character"),
        ("ws://é\u200db/", "joins nothing"),
        ("ws://é\u2fff/", "not allowed"),
    ],
)
def test_invalid(uri: str, message: str) -> None:
    """An invalid URI is refused with its text and the reason."""
    with pytest.raises(InvalidURI) as raised:
        parse_uri(uri)
    assert raised.value.uri == uri
    assert message in raised.value.msg


@given(st.text(max_size=30) | st.text(max_size=30).map("ws://".__add__) | st.text("ws:/[]@%?#é1 ", max_size=20))
def test_anything_is_a_uri_or_not(uri: str) -> None:
    try:
        parsed = parse_uri(uri)
    except InvalidURI:
        return
    assert parsed.host.isascii()
    assert parsed.resource_name.isascii()
    assert parsed.resource_name
    assert 0 < parsed.port < 65536
