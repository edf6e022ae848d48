"""A room: a client names a channel, and a place in it, in its path; what one sends, all get, each with its place.

What a client sends is its key as well: what it sends again, because it has not heard that it was sent, is sent once.
What must not live here: tests.
"""

import asyncio

import tidegate


async def handler(websocket):
    _, channel, since = f"{websocket.request.path}/".split("/")[:3]
    async with tidegate.subscribe(channel, since=since or None) as messages:
        if messages.joined.retry_after is not None:  # whether anything is missing cannot be known now
            await websocket.close(1013)
            return
        await websocket.send(f"{messages.joined.resumed} {messages.joined.position}")
        pump = asyncio.create_task(send_all(websocket, messages))
        try:
            async for text in websocket:
                position = await tidegate.publish(channel, text, key=text, wait=30)
                await websocket.send(f"sent {position}")
        finally:
            pump.cancel()


async def send_all(websocket, messages):
    async for message in messages:
        await websocket.send(f"{message.position} {'GAP' if message.gap else message.data}")


app = tidegate.App(handler, channels={"h:": tidegate.Channel(history=100_000, history_bytes=2**24)})
