"""process_request, process_response and select_subprotocol: sync, async, answering, raising."""

from __future__ import annotations

import asyncio
import http
from typing import Any

from tests.differential.library import Record, add, scenario
from tests.differential.stage import idle, serving
from tests.support import wire
from tests.support.rawpeer import REQUEST
from tests.support.wire import TEXT

OUR_WORDS = ("HTTP/1.1 405", "HTTP/1.1 500")
"""Responses whose sentences are each library's own."""
OFFER = wire.request(headers={"Sec-WebSocket-Protocol": "chat, superchat"})


async def asked(lib: Any, record: Record, raw: bytes = REQUEST, **options: Any) -> None:
    """What comes of one request."""

    async def handler(websocket: Any) -> None:
        record("handled", websocket.subprotocol, websocket.response.status_code)
        await idle(websocket)

    async with serving(lib, handler, **options) as server:
        peer = await server.raw()
        head, body = await peer.answer(raw)
        record("answer", head)
        if "process_request" in options or "process_response" in options:
            record("body", body if head[0][:12] not in OUR_WORDS else None)
        if "101" in head[0]:
            peer.close()
            record("frames", await peer.rest())


def request_hook(name: str, make: Any) -> None:
    """Two scenarios: a process_request that returns what `make(lib, connection, request)` does, sync and async."""

    async def sync(lib: Any, record: Record) -> None:
        await asked(lib, record, process_request=lambda connection, request: make(lib, connection, request))

    async def asynchronous(lib: Any, record: Record) -> None:
        async def hook(connection: Any, request: Any) -> Any:
            return make(lib, connection, request)

        await asked(lib, record, process_request=hook)

    add(f"process_request_{name}", sync)
    add(f"process_request_{name}_async", asynchronous)


def response_hook(name: str, make: Any) -> None:
    """The same for process_response."""

    async def sync(lib: Any, record: Record) -> None:
        await asked(lib, record, process_response=lambda *arguments: make(lib, *arguments))

    async def asynchronous(lib: Any, record: Record) -> None:
        async def hook(*arguments: Any) -> Any:
            return make(lib, *arguments)

        await asked(lib, record, process_response=hook)

    add(f"process_response_{name}", sync)
    add(f"process_response_{name}_async", asynchronous)


def fail(*_: Any) -> Any:
    raise ValueError("of a hook")


def change(lib: Any, connection: Any, request: Any, response: Any) -> None:
    response.headers["X-Changed"] = "yes"


request_hook("goes_on", lambda *_: None)
request_hook("respond", lambda lib, connection, _: connection.respond(http.HTTPStatus.OK, "OK\n"))
request_hook("respond_int", lambda lib, connection, _: connection.respond(404, "Pas trouv\xe9\n"))
request_hook("own_response", lambda lib, *_: lib.Response(302, "Found", lib.Headers(Location="/x"), b"body"))
request_hook("raises", fail)
request_hook("raises_handshake_error", lambda lib, *_: fail_with(lib.exceptions.InvalidHandshake("frob")))
request_hook("returns_junk", lambda *_: "junk")
response_hook("goes_on", lambda *_: None)
response_hook("changes", change)
response_hook("replaces", lambda lib, connection, *_: connection.respond(503, "Busy\n"))
response_hook("raises", fail)
response_hook("returns_junk", lambda *_: 42)


def fail_with(exc: Exception) -> Any:
    raise exc


@scenario
async def process_response_sees_rejections(lib: Any, record: Record) -> None:
    def hook(connection: Any, request: Any, response: Any) -> None:
        record("seen", request.method, response.status_code, response.headers.get_all("Allow"))
        response.headers["X-Changed"] = "yes"

    await asked(lib, record, wire.request(method="POST"), process_response=hook)


@scenario
async def process_response_after_process_request(lib: Any, record: Record) -> None:
    def before(connection: Any, request: Any) -> Any:
        record("order", "request", connection.state)
        return connection.respond(401, "No\n")

    def after(connection: Any, request: Any, response: Any) -> None:
        record("order", "response", response.status_code, connection.state)

    await asked(lib, record, process_request=before, process_response=after)


@scenario
async def process_request_sees_bad_methods(lib: Any, record: Record) -> None:
    def hook(connection: Any, request: Any) -> Any:
        record("seen", request.method, request.path, request.protocol, request.headers)
        return connection.respond(200, request.method)

    await asked(lib, record, wire.request("DELETE", "/thing"), process_request=hook)


@scenario
async def process_request_health_check(lib: Any, record: Record) -> None:
    def hook(connection: Any, request: Any) -> Any:
        return connection.respond(200, "OK\n") if request.path == "/healthz" else None

    await asked(lib, record, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", process_request=hook)


@scenario
async def hooks_and_handler_share_the_connection(lib: Any, record: Record) -> None:
    seen: list[Any] = []

    def note(name: str, connection: Any) -> None:
        seen.append(connection)
        connection.notes = [*getattr(connection, "notes", []), name]
        record(name, connection.server is not None, connection.transport is not None, connection.state)
        record(name, connection.request is not None, connection.response is not None, connection.subprotocol)
        record(name, connection.close_code, connection.close_reason, connection.latency)
        record(name, connection.remote_address[0], connection.protocol.state)

    def process_request(connection: Any, request: Any) -> None:
        note("process_request", connection)

    def select_subprotocol(connection: Any, offered: Any) -> Any:
        note("select_subprotocol", connection)
        record("offered", list(offered))
        return "superchat"

    def process_response(connection: Any, request: Any, response: Any) -> None:
        note("process_response", connection)

    async def handler(websocket: Any) -> None:
        note("handler", websocket)
        record("notes", websocket.notes, len(set(map(id, seen))))

    options = {"select_subprotocol": select_subprotocol, "subprotocols": ["superchat"]}
    hooks = {"process_request": process_request, "process_response": process_response}
    async with serving(lib, handler, **hooks, **options) as server:
        peer = await server.peer(OFFER)
        record("frames", await peer.rest())


def selecting(name: str, choose: Any, raw: bytes = OFFER) -> None:
    """A scenario of select_subprotocol."""

    async def select(lib: Any, record: Record) -> None:
        def hook(connection: Any, offered: Any) -> Any:
            record("offered", list(offered))
            return choose(lib, offered)

        await asked(lib, record, raw, subprotocols=["superchat", "chat"], select_subprotocol=hook)

    add(f"select_subprotocol_{name}", select)


selecting("first", lambda _, offered: offered[0])
selecting("none", lambda *_: None)
selecting("nothing_offered", lambda *_: None, REQUEST)
selecting("raises", fail)
selecting("refuses", lambda lib, _: fail_with(lib.exceptions.NegotiationError("no")))
selecting("not_offered", lambda *_: "frob")


@scenario
async def data_sent_while_a_hook_runs(lib: Any, record: Record) -> None:
    go = asyncio.Event()

    async def hook(connection: Any, request: Any) -> None:
        record("order", "hook")
        await go.wait()

    async def handler(websocket: Any) -> None:
        record("order", await websocket.recv())

    async with serving(lib, handler, process_request=hook) as server:
        peer = await server.raw()
        peer.write(REQUEST)
        peer.send(TEXT, b"early")
        await asyncio.sleep(0)
        go.set()
        record("answer", await peer.head())
        record("frames", await peer.rest())
