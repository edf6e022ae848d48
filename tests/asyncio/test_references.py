"""Connections that have ended are freed at once, without the garbage collector; waits that were given up leave nothing.

What must not live here: memory of connections that are open (tests/benchmarks).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.asyncio.calls import asgi_serving
from tests.asyncio.ends import Serving, connected, echo, serving
from tests.support import wire
from tests.support.coroutines import until
from tests.support.rawpeer import REQUEST, ClientPeer
from tests.support.wire import close, frame
from tidegate.asyncio import http_service
from tidegate.asyncio.client import ClientConnection, connect
from tidegate.asyncio.server import ServerConnection
from tidegate.exceptions import ConnectionClosed, InvalidHandshake
from tidegate.http11 import Request, Response

pytestmark = pytest.mark.usefixtures("few_objects")

Handler = Callable[[ServerConnection], Awaitable[None]]


class Kept(weakref.WeakSet[Any]):
    """The connections that were made and are still there."""

    def make(self, kind: type) -> Callable[..., Any]:
        def factory(*args: Any, **kwargs: Any) -> Any:
            connection = kind(*args, **kwargs)
            self.add(connection)
            return connection

        return factory


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture(params=[logging.WARNING, logging.INFO, logging.DEBUG], ids=logging.getLevelName)
def logger(request: pytest.FixtureRequest) -> logging.Logger:
    """A logger that formats what it is told, and keeps nothing."""
    logger = logging.Logger("test.references", request.param)
    handler = logging.Handler()
    handler.emit = handler.format  # type: ignore[assignment, method-assign]
    logger.addHandler(handler)
    return logger


async def fails(websocket: ServerConnection) -> None:
    raise ZeroDivisionError("by zero")


async def lets_escape(websocket: ServerConnection) -> None:
    while True:
        await websocket.recv()


async def logs(websocket: ServerConnection) -> None:
    websocket.logger.info("begins")
    try:
        await websocket.recv()
    except ConnectionClosed:
        websocket.logger.warning("ends", exc_info=True)


async def reads_text(websocket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        await websocket.recv(decode=True)


async def gives_up(websocket: ServerConnection) -> None:
    # Not wait_for(), which in CPython 3.11 makes cycles of its own.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await websocket.recv()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await (await websocket.ping())
    await websocket.wait_closed()


def rejects(connection: ServerConnection, request: Request) -> Response:
    connection.logger.info("no")
    return connection.respond(403, "no")


def breaks(connection: ServerConnection, request: Request) -> Response:
    raise ZeroDivisionError("by zero")


# Name -> handler, options, what the client sends after the handshake; None: it breaks the connection.
ENDS: dict[str, tuple[Handler, dict[str, Any], bytes | None]] = {
    "closed": (echo, {}, frame(b"Hello", 1) + close()),
    "broken": (echo, {}, None),
    "escaped": (lets_escape, {}, None),
    "failed": (fails, {}, close()),
    "logged": (logs, {}, close()),
    "gave up": (gives_up, {}, close()),
    "frame that is none": (echo, {}, frame(b"", 7)),
    "text that is none": (echo, {}, frame(b"\xff", 1)),
    "bytes that are no text": (reads_text, {}, frame(b"\xff", 2)),
    "close code that is none": (echo, {}, frame(b"\0", 8)),
    "close reason that is none": (echo, {}, frame(b"\x03\xe8\xff", 8)),
    "message too big": (echo, {"max_size": 2}, frame(b"Hello", 1)),
    "compression that is none": (echo, {"compression": "deflate"}, frame(b"\xff\xff\xff", 1, rsv=4)),
    "no pong": (echo, {"ping_interval": 0.02, "ping_timeout": 0.02}, b""),
    "hooked": (echo, {"process_response": lambda *_: None}, close()),
    "rejected": (echo, {"process_request": rejects}, b""),
    "hook that failed": (echo, {"process_request": breaks}, b""),
}


async def end_one(made: Serving, sent: bytes | None) -> None:
    peer = await ClientPeer.connect(made.port)
    peer.send(wire.request(headers={"Sec-WebSocket-Extensions": "permessage-deflate"}))
    await peer.reader.readuntil(b"\r\n\r\n")
    if sent is None:
        peer.reset()
    else:
        peer.send(sent)
        with contextlib.suppress(ConnectionError):
            await peer.reader.read(-1)
        peer.close()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer; a path in `/wait` waits until the client has left."""
    if scope["path"] == "/wait":
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


# What a client of HTTP sends, and whether its connection ends with the response, or is broken by it.
ENDS_OF_HTTP = {
    "closed by the server": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
    "kept, then broken": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
    "pipelined, then broken": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2, True),
    "broken before the response": (b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n", True),
    "no request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n", False),
}


@pytest.mark.parametrize("name", ENDS_OF_HTTP)
async def test_connections_of_http_are_freed_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, breaks = ENDS_OF_HTTP[name]
    kept = Kept()
    monkeypatch.setattr(http_service, "HttpConnection", kept.make(http_service.HttpConnection))
    async with asgi_serving(hello) as made:
        with no_collector():
            peer = await ClientPeer.connect(made.port)
            peer.send(sent)
            if breaks:
                if b"wait" in sent:
                    await until(lambda: kept)
                else:
                    await peer.reader.readuntil(b"ok")
                peer.reset()
            else:
                assert b"ok" in await peer.reader.read(-1)
                peer.close()
            await until(lambda: not kept)


@pytest.mark.parametrize("name", ENDS)
async def test_connections_of_a_server_are_freed_at_once(name: str, logger: logging.Logger) -> None:
    handler, options, sent = ENDS[name]
    kept = Kept()
    async with serving(handler, logger=logger, create_connection=kept.make(ServerConnection), **options) as made:
        with no_collector():
            await end_one(made, sent)
            await until(lambda: not kept)


@pytest.mark.parametrize(
    "request_", [b"junk\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", REQUEST[:-2]], ids=["junk", "no", "half"]
)
async def test_requests_that_were_rejected_are_freed_at_once(request_: bytes, logger: logging.Logger) -> None:
    kept = Kept()
    options: dict[str, Any] = {"open_timeout": 0.1, "create_connection": kept.make(ServerConnection)}
    async with serving(echo, logger=logger, **options) as made:
        with no_collector():
            peer = await ClientPeer.connect(made.port)
            peer.send(request_)
            await peer.reader.read(-1)
            peer.close()
            await until(lambda: not kept)


async def use(uri: str, how: str, **options: Any) -> None:
    async with connect(uri, **options) as websocket:
        await websocket.send("Hello")
        assert await websocket.recv() == "Hello"
        websocket.logger.info("hello")
        if how == "broken":
            websocket.transport.abort()
            await websocket.recv()
        elif how == "failed":
            raise ZeroDivisionError("by zero")


@pytest.mark.parametrize("how", ["closed", "broken", "failed", "rejected"])
async def test_connections_of_clients_are_freed_at_once(how: str, logger: logging.Logger) -> None:
    kept = Kept()
    options = {"process_request": rejects} if how == "rejected" else {}
    async with serving(echo, **options) as made:
        with no_collector():
            with contextlib.suppress(ConnectionClosed, ZeroDivisionError, InvalidHandshake):
                await use(made.uri, how, logger=logger, create_connection=kept.make(ClientConnection))
            await until(lambda: not kept)


async def test_clients_that_got_no_answer_are_freed_at_once() -> None:
    kept = Kept()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with no_collector():
            delays = iter([0.0, 0.0])
            with contextlib.suppress(InvalidHandshake):
                async for _ in connect(
                    uri, create_connection=kept.make(ClientConnection), reconnect_delays=lambda: delays
                ):
                    pass
            await until(lambda: not kept)


# Waits that were given up


def futures() -> int:
    gc.collect()
    return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())


async def given_up(count: int, begin: Callable[[], Awaitable[Any]]) -> int:
    """Begin to wait and give up, so many times; futures that there are then."""
    for _ in range(count):
        task = asyncio.ensure_future(begin())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    del task
    await asyncio.sleep(0)
    return futures()


async def ping_and_wait(websocket: ServerConnection) -> None:
    await (await websocket.ping())


async def read_frames(websocket: ServerConnection) -> None:
    async for _ in websocket.recv_streaming():
        pass


WAITS: dict[str, Callable[[ServerConnection], Awaitable[Any]]] = {
    "recv": lambda websocket: websocket.recv(),
    "recv_streaming": read_frames,
    "wait_closed": lambda websocket: websocket.wait_closed(),
    "ping": ping_and_wait,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_waits_that_were_given_up_leave_nothing(wait: Callable[[ServerConnection], Awaitable[Any]]) -> None:
    async with connected() as (websocket, _):
        before = await given_up(10, lambda: wait(websocket))
        assert await given_up(500, lambda: wait(websocket)) - before < 10
        assert websocket._pings is None or len(websocket._pings) <= 1


BLOCKED: dict[str, Callable[[ServerConnection], Awaitable[Any]]] = {
    "send": lambda websocket: websocket.send("x"),
    "ping": lambda websocket: websocket.ping(),
    "pong": lambda websocket: websocket.pong(),
}


@pytest.mark.parametrize("wait", BLOCKED.values(), ids=BLOCKED)
async def test_writes_that_were_given_up_leave_nothing(wait: Callable[[ServerConnection], Awaitable[Any]]) -> None:
    async with connected(receive_buffer=4096) as (websocket, _):
        while not websocket.paused:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(websocket.send(b"x" * 1_000_000), 0.01)
        before = await given_up(10, lambda: wait(websocket))
        assert await given_up(500, lambda: wait(websocket)) - before < 10
        assert websocket._pings is None or len(websocket._pings) <= 1
        websocket.transport.abort()
