"""`async for websocket in connect(...)`: what is tried again, how soon, and how it ends.

What must not live here: which failures may pass, by default (tests/test_client).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from collections.abc import Iterator

import pytest

from tests.asyncio.ends import echo
from tests.support.rawpeer import RawServer, ServerPeer
from tidegate.asyncio.client import ClientConnection, connect, process_exception
from tidegate.asyncio.server import Server, ServerConnection, serve
from tidegate.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, InvalidURI
from tidegate.http11 import Request, Response


def uri_of(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def at_once() -> Iterator[float]:
    while True:
        yield 0


async def fail_to(connector: connect) -> None:
    """Iterate where no connection is to be had."""
    async for _ in connector:
        pytest.fail("connected")


class Rejections:
    """A process_request that rejects with some statuses first; None accepts."""

    def __init__(self, *statuses: int | None) -> None:
        self.statuses = list(statuses)

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        status = self.statuses.pop(0) if self.statuses else None
        return None if status is None else connection.respond(status, "no")


async def test_it_connects_again_when_the_body_is_done() -> None:
    codes = []

    async def handler(websocket: ServerConnection) -> None:
        await websocket.send("hello")
        await websocket.wait_closed()
        codes.append(websocket.close_code)

    async with serve(handler, "127.0.0.1", 0) as server:
        before: list[ClientConnection] = []
        async for websocket in connect(uri_of(server)):
            assert await websocket.recv() == "hello"
            assert all(earlier.close_code == 1000 for earlier in before)
            before.append(websocket)
            if len(before) == 3:
                break
        assert codes == [1000, 1000]
        assert len({id(websocket) for websocket in before}) == 3


async def test_it_connects_again_when_the_server_goes() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.send("hello")
        await websocket.close(1001)

    received = 0
    async with serve(handler, "127.0.0.1", 0) as server:
        async for websocket in connect(uri_of(server)):
            try:
                while True:
                    await websocket.recv()
                    received += 1
            except ConnectionClosed:
                if received == 2:
                    break
                continue
    assert received == 2


async def test_failures_that_may_pass(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(503, 500, 502, 504)) as server:
        with caplog.at_level(logging.INFO, "tidegate.client"):
            async for websocket in connect(uri_of(server), reconnect_delays=at_once):
                await websocket.send("hello")
                assert await websocket.recv() == "hello"
                break
    lines = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "tidegate.client"]
    assert [level for level, _ in lines] == [logging.INFO] * 4
    assert lines[0][1] == (
        "connect failed; reconnecting in 0.0 seconds: "
        "tidegate.exceptions.InvalidStatus: server rejected WebSocket connection: HTTP 503"
    )


async def test_a_server_that_is_not_up_yet() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    tried = 0

    def process(exc: Exception) -> Exception | None:
        nonlocal tried
        tried += 1
        if tried == 2:
            up.set()
        return process_exception(exc)

    async def starter() -> Server:
        await up.wait()
        return await serve(echo, "127.0.0.1", port)

    up = asyncio.Event()
    starting = asyncio.create_task(starter())
    async for websocket in connect(f"ws://127.0.0.1:{port}/", reconnect_delays=at_once, process_exception=process):
        assert websocket.state == 1
        break
    assert tried >= 2
    server = await starting
    server.close()
    await server.wait_closed()


async def test_a_server_that_breaks_off() -> None:
    async def handler(peer: ServerPeer) -> None:
        if len(server.peers) < 3:
            await peer.request()
            return
        await peer.open()
        await peer.rest()

    async with RawServer(handler) as server:
        async for _ in connect(server.uri, reconnect_delays=at_once, close_timeout=0):
            break
        assert len(server.peers) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 501])
async def test_failures_that_will_not_pass(status: int) -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(503, status)) as server:
        with pytest.raises(InvalidStatus) as raised:
            await fail_to(connect(uri_of(server), reconnect_delays=at_once))
        assert raised.value.response.status_code == status


async def test_a_response_that_makes_no_sense() -> None:
    async with RawServer(b"junk\r\n\r\n") as server:
        with pytest.raises(InvalidMessage):
            await fail_to(connect(server.uri, reconnect_delays=at_once))


async def test_process_exception_decides() -> None:
    seen: list[Exception] = []

    def process(exc: Exception) -> Exception | None:
        seen.append(exc)
        assert isinstance(exc, InvalidStatus)
        if exc.response.status_code == 404:
            return None
        return ValueError("enough")

    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(404, 404, 503)) as server:
        with pytest.raises(ValueError, match="enough") as raised:
            await fail_to(connect(uri_of(server), process_exception=process, reconnect_delays=at_once))
    assert len(seen) == 3
    assert raised.value.__cause__ is seen[2]


@pytest.mark.parametrize("other", [False, True])
async def test_process_exception_may_raise(other: bool) -> None:
    def process(exc: Exception) -> Exception | None:
        if other:
            raise ZeroDivisionError
        raise exc

    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(503)) as server:
        with pytest.raises(ZeroDivisionError if other else InvalidStatus) as raised:
            await fail_to(connect(uri_of(server), process_exception=process))
        assert isinstance(raised.value.__cause__, InvalidStatus if other else type(None))


async def test_delays_begin_anew_after_success() -> None:
    asked: list[list[float]] = []

    def delays() -> Iterator[float]:
        asked.append([])
        for delay in (0.001, 0.002, 0.003):
            asked[-1].append(delay)
            yield delay

    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(503, 503, None, 503, None)) as server:
        connected = 0
        async for _ in connect(uri_of(server), reconnect_delays=delays):
            connected += 1
            if connected == 2:
                break
    assert asked == [[0.001, 0.002], [0.001]]


async def test_delays_that_end_give_up() -> None:
    rejections = Rejections(*[503] * 9)
    async with serve(echo, "127.0.0.1", 0, process_request=rejections) as server:
        with pytest.raises(InvalidStatus):
            await fail_to(connect(uri_of(server), reconnect_delays=lambda: iter([0.0, 0.0])))
        assert len(rejections.statuses) == 6


async def test_the_delay_is_waited_for() -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(503)) as server:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for _ in connect(uri_of(server), reconnect_delays=lambda: iter([0.1])):
            break
        assert loop.time() - began > 0.09


async def test_cancelling_while_it_waits() -> None:
    waiting = asyncio.Event()

    def process(exc: Exception) -> None:
        waiting.set()

    async def client() -> None:
        await fail_to(connect("ws://127.0.0.1:1/", process_exception=process))

    task = asyncio.create_task(client())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def body_of(connector: connect, exc: Exception) -> None:
    async for _ in connector:
        raise exc


async def test_leaving_the_loop_closes_the_connection() -> None:
    ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        await websocket.wait_closed()
        ended.set_result(websocket.close_code)

    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(ZeroDivisionError):
            await body_of(connect(uri_of(server)), ZeroDivisionError())
        gc.collect()
        assert await ended == 1011


async def test_an_error_of_the_body_is_not_tried_again() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match="mine"):
            await body_of(connect(uri_of(server), reconnect_delays=at_once), OSError("mine"))


async def test_redirects_are_followed_anew_each_time() -> None:
    paths: list[str] = []

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        paths.append(request.path)
        if request.path != "/":
            return None
        response = connection.respond(307, "")
        response.headers["Location"] = f"/{len(paths)}"
        return response

    async with serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        async for websocket in connect(uri_of(server)):
            assert websocket.request is not None
            if websocket.request.path == "/3":
                break
    assert paths == ["/", "/1", "/", "/3"]


async def test_headers_may_change_between_attempts() -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=Rejections(503)) as server:
        connector = connect(uri_of(server), additional_headers={"X-Token": "old"}, reconnect_delays=at_once)
        seen = 0

        def process(exc: Exception) -> None:
            nonlocal seen
            seen += 1
            connector.additional_headers = {"X-Token": "new"}

        connector.process_exception = process
        async for _ in connector:
            (connection,) = server.connections
            assert connection.request is not None
            assert connection.request.headers["X-Token"] == "new"
            break
        assert seen == 1


async def test_what_cannot_be_meant_fails_at_once(client_tls: ssl.SSLContext) -> None:
    with pytest.raises(InvalidURI):
        connect("http://localhost/")
    with pytest.raises(ValueError, match="ssl argument is incompatible with a ws:// URI"):
        connect("ws://localhost/", ssl=client_tls)
