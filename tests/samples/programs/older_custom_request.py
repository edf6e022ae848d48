"""Operations: a key is asked for before the connection opens."""

import asyncio
import sys

import websockets
from websockets import Request, Response


async def process_request(connection, request: Request):
    if request.headers.get("X-API-Key") != "valid-api-key":
        return Response(403, "Forbidden", b"Invalid API key")
    return None


async def api(websocket):
    await websocket.send("established")
    async for message in websocket:
        if message.startswith("GET /"):
            await websocket.send('{"status": "success"}')
        else:
            await websocket.send('{"error": "Unknown command"}')


async def main():
    port = int(sys.argv[1])
    async with websockets.serve(api, "localhost", port, process_request=process_request, compression="deflate"):
        await asyncio.Future()


asyncio.run(main())
