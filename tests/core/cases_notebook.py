"""asyncio as nest_asyncio leaves it before tidegate is imported, for test_waiter.py: its futures are written in Python.

What must not live here: an import of tidegate before that.
"""

from __future__ import annotations

import asyncio
import asyncio.futures

import nest_asyncio

from tests.support.patience import PATIENCE


def messages_are_echoed() -> None:
    """As in the cells of a notebook."""
    loop = asyncio.new_event_loop()
    nest_asyncio.apply(loop)
    assert asyncio.Future is asyncio.futures._PyFuture  # type: ignore[attr-defined]
    import tidegate

    async def handler(websocket: tidegate.ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def main() -> None:
        async with tidegate.serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with tidegate.connect(f"ws://127.0.0.1:{port}") as websocket:
                for n in range(100):
                    await websocket.send(str(n))
                    assert await websocket.recv() == str(n)

    loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))
    print("echoed")
