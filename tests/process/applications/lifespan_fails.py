"""A lifespan that fails, in the way that $HOW says, as soon as there is a file "fail"."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys

from tidegate import App


async def watch():
    while not pathlib.Path("fail").exists():
        await asyncio.sleep(0.01)
    pathlib.Path("fail").unlink()
    if os.environ["HOW"] == "exit":
        sys.exit("lost the database")
    raise ValueError("lost the database")


@contextlib.asynccontextmanager
async def lifespan():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch())
        yield
        task.cancel()


async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)


app = App(handler, lifespan=lifespan)
