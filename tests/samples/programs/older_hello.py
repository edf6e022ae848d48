"""Getting started: a server that greets whoever tells a name, in the form of its time."""

import asyncio
import sys

import websockets


async def hello(websocket, path):
    name = await websocket.recv()
    print(f"< {name}")
    answer = f"Hello {name}!"
    await websocket.send(answer)
    print(f"> {answer}")


server = websockets.serve(hello, "localhost", int(sys.argv[1]))

asyncio.get_event_loop().run_until_complete(server)
asyncio.get_event_loop().run_forever()
