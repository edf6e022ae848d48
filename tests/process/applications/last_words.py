"""Publishes in the last moment of each handler, and does not wait for it; its clients get what is published.

What must not live here: tests.
"""

import asyncio

import tidegate

publishing = set()


async def handler(websocket):
    if websocket.request.path == "/join":
        await websocket.join("h:1")
        await websocket.send("joined")
        await websocket.wait_closed()
        return
    async for message in websocket:
        await websocket.send(message)
    task = asyncio.create_task(tidegate.publish("h:1", "last words", wait=0))
    publishing.add(task)


app = tidegate.App(handler, channels={"h:": tidegate.Channel(history=1000)})
