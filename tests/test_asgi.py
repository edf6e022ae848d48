"""uvicorn with our connections: ``--ws tidegate.asgi:WebSocketProtocol``, in this process, and under gunicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.coroutines import until
from tests.support.harness import ROOT, require
from tests.support.patience import PATIENCE
from tests.support.programs import environment
from tidegate.asgi import ClientDisconnected, WebSocketProtocol

ACCEPT = {"type": "websocket.accept"}


@contextlib.asynccontextmanager
async def uvicorn_serving(application: Any, **options: Any) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    """uvicorn on a free port, as `--ws tidegate.asgi:WebSocketProtocol` configures it."""
    ws = "tidegate.asgi:WebSocketProtocol"
    server = uvicorn.Server(uvicorn.Config(application, ws=ws, lifespan="off", log_config=None, **options))  # type: ignore[arg-type]
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server._serve([sock]))
        await until(lambda: server.started)
        yield server, f"ws://127.0.0.1:{sock.getsockname()[1]}/chat?x"
        server.should_exit = True
        await running


async def echo(scope: Any, receive: Any, send: Any) -> None:
    while (event := await receive())["type"] != "websocket.disconnect":
        await send(ACCEPT if event["type"] == "websocket.connect" else {**event, "type": "websocket.send"})


async def echo_by(scope: Any, receive: Any, send: Any) -> None:
    """Echo, and tell in the handshake what kind of connection this is."""
    assert (await receive())["type"] == "websocket.connect"
    kind = f"{type(send.__self__).__module__}.{type(send.__self__).__name__}"
    await send({**ACCEPT, "headers": [(b"connection-kind", kind.encode())]})
    await echo(scope, receive, send)


async def test_messages_go_through_our_connection() -> None:
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with uvicorn_serving(application, root_path="/api") as (server, uri), connect(uri) as client:
        for message in ("text", b"bytes", "x" * 100_000):
            await client.send(message)
            assert await client.recv() == message
        assert client.protocol.extensions
        (connection,) = server.server_state.connections
        assert type(connection) is WebSocketProtocol
        assert (scopes[0]["path"], scopes[0]["query_string"], scopes[0]["root_path"]) == ("/api/chat", b"x", "/api")
        assert "tidegate" not in scopes[0]["extensions"]
    assert not server.server_state.tasks


async def test_denied_and_failed() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"] == b"x":
            await send({"type": "websocket.close"})
        raise ZeroDivisionError

    async with uvicorn_serving(application) as (_, uri):
        for target, status in ((uri, 403), (uri + "y", 500)):
            with pytest.raises(InvalidStatus) as caught:
                await connect(target)
            assert caught.value.response.status_code == status


async def test_its_settings_are_taken() -> None:
    options: dict[str, Any] = {"ws_max_size": 10, "ws_per_message_deflate": False, "ws_ping_interval": None}
    async with uvicorn_serving(echo, **options) as (server, uri), connect(uri) as client:
        assert not client.protocol.extensions
        (connection,) = server.server_state.connections
        assert connection.ping_interval is None  # type: ignore[union-attr]
        await client.send("x" * 11)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009


async def test_headers_are_those_of_uvicorn() -> None:
    """Those of its settings, in each response: one that accepts, the application's own, a rejection of ours."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"] == b"x":
            await send({**ACCEPT, "headers": [(b"x-b", b"2")]})
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"server", b"mine")]})
        await send({"type": "websocket.http.response.body"})

    wanted = [("x-a", "1")]
    async with uvicorn_serving(application, headers=wanted, date_header=False) as (_, uri):
        async with connect(uri) as client:
            assert client.response is not None
            assert [client.response.headers[name] for name in ("server", "x-a", "x-b")] == ["uvicorn", "1", "2"]
            assert "date" not in client.response.headers
        for target, server in ((uri + "y", "mine"), (uri + "y" * 9000, "uvicorn")):
            with pytest.raises(InvalidStatus) as caught:
                await connect(target)
            headers = caught.value.response.headers
            assert (headers.get_all("server"), headers.get_all("x-a")) == ([server], ["1"])
            assert "date" not in headers
    async with uvicorn_serving(application, server_header=False) as (_, uri), connect(uri) as client:
        assert client.response is not None
        assert len(client.response.headers.get_all("date")) == 1
        assert "server" not in client.response.headers


async def test_it_stops_with_503_before_the_handshake() -> None:
    events: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async with uvicorn_serving(application) as (server, uri):
        client = asyncio.ensure_future(connect(uri).__aenter__())
        await until(lambda: events)
        server.should_exit = True
        with pytest.raises(InvalidStatus) as caught:
            await client
        response = caught.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        await until(lambda: len(events) == 2)
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect"]


async def test_connections_share_what_is_of_their_server() -> None:
    async with uvicorn_serving(echo) as (server, uri), connect(uri), connect(uri):
        first, second = server.server_state.connections
        assert first._door is second._door  # type: ignore[union-attr]


async def test_it_stops_with_1012() -> None:
    ends: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        while (event := await receive())["type"] != "websocket.disconnect":
            pass
        ends.append(event)
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            ends.append(type(error))
            raise

    async with uvicorn_serving(application) as (server, uri), connect(uri) as client:
        server.should_exit = True
        await client.wait_closed()
        assert client.close_code == 1012
        await until(lambda: len(ends) == 2)
    assert (ends[0]["code"], ends[1]) == (1012, ClientDisconnected)


@pytest.mark.slow
async def test_under_gunicorn(tmp_path: Path) -> None:
    """With the worker of the guide: messages are echoed, and SIGTERM ends all as uvicorn does, with 1012."""
    require(find_spec("gunicorn") and find_spec("uvicorn_worker"), "the Python packages gunicorn and uvicorn-worker")
    guide = (ROOT / "deploy" / "guides" / "asgi.md").read_text(encoding="utf-8")
    worker = re.search(r"^```\n# worker\.py\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert worker is not None
    (tmp_path / "worker.py").write_text(worker[1], encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        gunicorn = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "gunicorn",
                "tests.test_asgi:echo_by",
                "-k",
                "worker.Worker",
                "--no-control-socket",
            ),
            *("-b", f"fd://{sock.fileno()}", "--timeout", "0"),
            cwd=tmp_path,
            env=environment(),
            pass_fds=[sock.fileno()],
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            address = f"ws://127.0.0.1:{sock.getsockname()[1]}"
            async with connect(address, open_timeout=PATIENCE, close_timeout=PATIENCE) as client:
                assert client.response is not None
                assert client.response.headers["Connection-Kind"] == "tidegate.asgi.WebSocketProtocol"
                await client.send("text")
                assert await client.recv() == "text"
                gunicorn.terminate()
                await client.wait_closed()
                assert client.close_code == 1012
            _, log = await asyncio.wait_for(gunicorn.communicate(), PATIENCE)
            assert gunicorn.returncode == 0, log.decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(gunicorn.pid, signal.SIGKILL)  # its workers as well, which have its pipe
            await gunicorn.wait()
