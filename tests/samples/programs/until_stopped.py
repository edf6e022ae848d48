"""Reference: a server that a signal ends, and basic authentication."""

import asyncio
import signal
import sys

from websockets.asyncio.server import basic_auth, serve


async def handler(websocket):
    await websocket.send(f"Hello {websocket.username}!")
    await websocket.wait_closed()


async def main():
    loop = asyncio.get_running_loop()
    stop = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, stop.set_result, None)
    guard = basic_auth(realm="my dev server", credentials=("hello", "iloveyou"))
    async with serve(handler, "localhost", int(sys.argv[1]), process_request=guard):
        await stop
    print("stopped")


asyncio.run(main())
