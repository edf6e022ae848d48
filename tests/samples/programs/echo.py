"""Operations: each message comes back."""

import asyncio
import sys

import websockets


async def echo(websocket):
    async for message in websocket:
        await websocket.send(f"Echo: {message}")


async def main():
    async with websockets.serve(echo, "localhost", int(sys.argv[1])):
        await asyncio.Future()


asyncio.run(main())
