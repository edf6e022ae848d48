"""The opening handshake as the server sees it, and the older names that `tidegate.server` leads to.

What must not live here: the server (tests/asyncio/test_server.py).
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegate.asyncio.server
import tidegate.server
from tidegate import exceptions
from tidegate.datastructures import Headers
from tidegate.exceptions import (
    HeaderLineTooLong,
    HeadTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
    TooManyHeaders,
    UnexpectedBody,
)
from tidegate.extensions import Extension, ServerExtensionFactory
from tidegate.http11 import Request, Response
from tidegate.server import (
    Accepted,
    HandshakeOptions,
    UnsupportedVersion,
    accept,
    accept_key,
    http_date,
    rejection_of,
    text_response,
)
from tidegate.typing import ExtensionName, ExtensionParameter, Subprotocol

NOW = 1_700_000_000.9
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CONNECTION = object()


def request(changes: dict[str, str | list[str] | None] | None = None, **kwargs: str) -> Request:
    """Make a request that is acceptable, but for the changes."""
    lines: dict[str, str | list[str] | None] = {
        "Host": "example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(changes or {}),
    }
    headers = Headers()
    for name, value in lines.items():
        for one in [value] if isinstance(value, str) else value or []:
            headers[name] = one
    return Request("/", headers, **kwargs)


def handshake(changes: dict[str, str | list[str] | None] | None = None, **options: Any) -> Accepted:
    return accept(request(changes), HandshakeOptions(**options), CONNECTION, NOW)


def rejected(changes: dict[str, str | list[str] | None], **options: Any) -> InvalidHandshake:
    with pytest.raises(InvalidHandshake) as raised:
        handshake(changes, **options)
    return raised.value


# accept


def test_accept() -> None:
    """An ordinary request is accepted, with RFC 6455's own example of a key."""
    accepted = handshake()
    assert accepted.subprotocol is None
    assert accepted.origin is None
    assert accepted.extensions == []
    assert accepted.response == Response(101, "Switching Protocols", accepted.response.headers, b"")
    assert list(accepted.response.headers.raw_items()) == [
        ("Date", DATE),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),  # RFC 6455, 1.3
    ]


def test_responses_share_nothing() -> None:
    one = handshake().response
    one.headers["Server"] = "x"
    del one.headers["Upgrade"]
    two = handshake().response
    assert "Server" not in two.headers
    assert two.headers["Upgrade"] == "websocket"


def test_date_is_the_present_by_default() -> None:
    response = accept(request(), HandshakeOptions(), None).response
    assert email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp() > NOW


def test_accept_key() -> None:
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_method() -> None:
    """Methods other than GET are rejected before the version is looked at."""
    with pytest.raises(InvalidMethod, match=r"^unsupported HTTP method: POST$"):
        accept(request(method="POST", protocol="HTTP/1.0"), HandshakeOptions(), None)


def test_protocol() -> None:
    """HTTP/1.0 is rejected."""
    with pytest.raises(InvalidProtocol, match=r"^unsupported HTTP version: HTTP/1\.0$"):
        accept(request(protocol="HTTP/1.0"), HandshakeOptions(), None)


@pytest.mark.parametrize("value", ["upgrade", "UPGRADE", "keep-alive, Upgrade", ["keep-alive", "Upgrade"], ",Upgrade,"])
def test_connection(value: str) -> None:
    """A Connection header that has `upgrade` among others is accepted."""
    handshake({"Connection": value})


@pytest.mark.parametrize("value", ["WebSocket", "websocket,", ",websocket"])
def test_upgrade(value: str) -> None:
    """An Upgrade header is accepted in any case."""
    handshake({"Upgrade": value})


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Connection", None, None),
        ("Connection", "keep-alive", "keep-alive"),
        ("Connection", ["keep-alive", "close"], "keep-alive, close"),
        ("Upgrade", None, None),
        ("Upgrade", "h2c", "h2c"),
        ("Upgrade", "websocket/13", "websocket/13"),
        ("Upgrade", "h2c, websocket", "h2c, websocket"),
        ("Upgrade", ["websocket", "websocket"], "websocket, websocket"),
    ],
)
def test_invalid_upgrade(name: str, value: str | list[str] | None, shown: str | None) -> None:
    exc = rejected({name: value})
    assert type(exc) is InvalidUpgrade
    assert (exc.name, exc.value) == (name, shown)


def test_connection_is_looked_at_first() -> None:
    assert str(rejected({"Connection": None, "Upgrade": None})) == "missing Connection header"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Connection", "a b"),
        ("Upgrade", "web(socket"),
        ("Sec-WebSocket-Protocol", "a b"),
    ],
)
def test_format(name: str, value: str) -> None:
    """A header of the wrong format is rejected by its name."""
    exc = rejected({name: value})
    assert type(exc) is InvalidHeaderFormat
    assert exc.name == name


def test_key() -> None:
    """A missing key and a doubled one are rejected, one of 16 bytes is accepted."""
    assert handshake({"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}).response.status_code == 101
    exc = rejected({"Sec-WebSocket-Key": None})
    assert (type(exc), str(exc)) == (InvalidHeader, "missing Sec-WebSocket-Key header")
    exc = rejected({"Sec-WebSocket-Key": [KEY, KEY]})
    assert (type(exc), str(exc)) == (InvalidHeader, "invalid Sec-WebSocket-Key header: multiple values")


@pytest.mark.parametrize(
    "key", ["", "abc", KEY[:-1], KEY[:-2], KEY + "=", KEY + " ", KEY.replace("h", "!"), "AAAA", "é", KEY[:-4] + "A" * 8]
)
def test_invalid_key(key: str) -> None:
    exc = rejected({"Sec-WebSocket-Key": key})
    assert type(exc) is InvalidHeaderValue
    assert exc.value == key


def test_version() -> None:
    """Versions other than 13, none and several are rejected."""
    exc = rejected({"Sec-WebSocket-Version": None})
    assert (type(exc), str(exc)) == (InvalidHeader, "missing Sec-WebSocket-Version header")
    exc = rejected({"Sec-WebSocket-Version": ["13", "8"]})
    assert (type(exc), str(exc)) == (InvalidHeader, "invalid Sec-WebSocket-Version header: multiple values")
    for version in ("", "8", "13, 8", "013", "14"):
        exc = rejected({"Sec-WebSocket-Version": version})
        assert isinstance(exc, UnsupportedVersion)
        assert exc.value == version


# accept: origins


@pytest.mark.parametrize(
    ("origins", "origin", "good"),
    [
        (None, None, True),
        (None, "http://a", True),
        (None, "", True),
        ([], None, False),
        ([], "http://a", False),
        (["http://a"], "http://a", True),
        (["http://a"], "http://a/", False),
        (["http://a"], "HTTP://A", False),
        (["http://a"], None, False),
        (["http://a", None], None, True),
        ([None], "http://a", False),
        ([re.compile("http://[ab]")], "http://b", True),
        ([re.compile("http://[ab]")], "http://b.evil", False),
        ([re.compile("http://[ab]")], None, False),
        ([re.compile(".*")], "", True),
        (["", None], "", True),
        ([None], "", False),
    ],
)
def test_origins(origins: Any, origin: str | None, good: bool) -> None:
    """Origins are accepted or rejected as `origins` says."""
    if good:
        assert handshake({"Origin": origin}, origins=origins).origin == origin
    else:
        exc = rejected({"Origin": origin}, origins=origins)
        assert type(exc) is InvalidOrigin
        assert exc.value == origin


def test_two_origins() -> None:
    exc = rejected({"Origin": ["http://a", "http://a"]})
    assert (type(exc), str(exc)) == (InvalidHeader, "invalid Origin header: multiple values")


# accept: subprotocols


@pytest.mark.parametrize(
    ("subprotocols", "offered", "chosen"),
    [
        (None, None, None),
        (None, "a", None),
        ([], "a", None),
        (["a", "b"], "b, a", "a"),
        (["a", "b"], ["b", "c"], "b"),
        (("a",), "c,a", "a"),
        (["a", "b"], None, "missing subprotocol"),
        (["a", "b"], "c", "invalid subprotocol; expected one of a, b"),
        (["a"], "A", "invalid subprotocol; expected one of a"),
    ],
)
def test_subprotocols(subprotocols: Any, offered: str | list[str] | None, chosen: str | None) -> None:
    """The subprotocol is chosen among those offered, or the request is rejected."""
    if chosen is not None and "subprotocol" in chosen:
        exc = rejected({"Sec-WebSocket-Protocol": offered}, subprotocols=subprotocols)
        assert (type(exc), str(exc)) == (NegotiationError, chosen)
    else:
        accepted = handshake({"Sec-WebSocket-Protocol": offered}, subprotocols=subprotocols)
        assert accepted.subprotocol == chosen
        assert accepted.response.headers.get("Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize("offered", [None, "a, b"])
@pytest.mark.parametrize("choice", [None, "other"])
def test_select_subprotocol(offered: str | None, choice: Subprotocol | None) -> None:
    calls = []

    def select(connection: object, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        calls.append((connection, subprotocols))
        return choice

    accepted = handshake({"Sec-WebSocket-Protocol": offered}, select_subprotocol=select, subprotocols=["z"])
    assert calls == [(CONNECTION, ["a", "b"] if offered else [])]
    assert accepted.subprotocol == choice
    assert accepted.response.headers.get("Sec-WebSocket-Protocol") == choice


@pytest.mark.parametrize("error", [NegotiationError("no"), ValueError("no")])
def test_select_subprotocol_raises(error: Exception) -> None:
    def select(connection: object, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        raise error

    with pytest.raises(type(error)) as raised:
        handshake(select_subprotocol=select)
    assert raised.value is error


def test_select_subprotocol_cannot_add_headers() -> None:
    with pytest.raises(InvalidHeaderValue):
        handshake(select_subprotocol=lambda connection, subprotocols: "a\r\nSet-Cookie: b")


# accept: extensions


class Known(Extension):
    def __init__(self, name: str, before: list[str]) -> None:
        self.name = ExtensionName(name)
        self.before = before


class Factory(ServerExtensionFactory):
    """Accepts an extension unless one of its parameters is "bad"; answers with the first."""

    def __init__(self, name: str) -> None:
        self.name = ExtensionName(name)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        if any(name == "bad" for name, _ in params):
            raise NegotiationError("bad parameter")
        return list(params[:1]), Known(self.name, [extension.name for extension in accepted_extensions])


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (None, None),
        ("other", None),
        ("foo", "foo"),
        ("foo; a; b=1", "foo; a"),
        ("foo; bad, foo; a=1", "foo; a=1"),
        ("foo; bad", None),
        ("bar, other, foo", "bar, foo"),
        (["bar; a=1", "foo"], "bar; a=1, foo"),
        ("foo; a, foo; b", "foo; a"),
    ],
)
def test_extensions(offered: str | list[str] | None, answered: str | None) -> None:
    """Extensions are accepted in the order offered, each knowing those before it."""
    accepted = handshake({"Sec-WebSocket-Extensions": offered}, extensions=[Factory("foo"), Factory("bar")])
    assert accepted.response.headers.get("Sec-WebSocket-Extensions") == answered
    names = [extension.name for extension in accepted.extensions]
    assert names == [item.split(";")[0] for item in answered.split(", ")] if answered else names == []
    assert [extension.before for extension in accepted.extensions] == [names[:i] for i in range(len(names))]  # type: ignore[attr-defined]


def test_extensions_of_no_interest_are_not_even_parsed() -> None:
    assert handshake({"Sec-WebSocket-Extensions": "a b; =,"}).extensions == []
    exc = rejected({"Sec-WebSocket-Extensions": "a b; =,"}, extensions=[Factory("foo")])
    assert type(exc) is InvalidHeaderFormat


def test_order_of_headers() -> None:
    accepted = handshake(
        {"Sec-WebSocket-Extensions": "foo", "Sec-WebSocket-Protocol": "a"},
        extensions=[Factory("foo")],
        subprotocols=["a"],
    )
    assert [name for name, _ in accepted.response.headers.raw_items()] == [
        "Date",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Protocol",
    ]


# HandshakeOptions


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"subprotocols": "chat"}, TypeError("subprotocols must be a list, not a str")),
        ({"subprotocols": ["a b"]}, ValueError("invalid subprotocol: a b")),
        ({"select_subprotocol": "chat"}, TypeError("select_subprotocol must be a function")),
        ({"origins": "http://a"}, TypeError("origins must be a list, not a str")),
        ({"origins": [1]}, TypeError("origins must contain str, compiled patterns or None, not int")),
        ({"origins": [b"http://a"]}, TypeError("origins must contain str, compiled patterns or None, not bytes")),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        HandshakeOptions(**options)
    assert str(raised.value) == str(error)


# rejection_of, text_response


@pytest.mark.parametrize(
    ("exc", "status", "reason", "extra"),
    [
        (InvalidOrigin("http://a"), 403, "Forbidden", {}),
        (InvalidMethod("POST"), 405, "Method Not Allowed", {"Allow": "GET"}),
        (UnexpectedBody("a body"), 413, None, {}),
        (RequestLineTooLong("long"), 414, None, {}),
        (InvalidUpgrade("Upgrade"), 426, "Upgrade Required", {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}),
        (
            UnsupportedVersion("Sec-WebSocket-Version", "8"),
            426,
            "Upgrade Required",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        ),
        (HeaderLineTooLong("long"), 431, "Request Header Fields Too Large", {}),
        (TooManyHeaders("many"), 431, "Request Header Fields Too Large", {}),
        (HeadTooLong("long"), 431, "Request Header Fields Too Large", {}),
        (InvalidProtocol("HTTP/1.0"), 505, "HTTP Version Not Supported", {}),
        (InvalidHeader("Sec-WebSocket-Key"), 400, "Bad Request", {}),
        (InvalidHeaderFormat("Upgrade", "expected token", "é", 0), 400, "Bad Request", {}),
        (InvalidMessage("malformed é \ud800"), 400, "Bad Request", {}),
        (NegotiationError("missing subprotocol"), 400, "Bad Request", {}),
        (SecurityError("other"), 400, "Bad Request", {}),
    ],
)
def test_rejection(exc: Exception, status: int, reason: str | None, extra: dict[str, str]) -> None:
    """Each exception leads to its status, and to a text response that closes."""
    response = rejection_of(exc, NOW)
    assert response.status_code == status
    assert type(response.status_code) is int
    # Python 3.13 renamed 413 and 414 as RFC 9110 did.
    assert response.reason_phrase == reason or (reason is None and response.reason_phrase)
    assert list(response.headers.raw_items()) == [
        ("Date", DATE),
        ("Connection", "close"),
        ("Content-Length", str(len(response.body))),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        *extra.items(),
    ]
    assert str(exc).replace("\ud800", "\\ud800") in bytes(response.body).decode()
    assert response.serialize().startswith(b"HTTP/1.1 %d " % status)


def test_rejection_tells_the_cause() -> None:
    exc = rejected({"Sec-WebSocket-Key": "abc"})
    assert b"invalid Sec-WebSocket-Key header: abc (Incorrect padding).\n" in rejection_of(exc).body


def test_rejection_of_a_failure_tells_nothing() -> None:
    response = rejection_of(ValueError("a secret"))
    assert response.status_code == 500
    assert b"secret" not in response.serialize()


def test_every_exception_has_an_answer() -> None:
    for name in exceptions.__all__:
        type_ = getattr(exceptions, name)
        if issubclass(type_, InvalidHandshake):
            exc = type_.__new__(type_, "x")
            vars(exc).update(name="x", value="x", method="x", protocol="x", response=Response(400, "", Headers()))
            assert 400 <= rejection_of(exc).status_code < 600


def test_text_response() -> None:
    """A response made by hand has its headers, and its status is checked."""
    response = text_response(503, "later é\n", NOW)
    assert response.status_code == 503
    assert response.reason_phrase == "Service Unavailable"
    assert response.body == "later é\n".encode()
    assert dict(response.headers.items()) == {
        "date": DATE,
        "connection": "close",
        "content-length": "9",
        "content-type": "text/plain; charset=utf-8",
    }
    with pytest.raises(ValueError, match="299"):
        text_response(299, "")


# http_date


@given(st.floats(0, 4_000_000_000))
def test_http_date(now: float) -> None:
    assert http_date(now) == email.utils.formatdate(int(now), usegmt=True)


HEADER = st.lists(
    st.sampled_from(["upgrade", "websocket", "keep-alive", "13", "8", ",", " ", ";", '"', "/", "=", "é", "", KEY]),
    max_size=4,
).map("".join)


@given(
    st.dictionaries(
        st.sampled_from(["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Origin"])
        | st.sampled_from(["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"]),
        st.lists(HEADER, max_size=2),
        max_size=3,
    )
)
def test_any_request_is_accepted_or_rejected(changes: dict[str, Any]) -> None:
    options = {"extensions": [Factory("foo")], "subprotocols": ["13"], "origins": [None, "8"]}
    try:
        response = handshake(changes, **options).response
    except InvalidHandshake as exc:
        response = rejection_of(exc)
    assert response.status_code in {101, 400, 403, 426}


# Older names


def test_older_import() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"tidegate\.server\.serve is deprecated: use tidegate\.asyncio\.server"
    ):
        from tidegate.server import serve
    assert serve is tidegate.asyncio.server.serve


def test_all_that_is_here_can_be_seen() -> None:
    assert {"serve", "unix_serve", "broadcast", "WebSocketServerProtocol"} < set(dir(tidegate.server))
    with pytest.raises(ImportError):
        from tidegate.server import nothing  # noqa: F401
