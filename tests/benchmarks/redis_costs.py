"""What Redis costs a worker: ``python -m tests.benchmarks.redis_costs``.

    --messages N    in each round (50,000)
    --rounds N      of each kind (5)

Processor time per message, of one process that publishes and of another one that takes, up to where members would be
given it: a message with its position, checked and read from the wire. Beside it, that of the server. Messages have 128
bytes, and 50 are published in a turn of the event loop; with history, each turn waits until they are stored. The event
loop is uvloop. What must not live here: other libraries (channel_peers.py), whole servers (channels.py).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

import uvloop

from tests.support.redis_server import RedisServer
from tidegate.bus.base import Broker, Publication, State
from tidegate.bus.connect import connect
from tidegate.bus.policies import Policies
from tidegate.channels import Channel, Message

PAYLOAD = bytes(128)
TURN = 50
POLICIES = Policies({"stored": Channel(history=100)})


async def start(url: str, deliver: object = lambda messages: None) -> Broker:
    broker = connect(url, POLICIES)
    states: list[State] = []
    await broker.start(deliver, states.append)  # type: ignore[arg-type]
    return broker


async def take(url: str, pipe: Connection) -> None:
    """Take messages, and say what each of so many has cost."""
    taken, wanted = 0, 0
    done = asyncio.Event()

    def deliver(messages: Sequence[Message]) -> None:
        nonlocal taken
        taken += len(messages)
        if taken >= wanted:
            done.set()

    broker = await start(url, deliver)
    await broker.subscribe(["plain", "stored"])
    while wanted := await asyncio.to_thread(pipe.recv):
        taken = 0
        done.clear()
        began = time.process_time()
        pipe.send("begin")
        await done.wait()
        pipe.send((time.process_time() - began) / wanted)
    await broker.close()


async def publish(url: str, channel: str, count: int) -> float:
    """Publish, and return what each has cost."""
    broker = await start(url)
    batch = [Publication(channel, PAYLOAD)] * TURN
    began = time.process_time()
    for _ in range(count // TURN):
        await broker.publish(batch, 60.0)
        await asyncio.sleep(0)
    cost = (time.process_time() - began) / count
    await broker.close()
    return cost


def server_time(server: RedisServer) -> float:
    """Processor time of the server so far."""
    assert server.process is not None
    with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def receiver(url: str, pipe: Connection) -> None:
    """Be the process that takes."""
    uvloop.run(take(url, pipe))


def main() -> None:
    """Measure, and print the medians and the least."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    count = arguments.messages // TURN * TURN
    with RedisServer() as server:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=receiver, args=(server.url, theirs), daemon=True)
        process.start()
        print("us of processor time per message, median (least)")
        for channel in ("plain", "stored"):
            costs: dict[str, list[float]] = {"publish": [], "server": [], "take": []}
            for _ in range(arguments.rounds):
                ours.send(count)
                ours.recv()
                before = server_time(server)
                costs["publish"].append(uvloop.run(publish(server.url, channel, count)))
                costs["take"].append(ours.recv())
                costs["server"].append((server_time(server) - before) / count)
            words = (f"{name} {statistics.median(of) * 1e6:.2f} ({min(of) * 1e6:.2f})" for name, of in costs.items())
            print(f"{channel}: {', '.join(words)}")
        ours.send(0)
        process.join()


if __name__ == "__main__":
    main()
