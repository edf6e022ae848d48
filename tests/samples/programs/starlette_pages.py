"""Starlette: what its documentation shows of HTTP, WebSocket, streams, and server-sent events."""

import asyncio
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute


@asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}  # the state of each request


async def homepage(request):
    return JSONResponse({request.state.greeting: request.query_params.get("name", "world")})


class Upload(HTTPEndpoint):
    async def post(self, request):
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return PlainTextResponse(f"{size} bytes")


async def slow_numbers(minimum, maximum):
    for number in range(minimum, maximum + 1):
        yield f"{number}\n"
        await asyncio.sleep(0.01)


async def numbers(request):
    return StreamingResponse(slow_numbers(1, 10), media_type="text/plain")


async def ticks(since):
    while True:
        since += 1
        yield f"id: {since}\ndata: tick {since}\n\n"
        await asyncio.sleep(0.01)


async def events(request):
    since = int(request.headers.get("last-event-id", 0))
    return StreamingResponse(ticks(since), media_type="text/event-stream", headers={"cache-control": "no-store"})


class Echo(WebSocketEndpoint):
    encoding = "text"

    async def on_connect(self, websocket):
        await websocket.accept()

    async def on_receive(self, websocket, data):
        await websocket.send_text(f"Message text was: {data}")


async def hello(websocket):
    await websocket.accept()
    await websocket.send_json({"hello": websocket.path_params["username"], "url": str(websocket.url)})
    await websocket.close()


routes = [
    Route("/", homepage),
    Route("/upload", Upload),
    Route("/numbers", numbers),
    Route("/events", events),
    WebSocketRoute("/ws", Echo),
    Mount("/users", routes=[WebSocketRoute("/{username}", hello)]),
]

app = Starlette(routes=routes, lifespan=lifespan)
