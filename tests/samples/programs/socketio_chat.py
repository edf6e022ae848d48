"""python-socketio: rooms whose clients are on any worker, over tidegate's bus instead of Redis.

Clients connect with `transports=["websocket"]`: polling would need each request of a client to reach the same worker.
"""

import asyncio
import json
from contextlib import suppress

import socketio
from socketio.async_pubsub_manager import AsyncPubSubManager

import tidegate


class Manager(AsyncPubSubManager):
    """Carries what servers tell each other, as AsyncRedisManager does."""

    name = "tidegate"

    def __init__(self):
        super().__init__()
        self.listening = asyncio.Event()

    async def _publish(self, data):
        await tidegate.publish("socketio:all", json.dumps(data))

    async def _listen(self):
        while True:
            with suppress(tidegate.BusError):  # closed, at the end of the worker
                async with tidegate.subscribe("socketio:all") as messages:
                    self.listening.set()
                    async for message in messages:
                        if message.gap is None:
                            yield message.data
            await asyncio.sleep(1)


manager = Manager()
sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], client_manager=manager)


@sio.event
async def connect(sid, environ, auth):
    if not auth:
        raise socketio.exceptions.ConnectionRefusedError("who are you?")
    await manager.listening.wait()  # it begins with the first connection: what others say is heard from here on
    await sio.save_session(sid, {"name": auth["name"]})


@sio.event
async def join(sid, room):
    await sio.enter_room(sid, room)
    return "welcome"


@sio.event
async def say(sid, room, text):
    session = await sio.get_session(sid)
    await sio.emit("said", {"name": session["name"], "text": text}, room=room)


app = tidegate.App(socketio.ASGIApp(sio), channels={"socketio:": tidegate.Channel()})
