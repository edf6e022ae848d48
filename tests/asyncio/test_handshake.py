"""The opening handshake over sockets: hooks, subprotocols, origins, timeouts, and requests that are none.

What a request must say is tested in tests/test_server.py, how its bytes are read in tests/test_http11.py. What must
not live here: those again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.asyncio.ends import connected, idle, serving
from tests.support import wire
from tests.support.coroutines import until
from tests.support.rawpeer import REQUEST
from tests.support.wire import close, frame
from tidegate._core.counters import HANDSHAKE_RESULTS, Row
from tidegate.asyncio.server import ServerConnection
from tidegate.datastructures import Headers
from tidegate.exceptions import NegotiationError
from tidegate.http11 import SERVER, Request, Response
from tidegate.protocol import State

Hook = Callable[..., Any]


def as_function(hook: Hook) -> Hook:
    return hook


def as_coroutine_function(hook: Hook) -> Hook:
    async def process(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return hook(*arguments)

    return process


BOTH = pytest.mark.parametrize("made", [as_function, as_coroutine_function])


def results(row: Row) -> dict[str, int]:
    return {name: count for name, count in zip(HANDSHAKE_RESULTS, row.words("handshakes"), strict=False) if count}


def request(**headers: str | None) -> bytes:
    return wire.request(headers={name.replace("_", "-"): value for name, value in headers.items()})


# The ordinary one


async def test_the_response_to_an_ordinary_request() -> None:
    async with serving(idle) as made:
        peer = await made.peer()
        status, *lines = peer.response.decode().split("\r\n")
    assert status == "HTTP/1.1 101 Switching Protocols"
    names = [line.partition(":")[0] for line in lines if line]
    assert names == ["Date", "Upgrade", "Connection", "Sec-WebSocket-Accept", "Server"]
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert f"Server: {SERVER}" in lines


@pytest.mark.parametrize("server_header", ["mine/1.0", None])
async def test_server_header(server_header: str | None) -> None:
    async with serving(idle, server_header=server_header) as made:
        peer = await made.peer()
        _, headers, _ = await made.ask(b"PUT" + REQUEST[3:])
    line = f"\r\nServer: {server_header}\r\n".encode()
    assert (line in peer.response) == (server_header is not None)
    assert headers.get("server") == server_header


async def test_what_is_known_of_the_handshake() -> None:
    async with connected() as (websocket, peer):
        assert websocket.request is not None
        assert websocket.request.path == "/"
        assert websocket.request.headers["Host"] == "localhost"
        assert websocket.response is not None
        assert websocket.response.status_code == 101
        assert websocket.response.headers["Upgrade"] == "websocket"
        assert websocket.request is websocket.request
        assert websocket.response is websocket.response
        assert websocket.subprotocol is None
        assert peer.response.startswith(websocket.response.serialize())


async def test_a_request_byte_by_byte() -> None:
    async with serving(idle) as made:
        peer = await made.raw()
        for i in range(len(REQUEST) - 1):
            peer.send(REQUEST[i : i + 1])
            await asyncio.sleep(0)
        assert (await peer.handshake(REQUEST[-1:])).startswith(b"HTTP/1.1 101 ")


# Origins and subprotocols


@pytest.mark.parametrize(
    ("origins", "origin", "accepted"),
    [
        (["https://a.example"], "https://a.example", True),
        (["https://a.example"], "https://b.example", False),
        (["https://a.example"], None, False),
        (["https://a.example", None], None, True),
        ([re.compile(r"https://\w+\.example")], "https://b.example", True),
        ([re.compile(r"https://\w+\.example")], "https://b.example.org", False),
        (None, "https://anything", True),
    ],
)
async def test_origins(origins: Any, origin: str | None, accepted: bool, row: Row) -> None:
    """Origins that match are accepted, others are answered 403."""
    async with serving(idle, origins=origins) as made:
        peer = await made.raw()
        response = await peer.handshake(request(Origin=origin))
        assert response.startswith(b"HTTP/1.1 101 " if accepted else b"HTTP/1.1 403 ")
    assert results(row) == {"ok" if accepted else "forbidden": 1}


async def test_subprotocols() -> None:
    """The first of the server's subprotocols that is offered is chosen; without one the answer is 400."""
    async with serving(idle, subprotocols=["chat", "superchat"]) as made:
        peer = await made.peer(request(Sec_WebSocket_Protocol="superchat, chat"))
        assert b"\r\nSec-WebSocket-Protocol: chat\r\n" in peer.response
        (connection,) = made.server.connections
        assert connection.subprotocol == "chat"
        for offered in ("other", None):
            status, _, body = await made.ask(request(Sec_WebSocket_Protocol=offered))
            assert status == 400
            assert "subprotocol" in body


@pytest.mark.parametrize(
    ("offered", "chosen"), [("a, b", "b"), ("a", "a"), (None, None), ("none", None)], ids=lambda value: str(value)
)
async def test_select_subprotocol(offered: str | None, chosen: str | None) -> None:
    seen = []

    def select_subprotocol(connection: ServerConnection, subprotocols: Any) -> Any:
        seen.append((connection, subprotocols))
        return subprotocols[-1] if subprotocols and subprotocols[0] != "none" else None

    async with serving(idle, select_subprotocol=select_subprotocol) as made:
        peer = await made.peer(request(Sec_WebSocket_Protocol=offered))
        (connection,) = made.server.connections
    assert connection.subprotocol == chosen
    assert (b"Sec-WebSocket-Protocol" in peer.response) == (chosen is not None)
    assert seen == [(connection, offered.split(", ") if offered else [])]


async def test_select_subprotocol_that_rejects(row: Row) -> None:
    def select_subprotocol(connection: ServerConnection, subprotocols: Any) -> Any:
        raise NegotiationError("speak chat")

    async with serving(idle, select_subprotocol=select_subprotocol) as made:
        status, _, body = await made.ask()
    assert status == 400
    assert "speak chat" in body
    assert results(row) == {"bad_request": 1}


async def test_select_subprotocol_that_fails(row: Row, log: pytest.LogCaptureFixture) -> None:
    def select_subprotocol(connection: ServerConnection, subprotocols: Any) -> Any:
        raise ZeroDivisionError("secret")

    async with serving(idle, select_subprotocol=select_subprotocol) as made:
        status, _, body = await made.ask()
    assert status == 500
    assert "secret" not in body
    assert results(row) == {"error": 1}
    assert "ZeroDivisionError" in log.text


# process_request


@BOTH
async def test_process_request_sees_the_connection_and_the_request(made: Callable[[Hook], Hook]) -> None:
    seen = []

    def process_request(connection: ServerConnection, request: Request) -> None:
        seen.append(connection)
        assert connection.state is State.CONNECTING
        assert connection.request is request
        assert connection.response is None
        assert connection.transport is not None
        assert connection.remote_address[0] == "127.0.0.1"
        assert request.path == "/?token=x"
        assert request.headers["X-Name"] == "value"
        connection.user = "somebody"  # type: ignore[attr-defined]

    async def handler(websocket: ServerConnection) -> None:
        assert seen == [websocket]
        await websocket.send(websocket.user)  # type: ignore[attr-defined]

    async with serving(handler, process_request=made(process_request)) as server:
        peer = await server.peer(wire.request(path="/?token=x", headers={"X-Name": "value"}))
        assert await peer.frame() == (0x81, b"somebody")


@BOTH
async def test_process_request_may_answer_plain_http(made: Callable[[Hook], Hook], row: Row) -> None:
    def process_request(connection: ServerConnection, request: Request) -> Any:
        if request.path == "/healthz":
            return connection.respond(200, "O.K.\n")
        return None

    async with serving(idle, process_request=made(process_request)) as server:
        for method, path in (("GET", "/healthz"), ("HEAD", "/healthz"), ("POST", "/healthz")):
            plain = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            status, headers, body = await server.ask(plain)
            assert (status, body) == (200, "" if method == "HEAD" else "O.K.\n")
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert headers["content-length"] == "5"
            assert headers["connection"] == "close"
            assert headers["server"] == SERVER
        assert (await server.ask(b"GET /healthz HTTP/1.0\r\n\r\n"))[0] == 200
        assert (await server.ask(b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 426
        await server.peer()
    assert results(row) == {"ok": 1, "rejected": 4, "upgrade_required": 1}


async def test_process_request_may_answer_anything() -> None:
    page = b"<h1>" + b"x" * 200_000 + b"</h1>"

    def process_request(connection: ServerConnection, request: Request) -> Response:
        headers = Headers([("Content-Type", "text/html"), ("Content-Length", str(len(page))), ("Server", "mine")])
        return Response(418, "I'm a Teapot", headers, page)

    async with serving(idle, process_request=process_request) as made:
        status, headers, body = await made.ask()
    assert status == 418
    assert headers == {
        "content-type": "text/html",
        "content-length": str(len(page)),
        "server": "mine",
        "connection": "close",
    }
    assert body.encode() == page


async def test_process_request_may_open_the_connection_itself() -> None:
    def process_request(connection: ServerConnection, request: Request) -> Response:
        return Response(101, "Switching Protocols", Headers([("Upgrade", "websocket"), ("X-Own", "yes")]))

    async def handler(websocket: ServerConnection) -> None:
        await websocket.send("open")

    async with serving(handler, process_request=process_request) as made:
        peer = await made.peer(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"X-Own: yes" in peer.response
        assert await peer.frame() == (0x81, b"open")


@BOTH
@pytest.mark.parametrize("name", ["process_request", "process_response"])
@pytest.mark.parametrize("returned", ["x", (200, [], b""), 42, True])
async def test_hooks_that_return_something_else(
    made: Callable[[Hook], Hook], name: str, returned: Any, log: pytest.LogCaptureFixture, row: Row
) -> None:
    async with serving(idle, **{name: made(lambda *_: returned)}) as server:
        status, _, _ = await server.ask()
    assert status == 500
    assert f"{name} must return a Response or None" in log.text
    assert results(row) == {"error": 1}


@BOTH
@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_hooks_that_fail(
    made: Callable[[Hook], Hook], name: str, log: pytest.LogCaptureFixture, row: Row
) -> None:
    def hook(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    async with serving(idle, **{name: made(hook)}) as server:
        status, headers, body = await server.ask()
    assert status == 500
    assert headers["connection"] == "close"
    assert "secret" not in body
    (record,) = [record for record in log.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"{name} failed"
    assert record.exc_info is not None
    assert results(row) == {"error": 1}


@BOTH
async def test_the_handler_does_not_run_after_a_rejection(made: Callable[[Hook], Hook]) -> None:
    async def handler(websocket: ServerConnection) -> None:
        pytest.fail("it runs")

    async with serving(handler, process_request=made(lambda ws, _: ws.respond(403, "no\n"))) as server:
        peer = await server.raw()
        peer.send(REQUEST + frame(b"data that nobody asked for"))
        assert (await peer.answer())[0] == 403
        assert not server.server.connections


# process_response


@BOTH
async def test_process_response_may_change_the_response(made: Callable[[Hook], Hook]) -> None:
    def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
        assert request.path == "/"
        assert response.status_code == 101
        assert connection.state is State.CONNECTING
        assert connection.response is response
        response.headers["Set-Cookie"] = "a=b"

    async with serving(idle, process_response=made(process_response)) as server:
        peer = await server.peer()
        assert b"\r\nSet-Cookie: a=b\r\n" in peer.response
        (connection,) = server.server.connections
        assert connection.response is not None
        assert connection.response.headers["Set-Cookie"] == "a=b"


@BOTH
async def test_process_response_may_replace_the_response(made: Callable[[Hook], Hook], row: Row) -> None:
    async with serving(idle, process_response=made(lambda ws, *_: ws.respond(403, "no\n"))) as server:
        status, _, body = await server.ask()
    assert (status, body) == (403, "no\n")
    assert results(row) == {"rejected": 1}


async def test_process_response_sees_rejections_too(row: Row) -> None:
    seen = []

    def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
        seen.append(response.status_code)
        response.headers["X-Seen"] = "yes"

    async with serving(idle, process_response=process_response) as made:
        status, headers, _ = await made.ask(b"PUT" + REQUEST[3:])
        assert (status, headers["x-seen"]) == (405, "yes")
    async with serving(
        idle, process_request=lambda ws, _: ws.respond(200, ""), process_response=process_response
    ) as made:
        assert (await made.ask())[0] == 200
    assert seen == [405, 200]
    assert results(row) == {"method_not_allowed": 1, "rejected": 1}


@BOTH
async def test_one_object_from_the_first_hook_to_the_handler(made: Callable[[Hook], Hook]) -> None:
    """It has its transport and its server from the start, and keeps what is set on it."""
    seen: list[ServerConnection] = []

    def note(step: str, connection: ServerConnection) -> None:
        seen.append(connection)
        assert connection.transport.get_extra_info("socket") is not None
        assert connection.server is server.server
        connection.steps = [*getattr(connection, "steps", ()), step]  # type: ignore[attr-defined]

    def process_request(connection: ServerConnection, request: Request) -> None:
        note("request", connection)

    def select_subprotocol(connection: ServerConnection, offered: Any) -> Any:
        note("select", connection)
        return offered[0]

    def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
        note("response", connection)
        assert connection.subprotocol == "chat"

    async def handler(websocket: ServerConnection) -> None:
        note("handler", websocket)
        await websocket.send(" ".join(websocket.steps))  # type: ignore[attr-defined]

    async with serving(
        handler,
        process_request=made(process_request),
        select_subprotocol=select_subprotocol,
        process_response=made(process_response),
    ) as server:
        peer = await server.peer(request(Sec_WebSocket_Protocol="chat"))
        assert await peer.frame() == (0x81, b"request select response handler")
    assert len(set(map(id, seen))) == 1


# What comes too early


@pytest.mark.parametrize("hook", [None, as_coroutine_function(lambda *_: None)])
async def test_messages_that_come_with_the_request(hook: Any) -> None:
    """A client that does not wait for the response (RFC 6455 4.1 says that it must) loses nothing."""
    got: list[Any] = []

    async def handler(websocket: ServerConnection) -> None:
        got.extend([message async for message in websocket])

    async with serving(handler, process_request=hook) as made:
        for more in (b"", close()):
            peer = await made.peer(REQUEST + frame(b"a") + frame(b"b") + more)
            peer.send(close())
            assert await peer.close_frame() == (1000, "")
            peer.close()
            await until(lambda: not made.server.handler_tasks)
    assert got == ["a", "b"] * 2


async def test_too_much_before_the_response() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def process_request(connection: ServerConnection, request: Request) -> None:
        entered.set()
        await go_on.wait()

    async with serving(idle, process_request=process_request) as made:
        peer = await made.raw()
        peer.send(REQUEST)
        await entered.wait()
        peer.send(bytes(70_000))
        assert (await peer.answer())[0] == 400
        go_on.set()


async def test_a_client_of_the_websockets_library() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.send(f"{websocket.subprotocol} {websocket.request.path}")  # type: ignore[union-attr]

    async with (
        serving(handler, subprotocols=["chat"]) as made,
        connect(made.uri + "path?query", subprotocols=["chat"], origin="https://example.com") as client,  # type: ignore[list-item,arg-type]
    ):
        assert client.subprotocol == "chat"
        assert await client.recv() == "chat /path?query"


# Too late


async def test_a_request_that_is_not_ended_gets_408(row: Row) -> None:
    async with serving(idle, open_timeout=0.1) as made:
        peer = await made.raw()
        assert (await peer.ask(REQUEST[:30]))[0] == 408
        peer.close()
        await until(lambda: not made.server._registry.all)
    assert results(row) == {"timeout": 1}


async def test_silence_is_answered_with_silence(row: Row) -> None:
    async with serving(idle, open_timeout=0.01) as made:
        peer = await made.raw()
        assert await peer.reader.read(-1) == b""
        await until(lambda: not made.server._registry.all)
    assert results(row) == {"timeout": 1}


async def test_a_hook_that_takes_too_long_is_cancelled(row: Row) -> None:
    ended: list[BaseException] = []

    async def process_request(connection: ServerConnection, request: Request) -> None:
        try:
            await asyncio.sleep(3600)
        except BaseException as exc:
            ended.append(exc)
            assert connection.response is None
            raise

    async with serving(idle, process_request=process_request, open_timeout=0.1) as made:
        peer = await made.raw()
        peer.send(REQUEST)
        assert await peer.reader.read(-1) == b""
        await until(lambda: ended)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert results(row) == {"timeout": 1}


@pytest.mark.parametrize("stubborn", [True, False])
async def test_a_hook_whose_client_has_gone_is_cancelled(stubborn: bool, row: Row) -> None:
    """And one that goes on all the same is cancelled once more, when its time is over."""
    entered, ended = asyncio.Event(), []

    async def process_request(connection: ServerConnection, request: Request) -> Any:
        entered.set()
        for goes_on in (stubborn, False):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError as exc:
                ended.append(exc)
                if not goes_on:
                    raise
        return connection.respond(200, "nobody hears this\n")

    async with serving(idle, process_request=process_request, open_timeout=0.2) as made:
        peer = await made.raw()
        peer.send(REQUEST)
        await entered.wait()
        peer.reset()
        await until(lambda: not made.server._registry.all)
        await until(lambda: not made.server.handler_tasks)
        assert len(ended) == 1 + stubborn
    assert results(row) == {"disconnected": 1}


async def test_no_timeout() -> None:
    async def process_request(connection: ServerConnection, request: Request) -> None:
        await asyncio.sleep(0.02)

    async with serving(idle, process_request=process_request, open_timeout=None) as made:
        await made.peer()


@pytest.mark.parametrize(
    "end", [lambda ws: ws.transport.abort(), lambda ws: ws.transport.close(), lambda ws: ws.close()]
)
async def test_a_hook_that_cuts_the_connection(end: Callable[[ServerConnection], Awaitable[None] | None]) -> None:
    async def process_request(connection: ServerConnection, request: Request) -> None:
        ending = end(connection)
        if ending is not None:
            await ending

    async def handler(websocket: ServerConnection) -> None:
        pytest.fail("it runs")

    async with serving(handler, process_request=process_request) as made:
        peer = await made.raw()
        peer.send(REQUEST)
        assert await peer.reader.read(-1) == b""


# Requests that are none


@pytest.mark.parametrize(
    ("junk", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"hello, world\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n", 400),
        (b"GET /" + b"x" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 129, 431),
        (b"GET / HTTP/1.0\r\n\r\n", 505),
        (request(Content_Length="3"), 413),
        (request(Sec_WebSocket_Version="8"), 426),
        (request(Sec_WebSocket_Key="short"), 400),
        (request(Upgrade=None), 426),
        (request(Host=None), 400),
        (request(Host="a b"), 400),
        (request(Host=""), 400),
        (REQUEST[:-2] + b"Host: other.example\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else str(value),
)
async def test_requests_that_are_none(junk: bytes, status: int, log: pytest.LogCaptureFixture) -> None:
    async with serving(idle) as made:
        got, headers, body = await made.ask(junk)
    assert got == status
    assert headers["connection"] == "close"
    assert body
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("sent", [b"", REQUEST[:1], REQUEST[:-1]])
@pytest.mark.parametrize("politely", [True, False])
async def test_clients_that_go_before_they_ask(sent: bytes, politely: bool, row: Row) -> None:
    async with serving(idle) as made:
        peer = await made.raw()
        peer.send(sent)
        await until(lambda: made.server._registry.handshaking)
        await asyncio.sleep(0.005)
        if politely:
            peer.close()
        else:
            peer.reset()
        await until(lambda: not made.server._registry.all)
    assert results(row) == {"disconnected": 1}
    assert row.words("connections_handshaking") == (0,)


async def test_counts(row: Row) -> None:
    """Connections are counted in each of their stages, and each handshake once."""
    async with serving(idle) as made:
        await made.raw()
        peers = [await made.peer() for _ in range(2)]
        await until(lambda: row.words("connections_handshaking") == (1,))
        assert row.words("connections_accepted") == (3,)
        assert row.words("connections_open") == (2,)
        peers[0].send(close())
        await peers[0].close_frame()
        assert row.words("connections_open") == (1,)
        assert row.words("connections_closing") == (1,)
        peers[0].close()
        await until(lambda: row.words("connections_closing") == (0,))
        assert sum(row.words("handshake_duration")[:-1]) == 2
