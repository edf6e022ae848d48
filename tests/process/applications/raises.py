"""Raises what ends a process, wherever a client asks for it: in a handler, a task, a callback, a thread or a hook."""

from __future__ import annotations

import asyncio
import sys

from tidegate import App


class Own(BaseException): ...


def end(what):
    if what == "exit":
        sys.exit("by order")
    raise {"interrupt": KeyboardInterrupt, "generator": GeneratorExit, "own": Own}[what]("by order")


async def later(what):
    end(what)


async def handler(websocket):
    async for message in websocket:
        how, _, what = message.partition(" ")
        if how == "raise":
            end(what)
        elif how == "await":
            await later(what)
        elif how == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(later(what))
        elif how == "task":
            task = asyncio.create_task(later(what))
            while not task.done():
                await asyncio.sleep(0)
        elif how == "callback":
            asyncio.get_running_loop().call_soon(end, what)
        elif how == "thread":
            await asyncio.to_thread(end, what)
        await websocket.send(message)


def process_request(connection, request):
    if request.path.startswith("/hook-"):
        end(request.path.removeprefix("/hook-"))


async def process_response(connection, request, response):
    if request.path.startswith("/response-"):
        end(request.path.removeprefix("/response-"))


def select_subprotocol(connection, offered):
    if offered:
        end(offered[0])


app = App(
    handler,
    process_request=process_request,
    process_response=process_response,
    select_subprotocol=select_subprotocol,
    subprotocols=["exit", "interrupt", "generator", "own"],
)
