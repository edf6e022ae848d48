"""Opening handshakes that take too long, with TLS and without; Unix sockets; loggers of one's own."""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from pathlib import Path
from typing import Any

from tests.differential.library import Record, add, scenario
from tests.differential.stage import QUIET, SHORT, Actor, dialled, idle, raw_server, serving
from tests.support.coroutines import outcome
from tests.support.rawpeer import REQUEST


def late(name: str, start: bytes, **options: Any) -> None:
    """A scenario of a client that says no more than the start of a request."""

    async def wait(lib: Any, record: Record) -> None:
        async with serving(lib, idle, open_timeout=4 * SHORT, **options) as made:
            peer = await made.raw()
            record("answer", (await peer.answer(start))[0])
            peer.end()

    add(f"server_times_out_{name}", wait)


async def forever(*_: Any) -> None:
    """A hook that never returns."""
    await asyncio.Event().wait()


late("silence", b"")
late("half_a_request", REQUEST[:-2])
late("tls", b"", ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
late("process_request", REQUEST, process_request=forever)
late("process_response", REQUEST, process_response=forever)


@scenario
async def server_probed(lib: Any, record: Record) -> None:
    async with serving(lib, idle) as made:
        peer = await made.raw()
        peer.end()
        peer = await made.raw()
        peer.write(b"GET / HT")
        peer.writer.write_eof()
        record("answer", await peer.reader.read())
        peer.end()


@scenario
async def client_times_out_in_tls(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        await peer.reader.read()

    async with raw_server(script) as uri:
        options = {**QUIET, "open_timeout": SHORT, "ssl": ssl.create_default_context()}
        exc = await outcome(lib.connect(uri.replace("ws:", "wss:"), proxy=None, **options))
        record("raised", type(exc).__name__, str(exc))


@scenario
async def unix_sockets(lib: Any, record: Record) -> None:
    async def handler(websocket: Any) -> None:
        record("request", websocket.request.path, websocket.request.headers["Host"], websocket.remote_address)
        await websocket.send("hello")

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        async with (
            lib.unix_serve(handler, path, **QUIET),
            lib.unix_connect(path, **QUIET) as first,
            lib.unix_connect(path, "ws://other.example/x", **QUIET) as second,
        ):
            record("messages", await first.recv(), await second.recv())


@scenario
async def own_loggers(lib: Any, record: Record) -> None:
    logger = logging.getLogger(f"{lib.name}.own")

    async def handler(websocket: Any) -> None:
        websocket.logger.warning("from the handler")
        raise ValueError("in the handler")

    async with serving(lib, handler, logger=logger) as made:
        peer = await made.peer()
        record("frames", await peer.rest())
        record("logger", made.server.logger is logger)
    async with dialled(lib, logger=logger) as (websocket, _):
        websocket.logger.warning("from a client")
