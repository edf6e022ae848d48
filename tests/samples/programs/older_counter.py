"""Getting started: a counter that all clients share, and see at once.

asyncio.wait() takes tasks only, since Python 3.11; this is the one line that time has changed.
"""

import asyncio
import json
import logging
import sys

import websockets

logging.basicConfig()

state = {"value": 0}
users = set()


async def tell_all(event):
    if users:  # asyncio.wait() wants at least one
        message = json.dumps(event)
        await asyncio.wait([asyncio.create_task(user.send(message)) for user in users])


async def tell_state():
    await tell_all({"type": "state", **state})


async def tell_users():
    await tell_all({"type": "users", "count": len(users)})


async def counter(websocket, path):
    users.add(websocket)
    await tell_users()
    try:
        await websocket.send(json.dumps({"type": "state", **state}))
        async for message in websocket:
            event = json.loads(message)
            if event["action"] == "minus":
                state["value"] -= 1
                await tell_state()
            elif event["action"] == "plus":
                state["value"] += 1
                await tell_state()
            else:
                logging.error("unsupported event: %s", event)
    finally:
        users.remove(websocket)
        await tell_users()


asyncio.get_event_loop().run_until_complete(websockets.serve(counter, "localhost", int(sys.argv[1])))
asyncio.get_event_loop().run_forever()
