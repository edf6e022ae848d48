"""The life of a server, routes and passwords, broadcasts, compressed messages."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from werkzeug.routing import Map, Rule

from tests.differential.library import Record, add, scenario
from tests.differential.stage import QUIET, SHORT, Serving, accepted, deflated, dialled, idle, inflater, serving
from tests.support import wire
from tests.support.coroutines import outcome, until
from tests.support.rawpeer import REQUEST
from tests.support.wire import BINARY, CONT, TEXT


def stopping(name: str, *arguments: Any, **named: Any) -> None:
    """A scenario of Server.close()."""

    async def stop(lib: Any, record: Record) -> None:
        async with serving(lib, idle) as made:
            server = made.server
            peer = await made.peer()
            await until(lambda: len(server.connections) == 1)
            record("serving", server.is_serving(), len(server.sockets))
            server.close(*arguments, **named)
            server.close()
            record("frames", await peer.rest())
            await server.wait_closed()
            record("closed", server.connections, server.is_serving(), server.sockets)

    add(f"server_close_{name}", stop)


stopping("default")
stopping("code", code=1012, reason="restart")
stopping("code_by_position", True, 4000, "x")


@scenario
async def server_close_at_once(lib: Any, record: Record) -> None:
    async with serving(lib, idle) as made:
        made.server.close()
        record("closed", made.server.is_serving(), made.server.sockets)


@scenario
async def server_close_before_a_request(lib: Any, record: Record) -> None:
    async with serving(lib, idle, open_timeout=10 * SHORT) as made:
        peer, waiting = await made.peer(), await made.raw()
        await until(lambda: made.server.connections)
        made.server.close()
        record("frames", await peer.rest())
        record("answer", (await waiting.answer(b""))[0])
        waiting.end()


@scenario
async def server_close_keeping_connections(lib: Any, record: Record) -> None:
    async with serving(lib, idle) as made:
        peer = await made.peer()
        await until(lambda: made.server.connections)
        made.server.close(close_connections=False)
        record("state", [connection.state for connection in made.server.connections])
        peer.send(9, b"p")
        record("frames", await peer.frame())
        peer.close()
        record("frames", await peer.rest())
        await made.server.wait_closed()


@scenario
async def server_close_during_a_handshake(lib: Any, record: Record) -> None:
    go = asyncio.Event()
    here = asyncio.Event()

    async def hook(connection: Any, request: Any) -> None:
        here.set()
        await go.wait()

    async with serving(lib, idle, process_request=hook) as made:
        peer = await made.raw()
        peer.write(REQUEST)
        await here.wait()
        made.server.close()
        go.set()
        record("status", (await peer.head())[0])
        peer.end()


@scenario
async def server_waits_for_handlers(lib: Any, record: Record) -> None:
    go = asyncio.Event()

    async def handler(websocket: Any) -> None:
        await websocket.wait_closed()
        await go.wait()
        record("order", "handler")

    async with serving(lib, handler) as made:
        peer = await made.peer()
        peer.listen()
        await until(lambda: made.server.connections)
        made.server.close()
        waiting = asyncio.create_task(made.server.wait_closed())
        await asyncio.wait([waiting], timeout=0.01)
        record("order", waiting.done())
        waiting.cancel()
        go.set()
        await made.server.wait_closed()
        record("order", "closed")


@scenario
async def serve_forever_is_cancelled(lib: Any, record: Record) -> None:
    server = await lib.serve(idle, "127.0.0.1", 0, **QUIET)
    made = Serving(server)
    task = asyncio.create_task(server.serve_forever())
    peer = await made.peer()
    frames = peer.listen()
    await until(lambda: server.connections)
    task.cancel()
    record("frames", await frames)
    await asyncio.wait([task])
    record("cancelled", task.cancelled(), server.is_serving())


@scenario
async def serve_forever_ends_by_close(lib: Any, record: Record) -> None:
    server = await lib.serve(idle, "127.0.0.1", 0, **QUIET)
    task = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    record("result", await task)


@scenario
async def start_serving_later(lib: Any, record: Record) -> None:
    server = await lib.serve(idle, "127.0.0.1", 0, start_serving=False, **QUIET)
    record("serving", server.is_serving(), len(server.sockets))
    await server.start_serving()
    record("serving", server.is_serving(), server.get_loop() is asyncio.get_running_loop())
    async with server as same:
        record("same", same is server)
        made = Serving(server)
        peer = await made.peer()
        peer.close()
        record("frames", await peer.rest())
    record("serving", server.is_serving())


@scenario
async def connections_are_the_open_ones(lib: Any, record: Record) -> None:
    async with serving(lib, idle) as made:
        first, second = await made.peer(), await made.peer()
        await until(lambda: len(made.server.connections) == 2)
        record(
            "kind", type(made.server.connections).__name__, {type(each).__name__: 1 for each in made.server.connections}
        )
        first.close()
        await first.rest()
        await until(lambda: len(made.server.connections) == 1)
        second.end()
        await until(lambda: not made.server.connections)
        made.hang_up()
        record("frames", "done")


@scenario
async def connection_attributes(lib: Any, record: Record) -> None:
    async with accepted(lib, ping_interval=7, ping_timeout=8) as (websocket, peer):
        record("kind", type(websocket).__name__, isinstance(websocket, lib.ServerConnection))
        record("id", type(websocket.id).__name__, websocket.id == websocket.id)
        record("address", websocket.remote_address[0], websocket.local_address[0], len(websocket.remote_address))
        record("peer", websocket.remote_address == peer.writer.get_extra_info("sockname"))
        record("state", websocket.state, websocket.protocol.state, websocket.subprotocol, websocket.latency)
        record("settings", websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout, websocket.debug)
        record("transport", websocket.transport.is_closing(), websocket.loop is asyncio.get_running_loop())
        record("server", websocket in websocket.server.connections, websocket.paused)
        websocket.anything = 1
        record("own", websocket.anything)


@scenario
async def connection_made_by_create_connection(lib: Any, record: Record) -> None:
    class Own(lib.ServerConnection):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.counted = 0

        async def recv(self, *args: Any, **kwargs: Any) -> Any:
            self.counted += 1
            return await super().recv(*args, **kwargs)

    async with accepted(lib, create_connection=Own) as (websocket, peer):
        peer.send(TEXT, b"a")
        peer.send(TEXT, b"b")
        peer.close()
        peer.listen()
        record("messages", [message async for message in websocket], websocket.counted, type(websocket).__name__)


def mistaken(name: str, **options: Any) -> None:
    """A scenario of a mistake in the call of serve()."""

    async def mistake(lib: Any, record: Record) -> None:
        async def call() -> None:
            lib.serve(idle, "127.0.0.1", 0, **options)

        record("raised", await outcome(call()))

    add(f"server_mistake_{name}", mistake)


mistaken("subprotocols", subprotocols="chat")
mistaken("compression", compression="frob")


@scenario
async def address_in_use(lib: Any, record: Record) -> None:
    async with serving(lib, idle) as made:
        exc = await outcome(_listen(lib, made.port))
        record("raised", type(exc).__name__)


async def _listen(lib: Any, port: int) -> Any:
    return await lib.serve(idle, "127.0.0.1", port)


# Routes.


def urls() -> Map:
    """What is routed, with handlers that say where they are."""

    async def handler(websocket: Any, **named: Any) -> None:
        await websocket.send(f"{websocket.request.path} {named}")

    return Map(
        [
            Rule("/", endpoint=handler),
            Rule("/a/<int:number>/<name>", endpoint=handler),
            Rule("/tree/", endpoint=handler),
            Rule("/old", redirect_to="/new"),
            Rule("/new", endpoint=handler, defaults={"page": 1}),
        ]
    )


def routed(name: str, path: str, **options: Any) -> None:
    """A scenario of a request to a router."""

    async def ask(lib: Any, record: Record) -> None:
        async with lib.route(urls(), "127.0.0.1", 0, **QUIET, **options) as server:
            made = Serving(server)
            peer = await made.raw()
            head, body = await peer.answer(wire.request(path=path))
            record("answer", head, body)
            if "101" in head[0]:
                record("frames", await peer.rest())
            peer.end()

    add(f"route_{name}", ask)


routed("root", "/")
routed("parameters", "/a/42/b%20c")
routed("no_match", "/frob")
routed("wrong_parameter", "/a/b/c")
routed("slash_is_missing", "/tree")
routed("redirect", "/old")
routed("default", "/new")
routed("query", "/?a=b")
routed("server_name", "/old", server_name="ws.example")
routed("secure_redirects", "/old", server_name="ws.example", ssl=True)
routed("process_request_first", "/frob", process_request=lambda connection, _: connection.respond(200, "first\n"))


# Passwords.


def passwords(name: str, header: str | None, **options: Any) -> None:
    """A scenario of basic_auth()."""

    async def ask(lib: Any, record: Record) -> None:
        async def handler(websocket: Any) -> None:
            record("username", websocket.username)

        options.setdefault("credentials", ("hello", "iloveyou"))
        async with serving(lib, handler, process_request=lib.basic_auth(**options)) as made:
            peer = await made.raw()
            head, body = await peer.answer(wire.request(headers={"Authorization": header}))
            record("answer", head, body)
            if "101" in head[0]:
                record("frames", await peer.rest())

    add(f"basic_auth_{name}", ask)


def basic(credentials: str) -> str:
    """The header's value."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()


async def check(username: str, password: str) -> bool:
    """Anybody whose password is the name."""
    return username == password


passwords("right", basic("hello:iloveyou"))
passwords("missing", None)
passwords("other_scheme", "Bearer x")
passwords("wrong_password", basic("hello:x"))
passwords("wrong_user", basic("x:iloveyou"))
passwords("no_colon", basic("hello"))
passwords("no_base64", "Basic !!!")
passwords("realm", None, realm='my "site"')
passwords("one_of_many", basic("b:2"), credentials=[("a", "1"), ("b", "2")])
passwords("checked", basic("x:x"), credentials=None, check_credentials=check)
passwords("checked_wrong", basic("x:y"), credentials=None, check_credentials=check)
passwords("checked_sync", basic("x:x"), credentials=None, check_credentials=lambda name, password: name == password)


@scenario
async def basic_auth_mistakes(lib: Any, record: Record) -> None:
    async def call(**options: Any) -> None:
        lib.basic_auth(**options)

    record("raised", await outcome(call()))
    record("raised", await outcome(call(credentials=("a", "b"), check_credentials=check)))
    for credentials in (42, ("a", 1), [("a", 1)], [1]):
        record("raised", await outcome(call(credentials=credentials)))


# Broadcasts.


def casting(name: str, message: Any, **options: Any) -> None:
    """A scenario of broadcast() to two connections."""

    async def cast(lib: Any, record: Record) -> None:
        async with serving(lib, idle) as made:
            peers = [await made.peer(), await made.peer()]
            await until(lambda: len(made.server.connections) == 2)

            async def call() -> None:
                lib.broadcast(made.server.connections, message, **options)

            record("raised", await outcome(call()))
            for peer in peers:
                peer.close()
                record("frames", await peer.rest())

    add(f"broadcast_{name}", cast)


casting("str", "h\xe9")
casting("bytes", b"b")
casting("bytearray", bytearray(b"b"))
casting("str_as_binary", "a", text=False)
casting("bytes_as_text", b"a", text=True)
casting("list", ["a"])
casting("none", None)
casting("dict", {})
casting("empty", "")


@scenario
async def broadcast_skips_the_closed(lib: Any, record: Record) -> None:
    async with accepted(lib) as (first, peer), accepted(lib) as (second, other):
        peer.close()
        await peer.rest()
        await first.wait_closed()
        lib.broadcast([first, second], "a")
        record("frames", await other.frame())


@scenario
async def broadcast_within_a_message(lib: Any, record: Record) -> None:
    go = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await go.wait()

    async with accepted(lib) as (websocket, peer), dialled(lib) as (client, other):
        task = asyncio.create_task(websocket.send(source()))
        record("frames", await peer.frame())

        async def call() -> None:
            lib.broadcast([websocket, client], "b", raise_exceptions=True)

        record("raised", await outcome(call()))
        lib.broadcast([websocket], "c")
        record("client", await other.frame())
        go.set()
        await task
        record("frames", await peer.frame())


# Compression.

OFFER = wire.request(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})
DEFLATE = {"compression": "deflate"}


@scenario
async def compressed_messages(lib: Any, record: Record) -> None:
    async with accepted(lib, OFFER, **DEFLATE) as (websocket, peer):
        peer.inflate = inflater()
        for message in ("a" * 200, b"b" * 200, "", ["a" * 50, "b" * 50], "a" * 200):
            await websocket.send(message)
        await websocket.ping(b"p")
        record("frames", [await peer.frame() for _ in range(8)])


@scenario
async def compressed_messages_come(lib: Any, record: Record) -> None:
    async with accepted(lib, OFFER, **DEFLATE) as (websocket, peer):
        whole = deflated(b"a" * 200)
        peer.send(TEXT, whole, rsv=4)
        peer.send(BINARY, b"plain")
        peer.send(TEXT, whole[:2], rsv=4, fin=False)
        peer.send(CONT, whole[2:])
        record("messages", [await websocket.recv() for _ in range(3)])


def inflating(name: str, payload: bytes, opcode: int = TEXT, rsv: int = 4, **options: Any) -> None:
    """A scenario of a compressed message that is refused."""

    async def come(lib: Any, record: Record) -> None:
        async with accepted(lib, OFFER, **{**DEFLATE, **options}) as (websocket, peer):
            frames = peer.listen()
            peer.send(opcode, payload, rsv=rsv)
            exc = await outcome(websocket.recv())
            record("recv", type(exc).__name__, str(exc))
            record("frames", await frames)

    add(f"compressed_{name}", come)


inflating("junk", b"\xff\xff\xff\xff")
inflating("ping", b"p", 9)
inflating("bomb", deflated(b"a" * 2**21))
inflating("too_big", deflated(b"a" * 200), max_size=100)
inflating("invalid_utf8", deflated(b"a\xff"))
inflating("other_bits", b"a", TEXT, 6)
inflating("stray_continuation", b"a", CONT)
