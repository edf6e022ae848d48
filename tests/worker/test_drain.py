"""Taking leave of real connections: who is closed when, what is waited for, and what is cut.

What must not live here: the supervisor's side of a stop (tests/process/test_stop.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from tests.asyncio.ends import echo
from tidegate.asyncio.server import Server, ServerConnection, serve
from tidegate.ipc.pipe import StopMode
from tidegate.worker.drain import Drain, StopRequest

Handler = Callable[[ServerConnection], Awaitable[None]]

NEVER = 3600.0  # seconds: a test that waits for it fails


def uri_of(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@contextlib.asynccontextmanager
async def serving(handler: Handler, clients: int) -> AsyncIterator[tuple[Server, list[ClientConnection]]]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        uri = uri_of(server)
        connections = [await connect(uri, compression=None, proxy=None) for _ in range(clients)]
        yield server, connections
        for connection in connections:
            await connection.close()


def drain(
    server: Server, mode: StopMode = StopMode.GRACEFUL, *, window: float = 0, timeout: float = NEVER
) -> tuple[StopRequest, asyncio.Task[int]]:
    """A request to stop, and the drain that follows it, under way."""
    stop_request = StopRequest()
    stop_request.escalate(mode)
    return stop_request, asyncio.create_task(Drain([server], stop_request, window=window, timeout=timeout).run())


async def codes(clients: list[ClientConnection]) -> list[int | None]:
    await asyncio.gather(*(client.wait_closed() for client in clients))
    return [client.close_code for client in clients]


async def test_nobody_is_there() -> None:
    async with serving(echo, 0) as (server, _):
        assert await drain(server, window=NEVER)[1] == 0
        assert not server.is_serving()


async def test_all_are_closed_with_1001() -> None:
    async with serving(echo, 20) as (server, clients):
        _, draining = drain(server)
        assert await codes(clients) == [1001] * 20
        assert await draining == 0


async def test_the_longest_idle_first_each_at_its_own_moment() -> None:
    order: list[int] = []
    async with serving(echo, 6) as (server, clients):
        for number in (3, 1, 5, 0, 4, 2):
            await clients[number].send("hello")
            await clients[number].recv()
            await asyncio.sleep(0.01)

        async def watch(number: int) -> None:
            await clients[number].wait_closed()
            order.append(number)

        watching = asyncio.gather(*map(watch, range(6)))
        started = asyncio.get_running_loop().time()
        _, draining = drain(server, window=0.6)
        await watching
        assert asyncio.get_running_loop().time() - started >= 0.5  # the last of six begins at five sixths
        assert order == [3, 1, 5, 0, 4, 2]
        assert await draining == 0


async def test_whoever_leaves_before_its_turn_is_not_waited_for() -> None:
    async with serving(echo, 3) as (server, clients):
        _, draining = drain(server, window=NEVER)
        for client in clients:
            await client.close()
        assert await draining == 0


async def test_handlers_are_awaited() -> None:
    done = asyncio.Event()
    ended = []

    async def handler(websocket: ServerConnection) -> None:
        await websocket.wait_closed()
        await done.wait()
        ended.append(websocket)

    async with serving(handler, 2) as (server, clients):
        _, draining = drain(server)
        assert await codes(clients) == [1001] * 2
        assert not draining.done()
        done.set()
        assert await draining == 0
        assert len(ended) == 2


async def test_what_is_left_at_the_timeout_is_cut() -> None:
    cancelled = []

    async def handler(websocket: ServerConnection) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(websocket)
            raise

    async with serving(handler, 3) as (server, clients):
        _, draining = drain(server, window=NEVER / 2, timeout=0.1)
        assert set(await codes(clients)) <= {1001, 1006}
        assert await draining == 0
        assert len(cancelled) == 3


@pytest.mark.parametrize("timeout", [0, 0.1])
async def test_a_handler_that_will_not_end_is_counted(timeout: float) -> None:
    release = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with serving(handler, 2) as (server, _):
        _, draining = drain(server, timeout=timeout)
        assert await draining == 2
        release.set()


async def test_an_order_to_close_ends_the_waiting_for_turns() -> None:
    async with serving(echo, 10) as (server, clients):
        stop_request, draining = drain(server, window=NEVER / 2)
        await clients[0].wait_closed()
        stop_request.escalate(StopMode.CLOSE)
        assert await codes(clients) == [1001] * 10
        assert await draining == 0


async def test_an_order_to_close_ends_the_waiting_for_handlers() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await asyncio.Event().wait()

    async with serving(handler, 2) as (server, clients):
        stop_request, draining = drain(server)
        assert await codes(clients) == [1001] * 2
        stop_request.escalate(StopMode.CLOSE)
        assert await draining == 0


async def test_an_order_to_cut_waits_for_nobody() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await asyncio.Event().wait()

    async with serving(handler, 5) as (server, clients):
        stop_request, draining = drain(server, window=NEVER / 2)
        await clients[0].wait_closed()
        stop_request.escalate(StopMode.ABORT)
        assert set(await codes(clients)) <= {1001, 1006}
        assert await draining == 0


async def test_a_drain_may_begin_with_the_most_urgent_order() -> None:
    async with serving(echo, 5) as (server, clients):
        _, draining = drain(server, StopMode.ABORT, window=NEVER / 2)
        assert set(await codes(clients)) <= {1001, 1006}
        assert await draining == 0


async def test_handshakes_in_progress_are_told_503() -> None:
    async with serving(echo, 0) as (server, _):
        host, port = server.sockets[0].getsockname()[:2]
        pairs = [await asyncio.open_connection(host, port) for _ in range(5)]
        for _, writer in pairs[:3]:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        _, draining = drain(server)
        for reader, writer in pairs:
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: " in answer
            writer.close()
        assert await draining == 0


def test_who_waits_in_the_queue_is_told_503() -> None:
    """In the loop that workers have: asyncio's own has accepted all of them when it knows of the first."""

    async def drained() -> None:
        async with serving(echo, 0) as (server, _):
            callers = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(50)]
            _, draining = drain(server)
            for caller in callers:
                assert (await asyncio.to_thread(caller.recv, 4096)).startswith(b"HTTP/1.1 503 ")
                caller.close()
            assert await draining == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(drained())


async def test_a_stop_request_only_gets_more_urgent() -> None:
    stop_request = StopRequest()
    assert stop_request.mode is StopMode.NONE
    stop_request.escalate(StopMode.CLOSE)
    stop_request.escalate(StopMode.GRACEFUL)
    assert stop_request.mode is StopMode.CLOSE
    await stop_request.wait(StopMode.GRACEFUL)
    waiting = asyncio.create_task(stop_request.wait(StopMode.ABORT))
    await asyncio.sleep(0)
    assert not waiting.done()
    stop_request.escalate(StopMode.ABORT)
    await waiting
