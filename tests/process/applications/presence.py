"""A channel with presence: a client names itself in its path, and hears who is there, and then who comes and goes.

What must not live here: tests.
"""

import os

import tidegate


async def handler(websocket):
    name = websocket.request.path[1:]

    async def on_presence(websocket, event):
        await websocket.send(f"{event.kind} {event.member}")

    await websocket.join("room", member=name, on_presence=on_presence)
    names = await tidegate.presence("room")
    await websocket.send(f"here {os.getpid()} {' '.join(sorted(names))}")
    await websocket.wait_closed()


app = tidegate.App(handler, channels={"": tidegate.Channel(presence=True)})
