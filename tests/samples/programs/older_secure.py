"""Getting started: the greeting server over TLS."""

import asyncio
import ssl
import sys

import websockets


async def hello(websocket, path):
    await websocket.send(f"Hello {await websocket.recv()}!")


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])

server = websockets.serve(hello, "localhost", int(sys.argv[1]), ssl=context)

asyncio.get_event_loop().run_until_complete(server)
asyncio.get_event_loop().run_forever()
