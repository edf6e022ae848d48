"""Channels by the ready handler, and paths without the subprotocol by which a test asks this worker for something.

    /echo      its process id, then what comes, back
    /block     sleep in the event loop for as many seconds as is said
    /counts    what happened to the worker's channels, as JSON
    /publish   publish what is said, as JSON: [channel, message, times]; how often it was sent, and why not
    /raw       join the channel that is said, and get what is published; `gap` for each notice

What must not live here: tests.
"""

import asyncio
import dataclasses
import json
import os
import time
from collections import Counter

import tidegate
from tidegate.bus.sharing import current


async def other(websocket):
    if websocket.request.path == "/raw":
        await websocket.join(await websocket.recv(), on_gap=lambda websocket, gap: websocket.send("gap"))
        await websocket.send("joined")
        await websocket.wait_closed()
        return
    await websocket.send(str(os.getpid()))
    async for text in websocket:
        if websocket.request.path == "/block":
            time.sleep(float(text))
        if websocket.request.path == "/counts":
            text = json.dumps(dataclasses.asdict(current().counts))
        if websocket.request.path == "/publish":
            text = json.dumps(await publish(*json.loads(text)))
        await websocket.send(text)


async def publish(channel, message, times):
    """Publish a message so many times at once."""
    results = await asyncio.gather(*(tidegate.publish(channel, message) for _ in range(times)), return_exceptions=True)
    return Counter(type(result).__name__ if isinstance(result, Exception) else "sent" for result in results)


handler = tidegate.channel_handler(
    may_join=lambda websocket, channel, since: True,
    may_publish=lambda websocket, channel, data: True,
    then=other,
)
app = tidegate.App(
    handler,
    select_subprotocol=handler.select_subprotocol,
    channels={
        "h:": tidegate.Channel(history=100_000, history_bytes=2**24),
        "short:": tidegate.Channel(history=100),
    },
)
