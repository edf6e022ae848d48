"""Reference: a server that is set up before it serves, and serves until it is cancelled."""

import asyncio
import signal
import sys

from websockets.asyncio.server import serve


async def handler(websocket):
    pong = await websocket.ping()
    latency = await pong
    await websocket.send("pong" if latency > 0 and websocket.latency == latency else "no pong")
    async for fragment in websocket.recv_streaming():
        await websocket.send(fragment)


async def main():
    server = await serve(handler, "localhost", int(sys.argv[1]), start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    try:
        await server.serve_forever()
    except asyncio.CancelledError:
        print("cancelled")


asyncio.run(main())
