"""FastAPI: a login over HTTP, and rooms whose members are on any worker.

All workers, and all machines, must have the same SECRET, which signs the cookie that a login gives.
"""

import hashlib
import hmac
import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketException
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from tidegate import App, Channel

SALT = b"of this example"
USERS = {"ada": hashlib.scrypt(b"lovelace", salt=SALT, n=2**12, r=8, p=1)}  # a table of a database, in earnest

api = FastAPI()
api.add_middleware(SessionMiddleware, secret_key=os.environ["SECRET"], same_site="strict")


class Login(BaseModel):
    name: str
    password: str


class Said(BaseModel):
    text: str


def user(connection: HTTPConnection) -> str:
    """Who has logged in: for a handshake and for a request."""
    name = connection.session.get("user")
    if name is None:
        raise HTTPException(401, "log in first")
    return name


@api.post("/login")
def login(request: Request, given: Login) -> None:
    found = hashlib.scrypt(given.password.encode(), salt=SALT, n=2**12, r=8, p=1)
    if not hmac.compare_digest(USERS.get(given.name, b""), found):
        raise HTTPException(403, "wrong name or password")
    request.session["user"] = given.name


@api.websocket("/rooms/{room}")
async def enter(websocket: WebSocket, room: str, name: Annotated[str, Depends(user)]) -> None:
    if not room.isalnum():
        raise WebSocketException(1008, "no such room")
    await websocket.accept()
    rooms = websocket.scope["extensions"]["tidegate"]
    join, publish = rooms["join"], rooms["publish"]
    await join(f"room:{room}", last=20)
    async for text in websocket.iter_text():
        await publish(f"room:{room}", {"user": name, "text": text})


@api.post("/rooms/{room}")
async def say(request: Request, room: str, said: Said, name: Annotated[str, Depends(user)]) -> None:
    publish = request.scope["extensions"]["tidegate"]["publish"]
    await publish(f"room:{room}", {"user": name, "text": said.text})


app = App(api, channels={"room:": Channel(history=100)})
