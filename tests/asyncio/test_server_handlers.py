"""Handlers: how they end and what becomes of their connection, connections of another kind, and what is logged."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError as ClientConnectionClosedError

from tests.asyncio.ends import Serving, echo, idle, serving
from tests.support import wire
from tests.support.coroutines import outcome, until
from tests.support.rawpeer import REQUEST
from tests.support.wire import close, frame
from tidegate.asyncio.server import ServerConnection, serve
from tidegate.exceptions import ConnectionClosed, ConnectionClosedError

# How they end


async def test_a_handler_that_returns_closes_with_1000() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.send("bye")

    async with serving(handler) as made:
        peer = await made.peer()
        assert await peer.frame() == (0x81, b"bye")
        assert await peer.close_frame() == (1000, "")
        peer.send(close())
        await peer.end()


async def test_a_handler_that_fails_closes_with_1011(log: pytest.LogCaptureFixture) -> None:
    async def handler(websocket: ServerConnection) -> None:
        raise ZeroDivisionError("by zero")

    async with serving(handler) as made:
        peer = await made.peer()
        assert await peer.close_frame() == (1011, "")
    (record,) = [record for record in log.records if record.levelno == logging.ERROR]
    assert record.name == "tidegate.server"
    assert record.getMessage() == "connection handler failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert isinstance(record.websocket, ServerConnection)  # type: ignore[attr-defined]


async def test_a_handler_that_is_no_coroutine_function_fails(log: pytest.LogCaptureFixture) -> None:
    def handler(websocket: ServerConnection) -> None:
        return None

    async with serving(handler) as made:  # type: ignore[arg-type]
        peer = await made.peer()
        assert await peer.close_frame() == (1011, "")
    assert "connection handler failed" in log.text


async def test_a_handler_that_is_cancelled_closes_with_1011() -> None:
    async def handler(websocket: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with serving(handler) as made:
        peer = await made.peer()
        assert await peer.close_frame() == (1011, "")


@pytest.mark.parametrize("how", ["close", "reset", "eof", "error"])
async def test_the_end_of_its_own_connection_is_no_failure_of_a_handler(
    how: str, log: pytest.LogCaptureFixture
) -> None:
    """Thousands of tracebacks at once, when a network breaks, would be one of the log."""
    ended: list[BaseException] = []

    async def handler(websocket: ServerConnection) -> None:
        try:
            while True:
                await websocket.recv()
        except ConnectionClosed as exc:
            ended.append(exc)
            raise

    async with serving(handler) as made:
        peer = await made.peer()
        await until(lambda: made.server.connections)
        if how == "reset":
            peer.reset()
        elif how == "eof":
            peer.close()
        else:
            peer.send(close(1011) if how == "close" else frame(b"\xff"))
            await peer.close_frame()
            peer.close()
        await until(lambda: ended)
    assert ended
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
async def test_neither_are_those_of_a_handler_with_tasks(how: str, nested: bool, log: pytest.LogCaptureFixture) -> None:
    """A TaskGroup makes a group of what its tasks raise."""
    began = asyncio.Event()

    async def reading(websocket: ServerConnection) -> None:
        while True:
            await websocket.recv()

    async def writing(websocket: ServerConnection) -> None:
        while True:
            await websocket.send("tick")
            began.set()
            await asyncio.sleep(0.001)

    async def both(websocket: ServerConnection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(reading(websocket))
            group.create_task(writing(websocket))

    async def handler(websocket: ServerConnection) -> None:
        if not nested:
            await both(websocket)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(both(websocket))
            group.create_task(websocket.wait_closed())

    async with serving(handler) as made:
        peer = await made.peer()
        await began.wait()
        if how == "reset":
            peer.reset()
        else:
            peer.send(close())
            await peer.close_frame()
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


async def test_a_group_with_another_failure_is_logged(log: pytest.LogCaptureFixture) -> None:
    async def handler(websocket: ServerConnection) -> None:
        try:
            await websocket.recv()
        except ConnectionClosed as exc:
            raise ExceptionGroup("both", [exc, ZeroDivisionError("by zero")]) from None

    async with serving(handler) as made:
        peer = await made.peer()
        peer.reset()
    assert "connection handler failed" in log.text
    assert "by zero" in log.text


async def test_neither_are_those_of_older_handlers_and_hooks(log: pytest.LogCaptureFixture) -> None:
    hooked = asyncio.Event()

    async def handler(websocket: ServerConnection, path: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(websocket.recv())

    async def process_request(websocket: ServerConnection, request: Any) -> None:
        if request.path == "/hook":
            hooked.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(websocket.recv())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        async with serving(handler, process_request=process_request) as made:
            (await made.peer()).reset()
            peer = await made.raw()
            peer.send(wire.request(path="/hook"))
            await hooked.wait()
            peer.reset()
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


async def test_the_end_of_another_connection_is(log: pytest.LogCaptureFixture) -> None:
    async def proxy(websocket: ServerConnection) -> None:
        raise ConnectionClosedError(None, None, None)

    async with serving(proxy) as made:
        peer = await made.peer()
        assert await peer.close_frame() == (1011, "")
    assert "connection handler failed" in log.text


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_ends_a_program_ends_the_loop(
    exception: type[BaseException], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Also out of a handler that was woken in the middle of reading from a socket."""

    async def handler(websocket: ServerConnection) -> None:
        await websocket.recv()
        raise exception("now")

    made: list[Serving] = []

    async def main() -> None:
        made.append(Serving(await serve(handler, "127.0.0.1", 0, ping_interval=None)))
        peer = await made[0].peer()
        await asyncio.sleep(0.01)
        peer.send(frame(b"x"))
        await asyncio.sleep(30)

    async def clean_up() -> None:
        made[0].peers[0].close()
        made[0].server.close()
        await made[0].server.wait_closed()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        with pytest.raises(exception, match="now"):
            runner.run(main())
        runner.run(clean_up())


async def test_the_context_of_a_handler_is_its_own() -> None:
    tasks = []

    async def handler(websocket: ServerConnection) -> None:
        tasks.append(asyncio.current_task())
        await websocket.recv()
        tasks.append(asyncio.current_task())

    async with serving(handler) as made:
        for _ in range(2):
            peer = await made.peer()
            peer.send(frame(b"x"))
            await peer.close_frame()
            peer.close()
    assert tasks[0] is tasks[1]
    assert tasks[2] is tasks[3]
    assert tasks[0] is not tasks[2]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop 0.23 calls task factories in another way
async def test_handlers_that_start_at_once() -> None:
    """In an eager task, a handler begins inside the read callback that ended the handshake."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]

    async def process_request(connection: ServerConnection, request: Any) -> None:
        if request.path == "/wait":
            await asyncio.sleep(0)

    for hook in (None, process_request):
        async with serving(echo, process_request=hook) as made:
            for path in ("/", "/wait"):
                peer = await made.peer(wire.request(path=path) + frame(b"early"))
                peer.send(frame(b"a"), frame(b"b"), close())
                assert [payload for _, payload in await peer.frames()] == [b"early", b"a", b"b", b"\x03\xe8"]
                peer.close()
        async with serving(idle, process_request=hook) as made:
            await made.peer()
            made.server.close()
            made.peers[0].close()


# Connections of another kind


async def test_a_subclass_of_connections() -> None:
    class Shouting(ServerConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.count = 0

        async def recv(self, decode: bool | None = None) -> Any:  # type: ignore[override]
            self.count += 1
            return (await super().recv(decode)).upper()

    got = []

    async def handler(websocket: ServerConnection) -> None:
        assert isinstance(websocket, Shouting)
        async for message in websocket:  # the documentation says that the iterator calls recv()
            got.append((websocket.count, message))  # noqa: PERF401

    async with serving(handler, create_connection=Shouting) as made:
        peer = await made.peer()
        peer.send(frame(b"a"), frame(b"b"), close())
        await peer.close_frame()
    assert got == [(1, "A"), (2, "B")]


@pytest.mark.parametrize("fails", [False, True])
async def test_the_close_of_a_subclass_is_what_closes(fails: bool) -> None:
    """After its handler, and at the end of `async with`, a connection is closed by its own close()."""
    codes = []

    class Polite(ServerConnection):
        async def close(self, code: int = 1000, reason: str = "") -> None:
            codes.append(int(code))
            await super().close(code, reason or "see you")

    async def handler(websocket: ServerConnection) -> None:
        if fails:
            raise ZeroDivisionError

    async with serving(handler, create_connection=Polite) as made:
        peer = await made.peer()
        assert await peer.close_frame() == (1011 if fails else 1000, "see you")
    assert codes == [1011 if fails else 1000]


async def test_a_factory_with_limits_of_its_own() -> None:
    def create_connection(*arguments: Any, **options: Any) -> ServerConnection:
        return ServerConnection(*arguments, **{**options, "close_timeout": 1, "max_size": 10})

    async def handler(websocket: ServerConnection) -> None:
        assert (websocket.close_timeout, websocket.ping_interval) == (1, 7)
        await websocket.wait_closed()

    async with serving(handler, create_connection=create_connection, ping_interval=7) as made:
        peer = await made.peer()
        peer.send(frame(b"x" * 11))
        assert (await peer.close_frame())[0] == 1009


# What is logged


async def test_log(log: pytest.LogCaptureFixture) -> None:
    """The server's and the connections' begin and end are logged, and rejections with their status."""
    async with serving(echo) as made:
        peer = await made.peer()
        peer.send(close())
        await peer.close_frame()
        peer.close()
        await made.ask(REQUEST.replace(b"GET", b"PUT"))
        made.peers[1].close()
        await until(lambda: not made.server._registry.all)
    assert [record.getMessage() for record in log.records] == [
        f"server listening on 127.0.0.1:{made.port}",
        "connection open",
        "connection closed",
        "connection rejected (405 Method Not Allowed)",
        "connection closed",
        "server closing",
        "server closed",
    ]


async def test_log_of_frames(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.asyncio")

    async def handler(websocket: ServerConnection) -> None:
        assert websocket.debug
        async for message in websocket:
            await websocket.send(message)
            await websocket.send([message, message])

    with caplog.at_level(logging.DEBUG, "tests.asyncio"):
        async with serving(handler, logger=logger) as made:
            peer = await made.peer()
            peer.send(frame("é".encode()), frame(b"ping", 9), frame(b"a", fin=False), frame(b"b", 0))
            got = [await peer.frame() for _ in range(9)]
            peer.send(close(1000, "x"))
            got += await peer.frames()
    got.remove((0x8A, b"ping"))  # which comes first, unless a turn ended before it
    payloads = [b"\xc3\xa9"] * 3 + [b""] + [b"ab"] * 3 + [b"", b"\x03\xe8x"]
    assert [payload for _, payload in got] == payloads
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert "< GET / HTTP/1.1" in lines
    assert "> HTTP/1.1 101 Switching Protocols" in lines
    frames = [line for line in lines if line.split()[1] in ("TEXT", "CONT", "PING", "PONG", "CLOSE")]
    assert sorted(frames) == sorted(
        [
            "< TEXT 'é' [2 bytes]",
            "> TEXT 'é' [2 bytes]",
            "> TEXT 'é' [2 bytes, continued]",
            "> CONT 'é' [text, 2 bytes, continued]",
            "> CONT '' [0 bytes]",
            "< PING 'ping' [text, 4 bytes]",
            "> PONG 'ping' [text, 4 bytes]",
            "< TEXT 'a' [1 byte, continued]",
            "< CONT 'b' [text, 1 byte]",
            "> TEXT 'ab' [2 bytes]",
            "> TEXT 'ab' [2 bytes, continued]",
            "> CONT 'ab' [text, 2 bytes, continued]",
            "> CONT '' [0 bytes]",
            "< CLOSE 1000 (OK) x [3 bytes]",
            "> CLOSE 1000 (OK) x [3 bytes]",
        ]
    )


async def test_a_logger_of_ones_own_may_be_an_adapter() -> None:
    adapter = logging.LoggerAdapter(logging.getLogger("tests.asyncio"), {"key": "value"})
    async with serving(echo, logger=adapter) as made:
        peer = await made.peer()
        peer.send(frame(b"x"))
        assert await peer.frame() == (0x81, b"x")
        assert made.server.logger is adapter


# A client of the websockets library


async def test_a_client_sees_1011_of_a_failing_handler() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.recv()
        raise ZeroDivisionError

    async with serving(handler) as made, connect(made.uri) as client:
        await client.send("x")
        exc = await outcome(client.recv())
    assert isinstance(exc, ClientConnectionClosedError)
    assert exc.rcvd is not None
    assert exc.rcvd.code == 1011


async def test_a_server_that_rejects_answers_when_it_is_asked() -> None:
    """Who is answered before it has asked may not understand, a proxy for one."""
    async with serving(echo) as made:
        made.server.reject_handshakes()
        peer = await made.raw()
        await until(lambda: made.server.handshakes == 1)
        peer.send(REQUEST[:20])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.reader.read(1), 0.05)
        peer.send(REQUEST[20:])
        status, headers, _ = await peer.answer()
        assert (status, headers["retry-after"]) == (503, "1")


async def test_a_server_that_rejects_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.asyncio.server_connection.REJECT_WITHIN", 0.1)
    async with serving(echo) as made:
        made.server.reject_handshakes()
        peer = await made.raw()
        assert (await peer.answer())[0] == 503
