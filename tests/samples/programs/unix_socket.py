"""Operations: a server on a Unix socket."""

import asyncio
import os
import sys

import websockets


async def handler(websocket):
    await websocket.send("Connected")
    async for message in websocket:
        await websocket.send(f"Unix echo: {message}")


async def main():
    path = sys.argv[1]
    if os.path.exists(path):
        os.unlink(path)
    async with websockets.unix_serve(handler, path):
        await asyncio.Future()


asyncio.run(main())
