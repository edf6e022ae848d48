"""What the interop tests' daemon serves: an echo, with words that make it show its other sides.

What must not live here: tests; this file's text is given to a daemon in its own process (conftest.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from tidegate import App, ServerConnection, Subprotocol

SUBPROTOCOLS = [Subprotocol("chat.v2"), Subprotocol("chat.v1")]


async def close(websocket: ServerConnection, argument: str) -> None:
    """`close CODE REASON`: close from this side."""
    code, _, reason = argument.partition(" ")
    await websocket.close(int(code), reason)


async def fragments(websocket: ServerConnection, argument: str) -> None:
    """`fragments TEXT`: answer in one frame a character."""
    await websocket.send(iter(argument))


async def ping(websocket: ServerConnection, argument: str) -> None:
    """`ping`: wait for the client's pong, then tell."""
    latency = await asyncio.wait_for(await websocket.ping(b"from the server"), 10)
    await websocket.send("pong" if latency > 0 else "no latency")


async def worker(websocket: ServerConnection, argument: str) -> None:
    """`worker`: which process answers."""
    await websocket.send(str(os.getpid()))


async def leave(websocket: ServerConnection, argument: str) -> None:
    """`return`: the handler ends by itself."""


async def fail(websocket: ServerConnection, argument: str) -> None:
    """`raise`: the handler fails."""
    raise RuntimeError("as the client asked")


WORDS = {"close": close, "fragments": fragments, "ping": ping, "worker": worker, "return": leave, "raise": fail}


async def handler(websocket: ServerConnection) -> None:
    """Do what a text's first word says; send everything else back."""
    async for message in websocket:
        word, _, argument = message.partition(" ") if isinstance(message, str) else ("", "", "")
        if word not in WORDS:
            await websocket.send(message)
            continue
        await WORDS[word](websocket, argument)
        if word in ("return", "raise"):
            return


def select_subprotocol(websocket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The newest that the client knows; unlike the default, a client that offers none is welcome."""
    return next((known for known in SUBPROTOCOLS if known in offered), None)


app = App(handler, subprotocols=SUBPROTOCOLS, select_subprotocol=select_subprotocol)
