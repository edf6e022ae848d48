"""Tests of tidegate.exceptions."""

from __future__ import annotations

import pickle
import re

import pytest

from tidegate import exceptions
from tidegate.datastructures import Headers
from tidegate.exceptions import (
    BusBusy,
    BusDown,
    BusError,
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    HeaderLineTooLong,
    HeadTooLong,
    InvalidChannel,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    MessageTooBig,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    ProxyError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyChannels,
    TooManyFragments,
    TooManyHeaders,
    TooManyMembers,
    UnexpectedBody,
    WebSocketException,
)
from tidegate.frames import Close, CloseCode
from tidegate.http11 import Response

NORMAL = Close(CloseCode.NORMAL_CLOSURE, "")
AWAY = Close(1001, "bye")
FORBIDDEN = Response(403, "Forbidden", Headers())

SAMPLES: list[tuple[WebSocketException, str]] = [
    (WebSocketException("something"), "something"),
    (ConnectionClosed(NORMAL, NORMAL, True), "received 1000 (OK); then sent 1000 (OK)"),
    (ConnectionClosed(NORMAL, AWAY, False), "sent 1001 (going away) bye; then received 1000 (OK)"),
    (ConnectionClosed(None, None), "no close frame received or sent"),
    (ConnectionClosed(AWAY, None), "received 1001 (going away) bye; no close frame sent"),
    (ConnectionClosed(None, AWAY, None), "sent 1001 (going away) bye; no close frame received"),
    (ConnectionClosedOK(AWAY, AWAY, True), "received 1001 (going away) bye; then sent 1001 (going away) bye"),
    (ConnectionClosedError(None, Close(1011, "")), "sent 1011 (internal error); no close frame received"),
    (InvalidURI("|", "no scheme"), "| isn't a valid URI: no scheme"),
    (InvalidProxy("|", "no scheme"), "| isn't a valid proxy: no scheme"),
    (InvalidHandshake("bad"), "bad"),
    (SecurityError("long"), "long"),
    (RequestLineTooLong("long"), "long"),
    (StatusLineTooLong("long"), "long"),
    (HeaderLineTooLong("long"), "long"),
    (TooManyHeaders("many"), "many"),
    (HeadTooLong("long"), "long"),
    (ProxyError("failed"), "failed"),
    (InvalidProxyMessage("malformed"), "malformed"),
    (InvalidProxyStatus(FORBIDDEN), "proxy rejected connection: HTTP 403"),
    (InvalidMessage("malformed"), "malformed"),
    (UnexpectedBody("body"), "body"),
    (InvalidMethod("POST"), "unsupported HTTP method: POST"),
    (InvalidProtocol("HTTP/1.0"), "unsupported HTTP version: HTTP/1.0"),
    (InvalidStatus(FORBIDDEN), "server rejected WebSocket connection: HTTP 403"),
    (InvalidHeader("Name"), "missing Name header"),
    (InvalidHeader("Name", None), "missing Name header"),
    (InvalidHeader("Name", ""), "empty Name header"),
    (InvalidHeader("Name", "value"), "invalid Name header: value"),
    (InvalidHeaderFormat("Name", "expected token", "a=|", 2), "invalid Name header: expected token at 2 in a=|"),
    (InvalidHeaderValue("Name", "value"), "invalid Name header: value"),
    (InvalidOrigin(None), "missing Origin header"),
    (InvalidOrigin(""), "empty Origin header"),
    (InvalidOrigin("http://other"), "invalid Origin header: http://other"),
    (InvalidUpgrade("Upgrade", None), "missing Upgrade header"),
    (InvalidUpgrade("Connection", "close"), "invalid Connection header: close"),
    (NegotiationError("unsupported subprotocol"), "unsupported subprotocol"),
    (DuplicateParameter("a"), "duplicate parameter: a"),
    (InvalidParameterName("|"), "invalid parameter name: |"),
    (InvalidParameterValue("a", None), "missing value for parameter a"),
    (InvalidParameterValue("a", ""), "empty value for parameter a"),
    (InvalidParameterValue("a", "|"), "invalid value for parameter a: |"),
    (ProtocolError("invalid opcode"), "invalid opcode"),
    (PayloadTooBig(None, 4), "frame exceeds limit of 4 bytes"),
    (PayloadTooBig(8, 4), "frame with 8 bytes exceeds limit of 4 bytes"),
    (PayloadTooBig(8, 4, 12), "frame with 8 bytes after reading 12 bytes exceeds limit of 16 bytes"),
    (PayloadTooBig(None, 4, 0), "frame after reading 0 bytes exceeds limit of 4 bytes"),
    (TooManyFragments(4096), "fragmented message exceeds limit of 4096 frames"),
    (InvalidState("already open"), "already open"),
    (ConcurrencyError("already running"), "already running"),
    (BusError("no bus here"), "no bus here"),
    (BusBusy("chat:7", 0.5), "chat:7: the queue to the bus was full for 0.5 seconds"),
    (BusDown("connection refused"), "the bus is down: connection refused"),
    (
        BusDown("no answer", 2.0, True),
        "the bus is down: no answer; what was published may or may not be stored",
    ),
    (InvalidChannel(" a", "it begins with a space"), "' a' isn't the name of a channel: it begins with a space"),
    (MessageTooBig("chat:7", 11, 10), "chat:7: message of 11 bytes exceeds the bus's limit of 10 bytes"),
    (TooManyChannels(128, "a connection"), "a connection may join at most 128 channels"),
    (
        TooManyMembers("chat:7", 1204, 1000),
        "chat:7 has more than the 1000 members that are listed: 1204 connections",
    ),
]


@pytest.mark.parametrize(("exc", "text"), SAMPLES)
def test_str(exc: WebSocketException, text: str) -> None:
    """An exception's text says what happened."""
    assert str(exc) == text


@pytest.mark.parametrize("exc", [exc for exc, _ in SAMPLES])
def test_pickle(exc: WebSocketException) -> None:
    """An exception survives pickling with its attributes."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(exc, protocol))
        assert type(copy) is type(exc)
        assert str(copy) == str(exc)
        assert copy.args == exc.args
        assert vars(copy) == vars(exc)


def test_every_exception_has_a_sample() -> None:
    assert {type(exc).__name__ for exc, _ in SAMPLES} == set(exceptions.__all__)


def test_tracebacks_name_the_documented_module() -> None:
    for name in exceptions.__all__:
        assert getattr(exceptions, name).__module__ == "tidegate.exceptions"


def test_the_tree_is_the_one_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^( *)\* :exc:`(\w+)`", exceptions.__doc__ or "", re.MULTILINE):
        del path[len(indent) // 4 :]
        drawn[name] = path[-1] if path else "Exception"
        path.append(name)
    assert drawn == {name: getattr(exceptions, name).__bases__[0].__name__ for name in exceptions.__all__}


def test_other_bases() -> None:
    assert issubclass(InvalidState, AssertionError)
    assert issubclass(ConcurrencyError, RuntimeError)
    assert issubclass(InvalidChannel, ValueError)


def test_fields() -> None:
    """Exceptions have the documented attributes."""
    closed = ConnectionClosedError(NORMAL, AWAY, True)
    assert (closed.rcvd, closed.sent, closed.rcvd_then_sent) == (NORMAL, AWAY, True)
    uri = InvalidURI("a", "b")
    assert (uri.uri, uri.msg) == ("a", "b")
    proxy = InvalidProxy("a", "b")
    assert (proxy.proxy, proxy.msg) == ("a", "b")
    assert InvalidStatus(FORBIDDEN).response is FORBIDDEN
    assert InvalidProxyStatus(FORBIDDEN).response is FORBIDDEN
    header = InvalidHeaderFormat("Name", "expected comma", "a b", 2)
    assert (header.name, header.value) == ("Name", "expected comma at 2 in a b")
    assert InvalidOrigin("x").name == "Origin"
    assert TooManyFragments(3).max_fragments == 3
    down = BusDown("gone", 0.5)
    assert (down.reason, down.retry_after, down.uncertain) == ("gone", 0.5, False)


def test_current_size_can_be_told_later() -> None:
    exc = PayloadTooBig(10, 5)
    exc.set_current_size(None)
    assert (exc.size, exc.max_size, exc.current_size) == (10, 5, None)
    exc.set_current_size(7)
    assert (exc.size, exc.max_size, exc.current_size) == (10, 12, 7)
    assert str(exc) == "frame with 10 bytes after reading 7 bytes exceeds limit of 12 bytes"
    assert str(pickle.loads(pickle.dumps(exc))) == str(exc)
    with pytest.raises(AssertionError):
        exc.set_current_size(7)
