"""Tests of tidegate.client: what a client asks, which answer will do, and what it does about another."""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.client import backoff as their_backoff
from websockets.client import process_exception as their_process_exception
from websockets.uri import parse_uri as their_parse_uri

from tidegate import client
from tidegate.client import (
    ClientOptions,
    backoff,
    check_response,
    generate_key,
    make_request,
    process_exception,
    redirect_target,
    same_origin,
    without_credentials,
)
from tidegate.datastructures import Headers
from tidegate.exceptions import (
    InvalidHandshake,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidStatus,
    NegotiationError,
    SecurityError,
)
from tidegate.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from tidegate.http11 import Request, Response
from tidegate.server import HandshakeOptions, accept
from tidegate.typing import Origin, Subprotocol
from tidegate.uri import parse_uri

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
NONE = ClientOptions()


def request(uri: str, options: ClientOptions = NONE, additional: Any = ()) -> Request:
    return make_request(parse_uri(uri), KEY, options, Headers(additional))


def response(*headers: tuple[str, str], status: int = 101) -> Response:
    pairs = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT), *headers]
    return Response(status, "", Headers(pairs))


# The question


def test_keys_are_sixteen_random_bytes() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


def test_the_smallest_request() -> None:
    assert request("ws://example.com").serialize() == (
        b"GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "ws://example.com/",
        "ws://example.com:80/a/b?c=d&e",
        "wss://example.com:80/",
        "wss://EXAMPLE.com:443?x",
        "ws://user:p%40ss%C3%A9@example.com:8080/",
        "ws://[::1]:9/",
        "ws://münchen.example/ä?ö",
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"origin": "https://a", "subprotocols": ["b", "c"]}], ids=["plain", "with options"]
)
def test_requests_are_those_of_the_model(uri: str, options: Any) -> None:
    theirs = ClientProtocol(their_parse_uri(uri), **options)
    theirs.key = KEY
    expected = theirs.connect()
    ours = request(uri, ClientOptions(**options))
    assert ours.path == expected.path
    assert list(ours.headers.raw_items()) == list(expected.headers.raw_items())


def test_a_server_accepts_it() -> None:
    options = ClientOptions(subprotocols=["chat"])  # type: ignore[list-item]
    accepted = accept(request("ws://example.com", options), HandshakeOptions(subprotocols=["chat"]), None)  # type: ignore[list-item]
    agreed = check_response(accepted.response, KEY, options)
    assert agreed == ("chat", [])


def test_additional_headers_come_last() -> None:
    options = ClientOptions(user_agent="Mine")
    headers = request("ws://example.com", options, [("A", "1"), ("A", "2")]).headers
    assert list(headers.raw_items())[-3:] == [("A", "1"), ("A", "2"), ("User-Agent", "Mine")]
    headers = request("ws://example.com", options, {"user-agent": "Other"}).headers
    assert headers.get_all("User-Agent") == ["Other"]


def test_there_is_one_of_each_header() -> None:
    """Programs give what they have seen a browser send, and servers reject a request with two of these."""
    copied = {
        "host": "other.example",
        "Origin": "https://other.example",
        "authorization": "Bearer x",
        "User-Agent": "Browser",
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "WebSocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "8",
        "Sec-WebSocket-Extensions": "x-frob",
        "Sec-WebSocket-Protocol": "other",
        "Cookie": "a=b",
    }
    options = ClientOptions(
        origin=Origin("https://ours.example"),
        subprotocols=[Subprotocol("chat")],
        extensions=[ClientPerMessageDeflateFactory()],
        user_agent="Mine",
    )
    headers = request("ws://me:pass@example.com", options, copied).headers
    assert list(headers.raw_items()) == [
        ("Host", "other.example"),
        ("Authorization", "Bearer x"),
        ("Origin", "https://other.example"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("Sec-WebSocket-Protocol", "chat"),
        ("User-Agent", "Browser"),
        ("Cookie", "a=b"),
    ]


def test_what_is_not_ours_is_the_callers() -> None:
    given = [("Sec-WebSocket-Protocol", "a"), ("Origin", "b"), ("Authorization", "c")]
    headers = request("ws://example.com", NONE, given).headers
    assert [headers[name] for name, _ in given] == ["a", "b", "c"]


def test_the_host_of_one_origin_is_not_told_to_another() -> None:
    assert list(without_credentials(Headers(Host="a", Accept="b"))) == ["accept"]


def test_empty_lists_are_none() -> None:
    """RFC 9110, 5.6.1."""
    headers = [("Sec-WebSocket-Protocol", ""), ("Sec-WebSocket-Extensions", ", ,")]
    assert check_response(response(*headers), KEY, NONE) == (None, [])


# The answer


def test_the_example_of_the_rfc() -> None:
    assert check_response(response(), KEY, NONE) == (None, [])


@pytest.mark.parametrize(
    ("headers", "options", "message"),
    [
        ([("Sec-WebSocket-Protocol", "a")], NONE, "no subprotocols supported"),
        ([("Sec-WebSocket-Protocol", "a")], ClientOptions(subprotocols=[]), "no subprotocols supported"),
        ([("Sec-WebSocket-Extensions", "a")], NONE, "no extensions supported"),
        ([("Sec-WebSocket-Extensions", "a")], ClientOptions(extensions=[]), "no extensions supported"),
    ],
)
def test_what_was_not_asked_for(headers: Any, options: ClientOptions, message: str) -> None:
    with pytest.raises(NegotiationError, match=message):
        check_response(response(*headers), KEY, options)


def test_a_status_comes_before_all_else() -> None:
    with pytest.raises(InvalidStatus):
        check_response(Response(404, "Not Found", Headers()), KEY, NONE)


def test_the_answer_to_another_key() -> None:
    with pytest.raises(InvalidHeaderValue):
        check_response(response(), generate_key(), NONE)


NAMES = ["Upgrade", "Connection", "Sec-WebSocket-Accept", "X"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text('aU ,;="é'))))
def test_whatever_is_answered_is_accepted_or_a_documented_error(pairs: list[tuple[str, str]]) -> None:
    try:
        check_response(Response(101, "", Headers(pairs)), KEY, NONE)
    except InvalidHandshake:
        pass


# Another address


def refusal(status: int, *headers: tuple[str, str]) -> InvalidStatus:
    return InvalidStatus(Response(status, "", Headers(headers)))


@pytest.mark.parametrize(
    ("uri", "location", "target"),
    [
        ("ws://a/b/c?d", "e", "ws://a/b/e"),
        ("ws://a/b/c?d", "/e?f", "ws://a/e?f"),
        ("ws://a/b/c?d", "?f", "ws://a/b/c?f"),
        ("wss://a/b", "//c:1/d", "wss://c:1/d"),
        ("ws://u:p@a/b", "c", "ws://u:p@a/c"),
        ("ws://u:p@a/b", "ws://a/c", "ws://a/c"),
        ("ws://a/b", "http://c/", "http://c/"),
    ],
)
def test_where_a_redirect_leads(uri: str, location: str, target: str) -> None:
    assert redirect_target(uri, refusal(307, ("Location", location))) == target


@pytest.mark.parametrize(
    "exc",
    [
        refusal(307),
        refusal(304, ("Location", "/")),
        refusal(200, ("Location", "/")),
        refusal(301, ("Location", "/"), ("Location", "/")),
        SecurityError(),
        OSError(),
    ],
)
def test_what_is_no_redirect(exc: Exception) -> None:
    assert redirect_target("ws://a/", exc) is None


def test_origins() -> None:
    """URIs have the same origin when scheme, host and port are the same."""
    assert same_origin(parse_uri("ws://a/b"), parse_uri("ws://u:p@A:80/c"))
    for other in ("wss://a/b", "ws://a:81/b", "ws://b/b"):
        assert not same_origin(parse_uri("ws://a/b"), parse_uri(other))


def test_credentials() -> None:
    """Headers without credentials lack Authorization, Cookie and Proxy-Authorization."""
    headers = Headers([("AUTHORIZATION", "1"), ("Cookie", "2"), ("proxy-authorization", "3"), ("X", "4"), ("X", "5")])
    assert list(without_credentials(headers).raw_items()) == [("X", "4"), ("X", "5")]


# Another try


def caused(exc: Exception, cause: Exception) -> Exception:
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    ("exc", "passes"),
    [
        (OSError(), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (caused(InvalidMessage(), EOFError()), True),
        (caused(InvalidMessage(), ValueError()), False),
        (InvalidMessage(), False),
        *[(refusal(status), True) for status in (500, 502, 503, 504)],
        *[(refusal(status), False) for status in (200, 400, 401, 429, 501, 505)],
        (SecurityError(), False),
        (ValueError(), False),
    ],
)
def test_what_may_pass(exc: Exception, passes: bool) -> None:
    assert process_exception(exc) is (None if passes else exc)
    if not isinstance(exc, InvalidHandshake):
        assert their_process_exception(exc) is process_exception(exc)


def test_delays() -> None:
    """Delays before reconnecting grow as those of websockets do, within their limits."""
    first, *rest = itertools.islice(backoff(), 30)
    assert 0 <= first <= 5
    assert rest == pytest.approx(list(itertools.islice(their_backoff(), 30))[1:])
    assert rest[0] == 3.1
    assert rest[-1] == 90
    assert list(itertools.islice(backoff(0, 1, 5, 2), 6)) == [0, 1, 2, 4, 5, 5]
    assert list(itertools.islice(backoff(0, 9, 5, 2), 3)) == [0, 5, 5]
    assert len({next(backoff()) for _ in range(50)}) == 50


def variables(**environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from tidegate import client as c;"
        "print(c.MAX_REDIRECTS, c.BACKOFF_INITIAL_DELAY, c.BACKOFF_MIN_DELAY, c.BACKOFF_MAX_DELAY, c.BACKOFF_FACTOR)"
    )
    names = {f"TIDEGATE_{name}": value for name, value in environment.items()}
    return subprocess.run([sys.executable, "-c", code], env=env(names), capture_output=True, text=True, check=False)


def env(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **more}


def test_variables() -> None:
    """Environment variables set the defaults of reconnecting, and nonsense in them is refused."""
    assert variables().stdout.split() == ["10", "5.0", "3.1", "90.0", "1.618"]
    changed = variables(
        MAX_REDIRECTS="0",
        BACKOFF_INITIAL_DELAY="0",
        BACKOFF_MIN_DELAY="0.5",
        BACKOFF_MAX_DELAY="7",
        BACKOFF_FACTOR="1.5",
    )
    assert changed.stdout.split() == ["0", "0.0", "0.5", "7.0", "1.5"]
    for name, value in (
        ("BACKOFF_FACTOR", "many"),
        ("BACKOFF_MIN_DELAY", "-1"),
        ("MAX_REDIRECTS", "1.5"),
        ("MAX_REDIRECTS", "inf"),
    ):
        failed = variables(**{name: value})
        assert f"TIDEGATE_{name}" in failed.stderr.splitlines()[-1]
        assert value in failed.stderr.splitlines()[-1]


def test_public_names() -> None:
    for name in client.__all__:
        assert getattr(client, name).__doc__
