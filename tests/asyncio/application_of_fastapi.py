"""The examples of FastAPI's page on WebSocket: dependencies, and a room of one process.

Its annotations are not postponed, since FastAPI looks at them. What must not live here: test cases.
"""

from typing import Annotated, Any

from fastapi import Cookie, Depends, FastAPI, Query, WebSocket, WebSocketDisconnect, WebSocketException, status


async def cookie_or_token(
    session: Annotated[str | None, Cookie()] = None, token: Annotated[str | None, Query()] = None
) -> str:
    """Who asks, by one or the other."""
    if session is None and token is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION)
    return session or token or ""


def application() -> FastAPI:
    """All of it."""
    app = FastAPI()
    members: list[WebSocket] = []

    @app.websocket("/items/{item_id}")
    async def items(websocket: WebSocket, item_id: int, who: Annotated[str, Depends(cookie_or_token)]) -> None:
        await websocket.accept()
        await websocket.send_text(f"{who} {item_id + 1}")

    @app.websocket("/chat/{client_id}")
    async def chat(websocket: WebSocket, client_id: int) -> None:
        await websocket.accept()
        members.append(websocket)
        try:
            while True:
                text = await websocket.receive_text()
                for member in members:
                    await member.send_text(f"#{client_id}: {text}")
        except WebSocketDisconnect:
            members.remove(websocket)
            for member in members:
                await member.send_text(f"#{client_id} left")

    @app.get("/page")
    async def page() -> dict[str, Any]:
        return {"hello": "world"}

    return app
