"""Names its process, so that a client knows which worker has it, then echoes."""

from __future__ import annotations

import os


async def handler(websocket):
    await websocket.send(str(os.getpid()))
    async for message in websocket:
        await websocket.send(message)
