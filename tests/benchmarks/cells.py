"""What is measured: the cells of the table, each with its load and a sentence on what it shows.

What must not live here: running it (compare.py), pages (pages.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.benchmarks.servers import OURS, RAW
from tidegate.cli.bench.plan import Plan

EVERY = (OURS, "websockets", "picows", "aiohttp")
WITH_DEFLATE = (OURS, "websockets", "aiohttp")  # picows leaves compression to its user
FAN = 1000  # receivers
IDLE = 2000  # connections
ENOUGH = 10_000_000  # handshakes: time ends it


class Cell(NamedTuple):
    """What is measured.

    Attributes:
        text: what it is, for the guide.
        plan: the load: fields of a `Plan`.
        servers: those that can be measured by it; those of ASGI can besides, unless it is a fan.
        http: whether the load is of HTTP requests.
    """

    text: str
    plan: dict[str, Any]
    servers: tuple[str, ...] = (*EVERY, RAW)
    http: bool = False

    def load(self, server: str, port: int, seconds: float) -> Plan:
        """The load for a server."""
        raw: dict[str, Any] = {"raw": True} if server == RAW else {}
        return Plan(uri=f"ws://127.0.0.1:{port}/", duration=seconds, **{"warm_up": 0.2, **self.plan}, **raw)

    @property
    def fan(self) -> bool:
        """Whether the server sends to all."""
        return self.plan.get("mode") == "fan"

    @property
    def memory(self) -> bool:
        """Whether memory is what is measured, and not processor time."""
        return self.plan.get("mode") == "idle"


CELLS: dict[str, Cell] = {
    "echo-1": Cell(
        "Messages of 64 bytes are echoed over 100 connections, each of which sends the next one when it has the answer."
        " Every message is a read, a wake-up of the handler and a write: system calls are the largest part.",
        {"connections": 100, "in_flight": 1, "size": 64},
    ),
    "echo-16": Cell(
        "The same with 16 messages of each connection on the way, as from clients that do not wait. What one read"
        " brings is handled together, and its answers leave in one write.",
        {"connections": 100, "in_flight": 16, "size": 64},
    ),
    "echo-16k": Cell(
        "Binary messages of 16 KiB over 16 connections: unmasking and copying.",
        {"connections": 16, "size": 16 * 1024, "text": False},
    ),
    "echo-1m": Cell(
        "Binary messages of 1 MiB over 4 connections: a message comes in many reads, and leaves in several writes.",
        {"connections": 4, "size": 1024 * 1024, "text": False},
    ),
    "echo-deflate": Cell(
        "Messages of 1 KiB of JSON with permessage-deflate over 100 connections, 4 of each on the way: each is inflated"
        " and compressed again, most of which is zlib's work.",
        {"connections": 100, "in_flight": 4, "size": 1024, "compression": True},
        WITH_DEFLATE,
    ),
    "handshake": Cell(
        "Connections are opened and dropped, 64 at the same time: what a server takes when all clients come back.",
        {"mode": "handshakes", "connections": 64, "handshakes": ENOUGH},
        EVERY,
    ),
    "fan-128": Cell(
        f"A message of 128 bytes is sent to {FAN:,} clients; the next one when all have it. Counted are deliveries.",
        {"mode": "fan", "connections": FAN, "size": 128},
        EVERY,
    ),
    "fan-deflate": Cell(
        f"A message of 1 KiB of JSON is sent to {FAN:,} clients that have permessage-deflate.",
        {"mode": "fan", "connections": FAN, "size": 1024, "compression": True},
        WITH_DEFLATE,
    ),
    "idle": Cell(
        f"{IDLE:,} connections are open and say nothing: what each takes of the server's memory.",
        {"mode": "idle", "connections": IDLE, "warm_up": 0.0},
        EVERY,
    ),
    "idle-deflate": Cell(
        "The same with permessage-deflate agreed on.",
        {"mode": "idle", "connections": IDLE, "compression": True, "warm_up": 0.0},
        WITH_DEFLATE,
    ),
}

# With those that are measured only if they are named.
ALL: dict[str, Cell] = {
    **CELLS,
    "http": Cell(
        "Requests are answered with a short text over 100 connections, each of which asks again when it has that.",
        {"connections": 100},
        (),
        http=True,
    ),
}
