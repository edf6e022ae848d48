"""A lifespan that never comes to its end, and tells when it is left."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from tidegate import App


@asynccontextmanager
async def lifespan():
    print("entering", flush=True)
    try:
        await asyncio.sleep(1000)
        yield
    finally:
        print("left", flush=True)


async def handler(websocket): ...


app = App(handler, lifespan=lifespan)
