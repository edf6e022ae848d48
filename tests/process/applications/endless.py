"""Three handlers that do not end by themselves: one that can be cancelled, one that cannot, one that blocks."""

from __future__ import annotations

import asyncio
import time


async def handler(websocket):
    await websocket.send("here")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("handler cancelled", flush=True)
        raise


async def stubborn(websocket):
    await websocket.send("here")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


async def blocked(websocket):
    await websocket.send("here")
    await websocket.recv()
    while True:
        time.sleep(3600)
