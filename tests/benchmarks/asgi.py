"""ASGI servers for the comparison: ``python -m tests.benchmarks.compare --servers asgi-tidegate,asgi-uvicorn``.

    asgi-tidegate, asgi-uvicorn, asgi-granian, asgi-hypercorn               an application without a framework echoes
    starlette-tidegate, starlette-uvicorn, starlette-granian, ...           Starlette's documented echo

Both answer an HTTP request with a short text, too. Each runs in one process, on uvloop, without compression and access
log; uvicorn has its WebSocket protocol without I/O, which is its default, and httptools. They need uvicorn, granian,
hypercorn and starlette. What must not live here: measuring.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import socket
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

HOST = "127.0.0.1"
BODY = b"Hello, world!"
RESPONSE = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(BODY))],
}


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Echo, or say hello."""
    if scope["type"] == "http":
        await send(RESPONSE)
        await send({"type": "http.response.body", "body": BODY})
        return
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        text = event.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


def with_starlette() -> Any:
    """The same by Starlette."""
    starlette = {
        name: importlib.import_module(f"starlette.{name}")
        for name in ("applications", "responses", "routing", "websockets")
    }

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        with contextlib.suppress(starlette["websockets"].WebSocketDisconnect):
            while True:
                await websocket.send_text(await websocket.receive_text())

    async def hello(request: Any) -> Any:
        return starlette["responses"].PlainTextResponse(BODY)

    routing = starlette["routing"]
    return starlette["applications"].Starlette(routes=[routing.WebSocketRoute("/", echo), routing.Route("/", hello)])


def listening() -> socket.socket:
    """A socket on a free port."""
    return socket.create_server((HOST, 0), backlog=1024)


async def announce_when_it_answers(port: int) -> None:
    """Print the port as soon as it can be connected to."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            print(port, flush=True)
            return
        await asyncio.sleep(0.02)


async def tidegate(application: Any) -> None:
    from tidegate.asyncio.asgi import serve_asgi
    from tidegate.asyncio.http_service import HttpService

    http = HttpService(application, state={})
    async with serve_asgi(application, HOST, 0, http=http, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def uvicorn(application: Any) -> None:
    library: Any = importlib.import_module("uvicorn")
    sock = listening()
    await serve_beside(
        sock.getsockname()[1],
        library.Server(
            library.Config(
                application,
                http="httptools",
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                log_level="error",
                access_log=False,
            )
        ).serve(sockets=[sock]),
    )


async def granian(application: Any) -> None:
    library: Any = importlib.import_module("granian.server.embed")
    with listening() as sock:
        port = sock.getsockname()[1]
    interface = importlib.import_module("granian.constants").Interfaces.ASGI
    await serve_beside(port, library.Server(application, HOST, port, interface=interface, log_enabled=False).serve())


async def hypercorn(application: Any) -> None:
    config = importlib.import_module("hypercorn.config").Config()
    sock = listening()
    config.bind = [f"fd://{sock.fileno()}"]
    config.loglevel = "ERROR"
    serve = importlib.import_module("hypercorn.asyncio").serve
    await serve_beside(sock.getsockname()[1], serve(application, config))


async def serve_beside(port: int, serving: Any) -> None:
    """Serve, and say the port meanwhile."""
    announcing = asyncio.create_task(announce_when_it_answers(port))
    await serving
    announcing.cancel()


LIBRARIES = (tidegate, uvicorn, granian, hypercorn)


async def run(serve: Callable[[Any], Awaitable[None]], framework: str, fan: bool) -> None:
    assert not fan
    await serve(plain if framework == "asgi" else with_starlette())


# Name of the server -> what runs it. The second part of the name is the package's.
SERVERS: dict[str, Callable[[bool], Awaitable[None]]] = {
    f"{framework}-{serve.__name__}": functools.partial(run, serve, framework)
    for framework in ("asgi", "starlette")
    for serve in LIBRARIES
}


def installed() -> list[str]:
    """Those that can run here."""
    return [
        name
        for name in SERVERS
        if find_spec(name.partition("-")[2]) and (name.startswith("asgi") or find_spec("starlette"))
    ]
