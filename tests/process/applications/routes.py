"""Routes to two handlers, one of which needs a password; and a map of routes that cannot be."""

from __future__ import annotations

from werkzeug.routing import Map, Rule

from tidegate import App, basic_auth


async def room(websocket, name):
    await websocket.send(f"room {name}")


@basic_auth("hello", "iloveyou")
async def private(websocket):
    await websocket.send(websocket.username)


def process_request(connection, request):
    if request.path == "/health":
        return connection.respond(200, "OK")


url_map = Map(
    [
        Rule("/room/<name>", endpoint=room),
        Rule("/private", endpoint=private),
        Rule("/old", redirect_to="/room/new"),
    ]
)
app = App(url_map, process_request=process_request)
wrong = Map([Rule("/<more>", endpoint=private)])
