"""Counts what is said, in a metric of each type, and names its process."""

from __future__ import annotations

import os

from prometheus_client import Counter, Gauge, Histogram

SAID = Counter("chat_said", "Messages.", ["kind"])
HERE = Gauge("chat_here", "People.", multiprocess_mode="livesum")
EVER = Gauge("chat_most", "Most people.", multiprocess_mode="max")
LENGTH = Histogram("chat_length", "Letters.", buckets=(1, 10, 100))
OURS = Counter("tidegate_connections_accepted", "Not the application's to count.")


async def handler(websocket):
    HERE.inc()
    EVER.set(7)
    OURS.inc()
    try:
        async for message in websocket:
            SAID.labels("text" if isinstance(message, str) else "binary").inc()
            LENGTH.observe(len(message))
            await websocket.send(str(os.getpid()))
    finally:
        HERE.dec()
