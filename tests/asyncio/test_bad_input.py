"""What a client, a server or a program gets wrong: each ends in a documented error, soon, and leaves nothing behind.

One story for each, from end to end. What must not live here: the rules behind them (tests/extensions, tests/core,
tests/test_datastructures, and the modules of handshakes, redirects and TLS beside this one).
"""

from __future__ import annotations

import asyncio
import gc
import ssl
import tracemalloc
import weakref
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.asyncio.ends import Serving, echo, serving
from tests.support.coroutines import outcome, until
from tests.support.rawpeer import REQUEST, RawServer, ServerPeer
from tests.support.wire import BINARY, CONT, PING, TEXT, frame
from tidegate.asyncio.client import ClientConnection, connect
from tidegate.asyncio.server import ServerConnection, serve
from tidegate.datastructures import Headers
from tidegate.exceptions import (
    ConnectionClosedError,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidStatus,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    SecurityError,
    WebSocketException,
)
from tidegate.http11 import Request, Response

OFFER = REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
MIB = 2**20
BOMB = 256 * MIB
"""Bytes that a bomb would become; it is a thousandth of that."""


class Left:
    """What is made within a test: connections, which nobody may keep, and tasks, which nobody may leave running."""

    def __init__(self) -> None:
        self.connections: list[weakref.ref[Any]] = []

    def server(self, *args: Any, **kwargs: Any) -> ServerConnection:
        connection = ServerConnection(*args, **kwargs)
        self.connections.append(weakref.ref(connection))
        return connection

    def client(self, *args: Any, **kwargs: Any) -> ClientConnection:
        connection = ClientConnection(*args, **kwargs)
        self.connections.append(weakref.ref(connection))
        return connection


@pytest_asyncio.fixture(autouse=True)
async def left() -> AsyncIterator[Left]:
    """Nothing hangs, and nothing is left behind."""
    made = Left()
    yield made
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await asyncio.sleep(0)
    if any(connection() for connection in made.connections):
        gc.collect()
    assert [connection() for connection in made.connections if connection() is not None] == []


def deflated(data: bytes) -> bytes:
    """A message as permessage-deflate sends it (RFC 7692 7.2.1)."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def bomb() -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    parts = [deflate.compress(bytes(MIB)) for _ in range(BOMB // MIB)]
    return (b"".join(parts) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


# Offers of extensions, and what is accepted of them


@pytest.mark.parametrize(
    "offer",
    ["permessage-deflate;", "permessage-deflate; =15", "permessage-deflate; server_max_window_bits=", ";", '"', "a b"],
)
async def test_a_malformed_offer(offer: str, left: Left) -> None:
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: " + offer.encode() + b"\r\n\r\n")
    async with serving(never, compression="deflate", create_connection=left.server) as made:
        status, _, body = await made.ask(request)
        assert status == 400
        assert "invalid Sec-WebSocket-Extensions header: expected" in body
        await good(made)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; unknown",
    ],
)
async def test_an_offer_that_cannot_be_accepted_is_declined(offer: str, left: Left) -> None:
    """RFC 7692 7.1: the connection goes on without it."""
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: " + offer.encode() + b"\r\n\r\n")
    async with serving(echo, compression="deflate", create_connection=left.server) as made:
        peer = await made.peer(request)
        assert b"Extensions" not in peer.response
        await talk(peer)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("permessage-deflate; =15", InvalidHeaderFormat),
        ("permessage-deflate; server_max_window_bits=7", NegotiationError),
        ("permessage-deflate; unknown", NegotiationError),
        ("permessage-deflate, permessage-deflate", NegotiationError),
        ("another", NegotiationError),
    ],
)
async def test_a_malformed_answer(answer: str, error: type[Exception], left: Left) -> None:
    async def handler(peer: ServerPeer) -> None:
        (await peer.request()).switch(("Sec-WebSocket-Extensions", answer))
        await peer.rest()

    async with RawServer(handler) as server:
        with pytest.raises(error):
            await connect(server.uri, create_connection=left.client)


# Compressed frames

COMPRESSED = [
    ("ping", [frame(b"x", PING, rsv=4)], 1002, "reserved bits must be 0", ProtocolError),
    ("close", [frame(b"\x03\xe8", 8, rsv=4)], 1002, "reserved bits must be 0", ProtocolError),
    ("stream", [frame(b"\xff\xff\xff", BINARY, rsv=4)], 1002, "decompression failed", ProtocolError),
    ("stream-of-text", [frame(b"\xff\xff\xff", TEXT, rsv=4)], 1002, "decompression failed", ProtocolError),
    (
        "later-frame",
        [frame(deflated(b"a"), BINARY, rsv=4, fin=False), frame(b"\xff\xff\xff", CONT)],
        1002,
        "decompression failed",
        ProtocolError,
    ),
    (
        "bit-in-continuation",
        [frame(deflated(b"a"), BINARY, rsv=4, fin=False), frame(b"b", CONT, rsv=4)],
        1002,
        None,
        ProtocolError,
    ),
    ("text", [frame(deflated(b"\xff"), TEXT, rsv=4)], 1007, None, UnicodeDecodeError),
]


@pytest.mark.parametrize(("name", "frames", "code", "reason", "cause"), COMPRESSED, ids=[row[0] for row in COMPRESSED])
async def test_a_server_gets_compressed_nonsense(
    name: str, frames: list[bytes], code: int, reason: str | None, cause: type[Exception], left: Left
) -> None:
    async with serving(keep, compression="deflate", create_connection=left.server) as made:
        peer = await made.peer(OFFER)
        peer.send(*frames)
        check_close(await peer.close_frame(), code, reason)
        await peer.end()
        peer.close()
        check_end(await KEPT.get(), code, cause)
        await good(made)


@pytest.mark.parametrize(("name", "frames", "code", "reason", "cause"), COMPRESSED, ids=[row[0] for row in COMPRESSED])
async def test_a_client_gets_compressed_nonsense(
    name: str, frames: list[bytes], code: int, reason: str | None, cause: type[Exception], left: Left
) -> None:
    closed = []

    async def handler(peer: ServerPeer) -> None:
        (await peer.request()).switch(("Sec-WebSocket-Extensions", "permessage-deflate"))
        for data in frames:
            peer.send(unmasked(data))
        first, payload = await peer.frame()
        assert first == 0x88
        closed.append((int.from_bytes(payload[:2], "big"), payload[2:].decode()))

    async with RawServer(handler) as server:
        async with connect(server.uri, create_connection=left.client) as websocket:
            check_end(await outcome(websocket.recv()), code, cause)
        check_close(closed[0], code, reason)
        del websocket


async def test_a_bomb_for_a_server(left: Left) -> None:
    payload = bomb()
    assert len(payload) < MIB  # which is what a message may have by default
    async with serving(keep, compression="deflate", create_connection=left.server) as made:
        peer = await made.peer(OFFER)
        with Peak() as peak:
            peer.send(frame(payload, BINARY, rsv=4))
            assert await peer.close_frame() == (1009, "frame exceeds limit of 1048576 bytes")
            peer.close()
            check_end(await KEPT.get(), 1009, PayloadTooBig)
        assert peak.bytes < BOMB // 16
        await good(made)


async def test_a_bomb_for_a_client(left: Left) -> None:
    payload = bomb()

    async def handler(peer: ServerPeer) -> None:
        (await peer.request()).switch(("Sec-WebSocket-Extensions", "permessage-deflate"))
        peer.message(payload, BINARY, rsv=4)
        assert (await peer.frame())[1][:2] == (1009).to_bytes(2, "big")

    async with RawServer(handler) as server, connect(server.uri, create_connection=left.client) as websocket:
        with Peak() as peak:
            check_end(await outcome(websocket.recv()), 1009, PayloadTooBig)
        assert peak.bytes < BOMB // 16
    del websocket


# Headers, and what else a head is made of, with line breaks in them

EVIL = "a\r\nEvil: 1"
LINES = [EVIL, "a\nEvil: 1", "a\rEvil: 1", "a\0"]


def setting(name: str, value: str) -> Callable[..., None]:
    def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
        response.headers[name] = value

    return process_response


def answering(*arguments: Any) -> Callable[..., Response]:
    return lambda *_: Response(*arguments)


async def later(hook: Callable[..., Any], *arguments: Any) -> Any:
    await asyncio.sleep(0)
    return hook(*arguments)


HOOKS: list[tuple[str, Callable[..., Any]]] = [
    *[("process_response", setting("A", value)) for value in LINES],
    ("process_response", setting(EVIL, "a")),
    ("process_response", lambda *_: Response(101, "OK", Headers({"A": EVIL}))),
    ("process_response", answering(403, EVIL, Headers())),
    ("process_request", lambda *_: Response(200, "OK", Headers({"A": EVIL}))),
    ("process_request", lambda *_: Response(200, "OK", Headers([(EVIL, "a")]))),
    *[("process_request", answering(200, value, Headers())) for value in [*LINES, "\u20ac"]],
    ("process_request", answering("200", "OK", Headers())),
    ("process_request", answering(200, "OK", Headers(), "text")),
]


@pytest.mark.parametrize(("name", "hook"), HOOKS)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_line_breaks_from_hooks(
    name: str, hook: Any, asynchronous: bool, left: Left, log: pytest.LogCaptureFixture
) -> None:
    async def slow(*arguments: Any) -> Any:
        return await later(hook, *arguments)

    options = {name: slow if asynchronous else hook}
    async with serving(never, create_connection=left.server, open_timeout=3600, **options) as made:
        status, headers, _ = await made.ask()
        assert status == 500
        assert "evil" not in headers
    errors = [record for record in log.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].exc_info
    log.clear()  # a traceback keeps what it goes through


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"server_header": EVIL}, InvalidHeaderValue),
        ({"server_header": "\u20ac"}, InvalidHeaderValue),
        ({"server_header": 3}, TypeError),
        ({"subprotocols": [EVIL]}, ValueError),
    ],
)
async def test_line_breaks_in_options_of_a_server(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        serve(never, "127.0.0.1", 0, **options)


@pytest.mark.parametrize("value", LINES)
async def test_line_breaks_in_extra_headers(value: str, left: Left, log: pytest.LogCaptureFixture) -> None:
    """The older form: what is given at once fails at once, what a function gives is its failure."""
    with pytest.deprecated_call(), pytest.raises(InvalidHeaderValue):
        serve(never, "127.0.0.1", 0, extra_headers={"A": value})
    with pytest.deprecated_call():
        async with serving(never, create_connection=left.server, extra_headers=lambda *_: {"A": value}) as made:
            assert (await made.ask())[0] == 500
    log.clear()


async def test_a_subprotocol_with_a_line_break(left: Left, log: pytest.LogCaptureFixture) -> None:
    async with serving(never, create_connection=left.server, select_subprotocol=lambda *_: EVIL) as made:
        status, headers, _ = await made.ask()
    assert status == 400
    assert "evil" not in headers
    log.clear()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        *[({"additional_headers": {"A": value}}, InvalidHeaderValue) for value in LINES],
        ({"additional_headers": {EVIL: "a"}}, InvalidHeader),
        ({"additional_headers": [(EVIL, "a")]}, InvalidHeader),
        ({"origin": EVIL}, InvalidHeaderValue),
        ({"user_agent_header": EVIL}, InvalidHeaderValue),
        ({"subprotocols": [EVIL]}, ValueError),
    ],
)
async def test_line_breaks_in_options_of_a_client(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        connect("ws://127.0.0.1:9/", **options)


@pytest.mark.parametrize("value", [b"a\nEvil: 1", b"a\rEvil: 1", b"a\0b"])
async def test_line_breaks_from_a_client(value: bytes, left: Left) -> None:
    """A bare LF ends a line for some and not for others, which is how requests are smuggled (RFC 9112 2.2)."""
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nX: " + value + b"\r\n\r\n")
    async with serving(never, create_connection=left.server) as made:
        assert (await made.ask(request))[0] == 400
        await good(made)


# Redirects, certificates


@pytest.mark.parametrize("locations", [["/"], ["/a", "/b"], ["/?", "//127.0.0.1:{port}/"]], ids=len)
async def test_a_redirect_loop(locations: list[str], left: Left) -> None:
    """Sent back to where it was, a client goes round ten times and no more."""
    count = 0

    async def handler(peer: ServerPeer) -> None:
        nonlocal count
        await peer.request()
        location = locations[count % len(locations)].format(port=server.port)
        count += 1
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode() + b"\r\nContent-Length: 0\r\n\r\n")

    async with RawServer(handler) as server:
        with pytest.raises(SecurityError, match=r"^more than 10 redirects$") as caught:
            await connect(server.uri, create_connection=left.client)
        assert count == 11
        del caught


async def test_a_certificate_that_does_not_verify(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, left: Left
) -> None:
    """Nobody's fault but the operator's: an OSError at the client, and a server that goes on for the others."""
    async with serving(echo, ssl=server_tls, create_connection=left.server) as made:
        uri = made.uri.replace("ws:", "wss:")
        for options in ({}, {"ssl": client_tls, "server_hostname": "elsewhere.example"}):
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await connect(uri, create_connection=left.client, **options)  # type: ignore[arg-type]
            assert isinstance(caught.value, OSError)
            assert not isinstance(caught.value, WebSocketException)
            del caught
        async with connect(uri, ssl=client_tls, create_connection=left.client) as websocket:
            await websocket.send("good")
            assert await websocket.recv() == "good"
        del websocket


async def test_a_status_is_no_leak(left: Left) -> None:
    """The exception has the response, and not the connection."""
    async with serving(
        never, create_connection=left.server, process_request=lambda c, _: c.respond(403, "no\n")
    ) as made:
        with pytest.raises(InvalidStatus) as caught:
            await connect(made.uri, create_connection=left.client)
        error = caught.value.with_traceback(None)
        del caught
    assert (error.response.status_code, error.response.body) == (403, b"no\n")


# Handlers, and what they are for

KEPT: asyncio.Queue[Any]


@pytest.fixture(autouse=True)
def kept() -> None:
    global KEPT
    KEPT = asyncio.Queue()


async def never(websocket: ServerConnection) -> None:
    pytest.fail("there should be no connection")


def reject(connection: ServerConnection, request: Request) -> Response:
    return connection.respond(403, "no\n")


async def keep(websocket: ServerConnection) -> None:
    """Receive one message, and tell what came instead."""
    KEPT.put_nowait(await outcome(websocket.recv()))


async def talk(peer: Any) -> None:
    peer.send(frame(b"good"))
    assert await peer.frame() == (0x81, b"good")


async def good(made: Serving) -> None:
    """The server is as good as before for others, who may have nothing to do with it."""
    status, headers, _ = await made.ask(REQUEST.replace(b"GET", b"PUT"))
    assert (status, headers["allow"]) == (405, "GET")


def unmasked(data: bytes) -> bytes:
    """A short frame of a client as a server sends it."""
    assert data[1] & 0x80
    mask, payload = data[2:6], data[6:]
    return bytes([data[0], data[1] & 0x7F]) + bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))


def check_close(found: tuple[int, str], code: int, reason: str | None) -> None:
    assert found[0] == code
    assert found[1] == reason or (reason is None and found[1])


def check_end(found: Any, code: int, cause: type[Exception]) -> None:
    assert isinstance(found, ConnectionClosedError)
    assert found.sent is not None
    assert found.sent.code == code
    assert isinstance(found.__cause__, cause)


class Peak:
    """The most bytes of Python objects that there were within, more than before."""

    def __enter__(self) -> Peak:
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
