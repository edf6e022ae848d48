"""Getting started: the time, now and then, for a page of a browser."""

import asyncio
import datetime
import random
import sys

import websockets


async def clock(websocket, path):
    while True:
        await websocket.send(datetime.datetime.now(datetime.UTC).isoformat())
        await asyncio.sleep(random.random() / 10)


asyncio.get_event_loop().run_until_complete(websockets.serve(clock, "127.0.0.1", int(sys.argv[1])))
asyncio.get_event_loop().run_forever()
