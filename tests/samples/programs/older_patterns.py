"""Getting started: the common patterns (consumer, producer, both, registration), each at a path of its own."""

import asyncio
import sys

import websockets

connected = set()


async def consume(message):
    print(f"consumed {message}", flush=True)


async def produce(numbers):
    await asyncio.sleep(0.01)
    return f"product {next(numbers)}"


async def consumer(websocket, path):
    async for message in websocket:
        await consume(message)


async def older_consumer(websocket, path):
    while True:
        message = await websocket.recv()
        await consume(message)


async def producer(websocket, path):
    numbers = iter(range(1000))
    while True:
        message = await produce(numbers)
        await websocket.send(message)


async def both(websocket, path):
    tasks = [asyncio.ensure_future(consumer(websocket, path)), asyncio.ensure_future(producer(websocket, path))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.exception()


async def registration(websocket, path):
    connected.add(websocket)
    try:
        await asyncio.wait([asyncio.create_task(each.send("Hello!")) for each in connected])
        await asyncio.sleep(0.5)
    finally:
        connected.remove(websocket)


async def handler(websocket, path):
    await globals()[path[1:]](websocket, path)


asyncio.get_event_loop().run_until_complete(websockets.serve(handler, "localhost", int(sys.argv[1])))
asyncio.get_event_loop().run_forever()
