"""Channels over Redis beside other libraries: ``python -m tests.benchmarks.channel_peers``.

    --messages N    that one process publishes as fast as it can, and another one takes (20,000)
    --rounds N      of each library, in turn (5)

For each library: messages a second that came, the processor time of both processes for one, and the median of the time
from publishing to taking at 500 a second. tidegate publishes to a channel without history and takes by an iterator;
python-socketio emits from a manager that only writes to the manager of a server without clients; channels_redis sends
to a group of its layer on Redis's Pub/Sub with one member. All have redis-py and hiredis, and the same redis-server.
Needs python-socketio and channels_redis installed. What must not live here: channels of whole servers (channels.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.benchmarks.channels import start_redis
from tests.support import programs

PAYLOAD = 128
RATE = 500
PACED = 1000
QUIET = 1.0  # seconds after which no more messages are expected

Send = Callable[[str], Awaitable[Any]]
Receive = AsyncIterator[str]


# Each library: a way to send, and an iterator of what comes.


@contextlib.asynccontextmanager
async def tidegate_sender(url: str) -> AsyncIterator[Send]:
    from tidegate import Bus

    async with Bus(url) as bus:

        async def send(text: str) -> None:
            await bus.publish("room", text)

        yield send


async def tidegate_receiver(url: str) -> Receive:
    from tidegate import Bus

    async with Bus(url) as bus, bus.subscribe("room") as messages:
        print("ready", flush=True)
        async for message in messages:
            if message.gap is None:
                yield message.data


@contextlib.asynccontextmanager
async def socketio_sender(url: str) -> AsyncIterator[Send]:
    socketio = importlib.import_module("socketio")
    manager = socketio.AsyncRedisManager(url, write_only=True)

    async def send(text: str) -> None:
        await manager.emit("message", text, room="room")

    yield send


async def socketio_receiver(url: str) -> Receive:
    socketio = importlib.import_module("socketio")
    found: asyncio.Queue[str] = asyncio.Queue()

    class Manager(socketio.AsyncRedisManager):  # type: ignore[misc,name-defined]
        async def _handle_emit(self, message: Any) -> None:
            await super()._handle_emit(message)
            found.put_nowait(message["data"][0])

    server = socketio.AsyncServer(client_manager=Manager(url))
    server.manager.initialize()
    await asyncio.sleep(1.0)  # it does not say when it listens
    print("ready", flush=True)
    while True:
        yield await found.get()


@contextlib.asynccontextmanager
async def channels_sender(url: str) -> AsyncIterator[Send]:
    layer = importlib.import_module("channels_redis.pubsub").RedisPubSubChannelLayer(hosts=[url])

    async def send(text: str) -> None:
        await layer.group_send("room", {"type": "message", "text": text})

    yield send


async def channels_receiver(url: str) -> Receive:
    layer = importlib.import_module("channels_redis.pubsub").RedisPubSubChannelLayer(hosts=[url])
    name = await layer.new_channel()
    await layer.group_add("room", name)
    print("ready", flush=True)
    while True:
        yield (await layer.receive(name))["text"]


LIBRARIES: dict[str, tuple[Callable[[str], Any], Callable[[str], Receive]]] = {
    "tidegate": (tidegate_sender, tidegate_receiver),
    "python-socketio": (socketio_sender, socketio_receiver),
    "channels_redis": (channels_sender, channels_receiver),
}


# The two processes.


def sender(library: str, url: str, count: str) -> None:
    """Publish at a pace, then as fast as possible; print the processor time of the latter."""

    async def main() -> None:
        async with LIBRARIES[library][0](url) as send:
            for _ in range(PACED):
                await send(f"paced {time.monotonic_ns()}".ljust(PAYLOAD))
                await asyncio.sleep(1 / RATE)
            await asyncio.sleep(QUIET)
            before = time.process_time()
            for number in range(int(count)):
                await send("fast".ljust(PAYLOAD))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            print(json.dumps({"cpu": time.process_time() - before}), flush=True)
            await asyncio.sleep(2 * QUIET)

    asyncio.run(main())


def receiver(library: str, url: str) -> None:
    """Take messages until no more come; print how many came how fast, what they took, how late those at a pace were."""

    late: list[int] = []
    times: list[float] = []
    before = 0.0

    async def take() -> None:
        nonlocal before
        async for text in LIBRARIES[library][1](url):
            if text.startswith("paced"):
                late.append(time.monotonic_ns() - int(text.split()[1]))
                before = time.process_time()
            else:
                times.append(time.monotonic())

    async def main() -> None:
        taking = asyncio.create_task(take())
        while not taking.done() and (not times or time.monotonic() - times[-1] < QUIET):
            await asyncio.sleep(QUIET / 10)
        taking.cancel()
        await asyncio.wait([taking])
        found = {
            "count": len(times),
            "seconds": times[-1] - times[0],
            "cpu": time.process_time() - before,
            "late": statistics.median(late) / 1e3,
        }
        print(json.dumps(found), flush=True)

    asyncio.run(main())


def measure(library: str, url: str, messages: int) -> dict[str, float]:
    """Messages a second, microseconds of both processes for one, of the median from end to end, share that came."""
    environment = programs.environment()
    taking = subprocess.Popen(
        programs.program(receiver, library, url), stdout=subprocess.PIPE, text=True, env=environment
    )
    assert taking.stdout is not None
    if taking.stdout.readline() != "ready\n":
        raise SystemExit(f"{library} cannot be measured: install python-socketio and channels_redis")
    sent = programs.run(sender, library, url, str(messages), timeout=600)
    found = json.loads(taking.communicate(timeout=600)[0])
    cpu = json.loads(sent.stdout)["cpu"] + found["cpu"]
    return {
        "messages a second": found["count"] / found["seconds"],
        "processors, us a message": 1e6 * cpu / found["count"],
        "from end to end, us": found["late"],
        "came": found["count"] / messages,
    }


def main() -> None:
    """Measure each library in turn, round by round, and print the medians."""
    parser = argparse.ArgumentParser(description="channels over Redis beside other libraries")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        url, _ = start_redis(stack)
        for _ in range(arguments.rounds):
            for library in LIBRARIES:
                found.setdefault(library, []).append(measure(library, url, arguments.messages))
    print("| |", " | ".join(LIBRARIES), "|")
    print("| --- |", " | ".join("---:" for _ in LIBRARIES), "|")
    for title in found["tidegate"][0]:
        medians = [statistics.median(one[title] for one in found[library]) for library in LIBRARIES]
        print(f"| {title} |", " | ".join(f"{median:,.4g}" for median in medians), "|")


if __name__ == "__main__":
    # Its functions are programs, which are found by the name of their module.
    importlib.import_module("tests.benchmarks.channel_peers").main()
