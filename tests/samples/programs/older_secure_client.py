"""Getting started: a client that trusts one certificate."""

import asyncio
import ssl
import sys

import websockets

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(sys.argv[2])


async def hello():
    async with websockets.connect(f"wss://localhost:{sys.argv[1]}", ssl=context) as websocket:
        await websocket.send(input())
        print(await websocket.recv())


asyncio.get_event_loop().run_until_complete(hello())
