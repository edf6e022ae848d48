"""What the documentation of Starlette and FastAPI shows of WebSocket, over a live server and real clients.

What must not live here: the specification, event by event (test_asgi.py).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.asyncio.application_of_fastapi import application
from tests.asyncio.calls import AsgiServing, asgi_serving
from tests.support.coroutines import until
from tests.support.patience import PATIENCE


async def status_of(uri: str, **options: Any) -> tuple[int, bytes]:
    """The answer to a handshake that is denied."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(uri, **options)
    return caught.value.response.status_code, caught.value.response.body


async def get(made: AsgiServing, path: str) -> tuple[int, dict[str, str], str]:
    return await made.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())


# Starlette


async def test_an_endpoint_of_a_class_with_each_encoding() -> None:
    ends: list[int] = []

    def endpoint(kind: str) -> type[WebSocketEndpoint]:
        class Endpoint(WebSocketEndpoint):
            encoding = kind

            async def on_receive(self, websocket: WebSocket, data: Any) -> None:
                await (websocket.send_json(data) if kind == "json" else getattr(websocket, f"send_{kind}")(data))

            async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
                ends.append(close_code)

        return Endpoint

    routes = [WebSocketRoute(f"/{kind}", endpoint(kind)) for kind in ("text", "bytes", "json")]
    async with asgi_serving(Starlette(routes=routes)) as made:
        for kind, message in (("text", "hi"), ("bytes", b"hi"), ("json", '{"a":1}')):
            async with connect(made.uri + kind) as client:
                await client.send(message)
                answer = await client.recv()
                assert answer == message
                await client.close(4000)
        async with connect(made.uri + "text") as client:
            await client.send(b"bytes where text is expected")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1003
    assert ends == [4000, 4000, 4000, 1011]  # as Starlette calls what it raises itself


async def test_iteration_subprotocol_headers_state_and_close() -> None:
    async def chat(websocket: WebSocket) -> None:
        assert websocket.scope["subprotocols"] == ["a", "b"]
        await websocket.accept(subprotocol="b", headers=[(b"x-user", websocket.query_params["user"].encode())])
        async for text in websocket.iter_text():
            await websocket.send_text(f"{websocket.path_params['room']} {text}")
        assert websocket.client_state is WebSocketState.DISCONNECTED

    async with asgi_serving(Starlette(routes=[WebSocketRoute("/{room:int}", chat)])) as made:
        async with connect(made.uri + "7?user=me", subprotocols=["a", "b"]) as client:  # type: ignore[list-item]
            assert client.subprotocol == "b"
            assert client.response is not None
            assert client.response.headers["x-user"] == "me"
            await client.send("hi")
            assert await client.recv() == "7 hi"
        assert (await status_of(made.uri + "none"))[0] == 403


async def test_sending_to_a_client_that_has_left_is_a_disconnect() -> None:
    seen: list[Any] = []

    async def endless(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0)
        except WebSocketDisconnect as error:
            seen.append(error.code)

    async with asgi_serving(Starlette(routes=[WebSocketRoute("/", endless)])) as made:
        async with connect(made.uri) as client:
            await client.recv()
        await until(lambda: seen)
    assert seen == [1006]


async def test_a_denial_with_a_response_of_its_own() -> None:
    async def denied(websocket: WebSocket) -> None:
        if websocket.query_params:
            raise HTTPException(402, "pay first", headers={"x-why": "money"})
        await websocket.send_denial_response(JSONResponse({"no": True}, 401))

    async with asgi_serving(Starlette(routes=[WebSocketRoute("/", denied)])) as made:
        assert await status_of(made.uri) == (401, b'{"no":true}')
        assert await status_of(made.uri + "?x") == (402, b"pay first")


async def test_middleware_mounts_and_urls() -> None:
    class Backend:
        async def authenticate(self, connection: HTTPConnection) -> Any:
            return AuthCredentials(["authenticated"]), SimpleUser("ada")

    async def user(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(
            [websocket.user.username, str(websocket.url_for("api:page")), websocket.scope["root_path"]]
        )
        await websocket.close(3000, "done")

    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.user.username)

    inner = [WebSocketRoute("/user", user), Route("/page", page, name="page")]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        Middleware(AuthenticationMiddleware, backend=Backend()),
    ]
    async with asgi_serving(Starlette(routes=[Mount("/api", routes=inner, name="api")], middleware=middleware)) as made:
        async with connect(made.uri + "api/user") as client:
            name, url, root_path = json.loads(await client.recv())
            assert (name, url, root_path) == ("ada", f"http://127.0.0.1:{made.port}/api/page", "/api")
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (3000, "done")
        assert (await get(made, "/api/page"))[2] == "ada"


# FastAPI


async def test_dependencies_of_fastapi() -> None:
    async with asgi_serving(application()) as made:
        async with connect(made.uri + "items/1?token=t") as client:
            assert await client.recv() == "t 2"
        async with connect(made.uri + "items/1", additional_headers={"Cookie": "session=s"}) as client:
            assert await client.recv() == "s 2"
        assert (await status_of(made.uri + "items/1"))[0] == 403
        assert (await status_of(made.uri + "items/x?token=t"))[0] == 403
        assert json.loads((await get(made, "/page"))[2]) == {"hello": "world"}
        assert (await get(made, "/openapi.json"))[0] == 200


async def test_a_room_of_one_process() -> None:
    async with asgi_serving(application()) as made, asyncio.timeout(PATIENCE), connect(made.uri + "chat/1") as one:
        async with connect(made.uri + "chat/2") as two:
            await two.send("hi")
            assert await one.recv() == await two.recv() == "#2: hi"
        assert await one.recv() == "#2 left"
