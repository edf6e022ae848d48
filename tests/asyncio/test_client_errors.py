"""A client that gets no connection: arguments that cannot be meant, servers that reject, break off or are silent.

What must not live here: the arguments that are about reaching a server (test_dialer), proxies (test_tunnel).
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import weakref
from typing import Any

import pytest
from websockets.asyncio.client import connect as model

from tests.support.patience import PATIENCE
from tests.support.rawpeer import RawServer, ServerPeer, forever
from tidegate.asyncio.client import ClientConnection, connect, unix_connect
from tidegate.asyncio.server import serve
from tidegate.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from tidegate.extensions.base import ClientExtensionFactory

URI = "ws://127.0.0.1:1/"


# At once


@pytest.mark.parametrize(
    ("uri", "kwargs", "expected", "message"),
    [
        ("http://localhost/", {}, InvalidURI, "http://localhost/ isn't a valid URI: scheme isn't ws or wss"),
        (
            "ws://localhost/#x",
            {},
            InvalidURI,
            "#x isn't a valid URI: fragment identifier is meaningless",
        ),
        ("ws://user@localhost/", {}, InvalidURI, "username provided without password"),
        (b"ws://localhost/", {}, TypeError, "uri must be a str, not bytes"),
        (None, {}, TypeError, "uri must be a str, not NoneType"),
        (URI, {"subprotocols": "chat"}, TypeError, "subprotocols must be a list, not a str"),
        (URI, {"subprotocols": ["a b"]}, ValueError, "invalid subprotocol: a b"),
        (URI, {"extensions": ["deflate"]}, TypeError, "extensions must contain ClientExtensionFactory instances"),
        (URI, {"compression": "gzip"}, ValueError, "unsupported compression: gzip"),
        (URI, {"compression": False}, ValueError, "unsupported compression: False"),
        (URI, {"origin": 5}, TypeError, "origin must be a str or None, not int"),
        (URI, {"origin": "a\r\nb"}, InvalidHeaderValue, "invalid Origin header: a\r\nb"),
        (URI, {"user_agent_header": 5}, TypeError, "user_agent_header must be a str or None, not int"),
        (URI, {"user_agent_header": "a\nb"}, InvalidHeaderValue, "invalid User-Agent header: a\nb"),
        (URI, {"additional_headers": {"X": "a\r\nY: b"}}, InvalidHeaderValue, "invalid X header: a\r\nY: b"),
        (URI, {"additional_headers": 5}, TypeError, ""),
        (URI, {"process_exception": 5}, TypeError, "process_exception must be a function, not 5"),
        (URI, {"reconnect_delays": [1, 2]}, TypeError, "reconnect_delays must be a function, not [1, 2]"),
        (URI, {"create_connection": 5}, TypeError, "create_connection must be a function, not 5"),
        (URI, {"open_timeout": "1"}, TypeError, "open_timeout must be a number of seconds or None, not '1'"),
        (URI, {"close_timeout": -1}, ValueError, "close_timeout must not be negative: -1"),
        (URI, {"max_size": "1"}, TypeError, "max_size must be an int, None, or a tuple of two of them, not '1'"),
        (URI, {"max_queue": (1, 2)}, ValueError, "high must be greater than or equal to low"),
        (URI, {"write_limit": None}, TypeError, "write_limit must be an int or a (high, low) tuple, not None"),
    ],
)
def test_usage_errors(uri: Any, kwargs: dict[str, Any], expected: type[Exception], message: str) -> None:
    with pytest.raises(expected) as raised:
        connect(uri, **kwargs)
    assert message in str(raised.value)


# Answers

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"
UPGRADE = SWITCH + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
UNREADABLE = "did not receive a valid HTTP response"


async def rejected(answer: bytes, connect: Any = connect) -> Any:
    """What connecting to a server with this answer raises."""
    async with RawServer(answer) as server:
        with pytest.raises(Exception) as raised:  # noqa: PT011
            await connect(server.uri, open_timeout=PATIENCE)
        return raised.value


@pytest.mark.parametrize(
    ("answer", "expected", "cause"),
    [
        (b"", InvalidMessage, EOFError),
        (b"HTTP/1.1 101 Swi", InvalidMessage, EOFError),
        (UPGRADE, InvalidMessage, EOFError),
        (b"SSH-2.0-OpenSSH_9.9\r\n", InvalidMessage, InvalidMessage),
        (b"\r\n\r\n", InvalidMessage, InvalidMessage),
        (b"HTTP/1.0 200 OK\r\n\r\n", InvalidMessage, InvalidMessage),
        (b"HTTP/1.1 99 Low\r\n\r\n", InvalidMessage, InvalidMessage),
        (b"HTTP/1.1 600 High\r\n\r\n", InvalidMessage, InvalidMessage),
        (OK + b"no colon\r\n\r\n", InvalidMessage, InvalidMessage),
        (OK + b"bad name: x\r\n\r\n", InvalidMessage, InvalidMessage),
        (OK + b"X: a\r\n folded\r\n\r\n", InvalidMessage, InvalidMessage),
        (OK + b"X: " + b"a" * 8200 + b"\r\n\r\n", InvalidMessage, HeaderLineTooLong),
        (OK + b"X: a\r\n" * 129 + b"\r\n", InvalidMessage, TooManyHeaders),
        (OK + b"Content-Length: 1048577\r\n\r\n", InvalidMessage, SecurityError),
        (OK + b"Content-Length: x\r\n\r\n", InvalidMessage, InvalidMessage),
        (OK + b"Content-Length: 5\r\n\r\nhell", InvalidMessage, EOFError),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell", InvalidMessage, EOFError),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", InvalidMessage, InvalidMessage),
        (OK + b"\r\n" + b"x" * (2**20 + 1), InvalidMessage, SecurityError),
        (b"HTTP/1.1 200 " + b"a" * 8192 + b"\r\n\r\n", StatusLineTooLong, None),
        (OK + b"\r\n", InvalidStatus, None),
        (SWITCH + b"\r\n", InvalidUpgrade, None),
        (SWITCH + b"Connection: Upgrade\r\n\r\n", InvalidUpgrade, None),
        (SWITCH + b"Connection: close\r\nUpgrade: websocket\r\n\r\n", InvalidUpgrade, None),
        (SWITCH + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", InvalidUpgrade, None),
        (SWITCH + b"Connection: ;\r\nUpgrade: websocket\r\n\r\n", InvalidHeaderFormat, None),
        (UPGRADE + b"\r\n", InvalidHeader, None),
        (UPGRADE + b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Accept: x\r\n\r\n", InvalidHeader, None),
        (UPGRADE + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", InvalidHeaderValue, None),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else "",
)
async def test_answers(answer: bytes, expected: type[Exception], cause: type[Exception] | None) -> None:
    """Each answer that is no handshake raises what the model raises, with the same text."""
    exc = await rejected(answer)
    assert type(exc) is expected
    assert type(exc.__cause__) is (type(None) if cause is None else cause)
    theirs = await rejected(answer, model)
    assert type(theirs).__name__ == type(exc).__name__
    if expected is not StatusLineTooLong:
        assert str(theirs) == str(exc)
    if cause is EOFError:
        assert type(theirs.__cause__) is EOFError


@pytest.mark.parametrize(
    ("headers", "replace", "expected", "message"),
    [
        ([("Sec-WebSocket-Protocol", "chat")], {}, NegotiationError, "no subprotocols supported"),
        ([("Sec-WebSocket-Extensions", "x")], {}, NegotiationError, "no extensions supported"),
        ([], {"Sec-WebSocket-Accept": None}, InvalidHeader, "missing Sec-WebSocket-Accept header"),
        ([], {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"}, None, ""),
    ],
)
async def test_answers_of_101(headers: Any, replace: Any, expected: type[Exception] | None, message: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        (await peer.request()).switch(*headers, replace=replace)
        await peer.rest()

    async with RawServer(handler) as server:
        if expected is None:
            await (await connect(server.uri, compression=None, close_timeout=0)).close()
            return
        with pytest.raises(expected) as raised:
            await connect(server.uri, compression=None)
        assert str(raised.value) == message


@pytest.mark.parametrize(
    ("header", "expected", "message"),
    [
        ("superchat", NegotiationError, "unsupported subprotocol: superchat"),
        ("chat, chat", InvalidHeader, "invalid Sec-WebSocket-Protocol header: multiple values: chat, chat"),
        ("cha t", InvalidHeaderFormat, ""),
    ],
)
async def test_subprotocols_that_were_not_asked_for(header: str, expected: type[Exception], message: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        (await peer.request()).switch(("Sec-WebSocket-Protocol", header))
        await peer.rest()

    async with RawServer(handler) as server:
        with pytest.raises(expected) as raised:
            await connect(server.uri, subprotocols=["chat"])  # type: ignore[list-item]
        assert message in str(raised.value)


class Choosy(ClientExtensionFactory):
    name = "x-choosy"  # type: ignore[assignment]

    def get_request_params(self) -> list[tuple[str, str | None]]:
        return []

    def process_response_params(self, params: Any, accepted_extensions: Any) -> Any:
        if params:
            raise NegotiationError("no parameters, please")
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("header", "expected", "message"),
    [
        ("x-other", NegotiationError, "Unsupported extension: name = x-other, params = []"),
        ("x-choosy; a=1", NegotiationError, "Unsupported extension: name = x-choosy, params = [('a', '1')]"),
        ("x-choosy; a==", InvalidHeaderFormat, ""),
        ("x-choosy", ZeroDivisionError, ""),
    ],
)
async def test_extensions_that_were_not_offered(header: str, expected: type[Exception], message: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        (await peer.request()).switch(("Sec-WebSocket-Extensions", header))
        await peer.rest()

    async with RawServer(handler) as server:
        with pytest.raises(expected) as raised:
            await connect(server.uri, extensions=[Choosy()], compression=None)
        assert message in str(raised.value)


# Bodies


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"Content-Length: 5\r\n\r\nhello and more", b"hello"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n", b"hello"),
        (b"\r\nhello", b"hello"),
        (b"Content-Type: text/plain\r\nConnection: close\r\n\r\n" + b"x" * 2**20, b"x" * 2**20),
    ],
    ids=range(6),
)
async def test_the_body_is_kept(framing: bytes, body: bytes) -> None:
    exc = await rejected(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n" + framing)
    assert type(exc) is InvalidStatus
    assert str(exc) == "server rejected WebSocket connection: HTTP 401"
    assert exc.response.status_code == 401
    assert exc.response.headers["WWW-Authenticate"] == "Basic"
    assert exc.response.body == body


async def test_a_body_of_known_length_needs_no_end_of_the_stream() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n")
        await asyncio.sleep(0.01)
        peer.send(b"hello")
        assert await peer.rest() == b""  # the client ends it

    async with RawServer(handler) as server:
        with pytest.raises(InvalidStatus) as raised:
            await connect(server.uri)
        assert raised.value.response.body == b"hello"
        await asyncio.gather(*server.tasks)


async def test_a_status_without_a_body() -> None:
    exc = await rejected(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
    assert exc.response.body == b""


# Silence


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 101 Swi", UPGRADE, OK + b"\r\nhello", OK + b"Content-Length: 9\r\n\r\n"]
)
async def test_the_open_timeout(said: bytes) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        peer.send(said)
        ended.set_result(await peer.rest())

    async with RawServer(handler) as server:
        with pytest.raises(TimeoutError, match=r"^timed out during opening handshake$"):
            await connect(server.uri, open_timeout=0.1)
        assert await ended == b""


async def test_the_open_timeout_covers_tls(client_tls: ssl.SSLContext) -> None:
    async with RawServer(forever) as server:
        with pytest.raises(TimeoutError, match=r"^timed out during opening handshake$"):
            await connect(server.uri.replace("ws", "wss"), ssl=client_tls, open_timeout=0.1)


async def test_the_open_timeout_covers_tcp() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        with (
            socket.create_connection(address),  # now the queue is full, and the next one waits
            pytest.raises(TimeoutError, match=r"^timed out during opening handshake$"),
        ):
            await connect("ws://{}:{}/".format(*address), open_timeout=0.1)


async def test_another_timeout_keeps_its_words() -> None:
    def late(*_: Any, **__: Any) -> Any:
        raise TimeoutError("another")

    with pytest.raises(TimeoutError, match=r"^another$"):
        await connect(URI, create_connection=late)


# No connection


async def test_nobody_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect(f"ws://127.0.0.1:{sock.getsockname()[1]}/")


async def test_no_such_name() -> None:
    with pytest.raises(socket.gaierror):
        await connect("ws://nobody.invalid/")


async def test_a_certificate_that_does_not_verify(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with RawServer(forever, tls=server_tls) as server:
        with pytest.raises(ssl.SSLCertVerificationError):  # signed by somebody whom the system does not know
            await connect(server.uri)
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):  # not for this name
            await connect(server.uri, ssl=client_tls, server_hostname="elsewhere.example")


async def test_a_server_is_not_troubled_by_it(server_tls: ssl.SSLContext) -> None:
    async with serve(lambda websocket: websocket.wait_closed(), "127.0.0.1", 0, ssl=server_tls) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    # Neither waits for, nor keeps, what has never been a connection.


async def test_a_server_without_tls(client_tls: ssl.SSLContext) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.reader.read(1)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(handler) as server:
        with pytest.raises(ssl.SSLError):
            await connect(server.uri.replace("ws", "wss"), ssl=client_tls)


async def test_a_reset_is_an_end() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        peer.reset()

    async with RawServer(handler) as server:
        with pytest.raises(InvalidMessage, match=UNREADABLE) as raised:
            await connect(server.uri)
        assert isinstance(raised.value.__cause__, EOFError)


# Given up


async def test_cancelling() -> None:
    """A cancelled connect() closes the TCP connection."""
    ended = asyncio.get_running_loop().create_future()

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        task.cancel()
        ended.set_result(await peer.rest())

    async with RawServer(handler) as server:
        task = asyncio.ensure_future(connect(server.uri))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ended == b""


async def test_closing_before_it_is_open() -> None:
    made: list[ClientConnection] = []

    def factory(*args: Any, **kwargs: Any) -> ClientConnection:
        made.append(ClientConnection(*args, **kwargs))
        return made[0]

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        await made[0].close()

    async with RawServer(handler) as server:
        with pytest.raises(InvalidHandshake, match=UNREADABLE):
            await connect(server.uri, create_connection=factory)


@pytest.mark.parametrize("answer", [b"", OK + b"Content-Length: 2\r\n\r\nno", SWITCH + b"\r\n", b"junk"])
async def test_nothing_is_left_behind(answer: bytes, tmp_path: Any, server_tls: ssl.SSLContext) -> None:
    made: list[weakref.ref[ClientConnection]] = []

    def factory(*args: Any, **kwargs: Any) -> ClientConnection:
        connection = ClientConnection(*args, **kwargs)
        made.append(weakref.ref(connection))
        return connection

    async with RawServer(answer) as server, RawServer(forever, tls=server_tls) as unknown:
        tasks = asyncio.all_tasks()
        for _ in range(2):
            with pytest.raises(InvalidHandshake):
                await connect(server.uri, create_connection=factory)
        with pytest.raises(OSError):  # noqa: PT011
            await unix_connect(tmp_path / "nobody", create_connection=factory)
        with pytest.raises(ssl.SSLError):
            await connect(unknown.uri, create_connection=factory)
        while asyncio.all_tasks() != tasks:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert [connection() for connection in made] == [None] * 4
