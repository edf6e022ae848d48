"""Tests of tidegate.proxy: which proxy for which URI, and what its URL says."""

from __future__ import annotations

from typing import Any

import pytest
from websockets import proxy as model
from websockets.uri import parse_uri as their_parse_uri

from tidegate.exceptions import InvalidProxy
from tidegate.proxy import Proxy, connect_request, get_proxy, parse_proxy
from tidegate.uri import parse_uri


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy", Proxy("http", "proxy", 80)),
        ("http://PROXY:3128/", Proxy("http", "proxy", 3128)),
        ("https://proxy", Proxy("https", "proxy", 443)),
        ("socks5h://proxy", Proxy("socks5h", "proxy", 1080)),
        ("socks5://proxy:1", Proxy("socks5", "proxy", 1)),
        ("socks4a://proxy", Proxy("socks4a", "proxy", 1080)),
        ("socks4://proxy", Proxy("socks4", "proxy", 1080)),
        ("http://[::1]:8080", Proxy("http", "::1", 8080)),
        ("http://me:p%40s%3As@proxy", Proxy("http", "proxy", 80, "me", "p@s:s")),
        ("http://münchen.example", Proxy("http", "xn--mnchen-3ya.example", 80)),
    ],
)
def test_urls(url: str, proxy: Proxy) -> None:
    """A proxy's URL is parsed into its parts and credentials."""
    parsed = parse_proxy(url)
    assert parsed == proxy
    assert parsed.user_info == (None if proxy.username is None else (proxy.username, proxy.password))
    if not url.startswith("socks") or ":1" in url[8:]:  # of a port for SOCKS the model has no idea
        theirs = model.parse_proxy(url)
        assert (theirs.scheme, theirs.host, theirs.port) == (proxy.scheme, proxy.host, proxy.port)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://proxy", "scheme ftp isn't supported"),
        ("proxy:3128", "scheme proxy isn't supported"),
        ("//proxy", "scheme  isn't supported"),
        ("http://", "hostname isn't provided"),
        ("http://proxy/path", "path is meaningless"),
        ("http://proxy?query", "query is meaningless"),
        ("http://proxy#fragment", "fragment is meaningless"),
        ("http://me@proxy", "username provided without password"),
        ("http://proxy:99999", "Port out of range 0-65535"),
        ("http://me:%ff@proxy", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_urls_of_no_proxy(url: str, message: str) -> None:
    with pytest.raises(InvalidProxy) as raised:
        parse_proxy(url)
    assert str(raised.value) == f"{url} isn't a valid proxy: {message}"


EACH = {f"{name}_proxy": f"http://{name}" for name in ("ws", "wss", "https", "http")} | {
    "socks_proxy": "socks5://socks"
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in EACH.items() if name.removesuffix("_proxy") not in names}


@pytest.mark.parametrize(
    ("uri", "environment", "expected"),
    [
        ("ws://example.com/", {}, None),
        ("ws://example.com/", EACH, "http://ws"),
        ("ws://example.com/", without("ws"), "socks5://socks"),
        ("ws://example.com/", without("ws", "socks"), "http://https"),
        ("ws://example.com/", without("ws", "socks", "https"), "http://http"),
        ("wss://example.com/", EACH, "http://wss"),
        ("wss://example.com/", without("wss"), "socks5://socks"),
        ("wss://example.com/", without("wss", "socks"), "http://https"),
        ("wss://example.com/", without("wss", "socks", "https"), None),
        ("ws://example.com/", {"socks_proxy": "http://s:1"}, "socks5h://s:1"),
        ("ws://example.com/", {"HTTP_PROXY": "http://upper"}, "http://upper"),
        ("ws://example.com/", {"all_proxy": "http://all"}, None),
        ("ws://example.com/", EACH | {"no_proxy": "example.com"}, None),
        ("ws://sub.example.com:8080/", EACH | {"no_proxy": "other, .example.com"}, None),
        ("ws://example.com:8080/", EACH | {"no_proxy": "example.com:8080"}, None),
        ("ws://example.com:8081/", EACH | {"no_proxy": "example.com:8080"}, "http://ws"),
        ("ws://example.com/", EACH | {"no_proxy": "*"}, None),
        ("ws://example.com/", {"ws_proxy": "", "http_proxy": "http://http"}, "http://http"),
    ],
)
def test_which_proxy(uri: str, environment: dict[str, str], expected: str | None, monkeypatch: Any) -> None:
    for name in [*EACH, "all_proxy", "no_proxy"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert get_proxy(parse_uri(uri)) == expected
    assert model.get_proxy(their_parse_uri(uri)) == expected


def test_names_are_those_of_browsers() -> None:
    assert parse_proxy("http://faß.example").host == "xn--fa-hia.example"
    with pytest.raises(InvalidProxy, match="hostname isn't valid"):
        parse_proxy("http://a b")


@pytest.mark.parametrize(
    ("uri", "no_proxy", "direct"),
    [
        ("ws://[::1]/", "[::1]", True),
        ("ws://[::1]/", "::1", True),
        ("ws://[::1]/", "a, [0:0::1] ,b", True),
        ("ws://[::1]:8080/", "[::1]:8080", True),
        ("ws://[::1]:8081/", "[::1]:8080", False),
        ("ws://[::2]/", "[::1]", False),
        ("ws://[fd00::7]/", "fd00::/8", True),
        ("ws://[fe80::1%25eth0]/", "fe80::1", True),
        ("ws://10.1.2.3/", "10.0.0.0/8", True),
        ("ws://11.1.2.3/", "10.0.0.0/8", False),
        ("ws://10.1.2.3/", "10.1.2.3:80", True),
        ("ws://example.com/", "0.0.0.0/0", False),
        ("ws://10.1.2.3/", "[, ,/,[]:,10/x", False),
    ],
)
def test_addresses_that_need_no_proxy(uri: str, no_proxy: str, direct: bool, monkeypatch: Any) -> None:
    monkeypatch.setenv("ws_proxy", "http://proxy")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert get_proxy(parse_uri(uri)) == (None if direct else "http://proxy")


def test_requests() -> None:
    """A CONNECT request names the host, brackets IPv6, and has the proxy's credentials."""
    proxy = parse_proxy("http://proxy")
    assert connect_request(proxy, "example.com", 80, "Mine") == (
        b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\nUser-Agent: Mine\r\n\r\n"
    )
    assert connect_request(parse_proxy("http://me:pass@proxy"), "::1", 443, None) == (
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n"
    )
