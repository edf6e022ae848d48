"""A load of HTTP/1.1 requests, one at a time on each connection: `tidegate bench` has none.

What must not live here: what a server takes for it (compare.py), applications that answer (asgi.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast
from urllib.parse import urlsplit

from tests.benchmarks.asgi import BODY
from tests.support.patience import PATIENCE
from tidegate._core.histogram import Histogram
from tidegate.cli.bench.plan import Plan
from tidegate.cli.bench.results import Latency, Round

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


class Client(asyncio.Protocol):
    """A connection that asks again when it has its response.

    Parameters:
        load: of which it is a part.
    """

    transport: asyncio.Transport

    def __init__(self, load: HttpLoad) -> None:
        self._load = load
        self._received = b""
        self._since = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Send a request."""
        self._since = time.monotonic_ns()
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(BODY):
            return
        if self._received.startswith(b"HTTP/1.1 200"):
            self._load.answered(time.monotonic_ns() - self._since)
        else:
            self._load.errors[repr(self._received[:20])] += 1
        self._received = b""
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.errors["a connection was lost"] += 1


class HttpLoad:
    """Some connections to a server, with what a load by `tidegate bench` has: `begin()` and `finish()`.

    Parameters:
        plan: what to do, of which it takes the connections and the times.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._latencies = Histogram()
        self._clients: list[Client] = []
        self._begins = 0.0
        self.errors: Counter[str] = Counter()

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, plan: Plan) -> AsyncIterator[HttpLoad]:
        """Make one whose connections are open."""
        load = cls(plan)
        server = urlsplit(plan.uri)
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(plan.connections):
                    made = await asyncio.get_running_loop().create_connection(
                        lambda: Client(load), server.hostname, server.port
                    )
                    load._clients.append(made[1])
            yield load
        finally:
            for client in load._clients:
                client.transport.abort()

    def answered(self, nanoseconds: int) -> None:
        """Count a response."""
        if time.monotonic() >= self._begins:
            self._latencies.record(nanoseconds)

    def begin(self) -> float:
        """Ask; return the moment from which on it is measured."""
        self._begins = time.monotonic() + self._plan.warm_up
        for client in self._clients:
            client.ask()
        return self._begins

    async def finish(self) -> Round:
        """Wait for the end; return the result."""
        await asyncio.sleep(self._begins - time.monotonic())
        processor = time.process_time()
        await asyncio.sleep(self._plan.duration)
        seconds = time.monotonic() - self._begins
        count = self._latencies.count
        return Round(
            uri=self._plan.uri,
            seconds=seconds,
            connections=len(self._clients),
            messages=count,
            rate=count / seconds,
            latency=Latency.of(self._latencies) if count else None,
            client_cpu=(time.process_time() - processor) / seconds,
            errors=dict(self.errors),
        )
