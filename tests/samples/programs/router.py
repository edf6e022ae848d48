"""Reference: handlers by path."""

import asyncio
import sys

from websockets.asyncio.router import route
from werkzeug.routing import Map, Rule


async def channel(websocket, channel_id):
    await websocket.send(f"channel {channel_id}")


async def index(websocket):
    await websocket.send("index")


url_map = Map(
    [
        Rule("/", endpoint=index),
        Rule("/channel/<uuid:channel_id>", endpoint=channel),
        Rule("/home", redirect_to="/"),
    ]
)


async def main():
    async with route(url_map, "localhost", int(sys.argv[1])):
        await asyncio.Future()


asyncio.run(main())
