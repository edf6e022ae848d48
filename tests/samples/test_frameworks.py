"""The programs of the guide on frameworks, each under a daemon of two workers, with the client that its users have.

What must not live here: ASGI's specification (tests/asyncio), reloads and ends (tests/process/test_asgi.py).
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import socketio
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from tests.samples.running import PROGRAMS
from tests.samples.test_guides import clients
from tests.support.harness import Daemon
from tests.support.patience import PATIENCE
from tidegate import ClientConnection, InvalidStatus, connect

pytestmark = pytest.mark.slow


def serving(program: str, *options: str, workers: int = 2, **environment: str) -> Daemon:
    """A daemon that serves a program of the guide."""
    return Daemon(PROGRAMS / f"{program}.py", *options, target=f"{program}:app", workers=workers, env=environment)


async def ask(
    daemon: Daemon, path: str, *, method: str = "GET", json_body: Any = None, body: Any = None, cookie: str = ""
) -> tuple[int, http.client.HTTPMessage, str]:
    """One request; its status, headers and body."""

    def asked() -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=PATIENCE)
        headers = {"Cookie": cookie} if cookie else {}
        content = body
        if json_body is not None:
            content, headers["Content-Type"] = json.dumps(json_body), "application/json"
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(asked)


async def received(client: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE):
        return json.loads(await client.recv())


async def denied(uri: str, **options: Any) -> int:
    """The status of a handshake that is denied."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(uri, **options)
    return caught.value.response.status_code


async def test_fastapi() -> None:
    """Who has logged in enters rooms, and what is said there, by a socket or a request, comes to both workers."""
    with serving("fastapi_chat", SECRET="of this test") as daemon:
        room = daemon.uri + "rooms/lobby"
        assert await denied(room) == 401
        assert (await ask(daemon, "/rooms/lobby", method="POST", json_body={"text": "hi"}))[0] == 401
        wrong = {"name": "ada", "password": "wrong"}
        assert (await ask(daemon, "/login", method="POST", json_body=wrong))[0] == 403
        login = {"name": "ada", "password": "lovelace"}
        status, headers, _ = await ask(daemon, "/login", method="POST", json_body=login)
        assert status == 200
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert await denied(daemon.uri + "rooms/no-room", additional_headers={"Cookie": cookie}) == 403
        async with clients(daemon, 4, "rooms/lobby", additional_headers={"Cookie": cookie}) as found:
            await found[0].send("hello")
            for client in found:
                assert await received(client) == {"user": "ada", "text": "hello"}
            said = {"text": "by a request"}
            assert (await ask(daemon, "/rooms/lobby", method="POST", json_body=said, cookie=cookie))[0] == 200
            for client in found:
                assert await received(client) == {"user": "ada", "text": "by a request"}
        assert daemon.stop() == 0
        assert "ERROR" not in daemon.log


async def test_starlette() -> None:
    """Pages, an upload, a stream, sockets, and events that go on where their reader was when it comes back."""
    with serving("starlette_pages", "--graceful-timeout", "1") as daemon:
        assert (await ask(daemon, "/?name=ada"))[2] == '{"hello":"ada"}'
        assert (await ask(daemon, "/", method="HEAD"))[::2] == (200, "")
        assert (await ask(daemon, "/none"))[0] == 404
        assert (await ask(daemon, "/upload", method="POST", body=iter([b"x" * 70_000] * 3)))[2] == "210000 bytes"
        assert (await ask(daemon, "/numbers"))[2].split() == [str(number) for number in range(1, 11)]
        async with connect(daemon.uri + "ws") as client:
            await client.send("hello")
            assert await client.recv() == "Message text was: hello"
        async with connect(daemon.uri + "users/ada") as client:
            assert await received(client) == {"hello": "ada", "url": daemon.uri + "users/ada"}
            await client.wait_closed()
            assert client.close_code == 1000
        assert await denied(daemon.uri + "none") == 403
        for since in (0, 7):
            async with events(daemon, since):
                pass
        async with events(daemon, 0) as reader:
            assert await asyncio.to_thread(daemon.stop) == 0
            assert (await reader.read())[-5:] != b"0\r\n\r\n"  # what is cut does not look as if it were all
        assert "ERROR" not in daemon.log


@asynccontextmanager
async def events(daemon: Daemon, since: int) -> AsyncIterator[asyncio.StreamReader]:
    """A reader of server-sent events that has got the first after that one."""
    reader, writer = await asyncio.open_connection(daemon.host, daemon.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {since}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
        for number in range(since + 1, since + 4):
            event = f"id: {number}\ndata: tick {number}\n\n".encode()
            await reader.readuntil(event)
        yield reader
    writer.close()


async def test_django() -> None:
    """The chat of Channels' tutorial: its page, and a group with consumers in both workers."""
    with serving("django_chat") as daemon:
        status, _, page = await ask(daemon, "/chat/lobby/")
        assert (status, "/ws/chat/lobby/" in page) == (200, True)
        assert (await ask(daemon, "/none"))[0] == 404
        path = "ws/chat/lobby/"
        assert await denied(daemon.uri + path, origin="https://elsewhere.example") == 403
        origin = f"http://{daemon.address}"
        async with clients(daemon, 4, path, origin=origin) as found:
            await found[0].send('{"message": "hello"}')
            for client in found:
                assert await received(client) == {"message": "hello"}
        async with connect(daemon.uri + path, origin=origin) as client:  # type: ignore[arg-type]
            await client.send('{"message": "alone"}')
            assert await received(client) == {"message": "alone"}
        assert daemon.stop() == 0
        assert "ERROR" not in daemon.log


class SocketIO:
    """A client of Socket.IO in a room, and what it was told there."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.client.on("said", self.said.put)

    @asynccontextmanager
    async def entered(self, daemon: Daemon, name: str) -> AsyncIterator[SocketIO]:
        await self.client.connect(f"http://{daemon.address}", auth={"name": name}, transports=["websocket"])
        assert await self.client.call("join", "lobby", timeout=PATIENCE) == "welcome"
        yield self
        await self.client.disconnect()


async def test_socketio() -> None:
    """Clients in a room of both workers, with python-socketio's own client."""
    with serving("socketio_chat") as daemon:
        async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
            found: list[SocketIO] = []
            while len(found) < 3 or not both_workers_have_one(daemon):
                found.append(await stack.enter_async_context(SocketIO().entered(daemon, f"client {len(found)}")))
            await found[0].client.emit("say", ("lobby", "hello"))
            for client in found:
                assert await client.said.get() == {"name": "client 0", "text": "hello"}
            stranger, refusals = socketio.AsyncClient(reconnection=False), asyncio.Queue[Any]()
            stranger.on("connect_error", refusals.put)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await stranger.connect(f"http://{daemon.address}", transports=["websocket"])
            assert await refusals.get() == {"message": "who are you?"}
        assert daemon.stop() == 0
        assert "ERROR" not in daemon.log


def both_workers_have_one(daemon: Daemon) -> bool:
    return all(value for _, value in daemon.metrics().select("tidegate_connections", state="open"))


async def test_strawberry() -> None:
    """Subscriptions on both workers get what a mutation says, by gql's client for graphql-transport-ws."""
    subscription = gql('subscription { room(name: "lobby", last: 1) { text missed } }')
    mutation = gql('mutation { say(room: "lobby", text: "hello") }')
    with serving("strawberry_chat") as daemon:

        def client() -> Client:
            protocols = [WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL]
            return Client(transport=WebsocketsTransport(url=daemon.uri, subprotocols=protocols))

        async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
            sessions: list[Any] = []
            while len(sessions) < 3 or not both_workers_have_one(daemon):
                sessions.append(await stack.enter_async_context(client()))
            assert await sessions[0].execute(mutation) == {"say": True}
            for session in sessions:
                stream = session.subscribe(subscription)
                assert await anext(stream) == {"room": {"text": "hello", "missed": False}}
                await stream.aclose()
            body = {"query": '{ listeners(room: "other") }'}
            assert json.loads((await ask(daemon, "/", method="POST", json_body=body))[2]) == {"data": {"listeners": 0}}
        assert daemon.stop() == 0
        assert "ERROR" not in daemon.log


async def test_opentelemetry() -> None:
    """A request and a connection are a span each, with spans of their events below, in the client's own trace."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with serving("opentelemetry_traces", workers=1) as daemon:
        assert (await ask(daemon, "/"))[0] == 200
        parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        async with connect(daemon.uri + "ws", additional_headers=parent) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            await client.close(4001)
        async with asyncio.timeout(PATIENCE):
            while not (root := [found for of, name, found in await spans(daemon) if (of, name) == (trace, "HTTP /ws")]):
                await asyncio.sleep(0.01)
        assert root[0]["http.url"] == daemon.uri + "ws"
        every = await spans(daemon)
        assert [
            found["asgi.event.type"].partition(".")[2]
            for of, _, found in every
            if of == trace and "asgi.event.type" in found
        ] == [*("connect", "accept", "receive", "send", "disconnect")]
        assert [found["http.status_code"] for _, name, found in every if name == "GET /"] == [200]
        assert daemon.stop() == 0
        assert "ERROR" not in daemon.log


async def spans(daemon: Daemon) -> Any:
    return json.loads((await ask(daemon, "/spans"))[2])


async def test_sentry() -> None:
    """What fails in a request and in a connection is reported; a client that leaves is not."""
    with serving("sentry_errors", workers=1) as daemon:
        assert (await ask(daemon, "/fail"))[0] == 500
        async with connect(daemon.uri + "divide") as client:
            await client.send("4")
            assert await client.recv() == "0.25"
        async with connect(daemon.uri + "divide") as client:
            await client.send("0")
            await client.wait_closed()
            assert client.close_code == 1011
        page = f"http://{daemon.address}/fail"
        socket = f"{daemon.uri}divide"
        assert json.loads((await ask(daemon, "/events"))[2]) == [["LookupError", page], ["ZeroDivisionError", socket]]
        assert daemon.stop() == 0
        assert daemon.log.count("ASGI application failed") == 1
