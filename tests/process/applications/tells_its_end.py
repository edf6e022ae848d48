"""Tells when its lifespan begins and ends, and when a handler has ended."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from tidegate import App


@asynccontextmanager
async def lifespan():
    print("lifespan entered", flush=True)
    yield
    print("lifespan left", flush=True)


async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)
    await asyncio.sleep(0.3)
    print("handler ended", flush=True)


app = App(handler, lifespan=lifespan)
