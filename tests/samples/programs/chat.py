"""Operations: what one says, all hear."""

import asyncio
import json
import sys

import websockets

clients: set[websockets.ServerConnection] = set()


async def chat(websocket):
    clients.add(websocket)
    print(f"connected: {websocket.remote_address}")
    try:
        async for message in websocket:
            try:
                said = json.loads(message)
            except json.JSONDecodeError:
                await websocket.send(json.dumps({"error": "Invalid JSON"}))
                continue
            shown = {
                "user": said.get("user", "Anonymous"),
                "message": said.get("message", ""),
                "timestamp": asyncio.get_event_loop().time(),
            }
            websockets.broadcast(clients, json.dumps(shown))
    except websockets.ConnectionClosedError:
        pass
    finally:
        clients.discard(websocket)
        print(f"disconnected: {websocket.remote_address}")


async def main():
    options = {"ping_interval": 30, "ping_timeout": 10, "max_size": 10 * 1024}
    async with websockets.serve(chat, "localhost", int(sys.argv[1]), **options):
        await asyncio.Future()


asyncio.run(main())
