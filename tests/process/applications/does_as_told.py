"""Names its process, and hangs or grows in the way that a client asks for."""

from __future__ import annotations

import os
import re
import time

kept = []


def sleep():
    time.sleep(100)


def backtrack():
    re.match("(a*)*b", "a" * 60)


def add():
    sum(range(10**12))


def grow():
    kept.append(os.urandom(2**20) * 150)


async def handler(websocket):
    async for message in websocket:
        if message == "who":
            await websocket.send(str(os.getpid()))
        elif message in ("sleep", "backtrack", "add", "grow"):
            globals()[message]()
        else:
            await websocket.send(message)
