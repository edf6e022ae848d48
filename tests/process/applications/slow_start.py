"""A slow import, then a slow lifespan: two ways of not being ready yet."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

from tidegate import App

for _ in range(30):
    time.sleep(0.01)


@asynccontextmanager
async def lifespan():
    await asyncio.sleep(0.3)
    yield


async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)


app = App(handler, lifespan=lifespan)
