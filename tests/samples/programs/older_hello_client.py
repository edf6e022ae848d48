"""Getting started: the client of the greeting server."""

import asyncio
import sys

import websockets


async def hello():
    async with websockets.connect(f"ws://localhost:{sys.argv[1]}") as websocket:
        name = input("Your name? ")
        await websocket.send(name)
        print(f"> {name}")
        answer = await websocket.recv()
        print(f"< {answer}")


asyncio.get_event_loop().run_until_complete(hello())
