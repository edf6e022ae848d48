"""Every sample of the documentation, of three ages, in our own words: it runs when only its import is changed.

Those of today run on `websockets`, too, with the same outcome. What must not live here: the programs (programs/).
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.samples.running import PROGRAMS, Program, running, start
from tests.support.patience import PATIENCE
from tidegate import ConnectionClosedOK, InvalidStatus, connect, unix_connect

LIBRARIES = ("tidegate", "websockets")
PATH_WARNING = "handler(websocket, path) is deprecated: write handler(websocket)"

both_libraries = pytest.mark.parametrize("library", LIBRARIES)


@pytest.fixture(autouse=True)
async def patience() -> AsyncIterator[None]:
    async with asyncio.timeout(2 * PATIENCE):
        yield


@asynccontextmanager
async def older(program: str, port: int, *arguments: str, folder: Path) -> AsyncIterator[Program]:
    """Run a program whose handler takes a path, which it is told, once."""
    async with running(program, port, *arguments, folder=folder) as found:
        yield found
        await found.stop()
    assert found.errors.count(PATH_WARNING) == 1, found.errors
    assert f"{program}.py" in found.errors
    assert "Traceback" not in found.errors


def test_each_program_is_run_here() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    programs = list(PROGRAMS.glob("*.py"))
    assert programs
    for path in programs:
        assert f'"{path.stem}"' in text, path.stem


# Getting started


async def test_hello(unused_tcp_port: int, tmp_path: Path) -> None:
    """The hello sample greets, with its own client."""
    async with older("older_hello", unused_tcp_port, folder=tmp_path) as server:
        client = await start("older_hello_client", str(unused_tcp_port), folder=tmp_path)
        assert await client.end("Ann\n") == 0
        assert client.output == "Your name? > Ann\n< Hello Ann!\n"
    assert server.output == "< Ann\n> Hello Ann!\n"


async def test_secure(unused_tcp_port: int, tmp_path: Path) -> None:
    """The sample with TLS greets a client that trusts its authority."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "localhost.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    async with older("older_secure", unused_tcp_port, str(tmp_path / "localhost.pem"), folder=tmp_path):
        trusted = str(tmp_path / "authority.pem")
        client = await start("older_secure_client", str(unused_tcp_port), trusted, folder=tmp_path)
        assert await client.end("Bob\n") == 0
        assert client.output == "Hello Bob!\n"


async def test_clock(unused_tcp_port: int, tmp_path: Path) -> None:
    """The clock sample sends times in order."""
    uri = f"ws://127.0.0.1:{unused_tcp_port}/"
    async with older("older_clock", unused_tcp_port, folder=tmp_path), connect(uri) as websocket:
        times = [str(await websocket.recv()) for _ in range(5)]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)


async def test_counter(unused_tcp_port: int, tmp_path: Path) -> None:
    """The counter sample tells all clients the value and the number of users."""

    async def event(websocket: Any) -> Any:
        return json.loads(await websocket.recv())

    async with older("older_counter", unused_tcp_port, folder=tmp_path) as server:
        uri = f"ws://localhost:{unused_tcp_port}/"
        async with connect(uri) as one:
            assert await event(one) == {"type": "users", "count": 1}
            assert await event(one) == {"type": "state", "value": 0}
            async with connect(uri) as other:
                assert await event(one) == await event(other) == {"type": "users", "count": 2}
                assert await event(other) == {"type": "state", "value": 0}
                for client, action, value in ((one, "plus", 1), (other, "plus", 2), (one, "minus", 1)):
                    await client.send(json.dumps({"action": action}))
                    assert await event(one) == await event(other) == {"type": "state", "value": value}
                await other.send(json.dumps({"action": "times"}))
            assert await event(one) == {"type": "users", "count": 1}
    assert "unsupported event: {'action': 'times'}" in server.errors


async def test_patterns(unused_tcp_port: int, tmp_path: Path) -> None:
    """The sample of patterns consumes, produces, does both, and registers its clients."""
    async with older("older_patterns", unused_tcp_port, folder=tmp_path) as server:
        uri = f"ws://localhost:{unused_tcp_port}"
        for path in ("consumer", "older_consumer"):
            async with connect(f"{uri}/{path}") as websocket:
                await websocket.send(path)
        async with connect(f"{uri}/producer") as websocket:
            assert [await websocket.recv() for _ in range(3)] == ["product 0", "product 1", "product 2"]
        async with connect(f"{uri}/both") as websocket:
            await websocket.send("both")
            assert [await websocket.recv() for _ in range(2)] == ["product 0", "product 1"]
        async with connect(f"{uri}/registration") as one:
            assert await one.recv() == "Hello!"
            async with connect(f"{uri}/registration") as other:
                assert await one.recv() == await other.recv() == "Hello!"
                with pytest.raises(ConnectionClosedOK):
                    await other.recv()
    assert sorted(server.output.splitlines()) == ["consumed both", "consumed consumer", "consumed older_consumer"]


# Operations


@both_libraries
async def test_echo(library: str, unused_tcp_port: int, tmp_path: Path) -> None:
    """The echo sample answers each message."""
    server = running("echo", unused_tcp_port, library=library, folder=tmp_path)
    async with server, connect(f"ws://localhost:{unused_tcp_port}/") as websocket:
        for message in ("hello", "grüße"):
            await websocket.send(message)
            assert await websocket.recv() == f"Echo: {message}"


@both_libraries
async def test_chat(library: str, unused_tcp_port: int, tmp_path: Path) -> None:
    """The chat sample passes messages on to everybody, and answers nonsense with an error."""
    async with running("chat", unused_tcp_port, library=library, folder=tmp_path) as server:
        uri = f"ws://localhost:{unused_tcp_port}/"
        async with connect(uri) as one, connect(uri) as other:
            await one.send("no JSON")
            assert json.loads(await one.recv()) == {"error": "Invalid JSON"}
            await other.send("no JSON")
            assert json.loads(await other.recv()) == {"error": "Invalid JSON"}  # both have registered
            await one.send(json.dumps({"user": "Ann", "message": "hello"}))
            for client in (one, other):
                said = json.loads(await client.recv())
                assert (said["user"], said["message"]) == ("Ann", "hello")
                assert isinstance(said["timestamp"], float)
            await other.send("x" * (10 * 1024 + 1))
            await other.wait_closed()
            assert other.close_code == 1009
        async with connect(uri) as last:  # who is served after the handlers of the others have ended
            await last.send("no JSON")
            await last.recv()
            await server.stop()
    assert server.output.count("disconnected: ") == 2
    assert "Traceback" not in server.errors


async def test_authenticated(unused_tcp_port: int, tmp_path: Path) -> None:
    """The sample with a password lets in only who gives it."""
    async with running("older_authenticated", unused_tcp_port, folder=tmp_path) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://localhost:{unused_tcp_port}/")
        assert caught.value.response.status_code == 401
        assert caught.value.response.headers["WWW-Authenticate"] == 'Basic realm="WebSocket", charset="UTF-8"'
        headers = {"Authorization": "Basic YWRtaW46c2VjcmV0MTIz"}
        async with connect(f"ws://localhost:{unused_tcp_port}/", additional_headers=headers) as websocket:
            assert websocket.response is not None
            assert websocket.response.headers.get_all("Server") == ["MyWebSocketServer/1.0"]
            assert await websocket.recv() == "You are in."
            await websocket.send("Status")
            assert await websocket.recv() == "running"
            await websocket.send("more")
            assert await websocket.recv() == "Received: more"
        await server.stop()
    assert "the argument extra_headers is deprecated: use process_response" in server.errors
    assert "Traceback" not in server.errors


async def test_custom_request_processing(unused_tcp_port: int, tmp_path: Path) -> None:
    async with running("older_custom_request", unused_tcp_port, folder=tmp_path) as server:
        uri = f"ws://localhost:{unused_tcp_port}/"
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri)
        assert caught.value.response.status_code == 403
        assert caught.value.response.body == b"Invalid API key"
        async with connect(uri, additional_headers={"X-API-Key": "valid-api-key"}) as websocket:
            assert [extension.name for extension in websocket.extensions] == ["permessage-deflate"]
            assert await websocket.recv() == "established"
            await websocket.send("GET /")
            assert await websocket.recv() == '{"status": "success"}'
            await websocket.send("what?")
            assert await websocket.recv() == '{"error": "Unknown command"}'
        await server.stop()
    assert "Response(status, reason, body) is deprecated: use connection.respond(status, text)" in server.errors
    assert "Traceback" not in server.errors


@both_libraries
async def test_unix_socket(library: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    for _ in range(2):  # the second time there is one already
        async with running("unix_socket", path, library=library, folder=tmp_path), unix_connect(path) as websocket:
            assert await websocket.recv() == "Connected"
            await websocket.send("hello")
            assert await websocket.recv() == "Unix echo: hello"


# Reference


@both_libraries
async def test_until_stopped(library: str, unused_tcp_port: int, tmp_path: Path) -> None:
    async with running("until_stopped", unused_tcp_port, library=library, folder=tmp_path) as server:
        with pytest.raises(InvalidStatus, match="HTTP 401"):
            await connect(f"ws://localhost:{unused_tcp_port}/")
        async with connect(f"ws://hello:iloveyou@localhost:{unused_tcp_port}/") as websocket:
            assert await websocket.recv() == "Hello hello!"
            assert await server.stop() == 0
            await websocket.wait_closed()
            assert websocket.close_code == 1001
    assert (server.output, server.errors) == ("stopped\n", "")


@both_libraries
async def test_serve_forever(library: str, unused_tcp_port: int, tmp_path: Path) -> None:
    async with running("forever", unused_tcp_port, library=library, folder=tmp_path) as server:
        async with connect(f"ws://localhost:{unused_tcp_port}/") as websocket:
            assert await websocket.recv() == "pong"
            await websocket.send(["frag", "mented"])
            # One message of a frame for each fragment that has come; how many is up to the network.
            assert "".join([str(message) async for message in websocket]) == "fragmented"
        assert await server.stop() == 0
    assert (server.output, server.errors) == ("cancelled\n", "")


@both_libraries
async def test_router(library: str, unused_tcp_port: int, tmp_path: Path) -> None:
    """The router sample finds handlers by path, and has 404 for others."""
    async with running("router", unused_tcp_port, library=library, folder=tmp_path):
        uri = f"ws://localhost:{unused_tcp_port}"
        channel = uuid.uuid4()
        for path, answer in (("/", "index"), ("/home", "index"), (f"/channel/{channel}", f"channel {channel}")):
            async with connect(f"{uri}{path}") as websocket:
                assert await websocket.recv() == answer
        with pytest.raises(InvalidStatus, match="HTTP 404"):
            await connect(f"{uri}/channel/none")
