"""`serve()` and the server it returns: starting, serving, stopping, and what becomes of connections and handlers."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from time import monotonic
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect

from tests.asyncio.ends import echo, idle, serving
from tests.support.coroutines import until
from tests.support.rawpeer import REQUEST, ClientPeer
from tests.support.wire import close, frame
from tidegate.asyncio.server import Server, ServerConnection, serve, unix_serve
from tidegate.exceptions import ProtocolError


def address(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# Starting and stopping


async def test_async_with() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        assert isinstance(server, Server)
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
        async with connect(address(server)) as client:
            await client.send("Hello")
            assert await client.recv() == "Hello"
    assert not server.is_serving()
    assert server.sockets == ()


async def test_await() -> None:
    """An awaited server serves until it is closed."""
    server = await serve(echo, "127.0.0.1", 0)
    async with connect(address(server)) as client:
        await client.send(b"Hello")
        assert await client.recv() == b"Hello"
    server.close()
    await server.wait_closed()


async def test_await_then_async_with() -> None:
    server = await serve(echo, "127.0.0.1", 0)
    async with server as same:
        assert same is server
        assert await server is server
        assert server.is_serving()
    assert not server.is_serving()


async def test_an_error_in_the_block_closes_too() -> None:
    server = await serve(echo, "127.0.0.1", 0)
    with pytest.raises(ZeroDivisionError):
        async with server:
            raise ZeroDivisionError
    assert not server.is_serving()


async def test_start_serving() -> None:
    server = await serve(echo, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    assert server.is_serving()
    await server.start_serving()
    async with connect(address(server)) as client:
        await client.send("Hello")
        assert await client.recv() == "Hello"
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("started", [True, False])
async def test_serve_forever_until_cancelled(started: bool) -> None:
    server = await serve(echo, "127.0.0.1", 0, start_serving=started)
    task = asyncio.create_task(server.serve_forever())
    await until(server.is_serving)
    client = await connect(address(server))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()
    await client.wait_closed()
    assert client.close_code == 1001


async def test_serve_forever_until_closed_elsewhere() -> None:
    server = await serve(echo, "127.0.0.1", 0)
    task = asyncio.create_task(server.serve_forever())
    async with connect(address(server)) as client:
        server.close()
        await task
        await client.wait_closed()
    assert client.close_code == 1001


async def test_closing_again_changes_nothing() -> None:
    server = await serve(echo, "127.0.0.1", 0)
    server.close()
    server.close()
    await server.wait_closed()
    server.close()
    await server.wait_closed()


async def test_waiting_for_the_end_can_be_cancelled() -> None:
    async with serving(echo) as made:
        waiting = [asyncio.create_task(made.server.wait_closed()) for _ in range(2)]
        await made.peer()
        made.server.close(close_connections=False)
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert not waiting[1].done()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(made.server.wait_closed(), 0.001)
        made.peers[0].close()
        await waiting[1]


async def test_sockets_and_several_servers() -> None:
    """One server for each of the sockets that a worker was given."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    servers = [await serve(echo, sock=sock) for sock in socks]
    for server, sock in zip(servers, socks, strict=True):
        assert [listening.getsockname() for listening in server.sockets] == [sock.getsockname()]
        async with connect(address(server)) as client:
            await client.send("Hello")
            assert await client.recv() == "Hello"
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_unix_sockets() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with unix_serve(echo, path) as server, unix_connect(path) as client:
            await client.send("Hello")
            assert await client.recv() == "Hello"
            (connection,) = server.connections
            assert connection.local_address == path
            assert connection.remote_address in ("", None)


async def test_a_unix_server_needs_a_path() -> None:
    with pytest.raises(ValueError, match="path was not specified"):
        await unix_serve(echo)


async def test_an_address_that_is_taken() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        again = serve(echo, "127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await again


# Wrong arguments show where they are written


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"compression": "gzip"}, "unsupported compression: gzip"),
        ({"subprotocols": "chat"}, "subprotocols must be a list"),
        ({"origins": "http://example.com"}, "origins must be a list"),
        ({"select_subprotocol": "chat"}, "select_subprotocol must be a function"),
        ({"process_request": "x"}, "process_request must be a function"),
        ({"process_response": 1}, "process_response must be a function"),
        ({"create_connection": 1}, "create_connection must be a function"),
        ({"open_timeout": "10"}, "open_timeout must be a number"),
        ({"open_timeout": -1}, "open_timeout must not be negative"),
        ({"ping_interval": True}, "ping_interval must be a number"),
        ({"ping_timeout": -0.5}, "ping_timeout must not be negative"),
        ({"close_timeout": float("nan")}, "close_timeout must not be negative"),
        ({"max_size": "1"}, "max_size must be an int"),
        ({"max_size": -1}, "max_size must not be negative"),
        ({"max_size": (1, 2, 3)}, "max_size must be an int"),
        ({"max_queue": 1.5}, "max_queue must be an int"),
        ({"max_queue": (1, 4)}, "high must be greater"),
        ({"write_limit": None}, "write_limit must be an int"),
        ({"write_limit": (1, 4)}, "high must be greater"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        serve(echo, "127.0.0.1", 0, **arguments)
    with pytest.raises((TypeError, ValueError), match=error):
        unix_serve(echo, "/nowhere", **arguments)


@pytest.mark.parametrize("handler", [None, "app:handler", 42])
def test_a_handler_is_a_function(handler: Any) -> None:
    with pytest.raises(TypeError, match="handler must be a coroutine function"):
        serve(handler, "127.0.0.1", 0)


async def test_arguments_of_the_event_loop_show_when_it_starts() -> None:
    server = serve(echo, "127.0.0.1", 0, nonsense=1)
    with pytest.raises(TypeError, match="nonsense"):
        await server


# Connections


async def test_connections() -> None:
    """The set of connections is a copy, with those that are open."""
    async with serving(idle) as made:
        server = made.server
        assert server.connections == set()
        one, other = await made.peer(), await made.peer()
        await made.raw()  # no handshake, not open
        await until(lambda: len(server.connections) == 2)
        connections = server.connections
        assert {connection.remote_address for connection in connections} == {
            peer.writer.get_extra_info("sockname") for peer in (one, other)
        }
        server.connections.clear()  # a copy
        assert server.connections == connections
        one.send(close())
        await until(lambda: len(server.connections) == 1)
        (left,) = server.connections
        closing = asyncio.create_task(left.close())
        await until(lambda: not server.connections)  # also before the other side has answered
        assert (await other.close_frame())[0] == 1000
        other.close()
        await closing


async def test_connections_that_break_are_none() -> None:
    async with serving(idle) as made:
        peers = [await made.peer() for _ in range(3)]
        await until(lambda: len(made.server.connections) == 3)
        peers[0].reset()
        peers[1].close()
        await until(lambda: len(made.server.connections) == 1)


async def test_cutting_connections() -> None:
    async with serving(idle) as made:
        peers = [await made.peer(), await made.raw()]
        await until(lambda: len(made.server._registry.all) == 2)
        made.server.abort_connections()
        for peer in peers:
            assert await peer.reader.read(-1) == b""
        await until(lambda: not made.server.handler_tasks)


async def test_idle_since() -> None:
    async with serving(echo) as made:
        peer = await made.peer()
        (connection,) = made.server.connections
        before = connection.idle_since
        assert before <= monotonic()
        peer.send(frame(b"x"))
        await peer.frame()
        assert before < connection.idle_since <= monotonic()


# Closing the server


async def test_open_connections_get_1001() -> None:
    async with serving(idle) as made:
        peers = [await made.peer() for _ in range(3)]
        await until(lambda: len(made.server.connections) == 3)
        made.server.close()
        assert made.server.connections == set()
        for peer in peers:
            assert await peer.close_frame() == (1001, "")
            peer.send(close(1001))
            await peer.end()
            peer.close()
        await made.server.wait_closed()


async def test_another_code_and_reason() -> None:
    async with serving(idle) as made:
        peer = await made.peer()
        made.server.close(code=1012, reason="restarting")
        assert await peer.close_frame() == (1012, "restarting")


@pytest.mark.parametrize(("code", "reason"), [(999, ""), (1005, ""), (1001, "x" * 124)])
async def test_a_code_that_nobody_may_send(code: int, reason: str) -> None:
    async with serving(echo) as made:
        peer = await made.peer()
        with pytest.raises(ProtocolError):
            made.server.close(code=code, reason=reason)
        assert made.server.is_serving()
        peer.send(frame(b"still open"))
        assert await peer.frame() == (0x81, b"still open")


async def test_connections_may_be_left_open() -> None:
    async with serving(echo) as made:
        peer = await made.peer()
        await until(lambda: made.server.connections)
        made.server.close(close_connections=False)
        assert not made.server.is_serving()
        waiting = asyncio.create_task(made.server.wait_closed())
        peer.send(frame(b"still here"))
        assert await peer.frame() == (0x81, b"still here")
        assert len(made.server.connections) == 1
        assert not waiting.done()
        made.server.close()
        assert await peer.close_frame() == (1001, "")
        peer.close()
        await waiting


async def test_nobody_else_is_let_in() -> None:
    async with serving(echo) as made:
        await made.peer()
        made.server.close(close_connections=False)
        await asyncio.sleep(0.01)
        with pytest.raises(OSError):  # noqa: PT011 (each platform has another)
            await ClientPeer.connect(made.port)


async def test_handshakes_in_progress_get_503() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def process_request(connection: ServerConnection, request: Any) -> None:
        entered.set()
        await go_on.wait()

    async with serving(echo, process_request=process_request) as made:
        silent, half, whole = [await made.raw() for _ in range(3)]
        half.send(REQUEST[:20])
        whole.send(REQUEST)
        await entered.wait()
        await until(lambda: len(made.server._registry.handshaking) == 3)
        await asyncio.sleep(0.01)
        made.server.close()
        for peer in (silent, half):
            status, headers, body = await peer.answer()
            assert (status, headers["retry-after"], body) == (503, "1", "Server is shutting down.\n")
            assert "tidegate" in headers["server"]
            peer.close()
        go_on.set()
        status, headers, _ = await whole.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert "tidegate" in headers["server"]


async def test_a_hook_that_answers_itself_is_heard_while_closing() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def process_request(connection: ServerConnection, request: Any) -> Any:
        entered.set()
        await go_on.wait()
        return connection.respond(200, "fine\n")

    async with serving(echo, process_request=process_request) as made:
        peer = await made.raw()
        peer.send(REQUEST)
        await entered.wait()
        made.server.close()
        go_on.set()
        assert (await peer.answer())[::2] == (200, "fine\n")


async def test_handlers_are_awaited() -> None:
    go_on, ended = asyncio.Event(), []

    async def handler(websocket: ServerConnection) -> None:
        await websocket.wait_closed()
        await go_on.wait()
        ended.append(websocket)

    async with serving(handler) as made:
        peer = await made.peer()
        made.server.close()
        await peer.close_frame()
        peer.close()
        waiting = asyncio.create_task(made.server.wait_closed())
        await until(lambda: not made.server._registry.all)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert len(made.server.handler_tasks) == 1
        go_on.set()
        await waiting
        assert len(ended) == 1


async def test_handlers_that_do_not_end_can_be_cancelled() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await asyncio.sleep(3600)

    async with serving(handler, close_timeout=0.01) as made:
        peer = await made.peer()
        made.server.close()
        await peer.close_frame()
        await until(lambda: not made.server._registry.all)
        for task in made.server.handler_tasks:
            task.cancel()
        await made.server.wait_closed()


async def test_a_client_that_does_not_answer_is_cut() -> None:
    async with serving(idle, close_timeout=0.02) as made:
        peer = await made.peer()
        made.server.close()
        await made.server.wait_closed()
        assert await peer.close_frame() == (1001, "")


@pytest.mark.parametrize("wait", [Server.wait_closed, Server.serve_forever])
@pytest.mark.parametrize("clients", [0, 1])
async def test_who_waits_for_the_end_goes_on_before_the_block_is_left(wait: Any, clients: int) -> None:
    async with serve(echo, "127.0.0.1", 0, close_timeout=0.1) as server:  # whose close frame no peer answers
        waiting = asyncio.create_task(wait(server))
        await asyncio.sleep(0)
        peers = [await ClientPeer.connect(server.sockets[0].getsockname()[1]) for _ in range(clients)]
        for peer in peers:
            await peer.handshake()
    assert waiting.done()
    assert waiting.exception() is None
    for peer in peers:
        peer.close()
