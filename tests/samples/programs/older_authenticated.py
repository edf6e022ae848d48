"""Operations: a handler for those who know the password, and a Server header of one's own."""

import asyncio
import sys

import websockets
from websockets import basic_auth


@basic_auth("admin", "secret123")
async def protected(websocket):
    await websocket.send("You are in.")
    async for message in websocket:
        if message.lower() == "status":
            await websocket.send("running")
        else:
            await websocket.send(f"Received: {message}")


async def main():
    headers = {"Server": "MyWebSocketServer/1.0"}
    async with websockets.serve(protected, "localhost", int(sys.argv[1]), extra_headers=headers):
        await asyncio.Future()


asyncio.run(main())
